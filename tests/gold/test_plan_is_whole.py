"""A build runs every test and every model that it has to, whatever they are called, and notices whatever changes rows."""

from __future__ import annotations

import pytest

from lakehouse.errors import PublishBlocked
from lakehouse.gold import dbt_run
from lakehouse.gold.versions import commit_document
from lakehouse.names import MAINTENANCE
from tests.gold.conftest import PROJECT_YML, Workshop, order
from tests.gold.models import DAILY

pytestmark = pytest.mark.slow


def _customers(shop: Workshop) -> None:
    """A view of a source that nothing else reads, and a test of the marts against it."""
    shop.land([{"customer_id": 1, "name": "ann"}, {"customer_id": 2, "name": "bob"}], table="customers")
    shop.write("models/staging/stg_customers.sql", "select * from {{ source('silver', 'customers') }}")
    shop.write(
        "tests/no_more_days_than_customers.sql",
        "select * from (select count(*) as days from {{ ref('daily') }}) where days > (select count(*) from {{ ref('stg_customers') }})",
    )


def test_a_test_that_also_reads_a_view_runs_when_only_the_other_side_is_built(shop: Workshop) -> None:
    _customers(shop)
    shop.mart("daily", DAILY)
    shop.build_well()
    shop.land([order(9, "z", 5)])  # a third day, and no third customer
    result = shop.build()
    (failed,) = [test for test in result.tests if test.status == "fail"]
    assert failed.name == "no_more_days_than_customers"
    with pytest.raises(PublishBlocked):
        shop.publish(result)


def test_a_test_of_a_source_runs_with_what_reads_it_and_blocks_it(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.write(
        "models/staging/sources.yml",
        "sources: [{name: silver, tables: [{name: orders, columns: [{name: amount, data_tests: [not_null]}]}, {name: customers}]}]",
    )
    assert shop.build().ok
    shop.land([{**order(8, "b", 1), "amount": None}])
    result = shop.build()
    (failed,) = [test for test in result.tests if test.blocks]
    assert failed.subjects == "silver.orders"
    assert "source_not_null_silver_orders_amount on silver.orders" in result.failures[0]
    with pytest.raises(PublishBlocked):
        shop.publish(result)


def test_a_planned_test_without_a_result_does_not_pass_for_one_that_held(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.mart("daily", DAILY, "models: [{name: daily, columns: [{name: day, data_tests: [unique]}]}]")
    real = dbt_run.run

    def without_tests(settings, folder, arguments, **more):  # type: ignore[no-untyped-def]
        wanted = [argument for argument in arguments if argument != "unique_daily_day"]
        assert len(wanted) == len(arguments) - 1
        return real(settings, folder, wanted, **more)

    monkeypatch.setattr(dbt_run, "run", without_tests)
    result = shop.build()
    assert [(test.name, test.status) for test in result.tests] == [("unique_daily_day", "skipped")]
    with pytest.raises(PublishBlocked, match="gold_build"):
        shop.publish(result)


def test_a_model_with_an_alias_is_built_and_goes_on_being_built(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.build_well()
    before = shop.rows("daily")
    (shop.project / "models" / "marts" / "daily.sql").unlink()
    shop.mart("daily_v2", "{{ config(alias='daily') }} " + DAILY)
    shop.land([order(7, "y", 5)])
    result = shop.build_well()
    assert result.model("daily").status == "built"
    assert len(shop.rows("daily")) == len(before) + 1


def test_a_folder_called_like_a_model_is_another_thing(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.write(
        "models/daily/other.sql",
        "{{ config(materialized='delta') }} select 1 as a from {{ source('silver', 'customers') }}",
    )
    result = shop.build()  # customers has no version: only daily can be built
    assert result.ok
    assert result.model("daily").status == "built"
    assert result.model("other").status == "skipped"


@pytest.mark.parametrize("change", ["variable", "environment", "seed", "hook", "constraint"])
def test_what_changes_the_rows_of_a_model_builds_it_again(
    shop: Workshop, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {
        "variable": "{{ var('least') }}",
        "environment": "{{ env_var('LEAST_OF_TEST') }}",
        "seed": "(select max(least) from {{ ref('limits') }})",
    }.get(change, "0")
    project = shop.project / "dbt_project.yml"

    def set_to(least: int) -> None:
        project.write_text(
            f"{PROJECT_YML}vars: {{least: {least}}}\n" if change == "variable" else PROJECT_YML
        )
        monkeypatch.setenv("LEAST_OF_TEST", str(least))
        # More than a megabyte: dbt hashes the path of such a seed and not what is in it.
        shop.write("seeds/limits.csv", "least,text\n" + f"{least},{'x' * 1000}\n" * 1100)
        hook = f"{{{{ config(post_hook='select {least}') }}}} " if change == "hook" else ""
        check = f"{{type: check, expression: 'total < {1000 + least}'}}"
        columns = f"columns: [{{name: total, data_type: bigint, constraints: [{check}]}}, {{name: day, data_type: varchar}}]"
        yml = f"models: [{{name: daily, config: {{contract: {{enforced: true}}}}, {columns}}}]" if change == "constraint" else None  # fmt: skip
        shop.mart(
            "daily",
            f"{hook}select day, sum(amount)::bigint as total from {{{{ ref('stg_orders') }}}} where amount >= {limit} group by day",
            yml,
        )

    set_to(0)
    assert shop.build_well().model("daily").status == "built"
    assert shop.build_well().model("daily").status == "unchanged"
    set_to(15)
    assert shop.build_well().model("daily").status == "built"


def test_a_table_is_what_its_stage_said_of_it_however_much_maintenance_came_after(shop: Workshop) -> None:
    snapshot = shop.lake.table("silver", "orders").snapshot()
    before = commit_document(snapshot, "silver")
    for _ in range(60):
        snapshot = shop.lake.table("silver", "orders").snapshot()
        snapshot.commit(metadata={"stage": MAINTENANCE}, data_change=False)
    assert commit_document(shop.lake.table("silver", "orders").snapshot(), "silver") == before


def test_a_test_whose_name_dbt_would_read_as_more_than_one_runs(shop: Workshop) -> None:
    tests = "data_tests: [{unique: {name: 'one_row_per_day:always+'}}]"
    shop.mart("daily", DAILY, f"models: [{{name: daily, columns: [{{name: day, {tests}}}]}}]")
    result = shop.build_well()
    assert [(test.name, test.status) for test in result.tests] == [("one_row_per_day:always+", "pass")]
    shop.publish(result)


def test_a_unit_test_that_is_new_runs_although_its_model_stays_as_it_is(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.publish()
    shop.write(
        "models/marts/unit.yml",
        "unit_tests: [{name: adds_up, model: daily, given: [{input: ref('stg_orders'), rows: [{day: a, amount: 1}]}], "
        "expect: {rows: [{day: a, total: 2}]}}]",
    )
    result = shop.build()
    assert result.model("daily").status == "unchanged"
    assert [(test.name, test.status) for test in result.tests] == [("adds_up", "fail")]
    with pytest.raises(PublishBlocked):
        shop.publish(result)
    shop.write(
        "models/marts/unit.yml",
        (shop.project / "models/marts/unit.yml").read_text().replace("total: 2", "total: 1"),
    )
    shop.publish(shop.build_well())
