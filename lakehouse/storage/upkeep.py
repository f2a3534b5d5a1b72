"""Upkeep of one table: fewer and larger files, files that no kept version needs, checkpoints.

Nothing here changes a row. Why the library's own ``optimize.compact`` and ``vacuum`` are not used, and what was
measured: docs/decisions/0040-maintenance-rearranges-and-never-changes.md.
"""

from __future__ import annotations

import json
import re
import uuid
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict, ConservationError, LakehouseError, StorageError
from lakehouse.storage import log
from lakehouse.storage.commits import CHECKPOINT_INTERVAL, StagedFile
from lakehouse.storage.deletion import vector_of
from lakehouse.storage.failures import translated
from lakehouse.storage.objects import ObjectInfo
from lakehouse.storage.parquet_join import joined
from lakehouse.storage.retry import patient
from lakehouse.storage.snapshot import Snapshot
from lakehouse.storage.table import ROW_GROUP_ROWS, Table
from lakehouse.validation import parse_duration

#: What a writer leaves in a table's folder: data files, and vectors of deleted rows.
_DATA_FILE = re.compile(r"[^/]+\.parquet[^/]*|deletion_vector_[^/]+\.bin")
#: Commits and checkpoints, with their version. What other tools may leave beside them stays.
_LOG_FILE = re.compile(r"_delta_log/(\d{20})\.(?:json|checkpoint\.parquet)")
#: What a version was built from is looked for in so many commits before it (``gold.versions``).
_LOOKED_BACK = 50
#: Parts are joined where they have so many bytes on average: smaller ones would leave row groups that cost readers more
#: than their rows, and cost little to write again.
_JOIN_PART_BYTES = 1 << 20
#: They are held in memory for it, twice; what is more is streamed or sorted within the memory limit.
_JOIN_BYTES = 64 << 20
#: A file, for a data file with a vector: the log knows a data file by both, and one file holds many vectors.
_Known = tuple[str, str, str]


def row_width_bytes(snapshot: Snapshot, path: str) -> float:
    """Memory that a row takes, measured on the first rows of one file."""
    head = snapshot.scan(uris=_uris(snapshot, [path])).head(10_000)
    with translated(f"read {snapshot.table.label}"):
        rows = head.collect(engine="streaming")
    return max(1.0, rows.estimated_size() / max(1, rows.height))


def combine(
    snapshot: Snapshot, paths: Sequence[str], *, sort_by: Sequence[str] = (), apart_by: str | None = None
) -> list[StagedFile]:
    """Make these files one, their rows in this order or sorted, and swap them in one commit.

    The commit says ``dataChange`` false and has the stage ``maintenance``. Files that are in order already are joined
    byte by byte; of others the rows are written again: unsorted ones are streamed, sorted ones are held in memory.

    Args:
        apart_by: rows in which this column is null become one file, and the others another.

    Raises:
        CommitConflict: a writer took one of the files out meanwhile: it wins, and nothing is left of this.
        ConservationError: the file has not as many rows as those it is made of; nothing was committed.
    """
    table, files = snapshot.table, _in_this_order(snapshot, paths)
    is_mixed = apart_by is not None and _has_both(files, apart_by)
    one_file = None if is_mixed else _join(snapshot, files, sort_by)
    staged = [one_file] if one_file else _write(snapshot, paths, sort_by, apart_by if is_mixed else None)
    expected, written = int(files["num_records"].sum() or 0), sum(file.num_records for file in staged)
    if written != expected:
        _drop(table, staged)
        raise ConservationError(
            f"{table.label}: {len(paths)} files of {expected} rows were combined into {written} rows; "
            "nothing was committed",
            hint="lakehouse reconcile",
        )
    metadata = {
        "stage": names.MAINTENANCE,
        "action": "compact",
        "files": len(paths),
        "rows": expected,
        "sorted_by": [] if one_file else list(sort_by),
    }
    try:
        snapshot.commit(add=staged, remove=paths, metadata=metadata, data_change=False)
    except CommitConflict:
        _drop(table, staged)
        raise
    return staged


