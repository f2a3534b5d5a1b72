"""Small tables of small files, maintained and published without anything else of a lake."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.gold.restore_points import RestorePoint, new_id, save
from lakehouse.ops.maintenance import Maintained, maintain
from lakehouse.settings import load_settings
from lakehouse.storage import Lake, Snapshot, Table

ROWS = {"id": pl.Int64(), "text": pl.String(), names.BATCH_ID: pl.Int64()}


def frame(first: int, rows: int = 3, *, batch: int = 1) -> pl.DataFrame:
    ids = range(first, first + rows)
    return pl.DataFrame(
        {"id": ids, "text": [f"row {n}" for n in ids], names.BATCH_ID: [batch] * rows}, schema=ROWS
    )


def add(table: Table, *frames: pl.DataFrame) -> Snapshot:
    """One commit a frame."""
    for rows in frames:
        snapshot = table.snapshot_or_none()
        if snapshot is None:
            snapshot = table.create(ROWS, add=table.stage(rows.lazy()))
        else:
            snapshot.commit(add=table.stage(rows.lazy()))
    return table.snapshot()


def run(lake: Lake, **options: Any) -> dict[str, Maintained]:
    settings = load_settings(root=lake.root)
    found = {done.name: done for done in maintain(lake, settings, options.pop("pipelines", {}), **options)}
    assert [done.error for done in found.values() if done.error] == []
    return found


def ids(snapshot: Snapshot) -> list[int]:
    return sorted(snapshot.scan(["id"]).collect()["id"].to_list())


def publish(lake: Lake, **versions: int) -> RestorePoint:
    tables = {path.replace("_", "/", 1): version for path, version in versions.items()}
    point = RestorePoint(id=new_id(), created_at_utc=datetime.now(UTC).isoformat(), tables=tables)
    save(lake, point)
    return point
