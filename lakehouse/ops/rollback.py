"""The lake back to an earlier restore point: readers first, then tables, transactions and source positions together.

1. *Readers*: the lake is held (``gold.hold``), the point becomes current, the catalog shows it.
2. *Tables*: silver and gold get a commit each that restores their rows, columns and application transactions. Bronze and quarantine
   stay: what arrived and what was refused is not undone. So silver lacks batches that bronze has, which is where a run begins: it takes
   them again, each once. What was refused of them stays refused, exactly as after a run whose data commit was lost.
3. A new point names the restored versions, and is current.

Every step finds out by itself what is left of it. Killed anywhere, the same rollback again ends it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lakehouse import checks, names
from lakehouse.errors import CommitConflict, PointLost, RunsHeld, StorageError, TableNotFound, WrongUsage
from lakehouse.events import Event, record
from lakehouse.gold import catalog, hold
from lakehouse.gold.hold import Hold
from lakehouse.gold.publish import app_ids, one_publisher, positions
from lakehouse.gold.restore_points import (
    RestorePoint,
    current_id,
    list_ids,
    load,
    made_at,
    make_current,
    new_id,
    save,
)
from lakehouse.gold.versions import commit_document
from lakehouse.quarantine import undo_backfills
from lakehouse.settings import Settings
from lakehouse.storage import RESTORED, Lake, Snapshot, Table, missing_files, restore, standing_commits

_LAYERS: tuple[names.Layer, ...] = ("silver", "gold")
_AT_ONCE = 8
_ATTEMPTS = 20
#: What the commit says of silver's rows, as the one that made them did: how complete they are, and under which contract.
_OF_SILVER = ("watermark_utc", "contract_hash", "mode", "code_version")


@dataclass(frozen=True)
class Step:
    """One table on its way back.

    version   the newest, before; ``restored`` is the one that has the point's rows afterwards (None while it is only planned)
    target    the version that the point names; None for a table that was made after the point: its rows are taken out
    batches   how many batches the next run takes again; ``replays`` and ``backfills`` are what was asked for since, and is undone
    """

    layer: names.Layer
    table: str
    version: int
    target: int | None
    batches: int = 0
    replays: int = 0
    backfills: tuple[str, ...] = ()
    is_there: bool = False
    restored: int | None = None

    @property
    def name(self) -> str:
        return f"{self.layer}.{self.table}"


def find_point(lake: Lake, to: str) -> RestorePoint:
    """The point of this id, or of the id that begins so; else the newest that was made at or before this time (UTC unless it says).

    Raises:
        WrongUsage: it is neither, or no point is that old.
        PointLost: the point cannot be read.
    """
    ids = list_ids(lake)
    if not ids:
        raise WrongUsage("there is no restore point: nothing was ever published", hint="lakehouse run")
    alike = [point_id for point_id in ids if point_id.startswith(to)]
    if to in ids or len(alike) == 1:
        return load(lake, to if to in ids else alike[0])
    try:
        at = datetime.fromisoformat(to)
    except ValueError:
        what = f"{len(alike)} restore points begin with" if alike else "no restore point, and no time, is"
        raise WrongUsage(f"{what} {to!r}", hint="lakehouse rollback lists them") from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    for point_id in ids:
        made = made_at(point_id)
        if made is not None and made <= at:
            return load(lake, point_id)
    raise WrongUsage(
        f"no restore point was made at or before {at:%Y-%m-%d %H:%M:%S%z}; the oldest is {ids[-1]}",
        hint="lakehouse rollback lists them",
    )


def plan(lake: Lake, point: RestorePoint) -> list[Step]:
    """What would be done to each table. Reads only.

    Raises:
        StorageError: a version that the point names, or one of its files, is not there any more.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda path: _step(lake, point, *path), _concerned(lake, point))
        return [step for step in found if step is not None]


def _concerned(lake: Lake, point: RestorePoint) -> list[tuple[names.Layer, str]]:
    """The point's tables, and those that were made since."""
    return [
        (layer, table) for layer in _LAYERS for table in sorted({*lake.tables(layer), *point.versions(layer)})
    ]


