"""Silver: bronze rows, typed, screened, deduplicated and kept in the table's write mode."""

from lakehouse.silver.refine import refine

__all__ = ["refine"]