def _in_this_order(snapshot: Snapshot, paths: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame({"path": list(paths)}).join(
        snapshot.files(), on="path", how="left", maintain_order="left"
    )


def _join(snapshot: Snapshot, files: pl.DataFrame, sort_by: Sequence[str]) -> StagedFile | None:
    """The files joined without reading their rows; None where these have to be sorted, some are deleted, or the parts
    are too small or do not fit together."""
    size = int(files["size_bytes"].sum())
    is_small = size < len(files) * _JOIN_PART_BYTES
    if len(files) < 2 or is_small or size > _JOIN_BYTES or files["num_deleted"].sum():
        return None
    if sort_by and not _one_behind_the_other(files, sort_by[0]):
        return None
    table, name = snapshot.table, f"{uuid.uuid4().hex}-00000.parquet"
    parts = [table.objects.read(path) for path in files["path"]]
    content = joined([part for part in parts if part is not None]) if None not in parts else None
    if content is None:
        return None
    with translated(f"join data files of {table.label}", table._folder), table._swept([name]):
        table.objects.write(name, content)
        return table.adopt([name])[0]


def _one_behind_the_other(files: pl.DataFrame, column: str) -> bool:
    """True when no file has a value of the column that is lower than one of the file before."""
    low, high = f"min.{column}", f"max.{column}"
    if low not in files.columns or files[low].null_count() or files[high].null_count():
        return False
    return bool((files[low] >= files[high].shift(1)).all())


def _has_both(files: pl.DataFrame, column: str) -> bool:
    """True when some rows of the files may be null in the column, and others not."""
    nulls = f"null_count.{column}"
    if nulls not in files.columns or files[nulls].null_count():
        return True
    return 0 < files[nulls].sum() < (files["num_records"] + files["num_deleted"]).sum()


@patient
def _write(
    snapshot: Snapshot, paths: Sequence[str], sort_by: Sequence[str], apart_by: str | None
) -> list[StagedFile]:
    table, prefix = snapshot.table, uuid.uuid4().hex
    frame = snapshot.scan(uris=_uris(snapshot, paths))
    null = None if apart_by is None else pl.col(apart_by).is_null()
    written = [f"{prefix}-{number:05d}.parquet" for number in range(1 if null is None else 2)]
    with translated(f"combine data files of {table.label}", table._folder), table._swept(written):
        if sort_by and not (len(paths) == 1 and _is_in_order(frame, sort_by)):
            frame = frame.sort(sort_by, maintain_order=True)
        parts = [frame] if null is None else [frame.filter(null), frame.filter(~null)]
        for part, name in zip(parts, written, strict=True):
            part.sink_parquet(
                f"{table.uri.rstrip('/')}/{name}",
                compression="zstd",
                compression_level=table.compression_level,
                row_group_size=ROW_GROUP_ROWS,
                storage_options=table.options or None,
            )
        staged = table.adopt(written)
    _drop(table, [file for file in staged if not file.num_records])
    return [file for file in staged if file.num_records]


def _is_in_order(frame: pl.LazyFrame, sort_by: Sequence[str]) -> bool:
    """True where sorting would change nothing: a worn file, as silver has written it. Its rows are then streamed, whatever they take.

    Not known of lists and structs, which Polars sorts and does not compare.
    """
    schema = frame.collect_schema()
    if any(schema[column].is_nested() for column in sort_by):
        return False
    keys = frame.select(sort_by).collect(engine="streaming")
    descends = pl.lit(False)
    for column in map(pl.col, reversed(sort_by)):
        before = column.shift(1)
        lower = (column.is_null() & before.is_not_null()) | (column < before).fill_null(False)
        descends = lower | (column.eq_missing(before) & descends)
    return not keys.select(descends.slice(1).any()).item()


def _uris(snapshot: Snapshot, paths: Sequence[str]) -> list[str]:
    known = dict(snapshot.files().select("path", "uri").iter_rows())
    return [known[path] for path in paths]


def _drop(table: Table, staged: Sequence[StagedFile]) -> None:
    for file in staged:
        with suppress(LakehouseError):  # left behind, it is removed when it is old enough
            table.objects.delete(file.path)


def unneeded_files(
    table: Table, *, kept_versions: Sequence[int], retention: timedelta, now_utc: datetime | None = None
) -> list[ObjectInfo]:
    """Data files older than ``retention`` that neither the newest version nor a kept one has.

    Spared besides: what was taken out within ``retention`` (a reader may still be at it), and what is younger than
    that (a writer may be about to commit it). So files that a killed run left behind go as well.
    """
    cutoff = (now_utc or datetime.now(UTC)) - retention
    # Listed before the table is opened: what is committed in between is then seen as part of the table.
    old = {
        info.path: info
        for info in table.objects.list()
        if _DATA_FILE.fullmatch(info.path) and info.modified_at_utc < cutoff
    }
    snapshot = table.snapshot()
    for path in [*snapshot.files()["path"], *snapshot.vector_files()]:
        old.pop(path, None)
        old.pop(unquote(path), None)
    if not old:
        return []
    needed = _needed(
        snapshot, set(old), sorted(v for v in set(kept_versions) if v <= snapshot.version), cutoff
    )
    return [info for path, info in sorted(old.items()) if path not in needed]


def _needed(snapshot: Snapshot, candidates: set[str], kept: Sequence[int], cutoff: datetime) -> set[str]:
    """Those of the candidates that a kept version has, or that were taken out since ``cutoff``.

    One walk back through the log tells of each file in which versions it was: from its ``add`` until before its
    ``remove``. It ends at the oldest kept version: a file that was neither added nor removed since was not in it.
    """
    needed: set[str] = set()
    removed_at: dict[_Known, int] = {}
    objects = snapshot.table.objects
    written = {info.path: info.modified_at_utc for info in objects.list("_delta_log/")}
    for version, raw in log.commits(objects, range(snapshot.version, -1, -1)):
        actions = log.actions(raw)
        # By both clocks, the writer's and the store's: one that is wrong, or says nothing, makes no commit an old one.
        stamp = next((a["commitInfo"].get("timestamp") or 0 for a in actions if "commitInfo" in a), 0)
        is_recent = datetime.fromtimestamp(int(stamp) / 1000, UTC) >= cutoff
        is_recent = is_recent or written.get(log.commit_file(version), cutoff) >= cutoff
        if not is_recent and (not kept or version <= kept[0]):
            break
        for kind in ("add", "remove"):  # a file whose rows go is removed and added again by one commit
            for action in actions:
                for known in _known_by(action.get(kind), candidates):
                    if kind == "remove" and is_recent:
                        needed.add(known[0])
                    elif kind == "remove":
                        removed_at[known] = version
                    elif (end := removed_at.pop(known, None)) is not None and _any_in(kept, version, end):
                        needed.add(known[0])
    # Added before the walk ended: in every version from there up to the one that removed it.
    return needed | {known[0] for known, end in removed_at.items() if _any_in(kept, 0, end)}


def _known_by(entry: Mapping[str, Any] | None, candidates: set[str]) -> list[_Known]:
    """The candidates that an ``add`` or ``remove`` entry is about: the data file, and the files of its vector."""
    if entry is None:
        return []
    path = unquote(entry["path"])
    vector = entry.get("deletionVector")
    files = [path] if vector is None else [path, *vector_of(vector).paths]
    return [(file, path, json.dumps(vector, sort_keys=True)) for file in files if file in candidates]


def _any_in(versions: Sequence[int], first: int, end: int) -> bool:
    """True when one of the sorted versions is in [first, end)."""
    return bisect_left(versions, first) < bisect_left(versions, end)


def expired_log(
    table: Table, *, kept_versions: Iterable[int], now_utc: datetime | None = None
) -> list[ObjectInfo]:
    """Commits and checkpoints that are older than the table keeps its log, and that nobody needs to open a kept version.

    Spared besides: what opens a version that was the newest within that time. Every version is opened by the last checkpoint
    before it and the commits from there on. So everything stays where no checkpoint that can be read lies far enough back.

    The library's own clean-up, which its commits do, knows of no kept versions: it took away the published one of a table
    that nothing had come to for as long, in the very commit that followed it (deltalake 1.6.6).
    """
    # Listed before the table is opened, as for data files.
    listed = [
        (int(m[1]), info)
        for info in table.objects.list("_delta_log/")
        if (m := _LOG_FILE.fullmatch(info.path))
    ]
    snapshot = table.snapshot()
    retention = _log_retention(snapshot)
    if retention is None:
        return []
    cutoff = (now_utc or datetime.now(UTC)) - retention
    old = [(version, info) for version, info in listed if info.modified_at_utc < cutoff]
    # The last of the old ones was the newest until somebody committed the next, which may be a moment ago.
    superseded = max((version for version, _ in old), default=0)
    oldest = min([superseded, snapshot.version, *kept_versions]) - _LOOKED_BACK
    checkpoints = sorted(
        (v for v, info in listed if info.path == log.checkpoint_file(v) and v <= oldest), reverse=True
    )
    start = next((version for version in checkpoints if _is_sound(table, version)), 0)
    return [info for version, info in sorted(old, key=lambda found: found[0]) if version < start]


def _log_retention(snapshot: Snapshot) -> timedelta | None:
    """How long the table keeps its log; None where that is not said, or not understood: then for ever."""
    properties = snapshot._read.configuration
    if properties.get("delta.enableExpiredLogCleanup", "true").lower() != "true":
        return None
    try:
        return parse_duration(properties.get("delta.logRetentionDuration", "").removeprefix("interval "))
    except ValueError:
        return None


def _is_sound(table: Table, checkpoint: int) -> bool:
    try:
        return bool(table.footer(log.checkpoint_file(checkpoint))[0].num_rows)
    except StorageError:
        return False


def remove_files(table: Table, files: Sequence[ObjectInfo]) -> None:
    """Delete files that nobody will ever read again."""
    with ThreadPoolExecutor(log.REQUESTS_AT_ONCE) as pool:
        list(pool.map(table.objects.delete, [info.path for info in files]))


def checkpoint_is_due(snapshot: Snapshot) -> bool:
    """True when a reader has more commits to go through than between two checkpoints: the last one failed."""
    return snapshot.version - log.last_checkpoint(snapshot.table.objects) > CHECKPOINT_INTERVAL


def write_checkpoint(snapshot: Snapshot) -> None:
    """A checkpoint at this version. Readers start at it; what it replaces of the log stays until ``expired_log``."""
    with translated(f"write a checkpoint of {snapshot.table.label}", snapshot.table._folder):
        snapshot._checkpoint()