def _step(lake: Lake, point: RestorePoint, layer: names.Layer, name: str) -> Step | None:
    """None for a table of before the point that the point does not name: no model, or nothing checked, stood behind it then."""
    table, version = lake.table(layer, name), point.versions(layer).get(name)
    newest = table.snapshot_or_none()
    if version is None:
        first = table.commit_info(0)
        is_newer = first is not None and first.timestamp_utc > datetime.fromisoformat(point.created_at_utc)
        if newest is None or not is_newer:
            return None
        is_there = newest.num_rows() == 0 and not any(newest.txn(app) for app in app_ids(layer, name))
        return _with_undone(Step(layer, name, newest.version, None, is_there=is_there), newest, None)
    if newest is None:
        raise StorageError(
            f"{layer}.{name} is in point {point.id} and not there any more", hint="lakehouse doctor"
        )
    target = _target(table, version, point)
    is_there = _has_rows_of(lake, newest, version)
    return _with_undone(Step(layer, name, newest.version, version, is_there=is_there), newest, target)


def _has_rows_of(lake: Lake, newest: Snapshot, version: int) -> bool:
    """True where nothing but maintenance has followed that version, or followed a commit that restored it."""
    table = newest.table
    for same in checks.with_the_same_rows(lake, names.table_path(table.layer, table.name), newest.version):
        if same == version:
            return True
        commit = table.commit_info(same)
        if commit is not None and RESTORED in commit.metadata:
            return bool(commit.metadata[RESTORED] == version)
    return False


def _target(table: Table, version: int, point: RestorePoint) -> Snapshot:
    try:
        target = table.snapshot(version)
    except TableNotFound as error:
        raise StorageError(
            f"{table.label} has lost version {version}, which point {point.id} names: {error.message}",
            hint="lakehouse rollback lists other points",
        ) from error
    if lost := missing_files(target):
        raise StorageError(
            f"{table.label}: {len(lost)} files of version {version}, which point {point.id} names, are not there any more "
            f"({lost[0]} for one)",
            hint="lakehouse rollback lists other points",
        )
    return target


def _with_undone(step: Step, newest: Snapshot, target: Snapshot | None) -> Step:
    """The step with what was done to the table since."""
    if step.layer != "silver" or step.is_there:
        return step
    stage = names.app_id("silver", step.table)
    backfills, replays = [], 0
    for commit in standing_commits(newest):
        if target is not None and commit.version <= target.version:
            break
        if commit.metadata.get("action") == "backfill":
            backfills.append(f"{commit.metadata['first_day']} to {commit.metadata['last_day']}")
        replays += commit.metadata.get("action") == "replay"
    batches = newest.txn(stage) - (0 if target is None else target.txn(stage))
    return replace(
        step, batches=max(0, batches), replays=replays, backfills=tuple(dict.fromkeys(reversed(backfills)))
    )


def readers_first(lake: Lake, settings: Settings, point: RestorePoint, *, by: str, note: str = "") -> Hold:
    """Hold the lake, and let analysts see the point: the hold, which the next steps ask for.

    Raises:
        StorageError: the catalog cannot be made of the point. The hold stays, and so does the catalog that is there.
    """
    with one_publisher(settings):
        held = Hold(
            point.id, _published(lake), datetime.now(UTC).isoformat(), by, note, mark=uuid.uuid4().hex
        )  # fmt: skip
        hold.write(lake, held)
        make_current(lake, point)
        if not catalog.is_current(settings, point):
            catalog.regenerate(lake, settings, point)
        return held


def _published(lake: Lake) -> str | None:
    """What was published before the rollback, also where this is the second attempt at it."""
    with suppress(PointLost):
        if (before := hold.current(lake)) is not None and not before.is_done:
            return before.from_point_id
    return current_id(lake)


