"""Publish: after every blocking check, name one set of versions, make it current, and swap the catalog."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lakehouse import checks, hold, names
from lakehouse.errors import CommitConflict, PointLost, PublishBlocked
from lakehouse.gold import catalog
from lakehouse.gold.restore_points import (
    RestorePoint,
    current_id,
    current_point,
    list_ids,
    load,
    make_current,
    new_id,
    save,
)
from lakehouse.gold.results import GoldResult
from lakehouse.gold.versions import commit_document, good_versions
from lakehouse.settings import Settings
from lakehouse.storage import Lake, Snapshot

__all__ = ["RestorePoint", "current_point", "heal", "list_ids", "load", "publish"]


def publish(lake: Lake, settings: Settings, *, gold: GoldResult, run_id: str = "") -> RestorePoint:
    """Make the versions of this build what analysts read; the point that is current afterwards.

    When they are what is published already, no new point is made; a catalog that a crash left behind the current
    point is made again in either case.

    Raises:
        PublishBlocked: the build failed or was partial, or a version that it names failed a blocking check or was
            never checked. The last good point stays current.
        CommitConflict: somebody else has published newer versions meanwhile.
        RunsHeld: the lake was rolled back, and nobody has said yet that it may move on.
    """
    _refuse_incomplete(gold)
    with one_publisher(settings):
        hold.refuse(lake)
        before = current_point(lake)
        versions = {f"gold/{name}": version for name, version in gold.versions.items()}
        versions |= {f"silver/{table}": version for table, version in gold.silver_versions.items()}
        versions |= _unread_silver(lake, gold, before)
        _refuse_failed(lake, gold, versions, before)
        _refuse_older(before, versions)
        point = _point(lake, gold, versions, before, run_id)
        same = before is not None and before.content() == point.content()
        if before is not None and same and current_id(lake) == before.id:  # else the pointer names a lost one
            point = before
        else:
            save(lake, point)
            _step_back_if_held(lake)
        if not catalog.is_current(settings, point):
            catalog.regenerate(lake, settings, point)
        return point


def _step_back_if_held(lake: Lake) -> None:
    """Where a rollback on another machine has begun since the look at the hold: its point is the published one, not ours.

    The lock is one machine's. The hold is written before the pointer there, and asked for after the pointer here: one of the two
    is the last to write it, and it knows of the other.
    """
    held = hold.current(lake)
    if held is None:
        return
    if held.point_id:
        make_current(lake, _held_point(lake, held))
    hold.refuse(lake)


def _held_point(lake: Lake, held: hold.Hold) -> RestorePoint:
    """What readers see while the lake is held: the point that was gone back to, or the newest that was made of it."""
    for point_id in list_ids(lake) if held.is_done else ():
        with suppress(PointLost):
            point = load(lake, point_id)
            if point.restored_from == held.point_id:
                return point
    return load(lake, held.point_id)


def heal(lake: Lake, settings: Settings) -> RestorePoint | None:
    """Make the catalog show the current point, if it does not: after a crash, or where it was never made."""
    with one_publisher(settings):
        point = current_point(lake)
        if point is not None and not catalog.is_current(settings, point):
            catalog.regenerate(lake, settings, point)
        return point


def _unread_silver(lake: Lake, gold: GoldResult, before: RestorePoint | None) -> dict[str, int]:
    """Versions of the silver tables that no model reads: the newest if it was checked and is good, else the published one.

    A table that has neither stays out of the point: the others need not wait for it.
    """
    newest: dict[str, int] = {}
    for table in set(lake.tables("silver")).difference(gold.silver_versions):
        snapshot = lake.table("silver", table).snapshot_or_none()
        if snapshot is not None:
            newest[names.table_path("silver", table)] = snapshot.version
    published = {} if before is None else before.tables
    refused = {outcome.subject for outcome in checks.failed_blocking(lake, newest)}
    refused |= checks.unchecked(lake, newest, published)
    kept = {path: published[path] for path in refused if path in published}
    return {path: version for path, version in newest.items() if path not in refused} | kept


def _refuse_incomplete(gold: GoldResult) -> None:
    failures = gold.failures
    if failures:
        raise PublishBlocked(
            f"not published: gold has {len(failures)} failures, readers keep the last good point\n  "
            + "\n  ".join(failures),
            hint="correct what failed, then: lakehouse run",
        )
    if gold.stale:
        raise PublishBlocked(
            f"not published: the build left out {', '.join(gold.stale)}, which would lag behind the rest",
            hint="lakehouse run",
        )


def _refuse_failed(
    lake: Lake, gold: GoldResult, versions: Mapping[str, int], before: RestorePoint | None
) -> None:
    failed = checks.failed_blocking(lake, versions)
    if failed:
        lines = [f"{o.subject} version {o.version}: {o.check} {o.message}".rstrip() for o in failed]
        recovery = next((outcome.recovery for outcome in failed if outcome.recovery), "lakehouse status")
        raise PublishBlocked(
            f"not published: {len(failed)} blocking checks failed, readers keep the last good point\n  "
            + "\n  ".join(lines),
            hint=recovery,
        )
    published = {} if before is None else before.versions("gold")
    unproven = sorted(set(gold.versions) - good_versions(lake, gold.versions, published))
    if unproven:
        raise PublishBlocked(
            f"not published: no finished build vouches for {', '.join(f'gold.{name}' for name in unproven)}",
            hint="lakehouse run",
        )
    silver = {path: version for path, version in versions.items() if path.startswith("silver/")}
    unchecked = sorted(checks.unchecked(lake, silver, {} if before is None else before.tables))
    if unchecked:
        raise PublishBlocked(
            f"not published: {', '.join(f'{path} version {silver[path]}' for path in unchecked)} "
            "has not passed through every declared check",
            hint=f"lakehouse run --select {unchecked[0].removeprefix('silver/')}",
        )


def _refuse_older(before: RestorePoint | None, versions: Mapping[str, int]) -> None:
    """A slow publisher must not take readers back behind a faster one."""
    newer = {} if before is None else {p: v for p, v in before.tables.items() if v > versions.get(p, v)}
    if newer and before is not None:
        raise CommitConflict(
            f"not published: point {before.id} already names newer versions of {', '.join(sorted(newer))}",
            hint="lakehouse run",
        )


def _point(
    lake: Lake, gold: GoldResult, versions: Mapping[str, int], before: RestorePoint | None, run_id: str
) -> RestorePoint:
    now = datetime.now(UTC)
    return RestorePoint(
        id=new_id(now),
        created_at_utc=now.isoformat(),
        run_id=run_id,
        parent_id=None if before is None else before.id,
        **positions(lake, versions),
        gold_code_hash=gold.code_hash,
        watermarks={model.name: model.watermark_utc for model in gold.models if model.version is not None},
    )


def positions(lake: Lake, versions: Mapping[str, int]) -> dict[str, Any]:
    """What a point says of the tables: these versions of silver and gold, the newest of bronze and quarantine, and how far
    the sources have come in them (``tables``, ``txns``, ``sources``, ``contract_hashes`` of a point)."""
    tables = dict(versions)
    txns: dict[str, dict[str, int]] = {}
    sources: dict[str, dict[str, Any]] = {}
    contracts: dict[str, str] = {}
    layers: tuple[names.Layer, ...] = ("bronze", "silver", "quarantine")
    for layer in layers:
        for table in lake.tables(layer):
            path = names.table_path(layer, table)
            if layer == "silver" and path not in tables:
                continue
            snapshot = lake.table(layer, table).snapshot_or_none(tables.get(path))
            if snapshot is None:
                continue
            tables[path] = snapshot.version
            if layer == "silver":
                _add_source(table, snapshot, sources, contracts)
            found = {app: snapshot.txn(app) for app in app_ids(layer, table)}
            txns[path] = {app: version for app, version in found.items() if version}
    return {
        "tables": dict(sorted(tables.items())),
        "txns": {path: found for path, found in sorted(txns.items()) if found},
        "sources": sources,
        "contract_hashes": contracts,
    }


def _add_source(
    table: str, snapshot: Snapshot, sources: dict[str, dict[str, Any]], contracts: dict[str, str]
) -> None:
    document = commit_document(snapshot, "silver")[0]
    sources[table] = {
        "batch_id": snapshot.txn(names.app_id("silver", table)),
        "watermark_utc": document.get("watermark_utc"),
    }
    if document.get("contract_hash"):
        contracts[table] = str(document["contract_hash"])


def app_ids(layer: names.Layer, table: str) -> list[str]:
    """Application ids that commit to the table: its own stage's; replays and backfills to silver; both stages' to quarantine."""
    more = {"quarantine": ("bronze", "silver"), "silver": ("silver", "replay", "backfill")}
    stages = more.get(layer, (layer,))
    return [names.app_id(stage, table) for stage in stages]


@contextmanager
def one_publisher(settings: Settings) -> Iterator[None]:
    """Publishers of one machine take turns; those of others are told apart by ``_refuse_older``."""
    folder = Path(settings.catalog_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".publish.lock", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
