"""A model whose touched groups are replaced always equals the one that is built whole."""

from __future__ import annotations

import random

import polars as pl
import pytest

from lakehouse import names
from lakehouse.errors import GoldBuildError
from tests.gold.conftest import Workshop, order
from tests.gold.groups import DAILY, WHOLE, compact, rewrite

pytestmark = pytest.mark.slow

MONTHLY = """
{{ config(strategy='replace_groups', group_key='month', touched_by={'gold/daily': ["left(day, 1)"]}) }}
select left(day, 1) as month, sum(amount)::bigint as amount, count(*) as days
from {{ ref('daily') }}
{% if is_incremental() %} where {{ is_touched(['left(day, 1)']) }} {% endif %}
group by 1
"""


def test_only_touched_groups_are_written(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    first = shop.build_well().model("daily")
    assert (first.strategy, first.rows) == ("overwrite", 2)
    shop.land([order(4, "b", 40)])
    second = shop.build_well().model("daily")
    assert (second.strategy, second.rows_written, second.rows) == ("replace_groups", 1, 2)
    assert [(row["day"], row["amount"]) for row in shop.rows("daily")] == [("a", 30), ("b", 70)]


def test_a_group_that_loses_all_its_rows_goes(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.land([order(4, "c", 40)])
    shop.build_well()
    files = shop.lake.table("silver", "orders").snapshot().files()
    path = next(row["path"] for row in files.iter_rows(named=True) if row["min.day"] == "c")
    rewrite(shop, {path}, [])
    result = shop.build_well().model("daily")
    assert (result.strategy, result.rows_written) == ("replace_groups", 0)
    assert [row["day"] for row in shop.rows("daily")] == ["a", "b"]


def test_rows_that_only_move_between_files_touch_nothing(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.build_well()
    before = shop.files("daily")
    snapshot = shop.lake.table("silver", "orders").snapshot()
    rows = snapshot.scan().collect().to_dicts()
    rewrite(shop, set(snapshot.files()["path"]), rows)
    result = shop.build_well().model("daily")
    assert (result.strategy, result.rows_written) == ("replace_groups", 0)
    assert shop.files("daily") == before


@pytest.mark.parametrize("stage", ["replay", "backfill"])
def test_rows_of_old_batches_touch_their_groups_alone(shop: Workshop, stage: str) -> None:
    """Models that add what is new start over after a replay or a backfill; this one sees which rows differ."""
    shop.mart("daily", DAILY)
    shop.build_well()
    snapshot = shop.lake.table("silver", "orders").snapshot()
    frame = pl.DataFrame([{**order(4, "b", 40), names.BATCH_ID: 1}], schema=snapshot.schema())
    txns = {names.app_id("silver", "orders"): 1, names.app_id(stage, "orders"): 1}
    shop.vouch(snapshot.commit(add=snapshot.stage(frame.lazy()), metadata={"stage": "silver"}, txns=txns))
    result = shop.build_well().model("daily")
    assert (result.strategy, result.rows_written) == ("replace_groups", 1)
    assert [row["amount"] for row in shop.rows("daily")] == [30, 70]


def test_files_that_compaction_left_may_be_removed(shop: Workshop) -> None:
    """The model goes on building by groups: what was moved is not needed, only what came."""
    shop.mart("daily", DAILY)
    shop.mart("whole", WHOLE)
    shop.build_well()
    table = shop.lake.table("silver", "orders")
    old = table.snapshot().files()["path"].to_list()
    compact(shop)
    shop.land([order(8, "b", 80)])
    for path in set(old) - set(table.snapshot().files()["path"]):
        table.objects.delete(path)
    assert shop.build_well().model("daily").strategy == "replace_groups"
    assert shop.rows("daily") == shop.rows("whole")


def test_a_null_group_is_a_group(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.land([order(4, "b", 40), {**order(5, "x", 1), "day": None}])
    shop.build_well()
    shop.land([order(6, "b", 40), {**order(7, "x", 2), "day": None}])
    assert shop.build_well().model("daily").strategy == "replace_groups"
    assert [row["amount"] for row in shop.rows("daily") if row["day"] is None] == [3]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_incremental_equals_a_full_rebuild_under_upserts_and_deletes(shop: Workshop, seed: int) -> None:
    chance = random.Random(seed)
    shop.mart("daily", DAILY)
    shop.mart("monthly", MONTHLY)
    shop.mart("whole", WHOLE)
    shop.build_well()
    for step in range(6):
        snapshot = shop.lake.table("silver", "orders").snapshot()
        rows = {row["order_id"]: row for row in snapshot.scan().collect().to_dicts()}
        files = snapshot.files()["path"].to_list()
        dropped = set(chance.sample(files, chance.randint(0, len(files))))
        uris = {f"{snapshot.table.uri}/{path}": path for path in files if path not in dropped}
        marked: dict[str, list[int]] = {}
        stay: set[int] = set()
        for uri, path in uris.items():
            for number, place in (
                snapshot.scan_places(["order_id"], uris=[uri], place="place").collect().iter_rows()
            ):
                if place in snapshot.deleted_rows(path).positions:
                    continue
                if chance.random() < 0.3:
                    marked.setdefault(path, []).append(place)
                else:
                    stay.add(number)
        back = [row for key, row in rows.items() if key not in stay]
        back = [row for row in back if chance.random() > 0.3]  # deletes
        for row in back:
            if chance.random() < 0.3:  # updates, some into another group
                row["amount"], row["day"] = chance.randint(1, 99), chance.choice(["a", "b", "c1", "c2", None])
        back += [
            {**order(100 * (step + 1) + n, chance.choice(["a", "b", "d"]), n), names.BATCH_ID: 9}
            for n in range(chance.randint(0, 3))
        ]
        rewrite(shop, dropped, back, marked)
        for _ in range(chance.randint(0, 2)):
            compact(shop, chance)
            if chance.random() < 0.5:
                shop.land([order(1000 * (step + 1) + chance.randint(0, 999), "e", 5)])
        result = shop.build_well()
        assert shop.rows("daily") == shop.rows("whole")
        incremental = shop.rows("monthly")
        assert all(
            model.strategy == "replace_groups"
            for model in result.models
            if model.name in ("daily", "monthly") and model.status == "built"
        )
        shop.build_well(full_refresh=True, force=True)
        assert (shop.rows("daily"), shop.rows("monthly")) == (shop.rows("whole"), incremental)


def test_a_changed_table_that_touched_by_does_not_name_builds_the_model_whole(shop: Workshop) -> None:
    shop.land([{"customer": "x"}], table="customers")
    shop.mart("daily", DAILY.replace("from {{ ref('stg_orders') }}", "from {{ ref('stg_orders') }} cross join (select count(*) as n from {{ source('silver', 'customers') }})"))  # fmt: skip
    shop.build_well()
    shop.land([order(4, "b", 40)])
    assert shop.build_well().model("daily").strategy == "replace_groups"
    shop.land([{"customer": "y"}], table="customers")
    assert shop.build_well().model("daily").strategy == "overwrite"


def test_old_files_that_are_gone_build_the_model_whole(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    shop.build_well()
    snapshot = shop.lake.table("silver", "orders").snapshot()
    old = snapshot.files()["path"].to_list()
    rewrite(shop, set(old), [{**order(7, "z", 7), names.BATCH_ID: 2}])
    for path in old:
        snapshot.table.objects.delete(path)
    assert shop.build_well().model("daily").strategy == "overwrite"
    assert [row["day"] for row in shop.rows("daily")] == ["z"]


def test_a_query_may_tell_the_groups(shop: Workshop) -> None:
    query = "select distinct day from changed_rows where amount is not null"
    shop.mart("daily", DAILY.replace("['day']}", f'"{query}"}}'))
    shop.build_well()
    shop.land([order(4, "b", 40)])
    result = shop.build_well().model("daily")
    assert (result.strategy, result.rows_written) == ("replace_groups", 1)


def test_rows_outside_the_touched_groups_are_refused(shop: Workshop) -> None:
    shop.mart("daily", DAILY.replace("where {{ is_touched() }}", ""))
    shop.build_well()
    shop.land([order(4, "b", 40)])
    assert "1 rows lie outside the touched groups" in shop.build().failures[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("strategy='replace_groups'", "needs group_key and touched_by"),
        ("strategy='replace_groups', group_key='day', touched_by={'silver/orders': ['a', 'b']}", "has 2 expressions"),
        ("strategy='replace_groups', group_key='day', touched_by={'silver/nothing': ['a']}", "which it does not read"),
    ],
)  # fmt: skip
def test_a_declaration_that_cannot_work_is_refused(shop: Workshop, settings: str, says: str) -> None:
    shop.mart("daily", "{{ config(" + settings + ") }} select day from {{ ref('stg_orders') }}")
    with pytest.raises(GoldBuildError, match=says):
        shop.build()


def test_touched_by_that_does_not_work_fails_its_model_alone(shop: Workshop) -> None:
    shop.mart("daily", DAILY.replace("['day']}", "['dday']}"))
    shop.mart("other", WHOLE)
    shop.build_well()
    shop.land([order(4, "b", 40)])
    result = shop.build()
    assert len(result.failures) == 1
    assert "daily" in result.failures[0]
