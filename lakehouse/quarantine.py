"""Refused rows, whole, with the rules they broke: append-only Delta tables, one beside each silver table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict
from lakehouse.storage import Lake

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
) -> int:
    """Commit the refused rows of one batch under the stage's transaction; the number of rows.

    Done before the data commit. A batch whose rows are there already (its data commit was lost) is skipped.
    """
    table = lake.table("quarantine", table_name)
    app = names.app_id(stage, table_name)
    shaped = rows.with_columns(
        pl.lit(datetime.now(UTC)).dt.cast_time_unit("us").alias("_quarantined_at_utc"),
        pl.lit(stage).alias("_stage"),
        pl.lit(batch_id, pl.Int64).alias("_batch_id"),
        pl.lit(contract_hash, pl.String).alias("_contract_hash"),
        pl.lit(run_id).alias("_run_id"),
    )
    present = shaped.collect_schema()
    shaped = shaped.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in SCHEMA.items() if name not in present
    ).select(*SCHEMA)
    staged = table.stage(shaped)
    count = sum(file.num_records for file in staged)
    for _ in range(20):
        snapshot = table.snapshot_or_none()
        if snapshot is not None and snapshot.txn(app) >= batch_id:
            return count  # this batch was quarantined before its data commit was lost
        try:
            if snapshot is None:
                table.create(
                    SCHEMA, add=staged, txns={app: batch_id}, metadata=metadata,
                    description=f"Rows that {table_name} refused, with the rules they broke.",
                )  # fmt: skip
            else:
                snapshot.commit(add=staged, txns={app: batch_id}, metadata=metadata)
            return count
        except CommitConflict:
            continue
    raise CommitConflict(
        f"quarantine.{table_name} batch {batch_id}: 20 attempts met other writers", hint="run again"
    )
