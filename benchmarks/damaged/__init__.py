"""Damaged files: sound ones of each kind, their changes, what opens and runs them, in this process or by a command."""

from damaged.commands import write_commands
from damaged.kinds import Kind, write_kinds

__all__ = ["Kind", "write_commands", "write_kinds"]
