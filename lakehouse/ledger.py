"""The ledger: what has arrived, what was planned, and what each stage did with it (``ops.batches``).

What is new is always the listing minus the ledger, never a clock or a cursor. A batch is written here,
with its exact files, before any of it is read; what a stage did is read back from the stages' own commits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.connectors import Batch, SourceFile, connector_for
from lakehouse.connectors.files import legible
from lakehouse.errors import CommitConflict, LakehouseError
from lakehouse.ledger_rows import COUNTS, SCHEMA, SOURCES, Seen
from lakehouse.pipelines import Pipeline
from lakehouse.settings import Settings
from lakehouse.storage import CommitInfo, Lake, Snapshot
from lakehouse.validation import is_remote, join_url

#: Sources in a store are listed so many at a time.
_LISTED_AT_ONCE = 16


@dataclass(frozen=True)
class News:
    """What one source has that the ledger does not: arrived files, not planned yet.

    ``changed``: files with new content, and those whose names are no UTF-8; no batch takes them unasked.
    """

    source: str
    files: tuple[SourceFile, ...] = ()
    changed: tuple[SourceFile, ...] = ()
    error: str | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def oldest_arrival_utc(self) -> datetime | None:
        return min((file.modified_at_utc for file in self.files), default=None)


class Ledger:
    """``ops.batches`` at one version, read once."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.snapshot: Snapshot | None = lake.table("ops", "batches").snapshot_or_none()
        self._sources = SOURCES.at(self.snapshot) if self.snapshot else {}

    def after(self, now: datetime) -> datetime:
        """``now``, or just after the newest record where a clock was set back: the order of records is their truth."""
        newest = max((source.newest_record_utc for source in self._sources.values()), default=None)
        return now if newest is None else max(now, newest + timedelta(microseconds=1))

    def _seen(self, source: str, paths: Collection[str]) -> Mapping[str, Sequence[Seen]]:
        """Per path every version that was seen: file, stage and note, oldest first, without those given back."""
        found = self._sources.get(source)
        return found.seen_of(paths) if found and paths else {}

    def known_fingerprints(self, source: str, paths: Collection[str]) -> dict[str, str]:
        """Path → fingerprint of the newest version, of those of these files that the ledger has seen."""
        found = self._sources.get(source)
        return found.fingerprints(paths) if found and paths else {}

    def taken_files(self, source: str, paths: Collection[str]) -> dict[str, SourceFile]:
        """Newest version of each of these files that a batch took, by path."""
        taken: dict[str, SourceFile] = {}
        for path, versions in self._seen(source, paths).items():
            for file, stage, _ in versions:
                if stage in ("planned", "unchanged"):
                    taken[path] = file
        return taken

    def contents(self, source: str, sizes: Collection[int]) -> dict[tuple[str, int], str]:
        """(hash, size) of everything of one of these sizes that batches took → the path that brought it first."""
        rows = self._sources.get(source)
        if rows is None or not sizes:
            return {}
        found: dict[tuple[str, int], str] = {}
        for path, versions in rows.seen(pl.col("size_bytes").is_in(list(sizes))).items():
            for file, stage, _ in versions:
                if stage == "planned" and file.content_hash is not None:
                    found.setdefault((file.content_hash, file.size_bytes), path)
        return found

    def batches(self, source: str, *, above: int = 0) -> list[Batch]:
        """Planned batches of a source with a number above ``above``, in order."""
        found = self._sources.get(source)
        return found.batches(source, above) if found else []

    def batch_bytes(self, source: str, first: int, last: int) -> pl.Series:
        """Size of each planned batch of a source from the one number to the other."""
        found = self._sources.get(source)
        return found.batch_bytes(first, last) if found else pl.Series(dtype=pl.Int64)

    def last_batch_id(self, source: str) -> int:
        return self.snapshot.txn(names.app_id("plan", source)) if self.snapshot else 0

    def newest_arrival_utc(self, source: str) -> datetime | None:
        """Arrival of the newest file that any batch of the source took."""
        found = self._sources.get(source)
        return found.newest_arrival_utc if found else None

    def held_files(self, source: str) -> list[SourceFile]:
        """Files whose content changed under the same name and that wait for a person."""
        return [file for file, _ in self.held(source)]

    def newest(self, source: str) -> list[tuple[SourceFile, str, str]]:
        """Every file of a source as it was seen last: file, stage (planned, held, duplicate …) and note."""
        rows = self._sources.get(source)
        last = [versions[-1] for versions in (rows.seen() if rows else {}).values() if versions]
        return [(file, stage, note or "") for file, stage, note in last]

    def held(self, source: str) -> list[tuple[SourceFile, str]]:
        """Files that wait for a person, with what is known of the change."""
        found = self._sources.get(source)
        return found.held if found else []


