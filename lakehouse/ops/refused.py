"""What quarantine holds: counts per table and rule, and the rows themselves. Reads only."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from lakehouse.errors import TableNotFound
from lakehouse.quarantine import STATES, Book, Selection
from lakehouse.storage import Lake

_SUMMARY = {
    "table": pl.String(), "stage": pl.String(), "rule": pl.String(), "rows": pl.Int64(), "open": pl.Int64(),
    "released": pl.Int64(), "resolved": pl.Int64(), "first_batch": pl.Int64(), "last_batch": pl.Int64(),
    "last_at_utc": pl.Datetime("us", "UTC"),
}  # fmt: skip


def summary(lake: Lake, selection: Selection | None = None) -> pl.DataFrame:
    """One row per table, stage and broken rule: rows by state, first and last batch, when it came last.

    A row that breaks two rules counts under both; one whose release was begun counts as open.
    """
    parts = [pl.DataFrame(schema=_SUMMARY)]
    for table in lake.tables("quarantine"):
        try:
            book = Book(lake, table)
        except TableNotFound:
            continue
        state = pl.col("_state")
        chosen = book.rows().filter((selection or Selection()).where())
        counted = (
            chosen.select("_stage", "_batch_id", "_broken_rules", "_quarantined_at_utc", "_state")
            .explode("_broken_rules")
            .group_by(stage="_stage", rule="_broken_rules")
            .agg(
                rows=pl.len().cast(pl.Int64),
                open=state.is_in(["open", "releasing"]).sum().cast(pl.Int64),
                released=(state == "released").sum().cast(pl.Int64),
                resolved=(state == "resolved").sum().cast(pl.Int64),
                first_batch=pl.col("_batch_id").min(),
                last_batch=pl.col("_batch_id").max(),
                last_at_utc=pl.col("_quarantined_at_utc").max(),
            )
            .collect()
        )
        parts.append(counted.select(pl.lit(table).alias("table"), pl.all()).select(*_SUMMARY))
    return pl.concat(parts).sort("table", pl.col("rows").neg(), "rule")


def totals(lake: Lake) -> dict[str, int]:
    """Refused rows per table, each row once, whatever became of it."""
    found = {}
    for table in lake.tables("quarantine"):
        snapshot = lake.table("quarantine", table).snapshot_or_none()
        if snapshot is not None:
            found[table] = snapshot.num_rows()
    return found


def rows(
    lake: Lake,
    table: str,
    selection: Selection | None = None,
    *,
    states: Sequence[str] = STATES,
    newest_first: bool = True,
) -> pl.DataFrame:
    """The refused rows of one table, whole, as they came, with what became of them.

    Raises TableNotFound when nothing of the table was ever refused.
    """
    frame = Book(lake, table).rows().filter(pl.col("_state").is_in(list(states)))
    return (selection or Selection()).apply(frame, newest_first=newest_first).collect()
