"""A build reads one version of silver, does what is out of date and no more, and tells what it found."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lakehouse import scratch
from lakehouse.errors import GoldBuildError
from lakehouse.gold import dbt_run
from lakehouse.gold.build import ensure_manifest
from lakehouse.settings import load_settings
from lakehouse.storage import connect_duckdb
from tests.gold.conftest import Workshop, order
from tests.gold.models import DAILY

pytestmark = pytest.mark.slow

DAILY_YML = """
models:
  - name: daily
    description: One row per day.
    config: {contract: {enforced: true}}
    columns:
      - {name: day, data_type: varchar, description: The day., data_tests: [unique]}
      - {name: total, data_type: %s, description: Sum of amounts.}
"""
UNIT_TEST = """
unit_tests:
  - name: totals_add_up
    model: daily
    given: [{input: ref('stg_orders'), rows: [{day: a, amount: 1}, {day: a, amount: 2}]}]
    expect: {rows: [{day: a, total: %d}]}
"""


# -- contracts and tests ---------------------------------------------------------------------------


def test_a_contract_with_another_type_fails_with_the_message_of_dbt(shop: Workshop) -> None:
    shop.mart("daily", DAILY, DAILY_YML % "integer")
    failure = shop.build().failures[0]
    assert "This model has an enforced contract that failed" in failure
    assert "total" in failure
    assert "data type mismatch" in failure
    assert not shop.lake.table("gold", "daily").exists()


def test_a_contract_that_is_kept_builds_and_its_column_order_holds(shop: Workshop) -> None:
    shop.mart(
        "daily",
        DAILY.replace("day, sum(amount)::bigint as total", "sum(amount)::bigint as total, day"),
        DAILY_YML % "bigint",
    )
    shop.build_well()
    assert list(shop.rows("daily")[0]) == ["day", "total"]


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        ("{type: not_null}", "1 rows break not_null(amount), such as order_id=4"),
        ("{type: check, expression: 'amount < 30'}", "1 rows break check(amount < 30), such as order_id=3"),
    ],
)
def test_a_contract_constraint_is_enforced_before_anything_is_committed(
    shop: Workshop, constraint: str, says: str
) -> None:
    shop.land([{**order(4, "b", 1), "amount": None}, order(5, "b", 5)])
    yml = f"""
models:
  - name: orders
    config: {{contract: {{enforced: true}}}}
    columns: [{{name: order_id, data_type: bigint}}, {{name: amount, data_type: bigint, constraints: [{constraint}]}}]
