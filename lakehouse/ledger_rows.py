"""The rows of ``ops.batches``: their columns, and what they say of each source, read once and kept."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import cast

import polars as pl

from lakehouse.connectors import Batch, SourceFile
from lakehouse.storage import Snapshot

_UTC = pl.Datetime("us", "UTC")
_FILE = pl.Struct(
    {
        "path": pl.String(),
        "size_bytes": pl.Int64(),
        "modified_at_utc": _UTC,
        "fingerprint": pl.String(),
        "content_hash": pl.String(),
    }
)
COUNTS = (
    "rows_in",
    "accepted",
    "deduplicated",
    "superseded",
    "late",
    "quarantined",
    "rescued",
    "bytes_in",
    "bytes_written",
)
#: One row per source x batch x stage. Stages: planned | bronze | silver | returned (planned, but vanished or
#: changed before it was read: as if never planned), and without a batch id: held (changed content, waits for a
#: person), ignored, unchanged (same content, new fingerprint), duplicate (same content as another file).
SCHEMA: dict[str, pl.DataType] = {
    "source": pl.String(),
    "batch_id": pl.Int64(),
    "stage": pl.String(),
    "recorded_at_utc": _UTC,
    "run_id": pl.String(),
    "files": pl.List(_FILE),
    "oldest_arrival_utc": _UTC,
    "newest_arrival_utc": _UTC,
    **{name: pl.Int64() for name in COUNTS},
    "seconds": pl.Float64(),
    "table_version": pl.Int64(),
    "note": pl.String(),
}
#: Stage of files that a batch did not take after all; also the transaction under which bronze says so.
RETURNED = "returned"
ASIDE = ("held", "ignored", "unchanged", "duplicate")


_PLAN_COLUMNS = ("source", "batch_id", "stage", "recorded_at_utc", "files", "newest_arrival_utc", "note")


class SourceRows:
    """What the ledger says of one source's files and batches; immutable."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.rows = rows

    @cached_property
    def seen(self) -> dict[str, list[tuple[SourceFile, str, str | None]]]:
        seen: dict[str, list[tuple[SourceFile, str, str | None]]] = {}
        rows = self.rows.sort("recorded_at_utc", maintain_order=True)
        for stage, note, files in rows.select("stage", "note", "files").iter_rows():
            for item in files:
                versions = seen.setdefault(item["path"], [])
                if stage == RETURNED:
                    versions[:] = [v for v in versions if v[0].fingerprint != item["fingerprint"]]
                else:
                    versions.append((SourceFile(**item), stage, note))
        return seen

    @cached_property
    def _planned(self) -> pl.DataFrame:
        return self.rows.filter(pl.col("stage") == "planned").sort("batch_id")

    @cached_property
    def batches(self) -> list[Batch]:
        rows = self._planned.select("source", "batch_id", "files", "recorded_at_utc").iter_rows()
        return [
            Batch(source, number, tuple(SourceFile(**item) for item in files), at)
            for source, number, files, at in rows
        ]

    @cached_property
    def newest_arrival_utc(self) -> datetime | None:
        return cast("datetime | None", self._planned["newest_arrival_utc"].max())

    @cached_property
    def newest_record_utc(self) -> datetime:
        return cast(datetime, self.rows["recorded_at_utc"].max())  # no row is without it


class _Read:
    """The ledger's files that this process has read. Rows are only ever added, so the next look reads the new ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[frozenset[str], dict[str, SourceRows]]] = {}

    def sources(self, snapshot: Snapshot) -> dict[str, SourceRows]:
        """Every source of the ledger at this version."""
        uris = frozenset(snapshot.uris())
        with self._lock:
            read, sources = self._known.get(snapshot.table.uri, (frozenset[str](), {}))
            if not read <= uris:  # compacted, an older version, or another table
                read, sources = frozenset(), {}
            if fresh := uris - read:
                sources = _with_rows(sources, _rows(snapshot, sorted(fresh)))
                self._known[snapshot.table.uri] = (uris, sources)
            return sources


#: Shared by the whole process.
READ = _Read()


def _rows(snapshot: Snapshot, uris: Sequence[str]) -> pl.DataFrame:
    there = snapshot.schema()
    missing = [pl.lit(None, SCHEMA[name]).alias(name) for name in _PLAN_COLUMNS if name not in there]
    stages = ["planned", RETURNED, *ASIDE]
    frame = snapshot.scan(uris=uris).filter(pl.col("stage").is_in(stages))
    return frame.with_columns(missing).select(_PLAN_COLUMNS).collect()


def _with_rows(sources: Mapping[str, SourceRows], rows: pl.DataFrame) -> dict[str, SourceRows]:
    parts = rows.partition_by("source", as_dict=True)
    fresh = {
        name: SourceRows(pl.concat([sources[name].rows, part]) if name in sources else part)
        for (name,), part in parts.items()
    }
    return {**sources, **fresh}
