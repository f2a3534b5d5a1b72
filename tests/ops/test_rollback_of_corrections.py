"""Backfills and replays that a rollback undoes: their rows are in silver or refused, never both, and both can be asked for again."""

from __future__ import annotations

from pathlib import Path

import pytest

from asset_checks.tables import carry_out
from lakehouse import ledger
from lakehouse.errors import RunsHeld
from lakehouse.gold.publish import publish
from lakehouse.gold.restore_points import RestorePoint
from lakehouse.gold.results import GoldResult
from lakehouse.ops import rollback
from lakehouse.quarantine import Selection, resolve
from tests.quarantine.bench import Bench as Orders
from tests.silver.sales import ROWS_A, ROWS_B, Bench, filled

pytestmark = pytest.mark.slow


def published(bench: Bench | Orders) -> RestorePoint:
    """Checked and published, without any gold."""
    ledger.sync(bench.lake, [bench.pipeline])
    assert [o.message for o in carry_out(bench.lake, bench.pipeline) if o.blocking and not o.passed] == []
    return publish(bench.lake, bench.settings, gold=GoldResult((), (), {}, "", "run"))


def go_back(bench: Bench | Orders, point: RestorePoint) -> None:
    held = rollback.readers_first(bench.lake, bench.settings, point, by="ada")
    steps = list(rollback.restore_tables(bench.lake, held, point))
    rollback.finish(bench.lake, bench.settings, held, point, steps)
    rollback.resume(bench.lake, bench.settings, by="ada")


