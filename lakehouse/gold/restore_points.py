"""Restore points: immutable manifests ``restore_points/<id>.json`` and the pointer ``CURRENT``.

Each keeps the files of its versions from being removed, and a busy lake makes thousands a day. So the older they are, the
fewer stay: every one, then the last of each hour, then the last of each day.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lakehouse.errors import PointLost
from lakehouse.storage import Lake

FOLDER = "restore_points"
CURRENT = f"{FOLDER}/CURRENT"
_AT_ONCE = 16
_log = logging.getLogger(__name__)
#: How much of an id says the day, and the hour.
_TO_THE_DAY, _TO_THE_HOUR = len("20260102"), len("20260102T03")


class RestorePoint(BaseModel):
    """One consistent set of table versions: what analysts read, and what a rollback goes back to.

    tables            ``{"silver/flights": 12}``: version of every table of every data layer
    txns              ``{"silver/flights": {"silver/flights": 12}}``: application transactions of those versions
    sources           ``{"flights": {"batch_id": 12, "watermark_utc": "…"}}``: position of each source in silver
    contract_hashes   contract under which each silver table was written last
    watermarks        ``{"daily_punctuality": "…"}``: time up to which each gold table shows all that had arrived
    restored_from     id of the point whose rows a rollback brought back; by whom, and why
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    created_at_utc: str
    run_id: str = ""
    parent_id: str | None = None
    tables: dict[str, int]
    txns: dict[str, dict[str, int]] = Field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = Field(default_factory=dict)
    contract_hashes: dict[str, str] = Field(default_factory=dict)
    gold_code_hash: str = ""
    watermarks: dict[str, str | None] = Field(default_factory=dict)
    restored_from: str | None = None
    made_by: str = ""
    note: str = ""

    def versions(self, layer: str) -> dict[str, int]:
        """Table → version of one layer."""
        prefix = f"{layer}/"
        return {path.removeprefix(prefix): v for path, v in self.tables.items() if path.startswith(prefix)}

    def content(self) -> dict[str, Any]:
        """What makes two points the same: everything but identity, and when, how and by whom it was made."""
        return self.model_dump(
            exclude={"id", "created_at_utc", "run_id", "parent_id", "restored_from", "made_by", "note"}
        )


def new_id(now: datetime | None = None) -> str:
    """A sortable id: ``20260102T030405123Z-a1b2c3``."""
    now = now or datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{secrets.token_hex(3)}"


def load(lake: Lake, point_id: str) -> RestorePoint:
    """The point of this id. Raises ``PointLost`` when it is missing, empty or torn; other errors mean the store's trouble."""
    raw = lake.objects.read(f"{FOLDER}/{point_id}.json")
    if raw is None:
        raise PointLost(f"restore point {point_id} does not exist", hint="lakehouse status")
    try:
        return RestorePoint.model_validate_json(raw)
    except ValueError as error:
        raise PointLost(
            f"restore point {point_id} cannot be read: {error}", hint="lakehouse doctor"
        ) from error


def current_id(lake: Lake) -> str | None:
    """Id in the pointer, None when nothing was published yet. After a loss of power it may be empty, or that of a lost point."""
    raw = lake.objects.read(CURRENT)
    return None if raw is None else raw.decode(errors="replace").strip("\0 \n")


def current_point(lake: Lake) -> RestorePoint | None:
    """The published point, None when nothing was published yet.

    Where the one that the pointer names is lost, it is the newest that can be read, with a warning: nothing but the next
    publish puts it right, and that begins here. Raises ``PointLost`` when there is no other.
    """
    point_id = current_id(lake)
    if point_id is None:
        return None
    try:
        return load(lake, point_id)
    except PointLost as lost:
        point = _newest_readable(lake)
        if point is None:
            raise
        _log.warning(
            "%s; restore point %s is taken for the published one (lakehouse doctor)", lost.message, point.id
        )
        return point


