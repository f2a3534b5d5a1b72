"""What a rollback would do to each table: which point is meant, which version each table goes back to, and what that undoes. Reads only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from lakehouse import checks, hold, names
from lakehouse.errors import PointLost, StorageError, TableNotFound, WrongUsage
from lakehouse.gold.publish import app_ids
from lakehouse.gold.restore_points import RestorePoint, current_id, list_ids, load, made_at
from lakehouse.storage import (
    RESTORED,
    Lake,
    Snapshot,
    Table,
    missing_files,
    refuse_restoring,
    standing_commits,
)

#: Tables are looked at, and restored, so many at a time.
AT_ONCE = 8
_LAYERS: tuple[names.Layer, ...] = ("silver", "gold")
#: The store's clock and this machine's may differ by so much.
_SKEW = timedelta(minutes=10)


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

    @property
    def again(self) -> list[str]:
        """The commands that ask once more for what is undone."""
        told = []
        for days in self.backfills:
            first, _, last = days.partition(" to ")
            told.append(f"lakehouse backfill {self.table} --from {first} --to {last} --apply")
        return [*told, f"lakehouse quarantine replay {self.table}"] if self.replays else told


def find_point(lake: Lake, to: str) -> RestorePoint:
    """The point of this id, or of the id that begins so; else the newest that was made at or before this time (UTC unless it says).

    Raises:
        WrongUsage: it is neither, or both, or no point is that old.
        PointLost: the point cannot be read.
    """
    ids = list_ids(lake)
    if not ids:
        raise WrongUsage("there is no restore point: nothing was ever published", hint="lakehouse run")
    if to in ids:
        return load(lake, to)
    alike = [point_id for point_id in ids if point_id.startswith(to)]
    at = _instant(to)
    of_time = [] if at is None else [i for i in ids if (made := made_at(i)) is not None and made <= at][:1]
    if at is not None and not of_time and not alike:
        raise WrongUsage(
            f"no restore point was made at or before {at:%Y-%m-%d %H:%M:%S%z}; the oldest is {ids[-1]}",
            hint="lakehouse rollback lists them",
        )
    meant = {*alike, *of_time}
    if len(meant) == 1:
        return load(lake, meant.pop())
    if not meant:
        raise WrongUsage(f"no restore point, and no time, is {to!r}", hint="lakehouse rollback lists them")
    raise WrongUsage(
        f"{to!r} may be {', '.join(sorted(meant)[:5])}: write more of the name, or the time with its minutes and seconds",
        hint="lakehouse rollback lists them",
    )


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def plan(lake: Lake, point: RestorePoint) -> list[Step]:
    """What would be done to each table. Reads only.

    Raises:
        StorageError: a version that the point names, or one of its files, is not there any more, or a table may not be restored.
    """
    left = left_by(lake, point)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda path: look_at(lake, point, left, *path), concerned(lake, point))
        return [look.step for look in found if look is not None]


def left_by(lake: Lake, point: RestorePoint) -> RestorePoint:
    """What is, or was, published before this rollback to the point."""
    try:
        return load(lake, published_before(lake) or point.id)
    except PointLost:
        return point


def concerned(lake: Lake, point: RestorePoint) -> list[tuple[names.Layer, str]]:
    """The point's tables, and the others that there are."""
    return [
        (layer, table) for layer in _LAYERS for table in sorted({*lake.tables(layer), *point.versions(layer)})
    ]


@dataclass(frozen=True)
class Look:
    """One table as a rollback finds it: what is to be done, its newest version, and the one that it goes back to."""

    step: Step
    newest: Snapshot
    target: Snapshot | None


def look_at(
    lake: Lake, point: RestorePoint, left: RestorePoint, layer: names.Layer, name: str
) -> Look | None:
    """None for a table that has nothing to do with the point nor with what came after it."""
    table, version = lake.table(layer, name), point.versions(layer).get(name)
    newest = table.snapshot_or_none()
    if newest is None:
        if version is None:
            return None
        raise StorageError(
            f"{layer}.{name} is in point {point.id} and not there any more",
            hint="lakehouse rollback lists other points",
        )
    if version is None and not _is_of_later(lake, point, left, newest):
        return None
    target = None if version is None else _target(table, version, point)
    refused = point.versions("quarantine").get(name) if layer == "silver" else None
    if refused is not None:  # what was refused then is looked up
        _target(lake.table("quarantine", name), refused, point)
    refuse_restoring(newest)
    step = Step(layer, name, newest.version, version, is_there=_is_there(lake, newest, version))
    if layer == "silver" and not step.is_there:
        step = _with_undone(step, newest, target)
    return Look(step, newest, target)


def _is_of_later(lake: Lake, point: RestorePoint, left: RestorePoint, newest: Snapshot) -> bool:
    """True for a table that the point does not name and that can be made again: of silver, what bronze has; of gold, what was made
    or published since."""
    table = newest.table
    if table.layer == "silver":
        return lake.table("bronze", table.name).exists()
    first = table.commit_info(0)
    made = first is not None and first.timestamp_utc > datetime.fromisoformat(point.created_at_utc)
    return made or table.name in left.versions("gold")


def _is_there(lake: Lake, newest: Snapshot, version: int | None) -> bool:
    """True where nothing but maintenance has followed that version, or followed a commit that restored it."""
    table = newest.table
    if version is None:
        return newest.num_rows() == 0 and not any(newest.txn(app) for app in app_ids(table.layer, table.name))
    for same in checks.with_the_same_rows(lake, names.table_path(table.layer, table.name), newest.version):
        if same == version:
            return True
        commit = table.commit_info(same)
        if commit is not None and RESTORED in commit.metadata:
            return bool(commit.metadata[RESTORED] == version)
    return False


def _target(table: Table, version: int, point: RestorePoint) -> Snapshot:
    """A version that the point names, with all of its files."""
    other = "lakehouse rollback lists other points"
    commit = table.commit_info(version)
    if commit is not None and commit.timestamp_utc > datetime.fromisoformat(point.created_at_utc) + _SKEW:
        raise StorageError(
            f"{table.label} was removed and made again since point {point.id}: its version {version} is another table's",
            hint=other,
        )
    try:
        target = table.snapshot(version)
    except TableNotFound as error:
        raise StorageError(
            f"{table.label} has lost version {version}, which point {point.id} names: {error.message}",
            hint=other,
        ) from error
    if lost := missing_files(target):
        raise StorageError(
            f"{table.label}: {len(lost)} files of version {version}, which point {point.id} names, are not there any more "
            f"({lost[0]} for one)",
            hint=other,
        )
    return target


def _with_undone(step: Step, newest: Snapshot, target: Snapshot | None) -> Step:
    """The step with what was done to the table since."""
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


def published_before(lake: Lake) -> str | None:
    """What was published before the rollback, also where this is the second attempt at it."""
    before = hold.current(lake)
    return before.from_point_id if before is not None and before.reached == "readers" else current_id(lake)
