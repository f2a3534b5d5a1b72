"""Groups whose first column is a number or a date are named to DuckDB one by one; the model equals the whole all the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb
import numpy
import polars as pl
import pytest

from lakehouse.gold import dbt_plugin
from lakehouse.gold.session import BuildSession, WritePlan, Written
from lakehouse.storage import Lake, deletion_bits, duckdb_source
from tests.gold.conftest import Workshop, order

pytestmark = pytest.mark.slow

_DATE = "placed_at_utc::timestamp::date"
#: group_key, the same over silver's columns, and over those of the model's own view where they are others.
KEYS: dict[str, list[list[str]]] = {
    "alone": [["amount"], ["amount"]],
    "with_nulls_behind": [["amount", "day"], ["amount", "day"]],
    "expression": [["bucket", "day"], ["(amount % 7)::integer", "day"]],
    "a_date": [["on_day", "day"], [_DATE, "day"], ["on_day", "day"]],
    "a_quoted_date": [["on_day"], [_DATE], ['"ON_day"']],
    "cut_date": [["placed", "day"], [_DATE, "day"]],
    "instant": [["placed_at_utc", "amount", "day"], ["placed_at_utc", "amount", "day"]],
}
_INCREMENTAL = """
{{ config(strategy='replace_groups', group_key=KEY, touched_by={'silver/orders': CUT}) }}
select NAMED, count(*) as orders, sum(order_id)::bigint as sum_of_ids from {{ ref('stg_orders') }}
{% if is_incremental() %} where {{ is_touched(OWN) }} {% endif %}
group by all
"""
_WHOLE = "select NAMED, count(*) as orders, sum(order_id)::bigint as sum_of_ids from {{ ref('stg_orders') }} group by all"


def filled(model: str, key: list[str], cut: list[str], own: list[str] | None = None) -> str:
    own = own or cut
    named = ", ".join(f"{expression} as {name}" for name, expression in zip(key, own, strict=True))
    for word, text in {"KEY": str(key), "CUT": str(cut), "OWN": str(own), "NAMED": named}.items():
        model = model.replace(word, text)
    return model


@pytest.mark.parametrize("many", [3, 300, 2_500])
def test_incremental_equals_the_whole(shop: Workshop, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, str] = {}
    write = dbt_plugin.write_model

    def write_model(session: BuildSession, plan: WritePlan, sql: str) -> Written:
        asked[plan.model.name] = sql
        return write(session, plan, sql)

    shop.write(
        "models/staging/stg_orders.sql",
        f"select *, {_DATE} as on_day from {{{{ source('silver', 'orders') }}}}",
    )
    for name, expressions in KEYS.items():
        shop.mart(name, filled(_INCREMENTAL, *expressions))
        shop.mart(f"{name}_whole", filled(_WHOLE, *expressions))
    at = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=7 * number) for number in range(24)]
    shop.land([
        {**order(100 + n, "b", n % 40, at[n % 24]), "day": None if n % 5 == 0 else "ab"[n % 2]} for n in range(200)
    ])  # fmt: skip
    shop.build_well()
    news = [{**order(1_000 + n, "b", n, at[n % 3]), "day": None if n % 3 == 0 else "a"} for n in range(many)]
    news += [{**order(9_000, "b", 5, at[4]), "day": None}]
    shop.land(news)

    monkeypatch.setattr(dbt_plugin, "write_model", write_model)
    result = shop.build_well()

    assert {name for name in KEYS if "list_contains(" in asked[name]} == {"a_date", "a_quoted_date"}
    named = {name for name in KEYS if "exists (" not in asked[name]}
    assert named == (
        set(KEYS) if many < 400 else {"a_date", "a_quoted_date", "cut_date", "expression", "instant"}
    )
    for name in KEYS:
        assert result.model(name).strategy == "replace_groups"
        assert shop.rows(name) == shop.rows(f"{name}_whole")
    assert result.model("with_nulls_behind").rows_written < 2 * many + 3, "some groups are not touched"


def test_duckdb_applies_the_literals_while_it_decodes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What ``is_touched`` rests on: a filter within the scan, also below the rows that are gone; not an operator above it."""
    table = Lake(str(tmp_path_factory.mktemp("lake"))).table("silver", "orders")
    frame = pl.DataFrame({"day": [date(2024, 1, 1 + n % 28) for n in range(400)], "amount": range(400)})
    table.create(frame.schema, add=table.stage(frame.lazy()))
    snapshot = table.snapshot()
    snapshot.commit(delete={snapshot.files()["path"][0]: numpy.array([3, 4])})
    snapshot = table.snapshot()
    connection = duckdb.connect()
    connection.register("handed_over", deletion_bits(snapshot).to_arrow())
    connection.execute("CREATE TABLE gone AS SELECT file, block, gone::BIT AS gone FROM handed_over")
    source = duckdb_source(snapshot, None, "gone")
    days = "'2024-01-07'::DATE, '2024-01-09'::DATE"
    [(_, plan)] = connection.execute(
        f"EXPLAIN (FORMAT json) SELECT amount FROM {source} WHERE (day) IN ({days}) AND list_contains([{days}], day)"
    ).fetchall()
    [scan] = [node for node in _nodes(json.loads(plan)) if node["name"].strip() == "READ_PARQUET"]
    assert "list_contains" in str(scan["extra_info"]["Filters"])
    assert "day IN (" in str(scan["extra_info"]["Filters"])
    assert not [
        node for node in _nodes(json.loads(plan)) if node["name"] == "FILTER" and "list_contains" in str(node)
    ]


def _nodes(plan: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for node in plan:
        yield {**node, "children": []}
        yield from _nodes(node["children"])
