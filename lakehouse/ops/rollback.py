"""The lake back to an earlier restore point: readers first, then tables, transactions and source positions together.

1. *Readers*: the lake is held (``lakehouse.hold``), the point becomes current, the catalog shows it.
2. *Tables*: silver and gold get a commit each that restores their rows, columns and application transactions. Bronze stays: what arrived is
   not undone. So silver lacks batches that bronze has, which is where a run begins: it takes them again, each once. What was refused of them
   stays refused, exactly as after a run whose data commit was lost; of the batches that silver has, quarantine goes back with it.
3. A new point names the restored versions, and is current.

Every step finds out by itself what is left of it. Killed anywhere, the same rollback again ends it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lakehouse import checks, hold, names, quarantine
from lakehouse.errors import CommitConflict, RunsHeld, StorageError
from lakehouse.events import Event, record
from lakehouse.gold import catalog
from lakehouse.gold.publish import app_ids, one_publisher, positions
from lakehouse.gold.restore_points import RestorePoint, new_id, save
from lakehouse.gold.versions import commit_document
from lakehouse.hold import Hold
from lakehouse.ops.rollback_plan import (
    AT_ONCE,
    Look,
    Step,
    concerned,
    find_point,
    left_by,
    look_at,
    plan,
    published_before,
)
from lakehouse.settings import Settings
from lakehouse.storage import RESTORED, Lake, Snapshot, fence, missing_files, restore

__all__ = ["Step", "find_point", "finish", "plan", "readers_first", "restore_tables", "resume"]

_ATTEMPTS = 20
#: Places of refused rows are compared in memory: of one table at a time.
_QUARANTINE = threading.Lock()
#: What the commit says of silver's rows, as the one that made them did: how complete they are, and under which contract.
_OF_SILVER = ("watermark_utc", "contract_hash", "mode", "code_version")


def readers_first(
    lake: Lake,
    settings: Settings,
    point: RestorePoint,
    *,
    by: str,
    note: str = "",
    steps: Iterable[Step] = (),
) -> Hold:
    """Hold the lake, and let analysts see the point: the hold, which the next steps ask for.

    Args:
        steps: the plan: what it undoes can be asked for again after the hold, which says so.

    Raises:
        StorageError: the catalog cannot be made of the point. The hold stays, and so does the catalog that is there.
    """
    then = [command for step in steps for command in step.again]
    with one_publisher(settings):
        before = hold.current(lake)
        if before is not None:  # what was undone under the same hold is not in this plan any more
            then = [*before.then, *then]
        held = Hold(
            point.id, published_before(lake), datetime.now(UTC).isoformat(), by, note,
            mark=uuid.uuid4().hex, then=tuple(dict.fromkeys(then)),
        )  # fmt: skip
        hold.write(lake, held)
        save(lake, point)  # written again: maintenance may just have decided that it need not stay
        if not catalog.is_current(settings, point):
            catalog.regenerate(lake, settings, point, contract_texts=False)
        return held


def restore_tables(lake: Lake, held: Hold, point: RestorePoint) -> Iterator[Step]:
    """Take every table back; a step for each, as it is done, with the version that has the point's rows.

    Raises:
        StorageError: a version that the point names, or one of its files, is not there any more. Readers see the point all the same.
        CommitConflict: somebody kept committing to a table, or another rollback has begun.
    """
    left = left_by(lake, point)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = pool.map(lambda path: _restore(lake, held, point, left, *path), concerned(lake, point))
        yield from (step for step in done if step is not None)


def _restore(
    lake: Lake, held: Hold, point: RestorePoint, left: RestorePoint, layer: names.Layer, name: str
) -> Step | None:
    table = lake.table(layer, name)
    for _ in range(_ATTEMPTS):
        look = look_at(lake, point, left, layer, name)
        if look is None:
            return None
        if layer == "silver":
            with _QUARANTINE:
                _go_back_in_quarantine(lake, held, point, name, look.target)
        _refuse_other(lake, held)
        try:
            version = _commit(look, held)
        except CommitConflict:
            continue
        if look.target is not None and (lost := missing_files(table.snapshot())):
            raise StorageError(
                f"{table.label}: {len(lost)} files were removed while it was restored ({lost[0]} for one)",
                hint="lakehouse rollback lists other points",
            )
        return replace(look.step, restored=version)
    raise CommitConflict(
        f"{layer}.{name}: {_ATTEMPTS} attempts to restore it met other writers", hint=held.next_step
    )


def _commit(look: Look, held: Hold) -> int:
    """The restored version. Its commit has the transactions of those who write the table: what read it before is refused."""
    step, newest, target = look.step, look.newest, look.target
    apps, document = app_ids(step.layer, step.table), _document(step.layer, target, held)
    if step.is_there:
        return fence(newest, apps=apps[:1], metadata=document)
    txns = {app: 0 if target is None else target.txn(app) for app in apps}
    own = names.app_id(step.layer, step.table)
    txns = {app: number for app, number in txns.items() if number or newest.txn(app) or app == own}
    return restore(newest, target, txns=txns, metadata=document)


def _go_back_in_quarantine(
    lake: Lake, held: Hold, point: RestorePoint, name: str, target: Snapshot | None
) -> None:
    if not lake.table("quarantine", name).exists():
        return
    done, merged = (
        0 if target is None else target.txn(names.app_id(what, name)) for what in ("silver", "replay")
    )
    since = _written_utc(target, point)
    quarantine.go_back(
        lake, name, batch_id=done, version=point.versions("quarantine").get(name), since_utc=since, actor=held.by
    )  # fmt: skip
    quarantine.release_again(lake, name, merged=merged, since_utc=since, actor=held.by)


def _written_utc(target: Snapshot | None, point: RestorePoint) -> datetime:
    """When silver's rows were made what they are at the point: quarantine may have gone on before the point was made."""
    commit = None if target is None else target.table.commit_info(commit_document(target, "silver")[1])
    return datetime.fromisoformat(point.created_at_utc) if commit is None else commit.timestamp_utc


