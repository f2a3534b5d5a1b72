"""Each write strategy leaves exactly the rows it promises, in one commit."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from lakehouse.settings import load_settings
from lakehouse.storage import Lake, connect_duckdb, duck, duckdb_source
from tests.gold.conftest import Workshop, order
from tests.gold.models import ALL_ORDERS, NEW_ORDERS, config, keys

pytestmark = pytest.mark.slow


def test_overwrite_replaces_every_row(shop: Workshop) -> None:
    shop.mart("orders", ALL_ORDERS)
    assert shop.build_well().model("orders").version == 0
    shop.land([order(9, "z", 90)], replace=True)
    result = shop.build_well().model("orders")
    assert (result.strategy, result.version, result.rows) == ("overwrite", 1, 1)
    assert keys(shop, "orders") == [9]


def test_append_adds_to_what_is_there(shop: Workshop) -> None:
    shop.mart("orders", config(strategy="append") + NEW_ORDERS)
    shop.build_well()
    before = shop.files("orders")
    shop.land([order(4, "b", 40)])
    result = shop.build_well().model("orders")
    assert (result.strategy, result.rows, result.rows_written) == ("append", 4, 1)
    assert keys(shop, "orders") == [1, 2, 3, 4]
    assert before < shop.files("orders"), "files that hold the old rows are not written again"


def test_merge_replaces_matched_rows_and_rewrites_only_their_files(shop: Workshop) -> None:
    shop.mart("orders", config(strategy="merge", unique_key="order_id") + NEW_ORDERS)
    shop.build_well()
    shop.land([order(4, "b", 40), order(5, "c", 50)])
    shop.build_well()
    before = shop.files("orders")
    assert len(before) == 2
    shop.land([order(5, "c", 55), order(6, "d", 60)])
    result = shop.build_well().model("orders")
    assert (result.strategy, result.rows, result.files_removed) == ("merge", 6, 1)
    assert len(before & shop.files("orders")) == 1, "the file without a matched key stays as it is"
    assert {row["order_id"]: row["amount"] for row in shop.rows("orders")} == {
        1: 10,
        2: 20,
        3: 30,
        4: 40,
        5: 55,
        6: 60,
    }


def test_merge_on_several_columns(shop: Workshop) -> None:
    sql = "select day, order_id % 2 as parity, sum(amount)::bigint as total, max(_batch_id) as _batch_id from {{ ref('stg_orders') }}"
    where = "{% if is_incremental() %} where _batch_id > (select max(_batch_id) from {{ this }}) {% endif %} group by all"
    shop.mart("totals", config(strategy="merge", unique_key=["day", "parity"]) + sql + where)
    shop.build_well()
    shop.land([order(7, "a", 1000)])
    shop.build_well()
    assert [(row["day"], row["parity"], row["total"]) for row in shop.rows("totals")] == [
        ("a", 0, 20),
        ("a", 1, 1000),
        ("b", 1, 30),
    ]


def test_merge_of_a_doubled_key_is_refused_with_an_example(shop: Workshop) -> None:
    shop.mart("orders", config(strategy="merge", unique_key="order_id") + NEW_ORDERS)
    shop.build_well()
    shop.land([order(5, "c", 1), order(5, "c", 2)])
    result = shop.build()
    assert "unique_key (order_id) is not unique" in result.failures[0]
    assert "order_id=5, rows=2" in result.failures[0]
    assert shop.lake.table("gold", "orders").snapshot().version == 0, "nothing was committed"


def test_the_first_build_of_a_merge_model_refuses_doubled_keys_and_leaves_no_files(shop: Workshop) -> None:
    shop.mart(
        "orders",
        config(strategy="merge", unique_key="day") + "select day, amount from {{ ref('stg_orders') }}",
    )
    assert "unique_key (day) is not unique" in shop.build().failures[0]
    assert list(shop.lake.objects.list("gold/")) == []


def test_merge_of_a_null_key_is_refused(shop: Workshop) -> None:
    shop.mart(
        "orders",
        config(strategy="merge", unique_key="day") + NEW_ORDERS.replace("day,", "nullif(day, 'c') as day,"),
    )
    shop.land([order(1, "x", 1)], replace=True)
    shop.build_well()
    shop.land([order(5, "c", 1)])
    assert "1 rows have a null in unique_key (day)" in shop.build().failures[0]


def test_replace_where_replaces_the_matching_rows_only(shop: Workshop) -> None:
    # The predicate names the rows just computed: every day that they touch is replaced, no other.
    sql = """
    select day, sum(amount)::bigint as total, max(_batch_id) as _batch_id from {{ ref('stg_orders') }}
    {% if is_incremental() %}
    where day in (select day from {{ ref('stg_orders') }} where _batch_id > (select max(_batch_id) from {{ this }}))
    {% endif %}
    group by day
    """
    shop.mart(
        "daily", config(strategy="replace_where", replace_where="day in (select day from new_rows)") + sql
    )
    shop.build_well()
    shop.land([order(4, "b", 40), order(5, "c", 50)])
    result = shop.build_well().model("daily")
    assert (result.strategy, result.rows_written, result.rows) == ("replace_where", 2, 3)
    assert {row["day"]: row["total"] for row in shop.rows("daily")} == {"a": 30, "b": 70, "c": 50}


def test_replace_where_refuses_rows_outside_its_predicate(shop: Workshop) -> None:
    shop.mart("orders", config(strategy="replace_where", replace_where="day = 'b'") + ALL_ORDERS)
    shop.build_well()
    shop.land([order(4, "b", 40)])
    result = shop.build()
    assert "2 rows lie outside replace_where (day = 'b')" in result.failures[0]
    assert shop.lake.table("gold", "orders").snapshot().version == 0


def test_replace_where_drops_a_file_whole_when_all_its_rows_match(shop: Workshop) -> None:
    shop.mart("orders", config(strategy="replace_where", replace_where="day >= 'a'") + ALL_ORDERS)
    shop.build_well()
    shop.land([order(4, "d", 40)], replace=True)
    result = shop.build_well().model("orders")
    assert (result.files_removed, result.files_added) == (1, 1)
    assert keys(shop, "orders") == [4]


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "merge", "unique_key": "order_id"},
        {"strategy": "replace_where", "replace_where": "day = 'c' and order_id > 3"},
    ],
)
def test_a_folder_called_like_a_column_is_none(
    shop: Workshop, tmp_path: Path, options: dict[str, str]
) -> None:
    """A row of the file that is written again keeps its own value, not that of the folder above the lake."""
    settings = load_settings(
        root=str(tmp_path / "day=z" / "lake"), pipelines_dir=str(tmp_path / "pipelines"), threads=2
    )
    below = Workshop(settings, Lake.from_settings(settings), shop.project)
    below.land([order(1, "a", 10), order(4, "c", 40)])
    below.mart("orders", config(**options) + NEW_ORDERS)
    below.build_well()
    below.land([order(4, "c", 44)])
    result = below.build_well().model("orders")
    assert (result.strategy, result.files_removed) == (options["strategy"], 1)
    assert [(row["day"], row["amount"]) for row in below.rows("orders")] == [("a", 10), ("c", 44)]


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_folder_called_like_a_column_hides_no_deleted_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_by_one: bool
) -> None:
    """The lists of deleted rows have the columns ``file`` and ``row``."""
    monkeypatch.setattr(duck, "_FEW_WORN", 1 if one_by_one else 0)
    settings = load_settings(root=str(tmp_path / "row=7" / "lake"), pipelines_dir=str(tmp_path), threads=2)
    table = Lake.from_settings(settings).table("silver", "orders")
    frame = pl.DataFrame({"order_id": [1, 2, 3]})
    table.create(frame.schema, add=table.stage(frame.lazy()))
    snapshot = table.snapshot()
    snapshot.commit(delete={snapshot.files()["path"][0]: [1]})
    with connect_duckdb(settings) as connection:
        found = connection.execute(f"FROM {duckdb_source(table.snapshot())} ORDER BY 1").fetchall()
    assert found == [(1,), (3,)]


@pytest.mark.parametrize("strategy", ["overwrite", "append"])
def test_a_model_without_rows_is_an_empty_table_of_its_schema(shop: Workshop, strategy: str) -> None:
    shop.mart("nothing", config(strategy=strategy) + ALL_ORDERS + " where amount < 0")
    shop.mart("reads_nothing", "select count(*) as n from {{ ref('nothing') }}")
    result = shop.build_well().model("nothing")
    assert (result.version, result.rows) == (0, 0)
    assert shop.files("nothing") == set()
    assert list(shop.lake.table("gold", "nothing").snapshot().schema()) == ["order_id", "day", "amount"]
    assert shop.rows("reads_nothing") == [{"n": 0}]


def test_a_table_that_loses_all_rows_becomes_empty(shop: Workshop) -> None:
    shop.mart("orders", ALL_ORDERS + " where day = 'a'")
    shop.build_well()
    shop.land([order(9, "z", 90)], replace=True)
    assert shop.build_well().model("orders").rows == 0
    assert shop.rows("orders") == []


def test_a_changed_schema_replaces_the_table_in_one_version(shop: Workshop) -> None:
    shop.mart("orders", ALL_ORDERS)
    shop.build_well()
    shop.mart("orders", "select order_id, amount::double as amount, 'x' as note from {{ ref('stg_orders') }}")
    assert shop.build_well().model("orders").version == 1
    assert list(shop.rows("orders")[0]) == ["order_id", "amount", "note"]
    assert list(shop.rows("orders", version=0)[0]) == ["order_id", "day", "amount"], (
        "the old version is still itself"
    )


@pytest.mark.parametrize("options", [{"strategy": "append"}, {"strategy": "merge", "unique_key": "order_id"}])
def test_an_incremental_model_starts_over_when_its_code_changes(
    shop: Workshop, options: dict[str, str]
) -> None:
    shop.mart("orders", config(**options) + NEW_ORDERS)
    shop.build_well()
    shop.land([order(4, "b", 40)])
    shop.mart("orders", config(**options) + NEW_ORDERS.replace("amount,", "amount * 2 as amount,"))
    result = shop.build_well().model("orders")
    assert result.strategy == "overwrite"
    assert sorted(row["amount"] for row in shop.rows("orders")) == [20, 40, 60, 80]


def test_an_incremental_model_starts_over_when_silver_gains_a_column(shop: Workshop) -> None:
    shop.mart(
        "orders", config(strategy="merge", unique_key="order_id") + "select * from {{ ref('stg_orders') }}"
    )
    shop.build_well()
    shop.land([{**order(1, "a", 10), "note": "new"}])
    assert shop.build_well().model("orders").strategy == "overwrite"
    assert shop.rows("orders")[0]["note"] == "new"


def test_full_refresh_rewrites_an_incremental_model(shop: Workshop) -> None:
    shop.mart("orders", config(strategy="append") + NEW_ORDERS)
    shop.build_well()
    result = shop.build_well(full_refresh=True).model("orders")
    assert (result.strategy, result.rows, result.version) == ("overwrite", 3, 1)


def test_a_protected_model_keeps_its_rows_and_refuses_new_columns(shop: Workshop) -> None:
    shop.mart("orders", config(strategy="append", full_refresh=False) + NEW_ORDERS)
    shop.build_well()
    shop.land([order(4, "b", 40)])
    shop.mart(
        "orders",
        config(strategy="append", full_refresh=False) + NEW_ORDERS.replace("day,", "day, 1 as extra,"),
    )
    result = shop.build(full_refresh=True)
    assert "+extra Int32" in result.failures[0]
    assert keys(shop, "orders") == [1, 2, 3]


def test_large_results_are_cut_into_files_of_the_target_size(shop: Workshop) -> None:
    shop.lake.target_file_bytes = 1 << 20
    shop.mart("many", "select range as n, hash(range)::varchar as h from range(1_000_000)")
    result = shop.build_well().model("many")
    sizes = shop.lake.table("gold", "many").snapshot().files()
    assert result.rows == 1_000_000 == sizes["num_records"].sum()
    assert result.files_added >= 5


def test_a_merge_keeps_rows_together_that_lie_together(shop: Workshop) -> None:
    shop.lake.target_file_bytes = 1 << 20
    rows = "select range as n, hash(range)::varchar as h from range(1_000_000)"
    few = "select range * 1000 as n, 'new' as h from range(1000)"
    shop.mart(
        "many",
        config(strategy="merge", unique_key="n")
        + "{% if is_incremental() %}" + few + "{% else %}" + rows + "{% endif %} -- {{ ref('stg_orders') }}",
    )  # fmt: skip
    shop.build_well()
    shop.land([order(4, "b", 40)])
    result = shop.build_well().model("many")
    assert (result.strategy, result.rows) == ("merge", 1_000_000)
    files = shop.lake.table("gold", "many").snapshot().files()
    spans = (files["max.n"] - files["min.n"]).sort()
    assert files.height >= 5
    # One file holds the new rows, which lie everywhere; each of the others still covers a narrow range of keys.
    assert spans[-2] < 400_000


@pytest.mark.parametrize("options", [{"strategy": "append"}, {"strategy": "merge", "unique_key": "order_id"}])
def test_many_small_files_are_folded_into_one(
    shop: Workshop, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.gold.strategies.MAX_SMALL_FILES", 3)
    shop.mart("orders", config(**options) + NEW_ORDERS)
    shop.build_well()
    for number in range(4, 8):
        shop.land([order(number, "c", number)])
        shop.build_well()
    assert keys(shop, "orders") == [1, 2, 3, 4, 5, 6, 7]
    assert len(shop.files("orders")) == 3


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("sum(amount)", "is HUGEINT, which a Delta table does not hold exactly"),
        ("'12:00'::time", "is TIME"),
        ("uuid()", "is UUID"),
        ("struct_pack(inner := sum(amount))", "column x.inner is HUGEINT"),
    ],
)
def test_a_type_that_delta_does_not_hold_is_refused(shop: Workshop, expression: str, says: str) -> None:
    shop.mart("odd", f"select {expression} as x from {{{{ ref('stg_orders') }}}}")
    failure = shop.build().failures[0]
    assert says in failure
    assert "cast it to" in failure
    assert not shop.lake.table("gold", "odd").exists()


def test_rich_types_come_back_as_they_were(shop: Workshop) -> None:
    shop.mart(
        "rich",
        "select 1.25::decimal(10, 2) as d, [1, 2] as l, {'a': 1, 'b': ['x']} as s, date '2024-02-29' as day, "
        "timestamp '2024-02-29 23:59:59.999999' as t, true as b, '\\xC3\\xA9'::blob as raw, null::varchar as nothing",
    )
    shop.mart("copy_of_rich", "select * from {{ ref('rich') }}")
    shop.build_well()
    assert shop.rows("rich") == shop.rows("copy_of_rich")
    assert str(shop.rows("rich")[0]["t"]) == "2024-02-29 23:59:59.999999"
    assert shop.rows("rich")[0]["s"] == {"a": 1, "b": ["x"]}


def test_utc_trunc_is_date_trunc_for_every_part(shop: Workshop) -> None:
    """Also before 1970, where a remainder is negative."""
    parts = ["microsecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year", "century"]
    rows = " union all ".join(
        f"select '{part}' as part, x, {{{{ utc_trunc('{part}', 'x') }}}} as ours, date_trunc('{part}', x) as theirs from instants"
        for part in parts
    )
    shop.mart(
        "cut",
        "with instants as (select make_timestamptz((i * 7919 * 1000003) % 4000000000000000 - 1000000000000000) as x "
        f"from range(500) as numbers(i)) {rows}",
    )
    shop.build_well()
    found = shop.rows("cut")
    assert len(found) == 500 * len(parts)
    assert [row for row in found if row["ours"] != row["theirs"]] == []
