"""The rows of ``ops.batches``: their columns, and what they say of each source, read once and kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


#: One version of a file as the ledger has it: the file, its stage, and a note.
Seen = tuple[SourceFile, str, str | None]
_PLAN_COLUMNS = ("source", "batch_id", "stage", "recorded_at_utc", "files", "newest_arrival_utc", "note")


class SourceRows:
    """What the ledger says of one source's files and batches; immutable."""

    def __init__(self, rows: pl.DataFrame) -> None:
        self.rows = rows

    @cached_property
    def seen(self) -> dict[str, list[Seen]]:
        """Per path every version that was seen, the oldest first.

        Without those given back, and without what was set aside because of them: a later version of the same file,
        or a copy of it under another name, was never compared with anything that has landed, so it is news again.
        """
        seen: dict[str, list[Seen]] = {}
        taken: Counter[tuple[str | None, int]] = Counter()  # contents of planned files
        copies: dict[int, set[str]] = {}  # size → files set aside as duplicates
        rows = self.rows.sort("recorded_at_utc", maintain_order=True)
        for stage, note, files in rows.select("stage", "note", "files").iter_rows():
            if stage == RETURNED:
                for item in files:
                    _give_back(SourceFile(**item), seen, taken, copies)
                continue
            for item in files:
                file = SourceFile(**item)
                seen.setdefault(file.path, []).append((file, stage, note))
                if stage == "planned":
                    taken[_content(file)] += 1
                elif stage == "duplicate":
                    copies.setdefault(file.size_bytes, set()).add(file.path)
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


def _give_back(
    file: SourceFile,
    seen: dict[str, list[Seen]],
    taken: Counter[tuple[str | None, int]],
    copies: Mapping[int, set[str]],
) -> None:
    """Take one version out, and what was set aside because of it."""
    versions = seen.get(file.path, [])
    taken.subtract(
        _content(known)
        for known, stage, _ in versions
        if stage == "planned" and known.fingerprint == file.fingerprint
    )
    _take_out(versions, lambda known, _: known.fingerprint == file.fingerprint)
    # By size, and not by hash: an earlier release may have hashed the file that is given back in another way.
    for path in copies.get(file.size_bytes, ()):
        _take_out(
            seen[path],
            lambda known, stage: (
                stage == "duplicate" and known.size_bytes == file.size_bytes and taken[_content(known)] <= 0
            ),
        )


def _take_out(versions: list[Seen], is_gone: Callable[[SourceFile, str], bool]) -> None:
    """Remove versions of a file, and those behind the first of them that no batch took."""
    first = next((n for n, (file, stage, _) in enumerate(versions) if is_gone(file, stage)), len(versions))
    versions[first:] = [
        (file, stage, note)
        for file, stage, note in versions[first:]
        if stage not in ASIDE and not is_gone(file, stage)
    ]


def _content(file: SourceFile) -> tuple[str | None, int]:
    return file.content_hash, file.size_bytes


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
