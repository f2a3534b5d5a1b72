"""A model whose touched groups are replaced always equals the one that is built whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse import names
from lakehouse.errors import GoldBuildError
from lakehouse.gold import changes
from lakehouse.storage import Snapshot, difference, upkeep
from tests.gold.conftest import Workshop, order

pytestmark = pytest.mark.slow

DAILY = """
{{ config(strategy='replace_groups', group_key=['day'], touched_by={'silver/orders': ['day']}) }}
select day, count(*) as orders, sum(amount)::bigint as amount, max(order_id) as newest
from {{ ref('stg_orders') }}
{% if is_incremental() %} where {{ is_touched() }} {% endif %}
group by day
"""
MONTHLY = """
{{ config(strategy='replace_groups', group_key='month', touched_by={'gold/daily': ["left(day, 1)"]}) }}
select left(day, 1) as month, sum(amount)::bigint as amount, count(*) as days
from {{ ref('daily') }}
{% if is_incremental() %} where {{ is_touched(['left(day, 1)']) }} {% endif %}
group by 1
"""
WHOLE = "select day, count(*) as orders, sum(amount)::bigint as amount, max(order_id) as newest from {{ ref('stg_orders') }} group by day"


def rewrite(
    shop: Workshop, drop: set[str], rows: list[dict[str, Any]], marked: dict[str, list[int]] | None = None
) -> None:
    """One silver commit that takes files and rows out and adds rows, as upserts, deletes and compaction do."""
    table = shop.lake.table("silver", "orders")
    snapshot = table.snapshot()
    batch = shop.batches["orders"] = shop.batches["orders"] + 1
    frame = pl.DataFrame(rows, schema=snapshot.schema(), orient="row") if rows else None
    staged = table.stage(frame.lazy()) if frame is not None else []
    version = snapshot.commit(
        add=staged, remove=drop, delete=marked, metadata={"stage": "silver", "contract_hash": "c1"}, txns={names.app_id("silver", "orders"): batch}
    )  # fmt: skip
    shop.vouch(version)


def compact(shop: Workshop, chance: random.Random | None = None) -> None:
    """What maintenance does: some files (all of them without ``chance``) become one."""
    snapshot = shop.lake.table("silver", "orders").snapshot()
    files = snapshot.files()["path"].to_list()
    upkeep.combine(snapshot, chance.sample(files, chance.randint(1, len(files))) if chance else files)


def test_only_touched_groups_are_written(shop: Workshop) -> None:
    shop.mart("daily", DAILY)
    first = shop.build_well().model("daily")
    assert (first.strategy, first.rows) == ("overwrite", 2)
    shop.land([order(4, "b", 40)])
    second = shop.build_well().model("daily")
    assert (second.strategy, second.rows_written, second.rows) == ("replace_groups", 1, 2)
    assert [(row["day"], row["amount"]) for row in shop.rows("daily")] == [("a", 30), ("b", 70)]


BY_MINUTE = """
{{ config(strategy='replace_groups', group_key=['minute'], touched_by={'silver/orders': [MINUTE]}) }}
select {{ MINUTE }} as minute, count(*) as orders from {{ source('silver', 'orders') }}
{% if is_incremental() %}
where {{ may_be_touched('placed_at_utc') }} and {{ is_touched([MINUTE]) }}
{% endif %}
group by all
"""


@pytest.mark.parametrize(
    "minute", ["utc_trunc('minute', 'placed_at_utc')", "\"date_trunc('minute', placed_at_utc)\""]
)
def test_groups_cut_from_an_instant_are_read_from_the_first_touched_one_on(
    shop: Workshop, minute: str
) -> None:
    shop.mart("by_minute", BY_MINUTE.replace("MINUTE", minute))
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    shop.land(
        [
            order(4, "a", 1, noon + timedelta(minutes=5, seconds=59)),
            order(5, "a", 1, noon + timedelta(hours=9)),
        ]
    )
    shop.build_well()
    shop.land([order(6, "a", 1, noon + timedelta(minutes=5)), order(7, "a", 1, noon + timedelta(hours=8))])
    result = shop.build_well().model("by_minute")
    assert (result.strategy, result.rows_written) == ("replace_groups", 2)
    # Three hours of room: a clock may go through them twice.
    assert "then '2024-01-01 09:05:00+00'::TIMESTAMP WITH TIME ZONE" in result.sql
    shop.land([{**order(8, "a", 1), "placed_at_utc": None}, order(9, "a", 1, noon + timedelta(hours=9))])
    result = shop.build_well().model("by_minute")
    assert (result.strategy, result.rows_written) == ("replace_groups", 2)
    counts = {row["minute"]: row["orders"] for row in shop.rows("by_minute")}
    assert counts[None] == 1
    assert [count for minute, count in sorted(counts.items(), key=str) if minute] == [3, 2, 1, 2]


#: A build of its own process: what DuckDB takes for the machine's zone it asks once.
BUILD_ELSEWHERE = """
import sys
from pathlib import Path
from lakehouse.gold.build import build
from lakehouse.settings import load_settings
from lakehouse.storage import Lake, connect_duckdb

