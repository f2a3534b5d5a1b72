"""What quarantine holds: counts per table and rule, and the rows themselves. Reads only."""

from __future__ import annotations

import polars as pl

from lakehouse.storage import Lake


def summary(lake: Lake) -> pl.DataFrame:
    """One row per table, stage and broken rule: rows, first and last batch, when it came last.

    A row that breaks two rules counts under both.
    """
    parts = []
    for table in lake.tables("quarantine"):
        snapshot = lake.table("quarantine", table).snapshot_or_none()
        if snapshot is None:
            continue
        counted = (
            snapshot.scan()
            .select("_stage", "_batch_id", "_broken_rules", "_quarantined_at_utc")
            .explode("_broken_rules")
            .group_by(stage="_stage", rule="_broken_rules")
            .agg(
                rows=pl.len().cast(pl.Int64),
                first_batch=pl.col("_batch_id").min(),
                last_batch=pl.col("_batch_id").max(),
                last_at_utc=pl.col("_quarantined_at_utc").max(),
            )
            .collect()
        )
        parts.append(counted.select(pl.lit(table).alias("table"), pl.all()))
    if not parts:
        return pl.DataFrame(
            schema={"table": pl.String(), "stage": pl.String(), "rule": pl.String(), "rows": pl.Int64()}
        )
    return pl.concat(parts).sort("table", pl.col("rows").neg(), "rule")


def totals(lake: Lake) -> dict[str, int]:
    """Refused rows per table, each row once."""
    found = {}
    for table in lake.tables("quarantine"):
        snapshot = lake.table("quarantine", table).snapshot_or_none()
        if snapshot is not None:
            found[table] = snapshot.num_rows()
    return found


def rows(
    lake: Lake, table: str, *, batch: int | None = None, rule: str | None = None, limit: int = 20
) -> pl.DataFrame:
    """The newest refused rows of one table, whole, as they came.

    Raises TableNotFound when nothing of the table was ever refused.
    """
    frame = lake.table("quarantine", table).snapshot().scan()
    if batch is not None:
        frame = frame.filter(pl.col("_batch_id") == batch)
    if rule is not None:
        frame = frame.filter(pl.col("_broken_rules").list.contains(rule))
    return frame.sort("_quarantined_at_utc", "_source_row", descending=[True, False]).head(limit).collect()