def _refuse_other(lake: Lake, held: Hold) -> None:
    found = hold.current(lake)
    if found is None or found.mark != held.mark:
        raise CommitConflict(
            "another rollback has begun meanwhile, or the hold was lifted", hint="lakehouse status"
        )


def _document(layer: names.Layer, target: Snapshot | None, held: Hold) -> Mapping[str, Any]:
    """What the restored rows say of themselves, and who brought them back. It brings no batch."""
    said: dict[str, Any] = {} if target is None else commit_document(target, layer)[0]
    if layer == "silver":
        said = {name: said[name] for name in _OF_SILVER if name in said}
    said.pop(RESTORED, None)
    return {
        **said, "stage": layer, "action": "rollback", "restore_point": held.point_id, "by": held.by, "note": held.note,
        "run_id": "",
    }  # fmt: skip


def finish(
    lake: Lake, settings: Settings, held: Hold, point: RestorePoint, steps: list[Step]
) -> RestorePoint:
    """Name the restored versions in a new point, and show it: the lake is as it was at ``point``, and still held.

    Raises:
        CommitConflict: a table was written meanwhile, another rollback has begun, or the hold was lifted by hand.
    """
    for step in steps:
        _refuse_written(lake, step, held)
    versions = {
        names.table_path(step.layer, step.table): step.restored
        for step in steps
        if step.target is not None and step.restored is not None
    }
    with one_publisher(settings):
        _refuse_other(lake, held)
        now = datetime.now(UTC)
        made = RestorePoint(
            id=new_id(now), created_at_utc=now.isoformat(), parent_id=held.from_point_id,
            **positions(lake, versions),
            gold_code_hash=point.gold_code_hash, watermarks=point.watermarks,
            restored_from=point.id, made_by=held.by, note=held.note,
        )  # fmt: skip
        save(lake, made)
        catalog.regenerate(lake, settings, made)
        told = f"to point {point.id} by {held.by}: {held.note or 'no note'}"
        record(lake, [Event("rollback", "the lake", told)])
        hold.write(lake, replace(held, reached="tables"))
    return made


def _refuse_written(lake: Lake, step: Step, held: Hold) -> None:
    """Whoever read the table before the rollback is refused; this is for what does not ask anybody."""
    newest = lake.table(step.layer, step.table).snapshot()
    path = names.table_path(step.layer, step.table)
    if not any(version == step.restored for version in checks.with_the_same_rows(lake, path, newest.version)):
        raise CommitConflict(
            f"{step.name} was written after it was restored (version {newest.version})", hint=held.next_step
        )


def resume(lake: Lake, settings: Settings, *, by: str) -> Hold | None:
    """Let runs begin again; the hold that was lifted, None when there was none.

    Raises:
        RunsHeld: the tables have not followed what readers see: a run would go on from what was to be undone.
        CommitConflict: another rollback has just begun.
    """
    with one_publisher(settings):
        held = hold.current(lake)
        if held is None:
            return None
        if not held.is_done:
            raise RunsHeld(f"not resumed: {held.why}", hint=held.next_step)
        record(lake, [Event("resume", "the lake", f"by {by}; it was {held.why}")])
        _refuse_other(lake, held)  # the lock is one machine's
        hold.lift(lake)
        return held
