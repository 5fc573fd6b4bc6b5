"""What the conversion does to each architecture of timm and torchvision, as a table and measured again.

The table alone is imported here, for it needs no torch; ``check`` measures a model.
"""

from rsconvert.compatibility.listing import details, list_models
from rsconvert.compatibility.table import FIVE, Row, Table, read_table, totals

__all__ = ["FIVE", "Row", "Table", "details", "list_models", "read_table", "totals"]