root, pipelines, project = sys.argv[1:]
settings = load_settings(root=root, pipelines_dir=pipelines, threads=2)
result = build(Lake.from_settings(settings), settings, project_dir=Path(project))
result.raise_for_failures()
with connect_duckdb(settings) as connection:
    zone = connection.cursor().execute("SELECT current_setting('TimeZone')").fetchone()
print(zone[0], result.model("by_day").strategy)
"""


def build_elsewhere(shop: Workshop, zone: str) -> list[str]:
    """A build on a machine of that zone: the zone of a cursor there, and how the model was written."""
    settings = shop.settings
    done = subprocess.run(
        [sys.executable, "-c", BUILD_ELSEWHERE, settings.root, settings.pipelines_dir, str(shop.project)],
        env={**os.environ, "TZ": zone}, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("day", ["placed_at_utc::date", "date_trunc('day', placed_at_utc)"])
def test_days_are_those_of_utc_wherever_the_machine_is(shop: Workshop, day: str) -> None:
    shop.mart("by_day", BY_MINUTE.replace("MINUTE", f'"{day}"').replace("minute", "day"))
    night = datetime(2024, 1, 3, 2, tzinfo=UTC)
    shop.land([order(4, "a", 1, night), order(5, "a", 1, night + timedelta(hours=20))])
    assert build_elsewhere(shop, "America/New_York") == ["UTC", "overwrite"]
    shop.land([order(6, "a", 1, night + timedelta(hours=1))])
    assert build_elsewhere(shop, "America/New_York") == ["UTC", "replace_groups"]
    assert [(row["day"].day, row["orders"]) for row in shop.rows("by_day")] == [(1, 3), (3, 3)]


BERLIN = "placed_at_utc at time zone 'Europe/Berlin'"
REPEATED = f"date_trunc('hour', {BERLIN}) at time zone 'Europe/Berlin'"
PLAIN = "placed_at_utc at time zone 'UTC'"


@pytest.mark.parametrize(
    ("group", "column", "first"),
    [
        (f"({BERLIN})::date", "placed_at_utc", "2024-06-01 22:30"),
        (f"date_trunc('hour', {BERLIN})", "placed_at_utc", "2024-06-01 22:30"),
        # The hour from two to three comes twice; turned back into an instant it is the later one's.
        (REPEATED, "placed_at_utc", "2024-10-27 00:30"),
        # A local time read as if it were an instant.
        (f"date_trunc('hour', ({PLAIN}) at time zone 'America/New_York')", PLAIN, "2024-06-01 22:30"),
    ],
)
def test_groups_cut_by_a_local_clock_lose_no_rows(
    shop: Workshop, group: str, column: str, first: str
) -> None:
    """The first row of a touched group reads earlier in UTC than the group itself."""
    sql = BY_MINUTE.replace("MINUTE", f'"{group}"').replace("'placed_at_utc'", f'"{column}"')
    shop.mart("by_group", sql)
    shop.mart(
        "whole", f"select {group} as minute, count(*) as orders from {{{{ ref('stg_orders') }}}} group by all"
    )
    at = datetime.fromisoformat(f"{first}+00:00")
    shop.land([order(4, "a", 1, at)])
    shop.build_well()
    shop.land([order(5, "a", 1, at + timedelta(minutes=1))])
    result = shop.build_well().model("by_group")
    assert (result.strategy, result.rows_written) == ("replace_groups", 1)
    assert shop.rows("by_group") == shop.rows("whole")


def test_a_bound_of_groups_that_are_no_instants_is_refused(shop: Workshop) -> None:
    shop.mart(
        "daily",
        DAILY.replace("where {{ is_touched() }}", "where {{ may_be_touched('day') }} and {{ is_touched() }}"),
    )
    shop.build_well()
    shop.land([order(4, "b", 40)])
    assert "not a date or an instant" in shop.build().failures[0]


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


def test_rows_that_compaction_moves_are_not_read(shop: Workshop) -> None:
    shop.land([order(4, "b", 40)])
    table = shop.lake.table("silver", "orders")
    before = table.snapshot()
    shop.land([order(5, "c", 50)])
    news = set(table.snapshot().uris()) - set(before.uris())
    compact(shop)
    compacted = set(table.snapshot().uris())
    shop.land([order(6, "a", 60)])
    now = table.snapshot()
    latest = set(now.uris()) - compacted
    found = difference(before, now)
    assert {part.uri for part in found.came} == news | latest
    assert (found.went, found.changed) == ([], [])


def test_rows_that_go_before_and_after_a_compaction_are_told(shop: Workshop) -> None:
    table = shop.lake.table("silver", "orders")
    before = table.snapshot()
    path = before.files()["path"][0]
    rewrite(shop, set(), [], {path: [0]})
    compact(shop)
    moved = table.snapshot().files()["path"][0]
    rewrite(shop, set(), [], {moved: [0]})
    now = table.snapshot()
    found = difference(before, now)
    was_is = {(old.uri, new.uri) for old, new in found.changed}
    assert (found.came, found.went) == ([], [])
    assert was_is == {(before.table.objects.url(p), before.table.objects.url(p)) for p in (path, moved)}


@pytest.mark.parametrize("ending", ["bin", "rows.parquet"])
def test_a_difference_cannot_be_read_without_both_lists_of_marked_rows(shop: Workshop, ending: str) -> None:
    table = shop.lake.table("silver", "orders")
    before = table.snapshot()
    rewrite(shop, set(), [], {before.files()["path"][0]: [0]})
    found = difference(before, table.snapshot())
    assert found.is_readable()
    (gone,) = (path for path in table.snapshot().vector_files() if path.endswith(ending))
    table.objects.delete(gone)
    assert not found.is_readable()


def test_groups_of_marked_rows_are_told_by_expressions_however_they_name_their_columns(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are taken out of two files, and their groups told though nothing but the columns named is read."""
    monkeypatch.setattr(changes, "_HANDED_OVER", 1)  # each file's rows by themselves
    expression = """left(\\"DAY\\", 1) || case when Amount * 0 = 1 then 'x' else '' end"""
    shop.mart("daily", DAILY.replace("['day']}", f'["{expression}"]}}'))
    shop.mart("whole", WHOLE)
    shop.land([order(4, "b", 40)])
    shop.build_well()
    snapshot = shop.lake.table("silver", "orders").snapshot()
    first = {path: [0] for path in snapshot.files()["path"]}
    asked: list[Sequence[str]] = []
    read = Snapshot.rows_at

    def rows_at(self: Snapshot, path: str, positions: Any, columns: Sequence[str]) -> pl.DataFrame:
        asked.append(columns)
        return read(self, path, positions, columns)

    monkeypatch.setattr(Snapshot, "rows_at", rows_at)
    rewrite(shop, set(), [], first)
    assert shop.build_well().model("daily").strategy == "replace_groups"
    assert shop.rows("daily") == shop.rows("whole")
    assert len(first) == 2
    assert asked
    assert all(set(columns) == {"day", "amount"} for columns in asked)


