"""The history of freshness, and the error budget that is counted from it, over real looks at a real lake."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse.errors import GoldBuildError
from lakehouse.gold.restore_points import RestorePoint, save
from lakehouse.ops import watch
from tests.quarantine.bench import Bench

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


class Watched:
    """A lake with one source and published gold tables, whose clock a test sets."""

    def __init__(self, root: Path) -> None:
        self.bench = Bench(root)
        self.pipelines = {"orders": self.bench.pipeline}
        self.publish(-1000)

    def land(self, name: str, minutes: float) -> Path:
        """A file that arrived at this minute."""
        self.bench.land(name, (int(name.split(".")[0]), 10, "2024-01-01"))
        path = self.bench.folder / name
        os.utime(path, (at(minutes).timestamp(),) * 2)
        return path

    def publish(self, minutes: float, *tables: str, batch: int | None = None) -> None:
        """Publish at this minute: ``batch`` of the source, None: what is in silver."""
        if batch is None:
            snapshot = self.bench.lake.table("silver", "orders").snapshot_or_none()
            batch = snapshot.txn("silver/orders") if snapshot else 0
        versions = {f"gold/{table}": 0 for table in tables or ("daily",)}
        point = RestorePoint(
            id=f"p{minutes:+07.1f}",
            created_at_utc=at(minutes).isoformat(),
            tables=versions,
            sources={"orders": {"batch_id": batch}},
        )
        save(self.bench.lake, point)

    def look(self, minutes: float) -> watch.Observation:
        """One look of the SLA sensor, without its alerts."""
        seen = watch.observe(self.bench.lake, self.bench.settings, self.pipelines, now_utc=at(minutes))
        watch.record(self.bench.lake, self.bench.settings, seen)
        return seen

    def breach_minutes(self, minutes: float) -> float:
        return watch.error_budget(self.bench.lake, self.bench.settings, at(minutes)).breach_s / 60


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    def no_project(*_: object) -> None:
        raise GoldBuildError("this lake has no models: every published table is fed by every source")

    monkeypatch.setattr(watch, "load_project", no_project)
    return Watched(tmp_path / "lake")


def test_a_breach_counts_from_the_hour_to_the_publish_however_late_somebody_looked(lake: Watched) -> None:
    lake.look(0)
    lake.land("1.csv", 0)
    lake.look(65)
    lake.bench.take()
    lake.publish(70)
    lake.look(75)

    assert lake.breach_minutes(200) == pytest.approx(10)


def test_a_breach_counts_to_the_publish_although_the_next_file_is_nearly_late(lake: Watched) -> None:
    lake.look(0)
    lake.land("1.csv", 0)
    lake.look(61)
    lake.bench.take()
    lake.land("2.csv", 14)
    lake.publish(70)
    assert lake.look(70.5).tables[0].status == "warn"
    lake.bench.take()
    lake.publish(71)
    lake.look(72)

    assert lake.breach_minutes(200) == pytest.approx(10)


def test_a_breach_that_ends_without_a_publish_counts_up_to_the_look_that_found_it_ended(
    lake: Watched,
) -> None:
    lake.look(0)
    file = lake.land("1.csv", 0)
    lake.look(61)
    lake.look(89)
    file.unlink()
    lake.look(90)

    assert lake.breach_minutes(200) == pytest.approx(30)


def test_a_publish_of_something_else_does_not_end_a_breach(lake: Watched) -> None:
    lake.look(0)
    file = lake.land("1.csv", 0)
    lake.publish(62)
    lake.look(65)
    lake.publish(70)
    lake.look(71)
    file.unlink()
    lake.look(90)

    assert lake.breach_minutes(200) == pytest.approx(30)


def test_a_breach_that_follows_on_a_breach_is_counted_from_its_own_hour(lake: Watched) -> None:
    lake.look(0)
    lake.land("1.csv", 0)
    lake.look(61)
    lake.bench.take()
    lake.land("2.csv", 15)
    lake.publish(70)
    lake.look(71)
    lake.look(80)
    lake.bench.take()
    lake.publish(85)
    lake.look(86)

    assert lake.breach_minutes(200) == pytest.approx(10 + 10)