def _newest_readable(lake: Lake) -> RestorePoint | None:
    for point_id in list_ids(lake):
        with suppress(PointLost):
            return load(lake, point_id)
    return None


def lost_points(lake: Lake) -> list[str]:
    """Objects that say nothing any more: torn points, and the pointer when it is empty or names a point that is not there."""
    ids, current = list_ids(lake), current_id(lake)

    def is_lost(point_id: str) -> bool:
        try:
            load(lake, point_id)
        except PointLost:
            return True
        return False

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        torn = [f"{FOLDER}/{i}.json" for i, lost in zip(ids, pool.map(is_lost, ids), strict=True) if lost]
    return torn if current is None or current in ids else [*torn, CURRENT]


def list_ids(lake: Lake) -> list[str]:
    """Ids of all points, the newest first."""
    names = (info.path.rsplit("/", 1)[-1] for info in lake.objects.list(f"{FOLDER}/"))
    return sorted((name.removesuffix(".json") for name in names if name.endswith(".json")), reverse=True)


@dataclass(frozen=True)
class Keep:
    """How old a point is when it goes, unless it is the last of its hour; the last of its day; at all."""

    every: timedelta
    hourly: timedelta
    daily: timedelta


def expendable(ids: Iterable[str], current: str | None, keep: Keep, now_utc: datetime) -> list[str]:
    """Ids of the points that need not stay, the oldest first. Neither the current point nor the newest is one.

    What is kept does not depend on when, or how often, this was asked before: the last of a day is the last of an hour.
    A name that tells no time is left alone.
    """
    made = {point_id: at for point_id in sorted(ids) if (at := made_at(point_id)) is not None}
    last_of_hour = {point_id[:_TO_THE_HOUR]: point_id for point_id in made}
    last_of_day = {point_id[:_TO_THE_DAY]: point_id for point_id in made}
    spared = {current, max(made, default=None)}

    def stays(point_id: str) -> bool:
        age = now_utc - made[point_id]
        if age <= keep.every or point_id in spared:
            return True
        is_of_hour = last_of_hour[point_id[:_TO_THE_HOUR]] == point_id
        is_of_day = last_of_day[point_id[:_TO_THE_DAY]] == point_id
        return (is_of_hour and age <= keep.hourly) or (is_of_day and age <= keep.daily)

    return [point_id for point_id in made if not stays(point_id)]


def made_at(point_id: str) -> datetime | None:
    """When the point of this id was made; None for a name that tells no time."""
    try:
        return datetime.strptime(point_id[:19], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def remove(lake: Lake, ids: Iterable[str]) -> None:
    """Forget these points. What only they named is removed by the next vacuum."""
    for point_id in ids:
        lake.objects.delete(f"{FOLDER}/{point_id}.json")


def kept_versions(lake: Lake, without: Collection[str] = ()) -> dict[str, set[int]]:
    """``{"silver/flights": {3, 7}}``: every table version that some restore point names, and that must stay readable.

    Args:
        without: ids of points that do not count.

    Raises:
        PointLost: a point cannot be read. Nothing may be removed then: nobody knows what it names.
    """
    found: dict[str, set[int]] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ids = [point_id for point_id in list_ids(lake) if point_id not in without]
        for point in pool.map(lambda point_id: load(lake, point_id), ids):
            for path, version in point.tables.items():
                found.setdefault(path, set()).add(version)
    return found


def save(lake: Lake, point: RestorePoint) -> None:
    """Write the point, then make it current: a crash in between leaves the point before it current.

    A loss of power as well: the pointer must not reach the disk before what it names.
    """
    lake.objects.write(f"{FOLDER}/{point.id}.json", point.model_dump_json(indent=2).encode(), durable=True)
    make_current(lake, point)


def make_current(lake: Lake, point: RestorePoint) -> None:
    """Let a point that is there be the published one."""
    lake.objects.write(CURRENT, point.id.encode(), durable=True)
