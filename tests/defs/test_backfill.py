"""Backfills through Dagster: one partitioned asset in the table's lineage, the same checks and gates, then gold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse.defs.backfill import backfill_key, partition_tags
from lakehouse.defs.compose import JOB, definitions_for
from lakehouse.defs.execute import run_backfill, run_pipelines
from lakehouse.defs.instance import open_instance
from lakehouse.errors import DeclarationError
from lakehouse.gold.query import query
from lakehouse.gold.restore_points import current_point
from lakehouse.ops import backlog, failures, watch
from lakehouse.pipelines import load_pipelines
from lakehouse.pipelines.model import PartitionBy
from lakehouse.settings import Settings
from lakehouse.silver import Period
from lakehouse.storage import Lake

pytestmark = pytest.mark.slow

FIRST_DAY = Period.parse("2013-01-01", "2013-01-01")


def use_transform(settings: Settings, name: str) -> None:
    """From here on, this is today's transform of flights."""
    declaration = Path(settings.pipelines_dir, "nyc", "flights", "defs.yaml")
    text = declaration.read_text()
    declaration.write_text(
        text.replace("lakehouse.silver.transforms.flights.transform", f"tests.defs.corrections.{name}")
    )


def miles(settings: Settings) -> dict[str, int]:
    """Published distance of every published flight."""
    return dict(query(settings, "select flight_id, distance_mi from fct_flights").rows())


def waiting(settings: Settings) -> list[str]:
    lake = Lake.from_settings(settings)
    return backlog.look(lake, settings, load_pipelines(settings)).unpublished


