"""The history of freshness, and the error budget that is counted from it, over real looks at a real lake."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from lakehouse.errors import GoldBuildError
from lakehouse.gold import catalog
from lakehouse.gold.restore_points import RestorePoint, current_point, list_ids, load, save
from lakehouse.ops import alerts, watch
from lakehouse.pipelines import Pipeline, PipelineSpec
from tests.ops.test_alerts import RecordingChannel
from tests.quarantine.bench import Bench

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


class Watched:
    """A lake with one source and published gold tables, whose clock a test sets."""

    def __init__(self, root: Path) -> None:
        self.bench = Bench(root)
        self.pipelines = {"orders": self.bench.pipeline}
        self.channel = RecordingChannel("log")
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
        """One look of the SLA sensor."""
        seen = watch.observe(self.bench.lake, self.bench.settings, self.pipelines, now_utc=at(minutes))
        watch.record(self.bench.lake, self.bench.settings, seen)
        alerts.tick(self.bench.lake, self.bench.settings, seen.tables, seen.at_utc, to=[self.channel])
        return seen

    @property
    def told(self) -> list[str]:
        return [message["kind"] for message in self.channel.messages]

    def lose_the_folder(self) -> None:
        """From here on the source cannot be listed: its folder is a link to itself."""
        self.bench.folder.rename(self.bench.folder.with_name("away"))
        self.bench.folder.symlink_to(self.bench.folder)

    def find_the_folder(self) -> None:
        self.bench.folder.unlink()
        self.bench.folder.with_name("away").rename(self.bench.folder)

    def breach_minutes(self, minutes: float) -> float:
        return watch.error_budget(self.bench.lake, self.bench.settings, at(minutes)).breach_s / 60


class Models:
    """A dbt project whose models all read the one source."""

    code_hash = ""

    def __init__(self, *names: str) -> None:
        self.delta_models = [SimpleNamespace(name=name) for name in names]

    def silver_inputs(self, model: str) -> set[str]:
        return {"orders"}


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models; a test may change them. None are left: the project does not parse."""
    names = ["daily"]

    def project(*_: object) -> tuple[Models, None]:
        if not names:
            raise GoldBuildError("the project does not parse")
        return Models(*names), None

    monkeypatch.setattr(watch, "load_project", project)
    return names


@pytest.fixture
def lake(tmp_path: Path, models: list[str]) -> Watched:
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


def test_a_breach_goes_on_while_its_source_cannot_be_listed(lake: Watched) -> None:
    lake.look(0)
    lake.land("1.csv", 0)
    lake.look(61)
    lake.lose_the_folder()
    assert lake.look(62).tables[0].status == "breach"
    lake.look(80)
    lake.find_the_folder()
    lake.look(90)
    assert lake.told == ["breach"]
    assert lake.breach_minutes(90) == pytest.approx(30)

    lake.bench.take()
    lake.publish(95)
    lake.look(96)
    assert lake.told == ["breach", "recovery"]
    assert lake.breach_minutes(200) == pytest.approx(35)


def test_a_source_that_cannot_be_listed_is_late_when_it_could_have_been_for_so_long(lake: Watched) -> None:
    lake.look(0)
    lake.lose_the_folder()
    assert lake.look(1).tables[0].status == "fresh"
    lake.look(45)
    assert lake.told == []

    [state] = lake.look(46).tables
    assert (state.status, state.hop, state.late_sources) == ("warn", "queue", ("orders",))
    assert "cannot be listed" in state.reason
    lake.look(61)
    lake.find_the_folder()
    lake.look(65)

    assert lake.told == ["warn", "breach", "recovery"]
    assert lake.breach_minutes(200) == pytest.approx(4)


def test_a_file_that_was_waiting_is_as_old_as_it_is_when_its_source_cannot_be_listed(lake: Watched) -> None:
    lake.look(0)
    lake.land("1.csv", 0)
    lake.look(30)
    lake.lose_the_folder()
    lake.look(40)
    lake.look(46)
    lake.look(61)

    assert lake.told == ["warn", "breach"]


def test_what_a_batch_explains_is_over_with_its_publish_although_its_source_cannot_be_listed(
    lake: Watched,
) -> None:
    lake.look(0)
    lake.land("1.csv", 0)
    lake.bench.take()
    lake.look(61)
    lake.lose_the_folder()
    lake.look(62)
    lake.publish(70)
    assert lake.look(71).tables[0].status == "fresh"
    lake.look(110)

    assert lake.told == ["breach", "recovery", "warn"]
    assert lake.breach_minutes(110) == pytest.approx(10)