def news(
    lake: Lake, settings: Settings, pipelines: Mapping[str, Pipeline], *, ledger: Ledger | None = None
) -> dict[str, News]:
    """Listing minus ledger, per pipeline; pipelines without news are left out. Writes nothing.

    A source that cannot be listed is news with ``error`` set: it must not hide behind the others.
    """
    ledger = ledger or Ledger(lake)

    def look(pipeline: Pipeline) -> News:
        try:
            return news_of(pipeline, settings, ledger)
        except LakehouseError as error:
            return News(pipeline.name, error=error.message)

    # A store takes its time for each listing; a folder is there at once.
    far = {
        name: item
        for name, item in pipelines.items()
        if is_remote(join_url(settings.landing, item.spec.source.path))
    }
    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        listed = dict(zip(far, pool.map(look, far.values()), strict=True))
    items = {name: listed[name] if name in listed else look(item) for name, item in pipelines.items()}
    return {name: item for name, item in items.items() if item.files or item.changed or item.error}


def news_of(pipeline: Pipeline, settings: Settings, ledger: Ledger) -> News:
    listed = [(legible(file.path), file) for file in connector_for(pipeline.spec.source, settings).list()]
    known = ledger.known_fingerprints(pipeline.name, {path for path, _ in listed})
    fresh: list[SourceFile] = []
    changed: list[SourceFile] = []
    for path, file in listed:
        if path in known and known[path] == file.fingerprint:
            continue
        # A name that is no UTF-8 is never among those that wait to be read: the plan says that it is passed over.
        (changed if path in known or path != file.path else fresh).append(file)
    return News(pipeline.name, tuple(fresh), tuple(changed))


def row_of(
    source: str,
    batch_id: int | None,
    stage: str,
    files: Sequence[SourceFile],
    run_id: str,
    now: datetime,
    note: str = "",
) -> dict[str, Any]:
    arrivals = [file.modified_at_utc for file in files]
    return {
        "source": source,
        "batch_id": batch_id,
        "stage": stage,
        "recorded_at_utc": now,
        "run_id": run_id,
        "files": [vars(file) for file in files],
        "oldest_arrival_utc": min(arrivals, default=None),
        "newest_arrival_utc": max(arrivals, default=None),
        "bytes_in": sum(file.size_bytes for file in files),
        "note": note or None,
    }


def append(
    lake: Lake, snapshot: Snapshot | None, rows: list[dict[str, Any]], txns: Mapping[str, int]
) -> None:
    """One commit to ``ops.batches`` through the snapshot that was read (None: the table is created)."""
    table = lake.table("ops", "batches")
    staged = table.stage(pl.LazyFrame(rows, schema=SCHEMA))
    if snapshot is None:
        table.create(SCHEMA, add=staged, txns=txns, description="One row per source, batch and stage.")
    else:
        missing = {name: dtype for name, dtype in SCHEMA.items() if name not in snapshot.schema()}
        if (
            missing
        ):  # a ledger of an earlier release: its columns change first, and what was read is read again
            snapshot.add_columns(missing)
            raise CommitConflict("ops.batches got new columns")
        snapshot.commit(add=staged, txns=txns)


def sync(lake: Lake, pipelines: Iterable[Pipeline]) -> int:
    """Copy what the stages committed since the last call from their Delta history; rows added.

    The history of a Delta table expires; the ledger does not.
    """
    for _ in range(20):
        snapshot = lake.table("ops", "batches").snapshot_or_none()
        rows: list[dict[str, Any]] = []
        txns: dict[str, int] = {}
        for pipeline in pipelines:
            for layer in ("bronze", "silver"):
                fresh, newest = _committed_since(lake, layer, pipeline.name, snapshot)
                rows += fresh
                if fresh:
                    txns[names.app_id(f"sync/{layer}", pipeline.name)] = newest
        if not rows:
            return 0
        try:
            append(lake, snapshot, rows, txns)
            return len(rows)
        except CommitConflict:
            continue
    return 0


def _committed_since(
    lake: Lake, layer: names.Layer, source: str, ledger: Snapshot | None
) -> tuple[list[dict[str, Any]], int]:
    table = lake.table(layer, source).snapshot_or_none()
    if table is None:
        return [], 0
    # Versions start at 0, transactions at 1: the transaction is the version plus one.
    done = ledger.txn(names.app_id(f"sync/{layer}", source)) if ledger else 0
    if table.version + 1 <= done:
        return [], done
    rows = []
    for commit in table.history(table.version + 1 - done):
        document = commit.metadata
        if document.get("stage") != layer or not document.get("batches"):
            continue
        rows += _rows_of_commit(source, layer, commit)
    return rows, table.version + 1


def _rows_of_commit(source: str, layer: names.Layer, commit: CommitInfo) -> list[dict[str, Any]]:
    """One row per batch of the commit; what only the commit has as a whole stands with its last batch."""
    document = commit.metadata
    whole = {
        "source": source,
        "batch_id": document["batches"][-1],
        "stage": layer,
        "recorded_at_utc": commit.timestamp_utc,
        "run_id": document.get("run_id", ""),
        "files": [],
        **{name: document.get(name) for name in COUNTS},
        "seconds": document.get("seconds"),
        "table_version": commit.version,
    }
    parts = document.get("per_batch") or [{}]
    of_whole = {"rescued": None, "bytes_written": None, "seconds": None}
    return [{**whole, **of_whole, **part} for part in parts[:-1]] + [{**whole, **parts[-1]}]
