"""Silver: bronze rows, typed, screened, deduplicated and kept in the table's write mode."""

from lakehouse.silver.refine import refine
from lakehouse.silver.replay import Replayed, replay

__all__ = ["Replayed", "refine", "replay"]
