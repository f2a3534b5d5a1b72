"""Which version of each table a gold build starts from, and what those versions say of themselves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from lakehouse import checks
from lakehouse.errors import CheckFailed, StorageError
from lakehouse.gold.restore_points import RestorePoint
from lakehouse.names import MAINTENANCE, app_id
from lakehouse.storage import CommitInfo, Lake, Snapshot, Table

#: Name of the check that every gold version gets when its build ends; a version without one was left by a crash.
BUILD_CHECK = "gold_build"
_HISTORY_LIMIT = 50
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pin:
    """A silver table at one version.

    ``data_version`` is the newest commit that changed rows: maintenance after it (compaction, for one) gives a new
    version, and no reason to rebuild anything. ``rewrites`` grows with every commit that changed or brought rows of old
    batches: backfills and replays.
    """

    snapshot: Snapshot
    data_version: int
    watermark_utc: str | None
    contract_hash: str | None
    rewrites: int = 0

    @cached_property
    def columns(self) -> str:
        """Columns and types: others make an incremental model start over."""
        return json.dumps({name: str(dtype) for name, dtype in self.snapshot.schema().items()})

    @property
    def form(self) -> str:
        """Columns and types, and how often the past was rewritten: either makes a model that adds what is new start over.

        It would never see that rows of old batches have changed, or have come after the batches that followed them.
        """
        return f"{self.columns} rewritten {self.rewrites}" if self.rewrites else self.columns


def pin_silver(
    lake: Lake, tables: Iterable[str], published: RestorePoint | None, wanted: Mapping[str, int] | None
) -> tuple[dict[str, Pin], list[str]]:
    """Pin each silver table that has a version: the wanted one, else the newest if it was checked and not refused, else
    the published one.

    The newest may not be checked yet: a run was killed in between, or a backfill, a replay or another run has just
    written it. A table of which nothing was ever checked has no pin, as if it had no version.

    Returns the pins, and a note for each table that stays behind its newest version.

    Raises:
        CheckFailed: a table failed a blocking check, and no earlier version is published.
        TableNotFound: a wanted version does not exist.
        StorageError: a published version that is needed is not there any more.
    """
    newest: dict[str, Snapshot] = {}
    for table in sorted(tables):
        version = (wanted or {}).get(table)
        handle = lake.table("silver", table)
        snapshot = handle.snapshot(version) if version is not None else handle.snapshot_or_none()
        if snapshot is not None:
            newest[table] = snapshot
    notes: list[str] = []
    open_versions = {
        f"silver/{table}": newest[table].version for table in newest if table not in (wanted or {})
    }
    current = {} if published is None else published.tables
    failed = checks.failed_blocking(lake, open_versions)
    unchecked = checks.unchecked(lake, open_versions, current)
    for path in sorted({outcome.subject for outcome in failed} | unchecked):
        table = path.removeprefix("silver/")
        refused = newest[table].version
        names = ", ".join(outcome.check for outcome in failed if outcome.table == table)
        reason = f"failed {names}" if names else "has not been checked yet"
        if path in current:
            newest[table] = _published_silver(lake, table, current[path])
            notes.append(
                f"silver.{table} stays at the published version {current[path]}: version {refused} {reason}"
            )
        elif names:
            raise CheckFailed(
                f"silver.{table} version {refused} failed blocking checks ({names}), and no earlier version is published",
                hint=f"lakehouse quarantine show {table}",
            )
        else:
            del newest[table]
            notes.append(
                f"silver.{table} is left out: version {refused} {reason}, and no earlier version is published; "
                f"lakehouse run --select {table} checks it"
            )
    return {table: _pin(snapshot) for table, snapshot in newest.items()}, notes


def _published_silver(lake: Lake, name: str, version: int) -> Snapshot:
    table = lake.table("silver", name)
    try:
        return table.snapshot(version)
    except StorageError as error:
        if table.commit_info(version) is not None:
            raise
        raise StorageError(
            f"silver.{name} has lost its published version {version}, at which it should stay: {error.message}",
            hint=f"lakehouse run --select {name} checks the newest version, which then takes its place",
        ) from error


def _pin(snapshot: Snapshot) -> Pin:
    document, version = commit_document(snapshot, "silver")
    watermark = document.get("watermark_utc")
    contract = document.get("contract_hash")
    return Pin(
        snapshot,
        version,
        None if watermark is None else str(watermark),
        None if contract is None else str(contract),
        # Both only grow, so does their sum, but for a rollback, with which gold goes back too. The one of replays is a number of
        # ``ops.replays``.
        sum(snapshot.txn(app_id(what, snapshot.table.name)) for what in ("backfill", "replay")),
    )


def commit_document(snapshot: Snapshot, stage: str) -> tuple[dict[str, Any], int]:
    """Metadata and version of the newest commit of ``stage`` at or below this version, however much maintenance came after it.

    Without such a commit (history cut short, a table that another tool wrote): nothing, and the version itself.
    """
    found = _newest_of(stage, snapshot.commits())
    return ({}, snapshot.version) if found is None else (found.metadata, found.version)


def _newest_of(stage: str, newest_first: Iterable[CommitInfo]) -> CommitInfo | None:
    """The first commit of the stage. Maintenance makes one for every worn file of a table: those are not counted."""
    others = 0
    for commit in newest_first:
        found = commit.metadata.get("stage")
        if found == stage:
            return commit
        others += found != MAINTENANCE
        if others == _HISTORY_LIMIT:
            return None
    return None


def gold_bases(
    lake: Lake, models: Iterable[str], published: RestorePoint | None
) -> dict[str, tuple[Snapshot | None, Snapshot | None]]:
    """(base, latest) of each gold table.

    The base is the version to build on and to read: the newest one if it is published or its build ended with every
    blocking check passed, else the published one, else none. A version that failed or was left by a crash is never
    a base, so appending or merging again after a failure cannot count anything twice.
    """
    latest = {name: lake.table("gold", name).snapshot_or_none() for name in models}
    current = {} if published is None else published.versions("gold")
    passed = good_versions(lake, {name: s.version for name, s in latest.items() if s is not None}, current)
    bases: dict[str, tuple[Snapshot | None, Snapshot | None]] = {}
    for name, snapshot in latest.items():
        base = snapshot
        if snapshot is not None and name not in passed:
            base = published_version(lake, name, current)
        bases[name] = (base, snapshot)
    return bases


def built_from(lake: Lake, document: Mapping[str, Any]) -> set[tuple[str, int]]:
    """(``silver/<name>`` or ``gold/<name>``, version) of all that a gold version came from, also through other models.

    As far as logs tell: of a version whose commits are gone nothing is known any more.

    Args:
        document: of the version's commit.
    """
    found: set[tuple[str, int]] = set()
    unread = [document]
    while unread:
        document = unread.pop()
        silver = document.get("silver_versions") or {}
        inputs = {(f"silver/{name}", version) for name, version in silver.items()}
        inputs |= set((document.get("inputs") or {}).items())
        for table, version in inputs - found:
            layer, _, name = table.partition("/")
            if layer == "gold":
                unread.append(_document_of(lake.table("gold", name), version))
        found |= inputs
    return found


def _document_of(table: Table, version: int) -> Mapping[str, Any]:
    """What a build said of a version: ``commit_document`` without opening the table there, which costs milliseconds."""
    commits = (table.commit_info(number) for number in range(version, -1, -1))
    found = _newest_of("gold", takewhile(lambda commit: commit is not None, commits))  # type: ignore[arg-type]
    return {} if found is None else found.metadata


def refused_versions(lake: Lake, versions: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of the tables' versions that failed a blocking check."""
    found: set[tuple[str, int]] = set()
    unasked = set(versions)
    while unasked:
        once = dict(sorted(unasked))  # a table may be there at several versions: one of them at a time
        unasked -= set(once.items())
        found |= {(outcome.subject, outcome.version) for outcome in checks.failed_blocking(lake, once)}
    return found


def good_versions(lake: Lake, versions: Mapping[str, int], published: Mapping[str, int]) -> set[str]:
    """Those of the gold tables whose named version is published, or was built and passed every blocking check."""
    open_versions = {
        f"gold/{name}": version for name, version in versions.items() if published.get(name) != version
    }
    found = checks.outcomes(lake, open_versions)
    built = {outcome.table for outcome in found if outcome.check == BUILD_CHECK}
    refused = {outcome.table for outcome in found if outcome.blocking and not outcome.passed}
    return {name for name in versions if f"gold/{name}" not in open_versions or name in built - refused}


def published_version(lake: Lake, name: str, current: Mapping[str, int]) -> Snapshot | None:
    """The gold table at its published version (``current``: table → version); None when it has none."""
    if name not in current:
        return None
    table = lake.table("gold", name)
    try:
        return table.snapshot(current[name])
    except StorageError as error:
        if table.commit_info(current[name]) is not None:
            raise
        # The table or the start of its log was removed by hand: build it again.
        _log.warning("gold.%s is built whole, its published version is lost: %s", name, error.message)
        return None
