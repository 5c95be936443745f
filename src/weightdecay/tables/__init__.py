"""Tables of numbers in files: read whole, or streamed in checked blocks."""

from weightdecay.tables.source import Table, read_table

__all__ = ["Table", "read_table"]
