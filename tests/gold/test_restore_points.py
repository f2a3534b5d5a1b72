"""The older restore points are, the fewer stay; and what one of them names is never removed."""

from __future__ import annotations

import logging
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse import doctor
from lakehouse.errors import PointLost, StorageError
from lakehouse.gold.restore_points import (
    CURRENT,
    Keep,
    RestorePoint,
    current_point,
    expendable,
    kept_versions,
    list_ids,
    new_id,
    save,
)
from lakehouse.ops.maintenance import maintain
from lakehouse.settings import Settings, load_settings
from lakehouse.storage import Lake

KEEP = Keep(every=timedelta(days=2), hourly=timedelta(days=14), daily=timedelta(days=90))
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def points(first: datetime, last: datetime, step: timedelta) -> list[str]:
    ids = []
    while first <= last:
        ids.append(new_id(first))
        first += step
    return ids


def stay(ids: list[str], now: datetime = NOW, current: str | None = None) -> list[str]:
    return sorted(set(ids) - set(expendable(ids, current, KEEP, now)))


def test_every_one_then_one_an_hour_then_one_a_day_then_none() -> None:
    ids = points(NOW - timedelta(days=120), NOW, timedelta(minutes=20))
    kept = [
        (NOW - datetime.strptime(point_id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC))
        for point_id in stay(ids)
    ]
    young = [age for age in kept if age <= KEEP.every]
    middle = [age for age in kept if KEEP.every < age <= KEEP.hourly]
    old = [age for age in kept if KEEP.hourly < age]
    assert len(young) == 2 * 24 * 3 + 1
    assert len(middle) == 12 * 24
    assert 75 <= len(old) <= 77
    assert max(kept) <= KEEP.daily


def test_the_last_of_the_hour_and_of_the_day_stays() -> None:
    day = datetime(2026, 5, 25, 9, tzinfo=UTC)
    ids = points(day, day + timedelta(minutes=170), timedelta(minutes=10))
    assert [point_id[9:13] for point_id in stay(ids)] == ["0950", "1050", "1150"]
    assert [point_id[9:13] for point_id in stay(ids, NOW + timedelta(days=30))] == ["1150"]


def test_it_does_not_matter_when_or_how_often_it_was_asked_before() -> None:
    rng = random.Random(3)
    ids = [new_id(NOW - timedelta(seconds=rng.randrange(100 * 86_400))) for _ in range(5_000)]
    newest = max(ids)
    left = ids
    for hours in [*range(0, 24 * 120, 7), 24 * 120 - 1]:
        left = stay(left, NOW + timedelta(hours=hours), newest)
    assert left == stay(ids, NOW + timedelta(hours=24 * 120 - 1), newest)


def test_the_current_and_the_newest_point_stay_however_old() -> None:
    ids = points(NOW - timedelta(days=400), NOW - timedelta(days=390), timedelta(days=1))
    assert stay(ids, current=ids[3]) == [ids[3], ids[-1]]


def test_a_name_that_tells_no_time_is_left_alone() -> None:
    assert expendable(["mine", "2026-01-01"], None, KEEP, NOW) == []
    assert expendable([], None, KEEP, NOW) == []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(root=str(tmp_path / "lake"))


def test_maintenance_thins_them_out_and_then_removes_what_only_they_named(settings: Settings) -> None:
    lake = Lake.from_settings(settings)
    now = datetime.now(UTC)
    hour = (now - timedelta(days=5)).replace(minute=0)
    for made in (hour, hour + timedelta(minutes=5), hour + timedelta(minutes=9), now):
        save(
            lake,
            RestorePoint(id=new_id(made), created_at_utc=made.isoformat(), tables={"gold/x": made.minute}),
        )
    ids = list_ids(lake)
    told = next(iter(maintain(lake, settings, {}, dry_run=True)))
    assert (told.name, told.removed, told.files_after) == ("ops/restore_points", 2, 2)
    assert list_ids(lake) == ids
    assert list(maintain(lake, settings, {}, vacuum=False)) == []
    done = next(iter(maintain(lake, settings, {})))
    assert (done.removed, done.files_before, done.files_after) == (2, 4, 2)
    assert done.removed_bytes > 0
    assert list_ids(lake) == [ids[0], ids[1]]
    point = current_point(lake)
    assert point is not None
    assert point.id == ids[0]
    assert list(maintain(lake, settings, {})) == []


def two_points(lake: Lake) -> tuple[RestorePoint, RestorePoint]:
    """An older one and the published one."""
    older, newer = (
        RestorePoint(id=new_id(at), created_at_utc=at.isoformat(), tables={"gold/x": at.day})
        for at in (NOW, NOW + timedelta(days=1))
    )
    save(lake, older)
    save(lake, newer)
    return older, newer


def test_the_point_is_on_the_disk_before_the_pointer_names_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power the pointer named an empty point, and every run stood still."""
    lake = Lake.from_settings(settings)
    Path(settings.root).mkdir()
    happened: list[str | int] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        happened.append(os.fstat(handle).st_ino)
        fsync(handle)

    def noted_replace(source: Path, target: Path) -> None:
        replace(source, target)
        happened.append(target.name)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    older, _ = two_points(lake)
    folder = Path(settings.root, "restore_points")
    point, folders = folder / f"{older.id}.json", [folder.stat().st_ino, folder.parent.stat().st_ino]
    assert happened[:4] == [point.stat().st_ino, point.name, *folders]
    assert happened[5:8] == ["CURRENT", *folders]
    assert happened[-4:] == [Path(settings.root, CURRENT).stat().st_ino, "CURRENT", *folders]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["CURRENT", *(f"{i}.json" for i in list_ids(lake))]
    )


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b'{"id": "2026'])
def test_where_the_published_point_is_torn_the_newest_other_one_counts_and_it_is_told(
    settings: Settings, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    lake = Lake.from_settings(settings)
    older, newer = two_points(lake)
    assert doctor._restore_points(settings).state == "ok"
    path = f"restore_points/{newer.id}.json"
    lake.objects.write(path, content)
    with caplog.at_level(logging.WARNING):
        assert current_point(lake) == older
    assert newer.id in caplog.text
    assert older.id in caplog.text
    found = doctor._restore_points(settings)
    assert (found.state, path in found.detail) == ("fail", True)
    with pytest.raises(PointLost):  # maintenance removes nothing meanwhile
        kept_versions(lake)
    lake.objects.delete(path)
    assert current_point(lake) == older
    assert CURRENT in doctor._restore_points(settings).detail
    lake.objects.delete(f"restore_points/{older.id}.json")
    with pytest.raises(PointLost):  # never "nothing was published yet"
        current_point(lake)


@pytest.mark.parametrize("content", [b"", b"\0" * 23])
def test_a_torn_pointer_is_told_and_the_newest_point_counts(
    settings: Settings, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    lake = Lake.from_settings(settings)
    _, newer = two_points(lake)
    lake.objects.write(CURRENT, content)
    assert current_point(lake) == newer
    assert newer.id in caplog.text
    assert CURRENT in doctor._restore_points(settings).detail


def test_a_point_that_may_not_be_read_is_no_lost_point(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.from_settings(settings)
    two_points(lake)
    real = lake.objects.read

    def read(path: str) -> bytes | None:
        if path.endswith(".json"):
            raise StorageError("permission denied")
        return real(path)

    monkeypatch.setattr(lake.objects, "read", read)
    with pytest.raises(StorageError, match="permission denied"):
        current_point(lake)