def test_a_backfill_is_checked_and_published_and_shown_in_the_lineage(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    before, point = miles(settings), current_point(Lake.from_settings(settings))
    use_transform(settings, "farther")

    outcome, done = run_backfill(settings, "flights", FIRST_DAY, actor="test")

    after, published = miles(settings), current_point(Lake.from_settings(settings))
    assert outcome.success, outcome.failures
    assert done is not None
    assert done.keys_changed == done.rows == len(before)
    assert after == {flight: distance + 1 for flight, distance in before.items()}
    assert point is not None
    assert published is not None
    assert published.id != point.id
    assert published.sources == point.sources, "a backfill brings no batch"
    assert [step.name for step in outcome.steps] == [
        "backfill/flights", "silver/flights", "references/flights", "gold", "publish",
    ]  # fmt: skip
    with open_instance(settings) as instance:
        assert instance.get_materialized_partitions(backfill_key("flights")) == {"2013-01-01"}
        silver = instance.fetch_materializations(dg.AssetKey(["silver", "flights"]), limit=3).records
        told = [r.asset_materialization.metadata for r in silver if r.run_id == outcome.run_id]
    assert any(entry["keys changed"].value == done.keys_changed for entry in told if "keys changed" in entry)


def test_a_second_backfill_changes_and_publishes_nothing(first_day: Callable[..., Settings]) -> None:
    settings = first_day()
    point = current_point(Lake.from_settings(settings))

    outcome, done = run_backfill(settings, "flights", FIRST_DAY)

    assert outcome.success, outcome.failures
    assert done is not None
    assert done.changes_nothing
    assert current_point(Lake.from_settings(settings)) == point


def test_a_backfill_that_takes_too_much_out_is_held_back_and_a_correct_one_lets_the_rest_through(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    before = miles(settings)
    use_transform(settings, "nameless")

    outcome, done = run_backfill(settings, "flights", FIRST_DAY)

    assert done is not None
    assert done.taken_out == done.keys_removed == len(before)
    assert not outcome.success
    assert "quarantined_share" in outcome.failures[0].message
    assert miles(settings) == before
    assert waiting(settings) == ["flights"]

    declaration = Path(settings.pipelines_dir, "nyc", "flights", "defs.yaml")
    mended = declaration.read_text().replace(
        "tests.defs.corrections.nameless", "tests.defs.corrections.farther"
    )
    declaration.write_text(mended)
    again, mended_done = run_backfill(settings, "flights", FIRST_DAY)

    assert again.success, again.failures
    assert mended_done is not None
    assert mended_done.released == len(before)
    assert miles(settings) == {flight: distance + 1 for flight, distance in before.items()}
    assert waiting(settings) == []
    assert failures.open_failures(Lake.from_settings(settings)) == {}


def test_a_backfill_from_the_ui_is_followed_by_gold_without_touching_freshness(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    before = miles(settings)
    use_transform(settings, "farther")
    pipelines = load_pipelines(settings)
    with open_instance(settings) as instance:
        job = definitions_for(settings, pipelines).resolve_implicit_global_asset_job_def()
        tags = partition_tags(PartitionBy(column="flight_date"), FIRST_DAY, date(2030, 1, 1))
        done = job.execute_in_process(instance=instance, asset_selection=[backfill_key("flights")], tags=tags)
    assert done.success
    assert miles(settings) == before
    assert waiting(settings) == ["flights"]
    lake = Lake.from_settings(settings)
    assert all(state.lag_s == 0 for state in watch.observe(lake, settings, pipelines).tables)

    assert run_pipelines(settings).success
    assert miles(settings) == {flight: distance + 1 for flight, distance in before.items()}
    assert run_pipelines(settings).nothing_new


def test_a_backfill_that_fails_says_why_and_does_not_hold_up_what_arrives(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    use_transform(settings, "broken")

    outcome, done = run_backfill(settings, "flights", FIRST_DAY)

    assert done is None
    assert [step.name for step in outcome.failures] == ["backfill/flights"]
    assert "tests.defs.corrections.broken failed: ValueError: no" in outcome.failures[0].message
    assert failures.open_failures(Lake.from_settings(settings)) == {}
    with pytest.raises(DeclarationError, match="did you mean flights"):
        run_backfill(settings, "fligths", FIRST_DAY)
    with pytest.raises(DeclarationError, match="which column its days are in"):
        run_backfill(settings, "planes", FIRST_DAY)


def test_the_ordinary_job_has_no_backfills_and_no_partitions(
    tmp_path: Path, with_project: Callable[[Settings], Settings]
) -> None:
    settings = with_project(Settings(root=str(tmp_path / "lake")))
    definitions = definitions_for(settings, load_pipelines(settings))
    graph = definitions.resolve_asset_graph()
    node = graph.get(backfill_key("flights"))
    job = definitions.resolve_job_def(JOB)

    assert job.partitions_def is None
    assert backfill_key("flights") not in job.asset_layer.selected_asset_keys
    assert dg.AssetKey(["silver", "flights"]) in job.asset_layer.selected_asset_keys
    assert node.parent_keys == {dg.AssetKey(["bronze", "flights"])}
    assert node.child_keys == {dg.AssetKey(["silver", "flights"])}
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    assert backfill_key("planes") not in graph.get_all_asset_keys()


@pytest.mark.parametrize(("grain", "first", "last", "keys"), [
    ("day", "2013-03-01", "2013-03-31", ("2013-03-01", "2013-03-31")),
    ("day", "2012-12-30", "2013-01-02", ("2013-01-01", "2013-01-02")),
    ("day", "2013-05-30", "2013-12-31", ("2013-05-30", "2013-06-15")),
    ("month", "2013-03-01", "2013-04-30", ("2013-03-01", "2013-04-01")),
    ("month", "2013-03-02", "2013-04-30", ("2013-04-01", "2013-04-01")),
    ("month", "2013-03-02", "2013-04-29", ()),
])  # fmt: skip
def test_only_partitions_that_a_range_covers_whole_are_marked(
    grain: Any, first: str, last: str, keys: tuple[str, ...]
) -> None:
    partition = PartitionBy(column="day", grain=grain, start=date(2013, 1, 1))
    found = partition_tags(partition, Period.parse(first, last), date(2013, 6, 15))
    assert tuple(found.values()) == keys
