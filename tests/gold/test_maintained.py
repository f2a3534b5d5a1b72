"""Gold beside maintenance: nothing is built again, skipped, doubled or let through because files were rearranged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from lakehouse.gold.query import connect_read_only
from lakehouse.ops.maintenance import maintain
from tests.gold.conftest import Workshop

pytestmark = pytest.mark.slow

SINCE = "{% if is_incremental() %} where _batch_id > (select max(_batch_id) from {{ this }}) {% endif %}"
MODELS = {
    "merged": "{{ config(strategy='merge', unique_key='order_id') }}\n"
    "select order_id, day, amount, _batch_id from {{ ref('stg_orders') }} " + SINCE,
    "appended": "{{ config(strategy='append') }}\n"
    "select order_id, amount, _batch_id from {{ ref('stg_orders') }} " + SINCE,
    "replaced": "{{ config(strategy='replace_where', replace_where=\"day = 'c'\") }}\n"
    "select order_id, day, amount from {{ ref('stg_orders') }} where day = 'c'",
    "whole": "select day, sum(amount)::bigint as amount from {{ ref('stg_orders') }} group by day",
}
STRATEGIES = {"merged": "merge", "appended": "append", "replaced": "replace_where", "whole": "overwrite"}


def tidy(shop: Workshop) -> dict[str, int]:
    """Combine whatever can be combined and remove whatever nobody needs; table → files combined."""
    done = list(maintain(shop.lake, shop.settings, {}, min_files=2, retention=timedelta(0)))
    assert [table.error for table in done if table.error] == []
    return {table.name: table.combined for table in done if table.combined}


def content(shop: Workshop) -> dict[str, Any]:
    return {name: shop.rows(name) for name in MODELS}


def test_incremental_models_go_on_where_they_were(
    shop: Workshop, make_order: Callable[..., dict[str, Any]]
) -> None:
    for name, sql in MODELS.items():
        shop.mart(name, sql)
    shop.publish()
    for number in range(4, 7):
        shop.land([make_order(number, "c", number)])
        shop.publish()
    before = content(shop)
    combined = tidy(shop)
    assert combined["silver/orders"] == 4
    assert combined["gold/appended"] == 4
    assert content(shop) == before
    with connect_read_only(shop.settings) as readers:
        assert readers.sql("select count(*) from gold.main.appended").fetchone() == (6,)

    unchanged = shop.build_well()
    assert unchanged.skipped, "rearranged files are no reason to build"
    shop.publish(unchanged)
    tidy(shop)
    shop.land([make_order(7, "c", 7), make_order(1, "a", 100)])
    built = shop.build_well()
    assert {m.name: m.strategy for m in built.models if m.materialized == "delta"} == STRATEGIES
    shop.publish(built)
    tidy(shop)
    assert [row["order_id"] for row in shop.rows("appended")] == [1, 1, 2, 3, 4, 5, 6, 7]
    assert {row["order_id"]: row["amount"] for row in shop.rows("merged")}[1] == 100
    after = content(shop)
    shop.build_well(full_refresh=True, select=["appended", "replaced", "whole"])
    assert content(shop) == after


def test_a_failed_version_is_not_built_upon_after_maintenance(
    shop: Workshop, make_order: Callable[..., dict[str, Any]]
) -> None:
    test = "models: [{name: appended, columns: [{name: amount, data_tests: [{accepted_values: {arguments: {values: [10, 20, 30, 4], quote: false}}}]}]}]"
    shop.mart("appended", MODELS["appended"], test)
    shop.publish()
    shop.land([make_order(4, "c", 999)])
    failed = shop.build()
    assert failed.failures
    assert tidy(shop)["gold/appended"] == 2
    shop.land([make_order(4, "c", 4)], replace=False)
    again = shop.build()
    assert again.failures, "the row is still in silver"
    assert [row["amount"] for row in shop.rows("appended")].count(999) == 1


def test_every_restore_point_can_be_read_after_maintenance(
    shop: Workshop, make_order: Callable[..., dict[str, Any]]
) -> None:
    shop.mart("merged", MODELS["merged"])
    points, expected = [], []
    for number in range(4, 8):
        points.append(shop.publish())
        expected.append(shop.rows("merged"))
        shop.build(force=True)  # a version that no point names
        shop.land([make_order(number, "c", number), make_order(1, "a", number)])
    tidy(shop)
    for point, rows in zip(points, expected, strict=True):
        assert shop.rows("merged", point.tables["gold/merged"]) == rows
        pinned = shop.lake.table("silver", "orders").snapshot(point.tables["silver/orders"])
        assert pinned.scan().collect().height == pinned.num_rows()
    with connect_read_only(shop.settings) as readers:
        assert readers.sql("select count(*) from gold.main.merged").fetchone() == (len(expected[-1]),)


def test_maintenance_between_a_build_and_its_publish_is_harmless(
    shop: Workshop, make_order: Callable[..., dict[str, Any]]
) -> None:
    shop.mart("appended", MODELS["appended"])
    shop.publish()
    shop.land([make_order(4, "c", 4)])
    built = shop.build_well()
    assert [d.combined for d in maintain(shop.lake, shop.settings, {}, select=["appended"], min_files=2)] == [
        2
    ]
    point = shop.publish(built)
    assert point.tables["gold/appended"] == built.versions["appended"]
    with connect_read_only(shop.settings) as readers:
        assert readers.sql("select count(*) from gold.main.appended").fetchone() == (4,)
