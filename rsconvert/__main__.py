"""``python -m rsconvert`` is the command."""

from rsconvert.cli import main

main()
