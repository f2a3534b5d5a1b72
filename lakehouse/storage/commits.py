"""What goes into a Delta commit and what comes out of one: staged files, properties, the document of ours."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.storage.schema import delta_schema

#: In the description of every commit of ours, with a number of its own.
MARK = "lakehouseCommit"
#: Contended commits on object stores exceed the library's 15 retries about once in 290 (measured).
MAX_COMMIT_RETRIES = 100
CHECKPOINT_INTERVAL = 50
#: As long as any version of the log is kept at least. What restore points name is kept longer: ``upkeep.expired_log``.
CONFIGURATION = {
    "delta.logRetentionDuration": "interval 90 days",
    "delta.checkpointInterval": str(CHECKPOINT_INTERVAL),
    # Else readers are not shown the statistics of the columns behind the 32nd, where lineage and a history's times are.
    # Which columns have any is decided when a file is adopted (``stats.footer_stats``).
    "delta.dataSkippingNumIndexedCols": "-1",
}


@dataclass(frozen=True)
class StagedFile:
    """A Parquet file in a table's folder that no commit names yet."""

    path: str
    size_bytes: int
    num_records: int
    stats_json: str


@dataclass(frozen=True)
class CommitInfo:
    """One commit of a table's history. ``metadata`` is the document that our commits carry, else empty."""

    version: int
    timestamp_utc: datetime
    operation: str
    metadata: dict[str, Any]


def add_action(file: StagedFile, *, data_change: bool = True) -> Any:
    from deltalake.transaction import AddAction

    return AddAction(
        path=file.path,
        size=file.size_bytes,
        partition_values={},
        modification_time=int(datetime.now(UTC).timestamp() * 1000),
        data_change=data_change,
        stats=file.stats_json,
    )


def properties(txns: Mapping[str, int], metadata: Mapping[str, Any], mark: str = "") -> Any:
    import deltalake

    return deltalake.CommitProperties(
        custom_metadata={names.COMMIT_KEY: json.dumps(metadata, default=str), MARK: mark},
        max_commit_retries=MAX_COMMIT_RETRIES,
        app_transactions=[deltalake.Transaction(app_id, version) for app_id, version in txns.items()],
    )


def nothing_more() -> Any:
    """The library's commit without what it does behind it: its checkpoint is not flushed, its clean-up spares no kept version."""
    import deltalake

    return deltalake.PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def commit_info(version: int, raw: bytes) -> CommitInfo:
    entry: Mapping[str, Any] = next(
        (json.loads(line)["commitInfo"] for line in raw.splitlines() if b'"commitInfo"' in line[:20]), {}
    )
    document = entry.get(names.COMMIT_KEY)
    return CommitInfo(
        version=version,
        timestamp_utc=datetime.fromtimestamp(int(entry.get("timestamp", 0)) / 1000, tz=UTC),
        operation=str(entry.get("operation", "")),
        metadata=json.loads(document) if isinstance(document, str) else {},
    )


def first_commit(
    uri: str,
    name: str,
    schema: Mapping[str, pl.DataType],
    add: Sequence[StagedFile],
    txns: Mapping[str, int],
    metadata: Mapping[str, Any],
    description: str | None,
) -> bytes:
    """The content of version 0 of the table at ``uri``, made by the library in an empty folder."""
    from deltalake.transaction import create_table_with_add_actions

    with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder:
        create_table_with_add_actions(
            folder,
            delta_schema(schema),
            [add_action(file) for file in add],
            mode="error",
            name=name,
            description=description,
            configuration=CONFIGURATION,
            commit_properties=properties(txns, metadata, uuid.uuid4().hex),
        )
        raw = Path(folder, "_delta_log", f"{0:020d}.json").read_bytes()
    actions = [json.loads(line) for line in raw.splitlines()]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"].get("operationParameters", {})["location"] = uri
    return content(actions)


def content(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """The lines of one commit. Characters stay as they are: see ``stats.stats_json``."""
    lines = (json.dumps(entry, separators=(",", ":"), ensure_ascii=False) for entry in entries)
    return "\n".join(lines).encode()
