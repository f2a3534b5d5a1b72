"""The error budget: how much of the last 30 days gold was in breach, against how much it may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

WINDOW = timedelta(days=30)
#: What it takes of ``ops.freshness``.
COLUMNS = ("table", "since_utc", "observed_at_utc", "status")


@dataclass(frozen=True)
class ErrorBudget:
    """Time in breach within the window, in seconds. A moment counts when any gold table was in breach.

    ``measured_s`` starts with the first observation, so that a young lake is not credited with days in which
    nobody looked.
    """

    window_start_utc: datetime
    measured_s: float
    breach_s: float
    allowed_s: float
    breach_s_by_table: dict[str, float]

    @property
    def remaining_s(self) -> float:
        return self.allowed_s - self.breach_s

    @property
    def good_percent(self) -> float:
        return 100.0 if self.measured_s <= 0 else 100.0 * (1 - self.breach_s / self.measured_s)


def from_history(history: pl.DataFrame, now_utc: datetime, target_percent: float) -> ErrorBudget:
    """The budget of the 30 days before ``now_utc``.

    Args:
        history: rows of ``ops.freshness``: ``table``, ``status`` and ``since_utc``, the instant from which the
            status really held (a breach begins on the second, however late somebody looked).
    """
    start = now_utc - WINDOW
    rows = history.filter(pl.col("since_utc") <= now_utc).sort("table", "since_utc", "observed_at_utc")
    until = pl.col("since_utc").shift(-1).over("table").fill_null(now_utc)
    spans = rows.select(
        "table",
        "status",
        begin=pl.max_horizontal("since_utc", pl.lit(start, rows.schema["since_utc"])),
        end=until,
    ).filter(pl.col("status") == "breach", pl.col("end") > pl.col("begin"))
    by_table: dict[str, list[tuple[datetime, datetime]]] = {}
    for table, begin, end in spans.select("table", "begin", "end").iter_rows():
        by_table.setdefault(table, []).append((begin, end))
    first = rows["since_utc"].min() if rows.height else now_utc
    measured_from = max(start, first) if isinstance(first, datetime) else now_utc
    allowed_s = WINDOW.total_seconds() * (100.0 - target_percent) / 100.0
    return ErrorBudget(
        window_start_utc=start,
        measured_s=(now_utc - measured_from).total_seconds(),
        breach_s=_covered_s(time for times in by_table.values() for time in times),
        allowed_s=allowed_s,
        breach_s_by_table={table: _covered_s(times) for table, times in by_table.items()},
    )


def _covered_s(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds covered by at least one span."""
    total, reached = 0.0, None
    for since, end in sorted(spans):
        begin = since if reached is None else max(since, reached)
        if end > begin:
            total += (end - begin).total_seconds()
        reached = end if reached is None else max(reached, end)
    return total