@pytest.fixture(params=["upsert", "history"])
def sales(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    more = {"sequence_by": "day"} if request.param == "history" else {}
    return Bench(tmp_path / "lake", mode=request.param, **more)


def test_rows_that_a_backfill_refused_are_back_in_silver_and_not_in_quarantine(sales: Bench) -> None:
    point = published(filled(sales))
    then, refused = sales.content(), sales.counts()
    sales.use("Severe")
    assert sales.backfill().taken_out == 1
    published(sales)
    severe, refused_severely = sales.content(), sales.counts()
    assert severe != then
    assert refused_severely == (refused[0] + 1, 0, 0, 0)

    assert [step.backfills for step in rollback.plan(sales.lake, point)] == [("2024-01-02 to 2024-01-02",)]
    go_back(sales, point)
    assert sales.content() == then
    assert sales.counts() == refused
    assert sales.use().differences() == []

    sales.use("Severe").backfill()
    published(sales)
    assert sales.content() == severe
    assert sales.counts() == refused_severely
    assert sales.differences() == []


def test_what_a_backfill_refused_is_refused_again_where_its_point_is_gone_back_to(sales: Bench) -> None:
    before = published(filled(sales))
    sales.use("Severe").backfill()
    after = published(sales)
    severe, refused = sales.content(), sales.counts()
    go_back(sales, before)
    go_back(sales, after)
    assert sales.content() == severe
    assert sales.counts() == refused
    assert sales.differences() == []


@pytest.mark.parametrize("is_resolved", [False, True])
def test_a_release_that_a_backfill_took_back_holds_again(sales: Bench, is_resolved: bool) -> None:
    filled(sales).use("Lenient").replay()
    point = published(sales)
    then = sales.content()
    sales.use("Sales")
    assert sales.backfill("2024-01-01", "2024-01-03").reopened > 0
    if is_resolved:
        resolve(sales.lake, "sales", Selection(), note="wrong", actor="ada", apply=True)
    published(sales)
    assert sales.content() != then
    go_back(sales, point)
    assert sales.content() == then
    sales.use("Lenient").replay()
    assert sales.content() == then
    assert sales.counts()[:2] == (0, 0)
    assert sales.differences() == []
    sales.backfill("2024-01-01", "2024-01-03")
    assert sales.content() == then, "nobody has marked what is in silver as dealt with"


def test_a_row_that_left_quarantine_is_open_when_it_is_refused_once_more(sales: Bench) -> None:
    point = published(filled(sales))
    waiting = sales.counts()[0]
    sales.use("Severe").backfill()
    sales.use("Sales").replay()  # releases what the severe rules had refused
    published(sales)
    go_back(sales, point)
    assert sales.counts() == (waiting, 0, 0, 0)
    sales.replay()
    assert sales.use("Severe").backfill().newly_refused == 1
    assert sales.counts() == (waiting + 1, 0, 0, 0)
    assert sales.differences() == []


def test_a_backfill_that_was_never_published_is_undone_in_quarantine_too(sales: Bench) -> None:
    """Points that others have made since name silver of before it, and quarantine of after it."""
    published(filled(sales))
    then, refused = sales.content(), sales.counts()
    sales.use("Severe").backfill()
    behind = publish(sales.lake, sales.settings, gold=GoldResult((), (), {}, "", "run"))
    assert behind.tables["silver/sales"] < sales.version
    go_back(sales, behind)
    assert (sales.content(), sales.counts()) == (then, refused)
    assert sales.use("Sales").differences() == []


def test_what_may_be_asked_for_again_is_not_forgotten_by_a_second_attempt(sales: Bench) -> None:
    point = published(filled(sales))
    sales.use("Severe").backfill()
    published(sales)
    steps = rollback.plan(sales.lake, point)
    held = rollback.readers_first(sales.lake, sales.settings, point, by="ada", steps=steps)
    list(rollback.restore_tables(sales.lake, held, point))  # and the process is killed
    steps = rollback.plan(sales.lake, point)
    assert all(step.is_there for step in steps)
    held = rollback.readers_first(sales.lake, sales.settings, point, by="ada", steps=steps)
    assert held.then == ("lakehouse backfill sales --from 2024-01-02 --to 2024-01-02 --apply",)


def test_an_undone_release_can_be_called_off_while_the_lake_is_held(sales: Bench) -> None:
    point = published(filled(sales))
    waiting = sales.counts()[0]
    sales.use("Lenient").replay()
    published(sales)
    held = rollback.readers_first(sales.lake, sales.settings, point, by="ada")
    rollback.finish(
        sales.lake, sales.settings, held, point, list(rollback.restore_tables(sales.lake, held, point))
    )
    with pytest.raises(RunsHeld):
        sales.replay()
    resolve(sales.lake, "sales", Selection(), note="they were wrong", actor="ada", apply=True)
    rollback.resume(sales.lake, sales.settings, by="ada")
    assert sales.counts() == (0, 0, 0, waiting)
    then = sales.content()
    sales.replay()
    assert sales.content() == then


def test_a_table_that_the_point_does_not_name_is_emptied_and_made_again(sales: Bench) -> None:
    filled(sales)
    unchecked = publish(sales.lake, sales.settings, gold=GoldResult((), (), {}, "", "run"))
    assert "silver/sales" not in unchecked.tables
    published(sales)
    then, refused = sales.content(), sales.counts()
    go_back(sales, unchecked)
    assert sales.content() == []
    sales.take()
    published(sales)
    assert (sorted(map(str, sales.content())), sales.counts()) == (sorted(map(str, then)), refused)
    assert sales.differences() == []


def test_rows_of_a_batch_that_is_taken_again_stay_refused_and_are_accounted_for(sales: Bench) -> None:
    sales.land("a.csv", *ROWS_A)
    sales.take()
    point = published(sales)
    sales.land("b.csv", *ROWS_B)
    sales.take()
    sales.use("Severe").backfill()
    published(sales)
    open_rows = sales.counts()[0]

    go_back(sales, point)
    sales.use()
    done = sales.take()
    assert (done.batches, done.rows_in, done.quarantined) == ((2,), 3, 2)
    published(sales)  # every check, those of the sums too
    assert sales.counts()[0] == open_rows
    assert sales.differences() == []
    assert 5 not in [row[0] for row in sales.table()]
    sales.replay()
    assert 5 in [row[0] for row in sales.table()]
    assert sales.differences() == []


def test_a_replay_that_was_undone_is_carried_out_once_more_and_once(sales: Bench) -> None:
    point = published(filled(sales))
    then, waiting = sales.content(), sales.counts()[0]
    sales.use("Lenient").replay()
    published(sales)
    released = sales.content()
    assert sales.counts() == (0, 0, waiting, 0)

    assert [step.replays for step in rollback.plan(sales.lake, point)] == [1]
    go_back(sales, point)
    assert sales.content() == then
    assert sales.counts() == (0, waiting, 0, 0), "planned, and waiting for the next replay"
    for _ in range(2):
        sales.replay()
        assert sales.content() == released
        assert sales.counts() == (0, 0, waiting, 0)
        assert sales.differences() == []


@pytest.mark.parametrize("replay_first", [True, False])
def test_a_released_row_of_a_batch_that_is_taken_again_comes_once_without_a_key(
    tmp_path: Path, replay_first: bool
) -> None:
    orders = Orders(tmp_path / "lake", "StrictLog", mode="append")
    orders.land("a.csv", (1, 10), header="id,amount")
    orders.take()
    point = published(orders)
    orders.land("b.csv", (2, 20), (3, -30), header="id,amount")
    orders.take()
    orders.use("OpenLog")
    orders.replay()
    published(orders)
    assert sorted(orders.table("id", "amount")) == [(1, 10), (2, 20), (3, -30)]

    go_back(orders, point)
    assert orders.table("id", "amount") == [(1, 10)]
    for act in (orders.replay, orders.take) if replay_first else (orders.take, orders.replay):
        act()
    published(orders)
    assert sorted(orders.table("id", "amount")) == [(1, 10), (2, 20), (3, -30)]
