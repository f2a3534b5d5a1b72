"""While the lake is held after a rollback: stages at work, publishers elsewhere, maintenance, and the SLA."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from lakehouse import hold
from lakehouse.bronze import ingest
from lakehouse.errors import RunsHeld
from lakehouse.gold.build import build
from lakehouse.gold.catalog import shown_point_id
from lakehouse.gold.publish import heal, publish
from lakehouse.gold.restore_points import RestorePoint, current_id
from lakehouse.ops import rollback, watch
from lakehouse.ops.maintenance import maintain
from lakehouse.storage import Lake
from tests.faults import lab
from tests.faults.lab import Lab
from tests.ops.two_deliveries import (
    go_back,
    lake_of,
    points,
    shown,
    tables,
)

pytestmark = pytest.mark.slow

#: The package has functions of these names.
refine_module = importlib.import_module("lakehouse.silver.refine")
publish_module = importlib.import_module("lakehouse.gold.publish")


def test_nothing_moves_on_until_somebody_says_so(two_deliveries: Lab) -> None:
    first, settings, lake = points(two_deliveries)[0], two_deliveries.settings(), lake_of(two_deliveries)
    built = build(lake, settings, project_dir=two_deliveries.project, run_id="lab")
    held = rollback.readers_first(lake, settings, first, by="ada")
    seen = shown(two_deliveries)
    with pytest.raises(RunsHeld, match=f"rolled back to point {first.id} by ada") as refused_publish:
        publish(lake, settings, gold=built, run_id="lab")
    assert refused_publish.value.hint == f"lakehouse rollback --to {first.id}"
    with pytest.raises(RunsHeld, match="tables have not followed"):
        rollback.resume(lake, two_deliveries.settings(), by="ada")
    assert shown(two_deliveries) == seen
    assert heal(lake, settings) == first
    rollback.finish(lake, settings, held, first, list(rollback.restore_tables(lake, held, first)))
    with pytest.raises(RunsHeld, match="runs are held") as still:
        hold.refuse(lake)
    assert still.value.hint == "lakehouse resume"
    assert rollback.resume(lake, two_deliveries.settings(), by="grace") is not None
    hold.refuse(lake)
    assert rollback.resume(lake, two_deliveries.settings(), by="grace") is None


@pytest.mark.parametrize("back_to", [0, 1])
def test_a_stage_at_work_does_not_do_again_what_is_undone(
    two_deliveries: Lab, monkeypatch: pytest.MonkeyPatch, back_to: int
) -> None:
    """Its commit is refused, also behind a table that is as the point has it; and it does not begin anew, as it would after others' commits."""
    point, settings, lake = (
        points(two_deliveries)[back_to],
        two_deliveries.settings(),
        lake_of(two_deliveries),
    )
    then = tables(two_deliveries, point)
    lab.arrive(two_deliveries, 3)
    clicks = next(pipeline for pipeline in lab.pipelines(3) if pipeline.name == "clicks")
    ingest(lake, settings, clicks)
    real, met = refine_module._Work._commit, []

    def commit(self: Any, *arguments: Any) -> int:
        if not met:
            met.append(go_back(two_deliveries, point))
        return real(self, *arguments)

    monkeypatch.setattr(refine_module._Work, "_commit", commit)
    with pytest.raises(RunsHeld):
        refine_module.refine(lake, settings, clicks)
    assert met
    assert tables(two_deliveries) == then


def test_a_publisher_on_another_machine_does_not_bring_the_undone_point_back(
    two_deliveries: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is one machine's: the other's rollback falls between the look at the hold and the pointer."""
    first, settings, lake = points(two_deliveries)[0], two_deliveries.settings(), lake_of(two_deliveries)
    lab.arrive(two_deliveries, 3)
    elsewhere = settings.model_copy(update={"catalog_dir": str(two_deliveries.folder / "elsewhere")})
    real = publish_module.save

    def save(lake: Lake, point: RestorePoint) -> None:
        monkeypatch.setattr(publish_module, "save", real)
        rollback.readers_first(lake, elsewhere, first, by="ada")
        real(lake, point)

    monkeypatch.setattr(publish_module, "save", save)
    with pytest.raises(RunsHeld):
        lab.run(two_deliveries, 3)
    assert current_id(lake) == first.id
    heal(lake, settings)
    assert shown_point_id(settings) == first.id


def test_maintenance_removes_nothing_while_the_lake_is_held(two_deliveries: Lab) -> None:
    first, settings, lake = points(two_deliveries)[0], two_deliveries.settings(), lake_of(two_deliveries)
    table = lake.table("silver", "orders")
    [stray] = table.stage(table.snapshot().scan())
    rollback.readers_first(lake, settings, first, by="ada")

    def removed() -> int:
        done = list(maintain(lake, settings, {}, compact=False, retention=timedelta(0)))
        assert [table.error for table in done if table.error] == []
        return sum(table.removed for table in done)

    assert removed() == 0
    assert table.objects.info(stray.path) is not None
    hold.lift(lake)
    assert removed() > 0
    assert table.objects.info(stray.path) is None


def test_what_was_published_all_the_time_is_not_late_in_the_past(two_deliveries: Lab) -> None:
    """The files arrived years ago."""
    lake, first = lake_of(two_deliveries), points(two_deliveries)[0]
    settings = two_deliveries.settings().model_copy(update={"dbt_project": str(two_deliveries.project)})
    pipelines = {pipeline.name: pipeline for pipeline in lab.pipelines(2)}
    watch.record(lake, settings, watch.observe(lake, settings, pipelines, listing=False))
    began = datetime.now(UTC)
    go_back(two_deliveries, first)
    seen = watch.observe(lake, settings, pipelines, listing=False)
    assert {state.status for state in seen.tables} == {"breach"}
    watch.record(lake, settings, seen)
    late = lake.table("ops", "freshness").snapshot().scan().filter(pl.col("status") == "breach").collect()
    assert late.height == len(seen.tables)
    assert late["since_utc"].min() >= began  # type: ignore[operator]


def test_a_torn_hold_still_holds_and_another_rollback_mends_it(two_deliveries: Lab) -> None:
    lake, first = lake_of(two_deliveries), points(two_deliveries)[0]
    lake.objects.write(hold.HOLD, b"")
    with pytest.raises(RunsHeld, match="is there and cannot be read"):
        hold.refuse(lake)
    with pytest.raises(RunsHeld, match="cannot be read"):
        rollback.resume(lake, two_deliveries.settings(), by="ada")
    go_back(two_deliveries, first)
    assert rollback.resume(lake, two_deliveries.settings(), by="ada") is not None
    hold.refuse(lake)
