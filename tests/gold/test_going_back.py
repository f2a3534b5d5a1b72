"""Models that add to their rows, when what they were built from is refused, gone back behind, or completed by a replay."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from lakehouse import checks, names
from lakehouse.checks import CheckOutcome
from tests.gold.conftest import Workshop, order
from tests.gold.models import NEW_ORDERS, config, keys

pytestmark = pytest.mark.slow


def release(shop: Workshop, rows: list[dict[str, Any]]) -> None:
    """What a replay commits to silver: rows of batches that it has taken before."""
    snapshot = shop.lake.table("silver", "orders").snapshot()
    number = snapshot.txn(names.app_id("replay", "orders")) + 1
    frame = pl.DataFrame(rows, schema=snapshot.schema())
    version = snapshot.commit(
        add=snapshot.stage(frame.lazy()),
        metadata={"stage": "silver", "contract_hash": "c1"},
        txns={
            names.app_id("silver", "orders"): shop.batches["orders"],
            names.app_id("replay", "orders"): number,
        },
    )
    shop.vouch(version)


def test_append_after_a_failed_build_counts_nothing_twice(shop: Workshop) -> None:
    yml = "models: [{name: orders, columns: [{name: amount, data_tests: [{accepted_values: {arguments: {values: %s, quote: false}}}]}]}]"
    shop.mart("orders", config(strategy="append") + NEW_ORDERS, yml % "[10, 20, 30]")
    shop.publish()
    shop.land([order(4, "b", 666)])
    assert not shop.build().ok
    assert keys(shop, "orders") == [1, 2, 3, 4], "the failed version stays staged for whoever looks into it"
    shop.mart("orders", config(strategy="append") + NEW_ORDERS, yml % "[10, 20, 30, 666]")
    shop.build_well()
    assert keys(shop, "orders") == [1, 2, 3, 4]
    assert shop.rows("orders")[-1]["amount"] == 666


ADDING = [
    {"strategy": "append"},
    {"strategy": "merge", "unique_key": "order_id"},
    {"strategy": "replace_where", "replace_where": "order_id in (select order_id from new_rows)"},
]


def refuse(shop: Workshop, version: int) -> None:
    """A blocking check of this version of silver.orders has failed."""
    checks.record(shop.lake, [CheckOutcome("silver", "orders", version, "conservation", passed=False)])


@pytest.mark.parametrize("options", ADDING)
def test_a_build_from_data_that_gold_has_gone_back_behind_is_not_built_upon(
    shop: Workshop, options: dict[str, str]
) -> None:
    """It passed its tests and was not published; then silver's next version failed, and the published one is read."""
    shop.mart("orders", config(**options) + NEW_ORDERS)
    shop.publish()
    shop.land([order(4, "b", 40)])
    assert shop.build_well().model("orders").version == 1
    refuse(shop, shop.land([order(5, "b", 50)]))
    back = shop.build_well()
    assert back.silver_versions == {"orders": 0}
    assert (back.model("orders").status, back.model("orders").version) == ("unchanged", 0)
    assert (
        "gold.orders goes on from the published version 0: version 1 was built from silver.orders"
        in back.notes[-1]
    )
    point = shop.publish(back)
    assert [row["order_id"] for row in shop.rows("orders", version=point.tables["gold/orders"])] == [1, 2, 3]
    shop.land([order(6, "b", 60)])
    onward = shop.build_well().model("orders")
    assert (onward.strategy, onward.rows_written) == (options["strategy"], 2), (
        "the one from before is good again"
    )
    assert keys(shop, "orders") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("never_refresh", [False, True])
def test_a_build_behind_the_published_data_is_whole(shop: Workshop, never_refresh: bool) -> None:
    options = {"full_refresh": False} if never_refresh else {}
    shop.mart("orders", config(strategy="append", **options) + NEW_ORDERS)
    shop.land([order(4, "b", 40)])
    shop.publish()
    result = shop.build_well(silver_versions={"orders": 0})
    assert result.model("orders").strategy == ("append" if never_refresh else "overwrite")
    assert keys(shop, "orders") == ([1, 2, 3, 4] if never_refresh else [1, 2, 3])
    assert ("keeps its rows" if never_refresh else "starts over") in result.notes[0]


def test_a_build_from_silver_that_was_refused_is_not_built_upon(shop: Workshop) -> None:
    """It was asked for by its number; the next version has the rows right."""
    shop.mart("orders", config(strategy="append") + NEW_ORDERS)
    shop.publish()
    bad = shop.land([order(4, "b", 40), order(4, "b", 40)])
    refuse(shop, bad)
    shop.build_well(silver_versions={"orders": bad})
    shop.land([order(number, "b", 1) for number in (1, 2, 3, 4)], replace=True)
    shop.build_well()
    assert len(keys(shop, "orders")) == 3 + 4, (
        "batch 3 is added to the published rows, and batch 2 is not there"
    )


def test_a_build_from_a_model_that_failed_a_later_test_is_not_built_upon(shop: Workshop) -> None:
    """A test across two models runs when what reads the first is built: it refuses the first, and the others pass."""
    merge = config(strategy="merge", unique_key="order_id")
    late = "{relationships: {arguments: {to: ref('cheap'), field: order_id}}}"
    shop.mart(
        "orders",
        merge + NEW_ORDERS,
        f"models: [{{name: orders, columns: [{{name: order_id, data_tests: [{late}]}}]}}]",
    )
    from_orders = NEW_ORDERS.replace("ref('stg_orders')", "ref('orders')")
    shop.mart("cheap", merge + f"select * from ({from_orders}) where amount < 100")
    shop.mart("small", merge + from_orders)
    shop.mart("reader", merge + NEW_ORDERS.replace("ref('stg_orders')", "ref('small')"))
    models = ("orders", "cheap", "small", "reader")
    shop.publish()
    shop.land([order(4, "b", 666), order(5, "b", 50)])
    failed = shop.build()
    assert len(failed.failures) == 1
    assert "relationships" in failed.failures[0]
    assert [failed.model(name).version for name in models] == [1, 1, 1, 1]
    shop.land([order(4, "b", 40), order(6, "b", 60)], replace=True)
    shop.build_well()
    for name in models:
        assert keys(shop, name) == [1, 2, 3, 4, 6], "the fifth went with the refused version"


@pytest.mark.parametrize("options", ADDING)
def test_rows_of_old_batches_that_a_replay_releases_are_added(
    shop: Workshop, options: dict[str, str]
) -> None:
    """The model has taken a later batch and would pass over them; a model of another table has no reason to start over."""
    shop.mart("orders", config(**options) + NEW_ORDERS)
    others = NEW_ORDERS.replace("ref('stg_orders')", "source('silver', 'customers')")
    shop.mart("customers", config(**options) + others)
    shop.land([order(1, "a", 10)], table="customers")
    shop.land([order(4, "b", 40)])
    shop.build_well()
    shop.land([order(2, "a", 20)], table="customers")
    release(shop, [{**order(5, "b", 50), names.BATCH_ID: 1}])
    result = shop.build_well()
    assert keys(shop, "orders") == [1, 2, 3, 4, 5]
    assert [result.model(name).strategy for name in ("orders", "customers")] == [
        "overwrite",
        options["strategy"],
    ]
    shop.land([order(6, "c", 60)])
    assert shop.build_well().model("orders").strategy == options["strategy"]