@pytest.mark.parametrize(
    ("groups", "read"),
    [
        (["day"], ["day"]),
        (["DAY || amount"], ["day", "amount"]),
        (["1"], ["order_id"]),
        (["#2"], ["order_id", "day", "amount"]),
        (["hash(unnamed_subquery)"], ["order_id", "day", "amount"]),
        (["concat(columns('a.*'))"], ["order_id", "day", "amount"]),
        ("select day from changed_rows", ["order_id", "day", "amount"]),
    ],
)
def test_columns_that_may_tell_the_group_are_read(
    shop: Workshop, groups: str | list[str], read: list[str]
) -> None:
    table = shop.lake.table("silver", "narrow")
    table.create({"order_id": pl.Int64(), "day": pl.String(), "amount": pl.Int64()})
    assert changes._named_in(groups, table.snapshot()) == read


def test_a_build_that_goes_back_to_an_earlier_version_sees_what_differs(shop: Workshop) -> None:
    """Silver's newest version failed a check: the one before is read again, and has as many rows."""
    shop.mart("daily", DAILY)
    good = shop.lake.table("silver", "orders").snapshot()
    path = good.files()["path"][0]
    rows = good.scan().collect().to_dicts()
    changed = {**rows[0], "amount": 999}
    rewrite(shop, set(), [changed], {path: [0]})
    shop.build_well()
    assert sum(row["amount"] for row in shop.rows("daily")) == 999 + 20 + 30
    now = shop.lake.table("silver", "orders").snapshot()
    assert now.num_rows() == good.num_rows()
    back = difference(now, good)
    assert (len(back.came), len(back.went), len(back.changed)) == (0, 1, 1)
    result = shop.build_well(silver_versions={"orders": good.version})
    assert result.model("daily").strategy == "replace_groups"
    assert sum(row["amount"] for row in shop.rows("daily")) == 60


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


def test_a_log_that_does_not_add_up_is_not_believed(shop: Workshop) -> None:
    """Another program's commit that says of new rows that they are old ones."""
    shop.mart("daily", DAILY)
    shop.mart("whole", WHOLE)
    shop.build_well()
    table = shop.lake.table("silver", "orders")
    snapshot = table.snapshot()
    rows = snapshot.scan().collect()
    more = pl.concat([rows, pl.DataFrame([order(9, "b", 90)], schema=rows.schema, orient="row")])
    batch = shop.batches["orders"] = shop.batches["orders"] + 1
    version = snapshot.commit(
        add=table.stage(more.lazy()), remove=snapshot.files()["path"], data_change=False,
        metadata={"stage": "silver", "contract_hash": "c1"}, txns={names.app_id("silver", "orders"): batch},
    )  # fmt: skip
    shop.vouch(version)
    assert shop.build_well().model("daily").strategy == "replace_groups"
    assert shop.rows("daily") == shop.rows("whole")


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
