"""A rollback beside Dagster: nothing is asked for, nothing begins, runs that are going are waited for, and all of it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lakehouse import hold
from lakehouse.defs.execute import run_pipelines
from lakehouse.defs.instance import open_instance
from lakehouse.defs.workers import worker_tag
from lakehouse.errors import RunsHeld
from lakehouse.gold.catalog import shown_point_id
from lakehouse.gold.publish import list_ids
from lakehouse.ops import failures, watch
from lakehouse.settings import Settings
from lakehouse.storage import Lake
from tests.conftest import run_cli
from tests.defs.arrivals import one_more_flight
from tests.defs.test_sensors import Bench, keys

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(first_day: Callable[..., Settings]) -> Iterator[Bench]:
    """A lake with two restore points: without and with one more flight."""
    settings = first_day(run_interval_s=0)
    one_more_flight(settings)
    assert run_pipelines(settings).success
    with open_instance(settings) as instance:
        yield Bench(settings, instance)


def cli(settings: Settings, *arguments: str) -> Any:
    declared = Path(settings.pipelines_dir)
    return run_cli(*arguments, root=Path(settings.root), LAKEHOUSE_PIPELINES_DIR=str(declared))


def test_a_rollback_holds_everything_and_the_next_run_takes_the_rest(bench: Bench) -> None:
    settings, lake = bench.settings, Lake.from_settings(bench.settings)
    after, first = list_ids(lake)
    rows = lake.table("gold", "fct_flights").snapshot().num_rows()

    listed = cli(settings, "rollback")
    assert [listed.stdout.index(after) < listed.stdout.index(first), listed.returncode] == [True, 0]
    planned = cli(settings, "rollback", "--to", first, "--dry-run")
    assert "silver.flights" in planned.stdout
    assert shown_point_id(settings) == after
    done = cli(settings, "rollback", "--to", first, "--note", "wrong flight", "--actor", "ada")
    assert done.returncode == 0, done.stderr
    made = list_ids(lake)[0]
    assert (shown_point_id(settings), made not in (after, first)) == (made, True)
    assert lake.table("gold", "fct_flights").snapshot().num_rows() == rows - 1

    # Nobody moves on, and everybody says why.
    assert f"rolled back to point {first} by ada" in bench.tick().skipped
    asked = dg.RunRequest(
        asset_selection=[dg.AssetKey(["bronze", "flights"]), dg.AssetKey(["silver", "flights"])]
    )
    assert not bench.carry_out(asked)
    assert failures.open_failures(lake) == {}, "the hold says why, and ends: nothing is left to clear"
    with pytest.raises(RunsHeld):
        run_pipelines(settings)
    refused = cli(settings, "run")
    assert (refused.returncode, "next: lakehouse resume" in refused.stderr) == (1, True)
    late = [
        state for state in watch.observe(lake, settings, bench.runtime.pipelines).tables if state.lag_s > 0
    ]
    assert {(state.hop, state.next_step) for state in late} == {("publish", "lakehouse resume")}
    assert "fct_flights" in {state.table for state in late}
    assert "wrong flight" in late[0].reason
    status = cli(settings, "status").stdout
    assert "HELD: rolled back to point" in status
    told = bench.instance.fetch_observations(dg.AssetKey(["silver", "flights"]), limit=1).records[0]
    assert told.asset_observation is not None
    assert told.asset_observation.metadata["by"].value == "ada"

    assert cli(settings, "resume", "--json").returncode == 0
    [request] = bench.tick().requests
    assert "silver/flights" in keys(request)
    assert bench.carry_out(request)
    assert lake.table("gold", "fct_flights").snapshot().num_rows() == rows
    assert bench.published_batch("flights") == 2


def test_tables_are_not_touched_while_a_run_is_going(bench: Bench) -> None:
    settings, lake = bench.settings, Lake.from_settings(bench.settings)
    _, first = list_ids(lake)
    before = lake.table("silver", "flights").snapshot().version
    run = bench.start_run("main", worker_tag())
    stopped = cli(settings, "rollback", "--to", first, "--wait", "0")
    assert (stopped.returncode, run.run_id in stopped.stderr) == (75, True), stopped.stderr
    assert f"lakehouse rollback --to {first}" in stopped.stderr
    assert shown_point_id(settings) == first, "readers do not wait"
    assert lake.table("silver", "flights").snapshot().version == before
    assert "tables have not followed" in cli(settings, "resume").stderr

    bench.instance.report_run_failed(run)
    ended = json.loads(cli(settings, "rollback", "--to", first, "--json").stdout)
    assert ended["published"] == shown_point_id(settings)
    held = hold.current(lake)
    assert held is not None
    assert held.is_done
