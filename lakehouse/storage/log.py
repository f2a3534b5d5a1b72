"""Commits that are written here and not by the library: all but those that make a table or change its schema.

The library's own commit forgets which deletion vector a file had (deltalake 1.6.6), and the file would then stay. And it
takes three openings of the table: 28 ms for a table of a hundred commits, of which this takes 7 (measured). The
protocol asks for one thing: ``_delta_log/<version>.json`` is created by whoever is first, and by nobody else. What came
in between is looked at as the protocol says: another's added files do no harm, everything else is a conflict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict, StorageError
from lakehouse.storage.commits import MARK, StagedFile, content
from lakehouse.storage.deletion import FEATURE, Vector, vector_of
from lakehouse.storage.objects import Objects
from lakehouse.storage.stats import lower_bound, stats_json, upper_bound

#: Where each takes milliseconds to be answered.
REQUESTS_AT_ONCE = 16
#: A commit that met this many others' is given up: the stage reads again and does what is left.
_MAX_TURNS = 100
#: Names the newest checkpoint: readers begin there.
LAST_CHECKPOINT = "_delta_log/_last_checkpoint"
_READER_VERSION, _WRITER_VERSION = 3, 7
#: What tables of the versions before allowed their writers, as features by name.
OLD_WRITER_FEATURES = (
    (2, "appendOnly"), (2, "invariants"), (3, "checkConstraints"), (4, "changeDataFeed"), (4, "generatedColumns"),
    (5, "columnMapping"), (6, "identityColumns"),
)  # fmt: skip


def commit_file(version: int) -> str:
    """Where the commit that makes this version is, below the table."""
    return f"_delta_log/{version:020d}.json"


def add_entry(file: StagedFile, *, data_change: bool) -> dict[str, Any]:
    """A new data file."""
    return {
        "add": {
            "path": file.path, "partitionValues": {}, "size": file.size_bytes, "modificationTime": now_ms(),
            "dataChange": data_change, "stats": file.stats_json,
        }
    }  # fmt: skip


def remove_entry(path: str, size_bytes: int, vector: Vector | None, *, data_change: bool) -> dict[str, Any]:
    """A data file that goes, with the vector that it has: the two together are what the log knows it by."""
    entry: dict[str, Any] = {
        "path": path, "deletionTimestamp": now_ms(), "dataChange": data_change, "extendedFileMetadata": True,
        "partitionValues": {}, "size": size_bytes,
    }  # fmt: skip
    if vector is not None:
        entry["deletionVector"] = vector.descriptor()
    return {"remove": entry}


def listed_entry(file: Mapping[str, Any], vector: Vector | None) -> dict[str, Any]:
    """A data file that a version lists, with this vector: it stays with fewer rows, or comes back. ``file``: its row of ``Snapshot.files()``.

    Bounds and counts of nulls are those of all rows in the file, so they are said to be wide.
    """
    stats: dict[str, Any] = {
        "numRecords": file["num_records"] + file["num_deleted"], "tightBounds": False,
        "minValues": {}, "maxValues": {}, "nullCount": {},
    }  # fmt: skip
    doubtful: set[str] = set()
    for name, value in file.items():
        kind, dot, column = name.partition(".")
        if not dot or value is None:
            continue
        if kind == "null_count":
            stats["nullCount"][column] = value
        elif kind in ("min", "max"):
            try:
                stats[f"{kind}Values"][column] = lower_bound(value) if kind == "min" else upper_bound(value)
            except (ValueError, OverflowError):
                doubtful.add(column)  # another writer's: no exact number in JSON
    for column in doubtful:
        stats["minValues"].pop(column, None)
        stats["maxValues"].pop(column, None)
    entry: dict[str, Any] = {
        "path": file["path"], "partitionValues": {}, "size": file["size_bytes"],
        "modificationTime": file["modification_time"], "dataChange": True, "stats": stats_json(stats),
    }  # fmt: skip
    if vector is not None:
        entry["deletionVector"] = vector.descriptor()
    return {"add": entry}


def txn_entries(txns: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {"txn": {"appId": app, "version": version, "lastUpdated": now_ms()}} for app, version in txns.items()
    ]


def info_entry(read_version: int, operation: str, metadata: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """The commit's own description, with our document."""
    return {
        "commitInfo": {
            "timestamp": now_ms(), "operation": operation, "operationParameters": {}, "readVersion": read_version,
            "isBlindAppend": False, "engineInfo": "lakehouse", names.COMMIT_KEY: json.dumps(metadata, default=str),
            MARK: mark,
        }
    }  # fmt: skip


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def feature_entries(handle: Any) -> list[dict[str, Any]]:
    """What turns deletion vectors on; nothing where they are on already."""
    protocol, metadata = handle.protocol(), handle.metadata()
    if FEATURE in (protocol.reader_features or ()):
        return []
    old = protocol.min_writer_version
    readers = {*(protocol.reader_features or ()), FEATURE}
    writers = {*(protocol.writer_features or ()), FEATURE}
    if old < _WRITER_VERSION:
        writers |= {name for since, name in OLD_WRITER_FEATURES if old >= since}
    if protocol.min_reader_version == 2:
        readers.add("columnMapping")
    return [
        {
            "protocol": {
                "minReaderVersion": _READER_VERSION, "minWriterVersion": _WRITER_VERSION,
                "readerFeatures": sorted(readers), "writerFeatures": sorted(writers),
            }
        },
        schema_entry(handle, {**metadata.configuration, "delta.enableDeletionVectors": "true"}),
    ]  # fmt: skip


