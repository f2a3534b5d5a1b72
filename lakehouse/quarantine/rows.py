"""Refused rows, whole, with the rules they broke: append-only Delta tables, one beside each silver table.

Two things are taken out again: lines that a run refused, and died before its batch landed, of a file that is given back since
(``planning.take_back``), which are refused again when the file lands; and rows that a backfill refused, when silver goes back to before it
(``going_back``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict
from lakehouse.storage import Lake, Snapshot

#: One row per refused input row (or line, or file). ``_raw`` is the row as it came: a JSON object, or raw text.
SCHEMA: dict[str, pl.DataType] = {
    "_quarantined_at_utc": pl.Datetime("us", "UTC"),
    "_stage": pl.String(),
    "_batch_id": pl.Int64(),
    "_source_file": pl.String(),
    "_source_row": pl.Int64(),
    "_source_position": pl.String(),
    "_broken_rules": pl.List(pl.String()),
    "_contract_hash": pl.String(),
    "_raw": pl.String(),
    "_run_id": pl.String(),
}
#: What tells one refused row from every other of its table. A file that could not be read at all has no row.
IDENTITY = ("_stage", "_batch_id", "_source_file", "_source_row", "_source_position")
_ATTEMPTS = 20
_BACKFILL = "backfill:"


def of_backfill(run_id: str) -> str:
    """The ``_run_id`` of rows that a backfill refused: they are not among those of the stage's own commits."""
    return _BACKFILL + run_id


def is_of_backfill() -> pl.Expr:
    """True for rows that a backfill refused, after their batch had been taken with them."""
    return pl.col("_run_id").str.starts_with(_BACKFILL).fill_null(False)


def without_backfill() -> pl.Expr:
    """The ``_run_id`` of such a row as if the stage had refused it."""
    return pl.col("_run_id").str.strip_prefix(_BACKFILL)


def append(
    lake: Lake,
    table_name: str,
    rows: pl.LazyFrame,
    *,
    stage: str,
    batch_id: int,
    contract_hash: str | None,
    run_id: str,
    metadata: Mapping[str, Any] | None = None,
    first_batch_id: int | None = None,
) -> int:
    """Commit refused rows under the stage's transaction ``batch_id``; the number of rows that were added.

    Done before the data commit. Rows without a ``_batch_id`` of their own are of that batch. When another run (lost, or
    at work on fewer batches) has committed rows of these batches already, only those that it did not have are added.

    Args:
        first_batch_id: the first batch that the rows may be of; default is ``batch_id``.

    Raises:
        CommitConflict: twenty attempts met other writers.
    """
    table = lake.table("quarantine", table_name)
    app = names.app_id(stage, table_name)
    shaped = rows.with_columns(
        pl.lit(datetime.now(UTC)).dt.cast_time_unit("us").alias("_quarantined_at_utc"),
        pl.lit(stage).alias("_stage"),
        pl.lit(contract_hash, pl.String).alias("_contract_hash"),
        pl.lit(run_id).alias("_run_id"),
    )
    fixed = {"_batch_id": pl.lit(batch_id, pl.Int64)}
    present = shaped.collect_schema()
    shaped = shaped.with_columns(
        fixed.get(name, pl.lit(None, dtype)).alias(name)
        for name, dtype in SCHEMA.items()
        if name not in present
    ).select(*SCHEMA)
    staged, first = None, batch_id if first_batch_id is None else first_batch_id
    for _ in range(_ATTEMPTS):
        snapshot = table.snapshot_or_none()
        if snapshot is not None and snapshot.txn(app) >= first:
            there = snapshot.scan().filter(pl.col("_stage") == stage).select(IDENTITY)
            staged = table.stage(shaped.join(there, on=list(IDENTITY), how="anti", nulls_equal=True))
            if not staged:
                return 0  # all of it was quarantined before its data commit was lost
        elif staged is None:
            staged = table.stage(shaped)
        try:
            if snapshot is None:
                table.create(
                    SCHEMA, add=staged, txns={app: batch_id}, metadata=metadata,
                    description=f"Rows that {table_name} refused, with the rules they broke.",
                )  # fmt: skip
            else:
                # Never backwards: a redone batch must not hide that later ones are there.
                snapshot.commit(add=staged, txns={app: max(batch_id, snapshot.txn(app))}, metadata=metadata)
            return sum(file.num_records for file in staged)
        except CommitConflict:
            continue
    raise CommitConflict(
        f"quarantine.{table_name} batch {batch_id}: {_ATTEMPTS} attempts met other writers", hint="run again"
    )


def half_done(lake: Lake, table_name: str, *, stage: str, batches: tuple[int, int]) -> pl.DataFrame | None:
    """Rows of these batches (first, last) that a run refused whose data commit was lost: batch, file and row.

    None when the stage's transaction says that there was no such run.
    """
    snapshot = lake.table("quarantine", table_name).snapshot_or_none()
    if snapshot is None or snapshot.txn(names.app_id(stage, table_name)) < batches[0]:
        return None
    return _rows_of(snapshot, stage, batches)


def _rows_of(snapshot: Snapshot, stage: str, batches: tuple[int, int]) -> pl.DataFrame:
    uris = snapshot.files_in_range(names.BATCH_ID, *batches)
    return (
        snapshot.scan(uris=uris)
        .filter(pl.col("_stage") == stage, pl.col("_batch_id").is_between(*batches))
        .select(names.BATCH_ID, names.SOURCE_FILE, names.SOURCE_ROW)
        .unique()
        .collect(engine="streaming")
    )