"""
    shop.mart("orders", "select order_id, amount from {{ ref('stg_orders') }}", yml)
    assert says in shop.build().failures[0]
    assert not shop.lake.table("gold", "orders").exists()


def test_a_failing_test_names_rows_and_stops_what_reads_the_model(shop: Workshop) -> None:
    shop.land([order(4, "b", -5)])
    yml = "models: [{name: orders, columns: [{name: order_id, data_tests: [unique]}, {name: day, data_tests: [unique]}]}]"
    shop.mart("orders", "select order_id, day, amount from {{ ref('stg_orders') }}", yml)
    shop.mart("reader", "select * from {{ ref('orders') }}")
    result = shop.build()
    failed = next(test for test in result.tests if test.status == "fail")
    assert (failed.name, failed.models, failed.column, failed.failures) == (
        "unique_orders_day",
        ("orders",),
        "day",
        2,
    )
    assert {"unique_field": "a", "n_records": 2} in failed.sample
    assert "group by" in failed.sql
    assert result.model("orders").version == 0, "the version is staged, for engineers to look at"
    assert result.model("reader").status == "skipped"
    with pytest.raises(GoldBuildError, match=r"unique_orders_day on gold\.orders"):
        result.raise_for_failures()


def test_a_warning_does_not_block(shop: Workshop) -> None:
    yml = (
        "models: [{name: orders, columns: [{name: day, data_tests: [{unique: {config: {severity: warn}}}]}]}]"
    )
    shop.mart("orders", "select order_id, day from {{ ref('stg_orders') }}", yml)
    result = shop.build_well()
    assert [(test.status, test.blocks) for test in result.tests] == [("warn", False)]
    assert shop.publish(result).tables["gold/orders"] == 0


def test_unit_tests_run_when_the_code_has_changed_and_not_otherwise(shop: Workshop) -> None:
    shop.mart("daily", DAILY, DAILY_YML % "bigint" + UNIT_TEST % 3)
    first = shop.build_well()
    assert [test.kind for test in first.tests] == ["data", "unit"]
    shop.publish(first)
    shop.land([order(4, "c", 1)])
    assert [test.kind for test in shop.build_well().tests] == ["data"]


def test_a_wrong_unit_test_keeps_the_model_from_being_built(shop: Workshop) -> None:
    shop.mart("daily", DAILY, DAILY_YML % "bigint" + UNIT_TEST % 4)
    result = shop.build()
    assert "unit test totals_add_up on gold.daily" in result.failures[0]
    assert not shop.lake.table("gold", "daily").exists()


def test_a_test_added_later_looks_at_the_table_that_is_there(shop: Workshop) -> None:
    shop.mart("orders", "select order_id, day from {{ ref('stg_orders') }}")
    shop.publish()
    shop.mart(
        "orders",
        "select order_id, day from {{ ref('stg_orders') }}",
        "models: [{name: orders, columns: [{name: day, data_tests: [unique]}]}]",
    )
    result = shop.build()
    assert (result.model("orders").status, result.model("orders").version) == ("unchanged", 0)
    assert "unique_orders_day" in result.failures[0]


# -- what is built ------------------------------------------------------------------------------------


def test_only_models_whose_input_changed_are_built(shop: Workshop) -> None:
    shop.land([{"customer": "x"}], table="customers")
    shop.write("models/staging/stg_customers.sql", "select * from {{ source('silver', 'customers') }}")
    shop.mart("customers", "select customer from {{ ref('stg_customers') }}")
    shop.mart("daily", DAILY)
    shop.mart("daily_reader", "select * from {{ ref('daily') }}")
    shop.publish()
    shop.land([order(4, "c", 1)])
    statuses = {
        model.name: model.status for model in shop.build_well().models if model.materialized == "delta"
    }
    assert statuses == {"customers": "unchanged", "daily": "built", "daily_reader": "built"}


def test_maintenance_of_silver_is_no_reason_to_build(shop: Workshop) -> None:
    import deltalake

    shop.mart("daily", DAILY)
    shop.land([order(4, "c", 1)])
    shop.publish()
    deltalake.DeltaTable(shop.lake.table("silver", "orders").uri).optimize.compact()
    result = shop.build_well()
    assert result.skipped
    assert result.silver_versions == {"orders": 2}, "the point names the compacted files"


def test_with_nothing_new_dbt_is_not_started_and_nothing_is_written(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.mart("daily", DAILY, DAILY_YML % "bigint")
    point = shop.publish()
    before = {path: path.stat().st_mtime_ns for path in Path(shop.settings.root).rglob("*") if path.is_file()}
    monkeypatch.setattr("lakehouse.gold.dbt_run._invoke", lambda *_, **__: pytest.fail("dbt was started"))
    result = shop.build_well()
    assert result.skipped
    assert shop.publish(result) == point
    after = {path: path.stat().st_mtime_ns for path in Path(shop.settings.root).rglob("*") if path.is_file()}
    assert after == before


def test_a_version_that_a_crash_left_is_built_again(shop: Workshop) -> None:
    shop.mart("orders", "{{ config(strategy='append') }} select order_id from {{ ref('stg_orders') }}")
    shop.build_well()
    # As if the process had died between the commit and the record of its tests.
    shop.lake.objects.remove_tree("ops/checks")
    shop.vouch(0)
    result = shop.build_well().model("orders")
    assert (result.version, result.strategy, result.rows) == (1, "overwrite", 3)


# -- selection -------------------------------------------------------------------------------------


def test_a_selection_builds_the_named_models_and_says_what_is_left_behind(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.mart("other", "select count(*) as n from {{ ref('stg_orders') }}")
    shop.publish()
    shop.land([order(4, "c", 1)])
    result = shop.build_well(select=["daily"])
    assert result.model("daily").status == "built"
    assert result.stale == ("other",)


def test_a_selection_may_use_the_graph_operators_of_dbt(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.mart("reader", "select * from {{ ref('daily') }}")
    shop.mart("other", "select count(*) as n from {{ ref('stg_orders') }}")
    result = shop.build_well(select=["daily+"])
    assert {
        model.name for model in result.models if model.status == "built" and model.version is not None
    } == {"daily", "reader"}


def test_a_selection_of_an_unknown_model_lists_the_known_ones(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    with pytest.raises(GoldBuildError, match="no model called dialy") as caught:
        shop.build(select=["dialy"])
    assert "daily, stg_orders" in str(caught.value)


def test_a_selected_model_needs_what_it_reads_to_be_there(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.mart("reader", "select * from {{ ref('daily') }}")
    with pytest.raises(GoldBuildError, match="reader reads daily, which was never built"):
        shop.build(select=["reader"])


# -- declarations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("strategy='upsert'", "strategy is 'upsert'; allowed: overwrite, append, merge, replace_where"),
        ("strategy='merge'", "strategy 'merge' needs unique_key"),
        ("strategy='append', unique_key='day'", "strategy 'append' takes no unique_key"),
        ("strategy='replace_where'", "needs replace_where: an SQL predicate"),
        ("replace_where='day = 1'", "strategy 'overwrite' takes no replace_where"),
        ("materialized='incremental'", "materialized is 'incremental'; allowed: delta"),
        ("incremental_strategy='merge'", "write `strategy`"),
        ("alias='no-dashes'", "no-dashes"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_model_and_what_is_allowed(
    shop: Workshop, settings: str, says: str
) -> None:
    shop.mart("daily", "{{ config(" + settings + ") }}\n" + DAILY)
    with pytest.raises(GoldBuildError) as caught:
        shop.build()
    assert says in str(caught.value)
    assert "models/marts/daily.sql" in str(caught.value)


def test_a_constraint_that_cannot_be_enforced_is_refused(shop: Workshop) -> None:
    shop.mart(
        "daily",
        DAILY,
        (DAILY_YML % "bigint").replace("name: total,", "name: total, constraints: [{type: unique}],"),
    )
    with pytest.raises(GoldBuildError, match="constraint 'unique' cannot be enforced"):
        shop.build()


def test_a_project_that_does_not_parse_says_where(shop: Workshop) -> None:
    shop.mart("daily", "select * from {{ ref('no_such_model') }}")
    with pytest.raises(GoldBuildError, match="no_such_model"):
        shop.build()


def test_sql_that_fails_names_the_model(shop: Workshop) -> None:
    shop.mart("daily", "select no_such_column from {{ ref('stg_orders') }}")
    assert "model daily" in shop.build().failures[0]
    assert "no_such_column" in shop.build().failures[0]


# -- running ---------------------------------------------------------------------------------------


def test_the_manifest_is_parsed_again_only_when_a_file_has_changed(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    path = ensure_manifest(shop.settings, shop.project)
    first = path.stat().st_mtime_ns
    assert ensure_manifest(shop.settings, shop.project).stat().st_mtime_ns == first
    shop.mart("daily", DAILY + " -- changed")
    assert ensure_manifest(shop.settings, shop.project).stat().st_mtime_ns > first


def test_each_outcome_is_told_as_it_happens(shop: Workshop) -> None:
    shop.mart("daily", DAILY, DAILY_YML % "bigint")
    told: list[tuple[str, str]] = []
    shop.build_well(on_event=lambda result: told.append((result.name, result.status)))
    assert told == [("stg_orders", "built"), ("daily", "built"), ("unique_daily_day", "pass")]


def test_a_build_prints_nothing_and_leaves_the_project_folder_as_it_was(
    shop: Workshop, capfd: pytest.CaptureFixture[str]
) -> None:
    shop.mart("daily", DAILY, DAILY_YML % "bigint")
    before = sorted(path for path in shop.project.rglob("*"))
    shop.build_well()
    assert capfd.readouterr() == ("", "")
    assert sorted(path for path in shop.project.rglob("*")) == before
    assert not Path(os.path.expanduser("~/.dbt")).exists()


def test_a_cursor_asks_an_object_store_as_patiently_as_its_connection(tmp_path: Path) -> None:
    """Models are read through cursors. Nothing is asked of the store here."""
    settings = load_settings(
        root="s3://no-such-bucket/lake", state_dir=str(tmp_path), pipelines_dir=str(tmp_path)
    )
    asked = "SELECT current_setting('http_retries'), current_setting('http_retry_backoff')"
    with connect_duckdb(settings) as connection:
        told = connection.execute(asked).fetchone()
        assert connection.cursor().execute(asked).fetchone() == told == (8, 2.0)


def test_two_builds_at_once_lose_and_double_nothing(shop: Workshop) -> None:
    shop.mart("orders", "{{ config(strategy='append') }} select order_id from {{ ref('stg_orders') }}")
    ensure_manifest(shop.settings, shop.project)
    failures: list[str] = []

    def run() -> None:
        failures.extend(shop.build().failures)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["order_id"] for row in shop.rows("orders")] == [1, 2, 3]
    assert all("gold.orders" in failure for failure in failures), (
        "whoever was second was refused, or found it done"
    )


# -- dbt's profile -----------------------------------------------------------------------------------


def test_the_profile_is_the_same_in_every_process(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # dbt parses a project from scratch where its profile is another than the last time.
    texts = []
    for number in range(2):
        monkeypatch.setattr(scratch, "_own", {})  # as in a process of its own
        scratch.process_folder(shop.settings.state_dir)
        dbt_run._write_profile(shop.settings, tmp_path / f"{number}.yml", "")
        texts.append((tmp_path / f"{number}.yml").read_text())
    assert texts[0] == texts[1]


def test_a_build_spills_into_a_folder_of_its_process(shop: Workshop) -> None:
    shop.mart("spill", "select current_setting('temp_directory') as folder")
    shop.build_well()
    own = scratch.process_folder(shop.settings.state_dir)
    (first,) = (Path(row["folder"]) for row in shop.rows("spill"))
    assert first.parent == own
    shop.mart("spill", "select current_setting('temp_directory') as folder, 2 as build")
    shop.build_well()
    assert [row["folder"] for row in shop.rows("spill")] != [str(first)], (
        "DuckDB clears its folder when it ends"
    )