def schema_entry(handle: Any, configuration: Mapping[str, str]) -> dict[str, Any]:
    """What the table is as the version of this handle has it: its columns above all. With these properties."""
    metadata = handle.metadata()
    return {
        "metaData": {
            "id": str(metadata.id), "name": metadata.name, "description": metadata.description,
            "format": {"provider": "parquet", "options": {}}, "schemaString": handle.schema().to_json(),
            "partitionColumns": list(metadata.partition_columns), "createdTime": metadata.created_time,
            "configuration": dict(configuration),
        }
    }  # fmt: skip


def append_commit(
    objects: Objects,
    label: str,
    read_version: int,
    entries: Sequence[Mapping[str, Any]],
    mark: str,
    *,
    only_adds: bool = False,
) -> int:
    """Write the commit that follows ``read_version``, or follows what others have only added since; its version.

    Args:
        only_adds: it does not matter to the commit what somebody else takes out.

    Raises:
        CommitConflict: somebody has removed something, changed or removed the table, or committed one of the transactions.
    """
    there = (commit_file(read_version), checkpoint_file(read_version))
    if all(objects.info(path) is None for path in there):
        # A commit behind a gap would make a table unreadable that was removed, and perhaps made again, meanwhile.
        raise CommitConflict(
            f"commit to {label}: version {read_version} is not there any more", hint="run again"
        )
    data = content(entries)
    ours = {entry["txn"]["appId"] for entry in entries if "txn" in entry}
    for version in range(read_version + 1, read_version + 1 + _MAX_TURNS):
        if objects.put_if_absent(commit_file(version), data, durable=True):
            return version
        raw = objects.read(commit_file(version))
        if raw is None:
            raise StorageError(
                f"{label}: version {version} was there a moment ago and is not now", hint="lakehouse doctor"
            )
        # The answer to a successful write may be lost, and the repeated one is then refused.
        if mark.encode() in raw:
            return version
        if (reason := _conflict(actions(raw), ours, only_adds)) is not None:
            raise CommitConflict(
                f"commit to {label} after version {read_version}: version {version} {reason}",
                hint="another run was faster; run again, what is done is skipped",
            )
    raise CommitConflict(f"commit to {label}: {_MAX_TURNS} others came first", hint="run again")


def _conflict(theirs: Iterable[Mapping[str, Any]], ours: set[str], only_adds: bool) -> str | None:
    for action in theirs:
        if "remove" in action and not only_adds:
            return "took files or rows out"
        if "metaData" in action or "protocol" in action:
            return "changed the table's schema or settings"
        if "txn" in action and action["txn"]["appId"] in ours:
            return f"committed transaction {action['txn']['appId']}"
    return None


