"""What Dagster is told: every asset with owners, kinds, columns, checks and a freshness policy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.defs.compose import JOB, definitions_for
from lakehouse.defs.runtime import KEY, Runtime
from lakehouse.errors import DeclarationError
from lakehouse.ops import watch
from lakehouse.pipelines import load_pipelines, load_sound
from lakehouse.settings import PROJECT_DIR, Settings
from lakehouse.storage import Lake

TABLES = ("airlines", "airports", "flights", "planes", "weather")


@pytest.fixture(scope="module")
def graph(
    tmp_path_factory: pytest.TempPathFactory, with_project: Callable[[Settings], Settings]
) -> dg.AssetGraph:
    settings = with_project(Settings(root=str(tmp_path_factory.mktemp("lake"))))
    definitions = definitions_for(settings, load_pipelines(settings))
    return definitions.resolve_asset_graph()


def spec(graph: dg.AssetGraph, *key: str) -> dg.AssetSpec:
    return graph.get(dg.AssetKey(key)).to_asset_spec()


@pytest.mark.slow
def test_importing_the_definitions_reads_no_environment_and_opens_no_socket(tmp_path: Path) -> None:
    program = f"""
import sys, os, socket, builtins
sys.path.insert(0, {str(PROJECT_DIR)!r})
import dagster, dagster_dbt, polars, duckdb  # the libraries may do as they like
def refuse(*args, **kwargs): raise AssertionError("a socket was opened")
socket.socket = socket.create_connection = refuse
class Empty(dict):
    def __getitem__(self, key):
        if str(key).startswith("LAKEHOUSE"): raise AssertionError("read " + key)
        return super().__getitem__(key)
    def get(self, key, default=None):
        if str(key).startswith("LAKEHOUSE"): raise AssertionError("read " + key)
        return super().get(key, default)
os.environ = Empty()
import lakehouse.definitions
print("imported")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout.strip() == "imported", done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layer", ["bronze", "silver"])
@pytest.mark.parametrize("table", TABLES)
def test_every_pipeline_is_two_assets_that_say_who_owns_them(
    graph: dg.AssetGraph, layer: str, table: str
) -> None:
    found = spec(graph, layer, table)

    assert found.owners
    assert found.description
    assert found.group_name == f"nyc_{layer}"
    assert {layer, "deltalake", "polars"} <= found.kinds
    assert found.tags["layer"] == layer


def test_every_asset_has_the_one_hour_freshness_policy(graph: dg.AssetGraph) -> None:
    for key in graph.materializable_asset_keys:
        if key.path[0] == "backfill":  # asked for, never due
            continue
        policy = spec(graph, *key.path).freshness_policy
        assert policy is not None, key
        assert policy.fail_window.to_timedelta().total_seconds() == 3600
        assert policy.warn_window.to_timedelta().total_seconds() == 2700


def test_silver_and_gold_show_their_columns_with_descriptions(graph: dg.AssetGraph) -> None:
    for key in (("silver", "flights"), ("gold", "fct_flights")):
        schema = spec(graph, *key).metadata["dagster/column_schema"]
        assert len(schema.columns) > 15
        assert all(column.description for column in schema.columns)


def test_gold_hangs_on_silver_and_the_catalog_on_gold(graph: dg.AssetGraph) -> None:
    staged = graph.get(dg.AssetKey(["gold", "stg_nyc__flights"]))
    catalog = graph.get(dg.AssetKey(["catalog", "gold"]))

    assert staged.parent_keys == {dg.AssetKey(["silver", "flights"])}
    assert dg.AssetKey(["gold", "fct_flights"]) in catalog.parent_keys
    assert all("stg_" not in key.path[-1] for key in catalog.parent_keys)


@pytest.mark.parametrize(
    ("key", "check", "blocking"),
    [
        (("bronze", "flights"), "rows_conserved", True),
        (("bronze", "flights"), "volume_as_usual", False),
        (("silver", "flights"), "key_unique", True),
        (("silver", "flights"), "schema_equals_contract", True),
        (("silver", "flights"), "rows_conserved", True),
        (("silver", "flights"), "contract_rules", False),
        (("silver", "flights"), "quarantined_share", True),
        (("silver", "flights"), "tailnum_in_planes", True),
        (("gold", "fct_flights"), "unique_fct_flights_flight_id", True),
    ],
)
def test_each_layer_has_its_checks_and_says_what_to_run(
    graph: dg.AssetGraph, key: tuple[str, ...], check: str, blocking: bool
) -> None:
    found = graph.get_check_spec(dg.AssetCheckKey(dg.AssetKey(key), check))

    assert found.blocking is blocking
    assert "lakehouse" in str(found.metadata["recovery"])


def test_every_table_has_a_pool_so_that_two_runs_never_write_it_at_once(graph: dg.AssetGraph) -> None:
    for table in TABLES:
        for layer in ("bronze", "silver"):
            assert graph.get(dg.AssetKey([layer, table])).pools == {f"{layer}/{table}"}