def test_a_listing_that_fails_once_leaves_nothing_behind(lake: Watched) -> None:
    lake.look(0)
    lake.lose_the_folder()
    lake.look(1)
    lake.find_the_folder()
    lake.look(2)
    lake.lose_the_folder()
    lake.look(100)
    lake.look(140)

    assert lake.told == []


def test_a_look_from_within_a_run_knows_that_a_source_cannot_be_listed(lake: Watched) -> None:
    lake.look(0)
    lake.lose_the_folder()
    lake.look(1)

    seen = watch.observe(lake.bench.lake, lake.bench.settings, lake.pipelines, now_utc=at(62), listing=False)

    assert seen.tables[0].status == "breach"


def test_a_model_that_is_removed_while_it_is_late_ends_its_breach(lake: Watched, models: list[str]) -> None:
    models.append("weekly")
    lake.look(0)
    lake.land("1.csv", 0)
    lake.look(61)
    lake.bench.take()
    models.remove("weekly")
    lake.publish(70)
    lake.look(71)

    assert lake.breach_minutes(10_000) == pytest.approx(10)
    assert lake.told == ["breach", "recovery"]


def test_a_model_is_not_gone_while_the_project_does_not_parse(lake: Watched, models: list[str]) -> None:
    models.append("weekly")  # never published
    lake.look(0)
    file = lake.land("1.csv", 0)
    lake.look(61)
    file.unlink()
    models.clear()
    lake.look(70)

    budget = watch.error_budget(lake.bench.lake, lake.bench.settings, at(80))
    assert budget.breach_s_by_table == {"daily": 10 * 60.0, "weekly": 20 * 60.0}


def test_a_breach_that_a_fast_clock_saw_ends_when_the_clock_is_set_back(lake: Watched) -> None:
    lake.look(0)
    lake.land("1.csv", 0)
    lake.look(1440)
    lake.look(10)
    lake.bench.take()
    lake.publish(11)
    lake.look(12)

    rows = lake.bench.lake.table("ops", "freshness").snapshot().num_rows()
    lake.look(13)
    assert lake.bench.lake.table("ops", "freshness").snapshot().num_rows() == rows
    assert lake.breach_minutes(10_000) == 0


def test_a_changed_file_that_is_to_be_taken_waits_like_a_new_one(lake: Watched) -> None:
    document = lake.bench.pipeline.spec.model_dump()
    document["source"]["on_change"] = "append"
    lake.bench.pipeline = Pipeline(PipelineSpec.model_validate(document), "defs.yaml")
    lake.pipelines["orders"] = lake.bench.pipeline
    lake.land("1.csv", -60)
    lake.bench.take()
    lake.publish(-30)
    lake.look(0)

    lake.land("1.csv", 0)
    lake.look(30)
    lake.look(46)
    lake.look(61)

    assert lake.told == ["warn", "breach"]


def test_a_changed_file_that_waits_for_a_person_is_not_late(lake: Watched) -> None:
    lake.land("1.csv", -60)
    lake.bench.take()
    lake.publish(-30)
    lake.land("1.csv", 0)
    lake.look(61)

    assert lake.told == []


def test_a_file_from_the_future_is_late_an_hour_after_it_was_planned(lake: Watched) -> None:
    lake.look(0)
    path = lake.land("1.csv", 0)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    os.utime(path, (tomorrow.timestamp(),) * 2)
    lake.bench.take()
    now = datetime.now(UTC)

    seen = watch.observe(
        lake.bench.lake, lake.bench.settings, lake.pipelines, now_utc=now + timedelta(minutes=61)
    )

    assert seen.tables[0].status == "breach"
    assert seen.tables[0].lag_s == pytest.approx(61 * 60, abs=60)
    assert seen.backlog.last_arrivals["orders"] == seen.at_utc


def test_what_is_published_and_not_shown_has_reached_nobody(lake: Watched) -> None:
    """The catalog could not be made again: its disk is full, say."""
    lake.land("1.csv", 0)
    lake.bench.take()
    settings = lake.bench.settings
    (shown,) = list_ids(lake.bench.lake)
    point = load(lake.bench.lake, shown).model_copy(update={"tables": {}})
    catalog.regenerate(lake.bench.lake, settings, point)
    os.utime(settings.catalog_path, (at(-1000).timestamp(),) * 2)
    lake.publish(5)
    (table,) = lake.look(50).tables
    assert (table.status, table.hop) == ("warn", "gold")
    point = current_point(lake.bench.lake)
    assert point is not None
    catalog.regenerate(lake.bench.lake, settings, point.model_copy(update={"tables": {}}))
    (table,) = lake.look(51).tables
    assert table.status == "fresh"