def restore_tables(lake: Lake, held: Hold, point: RestorePoint) -> Iterator[Step]:
    """Take every table back; a step for each, as it is done, with the version that has the point's rows.

    Raises:
        StorageError: a version that the point names, or one of its files, is not there any more. Readers see the point all the same.
        CommitConflict: somebody kept committing to a table.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from (
            step
            for step in pool.map(lambda path: _restore(lake, held, point, *path), _concerned(lake, point))
            if step is not None
        )


def _restore(lake: Lake, held: Hold, point: RestorePoint, layer: names.Layer, name: str) -> Step | None:
    table = lake.table(layer, name)
    for _ in range(_ATTEMPTS):
        step = _step(lake, point, layer, name)
        if step is None:
            return None
        newest = table.snapshot()
        if newest.version != step.version:
            continue
        target = None if step.target is None else table.snapshot(step.target)
        if step.is_there:
            return replace(step, restored=step.version)
        if layer == "silver" and lake.table("quarantine", name).exists():
            undo_backfills(
                lake, name,
                batch_id=0 if target is None else target.txn(names.app_id("silver", name)),
                version=point.versions("quarantine").get(name),
            )  # fmt: skip
        # Its own at least, so that a stage that read the table before is refused.
        txns = {app: 0 if target is None else target.txn(app) for app in app_ids(layer, name)}
        txns = {app: number for app, number in txns.items() if number or newest.txn(app)}
        try:
            version = restore(newest, target, txns=txns, metadata=_document(layer, target, held))
        except CommitConflict:
            continue
        return replace(step, restored=version)
    raise CommitConflict(
        f"{layer}.{name}: {_ATTEMPTS} attempts to restore it met other writers", hint=held.next_step
    )


def _document(layer: names.Layer, target: Snapshot | None, held: Hold) -> Mapping[str, Any]:
    """What the restored rows say of themselves, and who brought them back. It brings no batch."""
    said: dict[str, Any] = {} if target is None else commit_document(target, layer)[0]
    if layer == "silver":
        said = {name: said[name] for name in _OF_SILVER if name in said}
    return {
        **said, "stage": layer, "action": "rollback",
        "restore_point": held.point_id, "by": held.by, "note": held.note, "run_id": "",
    }  # fmt: skip


def finish(
    lake: Lake, settings: Settings, held: Hold, point: RestorePoint, steps: list[Step]
) -> RestorePoint:
    """Name the restored versions in a new point, and show it: the lake is as it was at ``point``, and still held.

    Raises:
        CommitConflict: another rollback has begun meanwhile, or the hold was lifted by hand.
    """
    versions = {
        names.table_path(step.layer, step.table): step.restored
        for step in steps
        if step.target is not None and step.restored is not None
    }
    with one_publisher(settings):
        now_held = hold.current(lake)
        if now_held is None or now_held.mark != held.mark:
            raise CommitConflict("another rollback has begun meanwhile", hint="lakehouse status")
        now = datetime.now(UTC)
        made = RestorePoint(
            id=new_id(now), created_at_utc=now.isoformat(), parent_id=held.from_point_id,
            **positions(lake, versions),
            gold_code_hash=point.gold_code_hash, watermarks=point.watermarks,
            restored_from=point.id, made_by=held.by, note=held.note,
        )  # fmt: skip
        save(lake, made)
        catalog.regenerate(lake, settings, made)
        hold.write(lake, replace(held, reached="tables"))
    record(
        lake, [Event("rollback", "the lake", f"to point {point.id} by {held.by}: {held.note or 'no note'}")]
    )
    return made


def resume(lake: Lake, *, by: str) -> Hold | None:
    """Let runs begin again; the hold that was lifted, None when there was none.

    Raises:
        RunsHeld: the tables have not followed what readers see: a run would go on from what was to be undone.
        PointLost: the hold cannot be read.
    """
    held = hold.current(lake)
    if held is None:
        return None
    if not held.is_done:
        raise RunsHeld(f"not resumed: {held.why}", hint=held.next_step)
    record(lake, [Event("resume", "the lake", f"by {by}; it was {held.why}")])
    hold.lift(lake)
    return held
