"""Silver: bronze rows, typed, screened, deduplicated and kept in the table's write mode."""

from lakehouse.silver.backfill import Backfilled, backfill
from lakehouse.silver.refine import refine
from lakehouse.silver.replay import Replayed, replay
from lakehouse.silver.scope import Period

__all__ = ["Backfilled", "Period", "Replayed", "backfill", "refine", "replay"]