def test_one_job_takes_everything_and_both_sensors_run_by_default(
    tmp_path: Path, with_project: Callable[[Settings], Settings]
) -> None:
    settings = with_project(Settings(root=str(tmp_path), sensor_interval_s=7, sla_interval_s=9))
    definitions = definitions_for(settings, load_pipelines(settings))

    assert definitions.resolve_job_def(JOB).executor_def.name == "in_process"
    sensors = {sensor.name: sensor for sensor in definitions.sensors or ()}
    assert {name: s.minimum_interval_seconds for name, s in sensors.items()} == {
        "arrivals_sensor": 6,  # a second less: Dagster looks whether it is due every five
        "sla_sensor": 9,
    }
    assert {s.default_status for s in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["check", "yaml"], "validated successfully"), (["list", "defs", "--json"], "silver/flights")],
)
def test_the_ecosystems_own_tool_reads_the_project(
    arguments: list[str], expected: str, tmp_path: Path, with_project: Callable[[Settings], Settings]
) -> None:
    with_project(Settings(root=str(tmp_path / "lake")))
    tool = Path(sys.executable).parent / "dg"
    done = subprocess.run(
        [str(tool), *arguments],
        cwd=PROJECT_DIR,
        env={"PATH": str(tool.parent), "HOME": str(tmp_path), "LAKEHOUSE_ROOT": str(tmp_path / "lake")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.mark.slow
def test_what_is_wrong_with_one_declaration_or_with_gold_stops_neither_runs_nor_the_watch(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day(dbt_project=str(PROJECT_DIR / "tests"))  # no dbt project lies there
    declaration = next(Path(settings.pipelines_dir).rglob("airlines/defs.yaml"))
    declaration.write_text(declaration.read_text().replace("mode: ", "mood: "))
    pipelines, left_out = load_sound(settings)
    assert set(pipelines) == {*TABLES} - {"airlines"}
    found = definitions_for(settings, pipelines, left_out=left_out)
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {KEY: Runtime(settings, pipelines, left_out=left_out)}
        with dg.build_sensor_context(instance=instance, resources=resources) as context:
            with pytest.raises(DeclarationError, match=r"(?s)airlines/defs.yaml.*mood.*no dbt project at"):
                found.get_sensor_def("sla_sensor").evaluate_tick(context)
            assert found.get_sensor_def("arrivals_sensor").evaluate_tick(context) is not None
    # Nobody takes what comes for it any more: that is told in time, and no recovery of anything.
    later = datetime.now(UTC) + timedelta(minutes=61)
    observed = watch.observe(
        Lake.from_settings(settings), settings, pipelines, now_utc=later, left_out=left_out
    )
    watch.record(Lake.from_settings(settings), settings, observed)
    assert {state.status for state in observed.tables if "airlines" in state.late_sources} == {"breach"}
    assert any("declaration cannot be loaded" in (state.reason or "") for state in observed.tables)


@pytest.mark.slow
def test_a_contract_that_cannot_be_imported_leaves_out_its_pipeline_alone(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    declaration = next(Path(settings.pipelines_dir).rglob("airlines/defs.yaml"))
    declaration.write_text(declaration.read_text().replace("contracts.airlines.", "contracts.nowhere."))
    pipelines, left_out = load_sound(settings)
    assert set(pipelines) == {*TABLES} - {"airlines"}
    assert set(left_out) == {"airlines"}
    assert "cannot import lakehouse.contracts.nowhere" in left_out["airlines"]


def test_of_a_name_that_is_declared_twice_neither_is_taken(tmp_path: Path) -> None:
    source = PROJECT_DIR / "lakehouse" / "defs" / "nyc"
    shutil.copytree(source, tmp_path / "pipelines")
    shutil.copytree(source / "flights", tmp_path / "pipelines" / "departures")  # and edited, but for its name
    pipelines, left_out = load_sound(Settings(root=str(tmp_path), pipelines_dir=str(tmp_path / "pipelines")))
    assert set(pipelines) == {*TABLES} - {"flights"}
    assert "names are unique" in left_out["flights"]


def test_of_several_declarations_in_a_file_the_wrong_one_is_left_out(tmp_path: Path) -> None:
    text = (PROJECT_DIR / "lakehouse" / "defs" / "nyc" / "airlines" / "defs.yaml").read_text()
    other = text.replace("name: airlines", "name: carriers")
    folder = tmp_path / "pipelines" / "both"
    folder.mkdir(parents=True)
    settings = Settings(root=str(tmp_path), pipelines_dir=str(tmp_path / "pipelines"))
    for wrong in (
        other.replace("mode: ", "mood: "),
        other.replace("contracts.airlines.", "contracts.nowhere."),
    ):
        (folder / "defs.yaml").write_text(f"{text}---\n{wrong}")
        pipelines, left_out = load_sound(settings)
        assert (set(pipelines), set(left_out)) == ({"airlines"}, {"carriers"})