def commits(objects: Objects, versions: range) -> Iterator[tuple[int, bytes]]:
    """These commits in this order, up to the first that is not there any more; far ones are read several at once."""

    def read(version: int) -> bytes | None:
        return objects.read(commit_file(version))

    step = 4 * REQUESTS_AT_ONCE if objects.is_remote else 1
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        for first in range(0, len(versions), step):
            some = versions[first : first + step]
            found = pool.map(read, some) if step > 1 else map(read, some)
            for version, raw in zip(some, found, strict=True):
                if raw is None:
                    return
                yield version, raw


def actions(raw: bytes) -> list[dict[str, Any]]:
    """The entries of one commit."""
    return [json.loads(line) for line in raw.splitlines() if line.strip()]


# -- which rows of which files are gone, as the log says -------------------------------------------


def vectors_at(
    objects: Objects, version: int, known: tuple[int, Mapping[str, Vector]] | None = None
) -> dict[str, Vector]:
    """The deletion vector of each data file that has one, by path. ``known``: the same of an earlier version.

    The library shows the masks of all files and not where they are kept; so the log is read from its last checkpoint.

    Raises:
        StorageError: the log does not reach back to a checkpoint: what is deleted cannot be known.
    """
    start, found = (-1, {}) if known is None or known[0] > version else (known[0], dict(known[1]))
    if known is None or version - start > 1:
        checkpoint = _checkpoint_before(objects, version)
        if checkpoint is not None and checkpoint > start:
            start, found = checkpoint, _in_checkpoint(objects, checkpoint)
    reached = start
    for number, raw in commits(objects, range(start + 1, version + 1)):
        _apply(found, actions(raw))
        reached = number
    if reached < version:
        raise StorageError(
            f"{objects.url(commit_file(reached + 1))} is missing, and no checkpoint stands for it",
            hint="lakehouse doctor",
        )
    return found


def _apply(found: dict[str, Vector], commit: Sequence[Mapping[str, Any]]) -> None:
    for action in commit:
        if "remove" in action:
            # A file is known by its path and its vector together: without the one that it has, it stays.
            path, described = unquote(action["remove"]["path"]), action["remove"].get("deletionVector")
            if path in found and described and vector_of(described) == found[path]:
                del found[path]
    for action in commit:
        if "add" in action:
            path, described = unquote(action["add"]["path"]), action["add"].get("deletionVector")
            if described:
                found[path] = vector_of(described)
            else:
                found.pop(path, None)


def _checkpoint_before(objects: Objects, version: int) -> int | None:
    last = last_checkpoint(objects)
    if 0 <= last <= version and objects.info(checkpoint_file(last)) is not None:
        return last
    there = (info.path.rpartition("/")[2] for info in objects.list("_delta_log/"))
    numbers = (
        int(name[:20]) for name in there if name.endswith(".checkpoint.parquet") and name[:20].isdigit()
    )
    return max((number for number in numbers if number <= version), default=None)


def last_checkpoint(objects: Objects) -> int:
    """Version of the newest checkpoint, as the log's hint has it; -1 where there is none, or it is torn."""
    raw = objects.read(LAST_CHECKPOINT)
    try:
        return int(json.loads(raw)["version"]) if raw else -1
    except (ValueError, KeyError, TypeError):
        return -1


def checkpoint_file(version: int) -> str:
    """Where the checkpoint of this version is, below the table."""
    return f"_delta_log/{version:020d}.checkpoint.parquet"


def _in_checkpoint(objects: Objects, version: int) -> dict[str, Vector]:
    raw = objects.read(checkpoint_file(version))
    if raw is None:
        raise StorageError(f"{objects.url(checkpoint_file(version))} is missing", hint="lakehouse doctor")
    files = pl.read_parquet(raw, columns=["add"])["add"].struct.unnest()
    if "deletionVector" not in files.columns:
        return {}
    rows = files.filter(pl.col("deletionVector").struct.field("storageType").is_not_null())
    return {
        unquote(path): vector_of(described)
        for path, described in rows.select("path", "deletionVector").iter_rows()
    }
