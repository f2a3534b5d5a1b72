"""Backfill on real tables: one range made again with today's rules, the rest untouched, the same result every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse import names, quarantine
from lakehouse.errors import ConservationError, DeclarationError, TableNotFound
from lakehouse.quarantine import Selection
from lakehouse.silver import Period
from lakehouse.silver import backfill as backfill_of
from tests.silver.sales import ROWS_A, Bench, filled

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return filled(Bench(tmp_path / "lake"))


def test_a_changed_transform_changes_its_day_and_nothing_else(bench: Bench) -> None:
    before = {row[0]: row for row in bench.content()}
    done = bench.use(transform="plus_1000").backfill()
    assert (done.keys_changed, done.keys_added, done.keys_removed) == (2, 1, 0)
    after = {row[0]: row for row in bench.content()}
    assert {key: row for key, row in after.items() if key not in (2, 3, 5)} == {k: before[k] for k in (1, 4)}
    assert [row[2] for row in bench.table() if row[1] == "2024-01-02"] == [1020, 995, 1060]
    assert bench.differences() == []


def test_without_apply_it_says_what_would_change_and_writes_nothing(bench: Bench) -> None:
    before = bench.files()
    said = bench.use(transform="plus_1000").backfill(apply=False)
    assert bench.files() == before
    assert not said.applied
    assert (said.rows, said.keys_changed, said.keys_added, said.released) == (3, 2, 1, 1)
    done = bench.backfill()
    assert (done.rows, done.keys_changed, done.keys_added, done.released) == (3, 2, 1, 1)


@pytest.mark.parametrize(
    ("contract", "silver"),
    [
        ("Sales", {"mode": "upsert"}),
        ("Sales", {"mode": "upsert", "sequence_by": "day"}),
        ("Sales", {"mode": "append"}),
        ("Sales", {"mode": "history", "sequence_by": "day"}),
        ("Log", {"mode": "append"}),
    ],
)
def test_under_unchanged_rules_nothing_is_committed(
    tmp_path: Path, contract: str, silver: dict[str, Any]
) -> None:
    bench = filled(Bench(tmp_path / "lake", contract, **silver))
    bench.land("c.csv", *ROWS_A)  # all of it again
    bench.take()
    before = bench.files()
    done = bench.backfill("2024-01")
    assert done.changes_nothing
    assert done.rows > 0
    assert bench.files() == before


@pytest.mark.parametrize("silver", [
    {"mode": "upsert"}, {"mode": "upsert", "sequence_by": "day"}, {"mode": "append"},
    {"mode": "history", "sequence_by": "day"},
])  # fmt: skip
def test_all_of_it_made_again_is_the_table_that_today_s_rules_would_have_made(
    tmp_path: Path, silver: dict[str, Any]
) -> None:
    bench = filled(Bench(tmp_path / "old", **silver)).use("Lenient", "plus_1000")
    bench.backfill("2024-01")
    wanted = filled(Bench(tmp_path / "new", "Lenient", "plus_1000", **silver))
    columns = [
        name for name in wanted.lake.table("silver", "sales").snapshot().schema() if name[:7] != "_source"
    ]
    assert bench.table(*columns) == wanted.table(*columns)
    assert bench.counts() == (0, 0, 2, 0)


def test_a_second_time_changes_nothing(bench: Bench) -> None:
    bench.use("Severe", "plus_1000").backfill("2024-01")
    version, counts, files = bench.version, bench.counts(), bench.files()
    again = bench.backfill("2024-01")
    assert again.changes_nothing
    assert (bench.version, bench.counts(), bench.files()) == (version, counts, files)


def test_rows_that_leave_the_range_are_neither_lost_nor_doubled(bench: Bench) -> None:
    done = bench.use(transform="next_day").backfill("2024-01-02")
    assert (done.keys_changed, done.keys_moved, done.keys_removed) == (2, 2, 0)
    assert bench.table("id", "day") == [(1, "2024-01-01"), *((n, "2024-01-03") for n in (2, 4, 5))]
    assert bench.differences() == []


def test_rows_that_come_into_the_range_are_taken_from_where_they_were(bench: Bench) -> None:
    done = bench.use(transform="next_day").backfill("2024-01-03")
    assert (done.keys_changed, done.keys_moved) == (2, 2)
    assert bench.table("id", "day") == [(1, "2024-01-01"), *((n, "2024-01-03") for n in (2, 4, 5))]


def test_rows_whose_key_and_day_change_at_once_are_not_lost(bench: Bench) -> None:
    done = bench.use(transform="other_keys").backfill("2024-01-02")
    assert (done.keys_removed, done.keys_added) == (2, 2)
    assert bench.table("id", "day") == [
        (1, "2024-01-01"), (102, "2024-02-20"), (105, "2024-02-20"), (4, "2024-01-03"),
    ]  # fmt: skip
    assert bench.differences() == []
    back = bench.use().backfill("2024-01-02")
    assert (back.keys_removed, back.keys_added) == (2, 2)
    assert bench.table("id") == [(1,), (2,), (4,), (5,)]
    assert bench.backfill("2024-02").changes_nothing


def test_newly_refused_rows_go_to_quarantine_whole_and_once(bench: Bench) -> None:
    done = bench.use("Severe").backfill("2024-01-02")
    assert (done.newly_refused, done.keys_removed, done.broken_rules) == (
        1,
        1,
        {"amount <= 50": 1, "amount >= 0": 1},
    )
    assert (5,) not in bench.table("id")
    assert bench.counts() == (3, 0, 0, 0)
    frame = bench.lake.table("quarantine", "sales").snapshot().scan().collect()
    raw = frame.filter(pl.col("_broken_rules").list.contains("amount <= 50"))["_raw"].to_list()
    assert len(raw) == 1
    assert '"amount":"60"' in raw[0]
    assert bench.differences() == []


def test_a_row_whose_day_cannot_be_read_any_more_is_refused_and_not_lost(bench: Bench) -> None:
    done = bench.use(transform="without_day").backfill("2024-01-02")
    assert (done.newly_refused, done.keys_removed) == (2, 2)
    assert bench.table("id") == [(1,), (4,)]
    assert bench.counts()[0] == 4
    assert bench.use().backfill("2024-01-02").released == 2
    assert bench.table("id") == [(1,), (2,), (4,), (5,)]
    assert bench.counts() == (2, 0, 2, 0)


def test_rows_that_today_s_rules_accept_are_released(bench: Bench) -> None:
    done = bench.use("Lenient").backfill("2024-01-02")
    assert (done.released, done.keys_added) == (1, 1)
    assert bench.table("id", "amount") == [(1, 11), (2, 20), (3, -5), (4, 40), (5, 60)]
    assert bench.counts() == (1, 0, 1, 0)  # the one of the third day is left alone
    bench.replay()
    assert bench.counts() == (0, 0, 2, 0)
    assert bench.differences() == []


def test_a_released_row_that_is_refused_again_is_open_again(bench: Bench) -> None:
    bench.use("Lenient").backfill("2024-01")
    done = bench.use("Sales").backfill("2024-01-02")
    assert (done.reopened, done.newly_refused, done.keys_removed) == (1, 0, 1)
    assert bench.counts() == (1, 0, 1, 0)
    assert bench.use("Lenient").backfill("2024-01-02").released == 1
    assert bench.counts() == (0, 0, 2, 0)


def test_a_row_that_a_person_has_resolved_stays_out(bench: Bench) -> None:
    quarantine.resolve(
        bench.lake, "sales", Selection(batch=1), note="booked by hand", actor="test", apply=True
    )
    done = bench.use("Lenient").backfill("2024-01")
    assert (done.kept_out, done.released) == (1, 1)
    assert (3,) not in bench.table("id")
    assert bench.counts() == (0, 0, 1, 1)


def test_history_is_made_again_without_gap_or_overlap(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", mode="history", sequence_by="day")
    bench.land("a.csv", "1,2024-01-01,10", "1,2024-01-02,20", "1,2024-01-03,30", "2,2024-01-05,1")
    bench.take()
    other = [row for row in bench.content() if row[0] == 2]
    bench.use(transform="plus_1000").backfill()
    states = bench.table("id", "valid_from_utc", "valid_to_utc", "amount")
    assert states[:3] == [
        (1, "2024-01-01", "2024-01-02", 10), (1, "2024-01-02", "2024-01-03", 1020), (1, "2024-01-03", None, 30),
    ]  # fmt: skip
    assert [row for row in bench.content() if row[0] == 2] == other
    assert bench.backfill().changes_nothing


def test_a_table_without_a_key_is_made_again_row_by_row(tmp_path: Path) -> None:
    bench = filled(Bench(tmp_path / "lake", "Log", mode="append"))
    bench.land("c.csv", "2,2024-01-02,20")
    bench.take()
    done = bench.use("Log", "plus_1000").backfill()
    assert (done.keys_changed, done.keys_added) == (3, 1)
    days = [row for row in bench.table() if row[1] == "2024-01-02"]
    assert days == [
        (2, "2024-01-02", 1020),
        (2, "2024-01-02", 1020),
        (3, "2024-01-02", 995),
        (5, "2024-01-02", 1060),
    ]
    assert bench.differences() == []
    assert bench.backfill().changes_nothing


def test_a_rule_that_looks_at_other_rows_sees_each_batch_as_when_it_came(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", "Distinct", mode="append")
    for name in ("a.csv", "b.csv"):
        bench.land(name, "1,2024-01-02,7", "2,2024-01-02,8")
        assert bench.take().quarantined == 0
    assert bench.backfill().changes_nothing


def test_a_day_of_instants_is_a_day_in_utc(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", "Instants", partition_by={"column": "at"})
    rows = (
        "1,2024-01-01T23:59:59Z,1",
        "2,2024-01-02T00:00:00Z,2",
        "3,2024-01-02T23:59:59Z,3",
        "4,2024-01-03T00:00:00Z,4",
    )
    bench.land("a.csv", *rows, header="id,at,amount")
    bench.take()
    assert bench.backfill("2024-01-02").rows == 2


def test_a_new_column_of_the_contract_is_filled_for_the_range_only(bench: Bench) -> None:
    said = bench.use("Wider", "twice").backfill(apply=False)
    assert "doubled" not in bench.lake.table("silver", "sales").snapshot().schema()
    done = bench.backfill()
    assert said.keys_changed == done.keys_changed == 2
    assert bench.table("id", "doubled") == [(1, None), (2, 40), (4, None), (5, 120)]


def test_many_rows_are_made_again_in_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse.silver import spool

    monkeypatch.setattr(spool, "_FEW", 0)
    monkeypatch.setattr(spool.Spool, "rows_that_fit", 2)
    bench.use(transform="plus_1000").backfill("2024-01")
    monkeypatch.undo()
    assert [row[2] for row in bench.table()] == [11, 1020, 995, 40, 1060]
    assert bench.backfill("2024-01").changes_nothing


def test_later_batches_go_on_as_before(bench: Bench) -> None:
    bench.use(transform="plus_1000").backfill()
    bench.land("c.csv", "2,2024-01-02,21", "7,2024-01-04,70")
    result = bench.take()
    assert (result.accepted, result.batches) == (2, (3,))
    assert (2, "2024-01-02", 1021) in bench.table()
    assert bench.differences() == []


def test_the_commit_says_what_it_was_and_brings_no_batch(bench: Bench) -> None:
    silver = bench.lake.table("silver", "sales")
    watermark = silver.snapshot().history(1)[0].metadata["watermark_utc"]
    bench.use(transform="plus_1000").backfill()
    snapshot = silver.snapshot()
    document = snapshot.history(1)[0].metadata
    assert document["action"] == "backfill"
    assert (document["first_day"], document["last_day"], document["keys_changed"]) == (
        "2024-01-02",
        "2024-01-02",
        2,
    )
    assert document["batches"] == []
    assert document["watermark_utc"] == watermark
    assert snapshot.txn(names.app_id("silver", "sales")) == 2
    assert snapshot.txn(names.app_id("backfill", "sales")) == 1


def test_rows_that_bronze_has_lost_are_not_taken_from_silver(bench: Bench) -> None:
    bronze = bench.lake.table("bronze", "sales").snapshot()
    first = bronze.files().filter(pl.col("min._batch_id") == 1)["path"].to_list()
    bronze.commit(remove=first)
    before = bench.content()
    with pytest.raises(ConservationError, match="bronze does not have what they came from"):
        bench.backfill()
    assert bench.content() == before


def test_what_cannot_be_backfilled_is_said_with_what_to_do(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake")
    with pytest.raises(TableNotFound):
        bench.backfill()
    bench.silver = {"mode": "upsert"}
    with pytest.raises(DeclarationError, match="does not say which column its days are in"):
        backfill_of(bench.lake, bench.settings, bench.use().pipeline, Period.parse("2024-01", "2024-01"))


@pytest.mark.parametrize(("first", "last", "days"), [
    ("2024-02", "2024-02", 29), ("2024-01-31", "2024-02", 30), ("2024-01-02", "2024-01-02", 1),
])  # fmt: skip
def test_a_range_is_days_or_whole_months(first: str, last: str, days: int) -> None:
    period = Period.parse(first, last)
    assert (period.last - period.first).days + 1 == days


@pytest.mark.parametrize(
    ("first", "last"), [("2024-13", "2024-13"), ("yesterday", "2024-01-01"), ("2024-02", "2024-01")]
)
def test_what_is_no_range_is_refused(first: str, last: str) -> None:
    with pytest.raises(DeclarationError):
        Period.parse(first, last)
