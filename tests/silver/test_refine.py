"""Silver on real tables: typed, screened, deduplicated, kept; every row accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from lakehouse import ledger
from lakehouse.bronze import ingest
from lakehouse.contracts import Contract
from lakehouse.errors import ConservationError, ContractError
from lakehouse.ops.reconcile import reconcile
from lakehouse.silver import refine
from tests.lakes import OrdersLake


@pytest.fixture
def bench(tmp_path: Path) -> OrdersLake:
    return OrdersLake(tmp_path / "lake")


def test_text_becomes_typed_and_null_markers_become_null(bench: OrdersLake) -> None:
    result = bench.arrive("007,1.50,NA,", "8, 2 ,hello,3")
    assert result.accepted == 2
    assert bench.rows("id", "amount", "note", "seq") == [(7, 1.5, None, None), (8, 2.0, "hello", 3)]


def test_a_null_marker_of_one_column_is_a_value_in_another(tmp_path: Path) -> None:
    bench = OrdersLake(tmp_path / "lake", source={"null_markers": {"seq": ["NA"]}})
    bench.arrive("1,1,NA,NA")
    assert bench.rows("id", "note", "seq") == [(1, "NA", None)]


def test_refused_rows_are_kept_whole_with_every_rule_they_broke(bench: OrdersLake) -> None:
    result = bench.arrive("1,-5,x,1", "two,abc,y,1", "3,9,z,1")
    assert (result.rows_in, result.accepted, result.quarantined) == (3, 1, 2)
    (first_rules, first_raw, _), (second_rules, second_raw, _) = bench.refused()
    assert first_rules == ["amount >= 0"]
    assert first_raw == '{"id":"1","amount":"-5","note":"x","seq":"1","_rescued":null}'
    assert set(second_rules) == {"castable(id)", "castable(amount)"}
    assert '"two"' in second_raw
    assert bench.rows("id") == [(3,)]


def test_a_second_run_with_nothing_new_commits_nothing(bench: OrdersLake) -> None:
    bench.arrive("1,1,x,1")
    before = bench.lake.table("silver", "orders").snapshot().version
    assert not refine(bench.lake, bench.settings, bench.pipeline).committed
    assert bench.lake.table("silver", "orders").snapshot().version == before


def test_append_keeps_the_first_row_of_a_key(bench: OrdersLake) -> None:
    assert bench.arrive("1,1,first,", "1,2,again,").deduplicated == 1
    assert bench.arrive("1,3,later,", "2,4,new,").deduplicated == 1
    assert bench.rows("id", "note") == [(1, "first"), (2, "new")]


def test_upsert_keeps_the_latest_row_by_arrival(tmp_path: Path) -> None:
    bench = OrdersLake(tmp_path / "lake", "upsert")
    assert bench.arrive("1,1,a,", "1,2,b,", "2,1,x,").superseded == 1
    result = bench.arrive("1,3,c,", "2,1,x,")
    assert (result.accepted, result.deduplicated) == (1, 1)
    assert bench.rows("id", "note") == [(1, "c"), (2, "x")]


def test_upsert_refuses_to_go_back_in_time(tmp_path: Path) -> None:
    bench = OrdersLake(tmp_path / "lake", "upsert", sequence_by="seq")
    bench.arrive("1,5,new,10")
    result = bench.arrive("1,4,old,9")
    assert (result.accepted, result.late) == (0, 1)
    assert bench.rows("id", "note", "seq") == [(1, "new", 10)]


def test_a_deleted_row_is_not_raised_again_by_an_older_one(tmp_path: Path) -> None:
    bench = OrdersLake(
        tmp_path / "lake", "upsert", sequence_by="seq", delete_when={"column": "note", "value": "D"}
    )
    bench.arrive("1,5,alive,1")
    bench.arrive("1,5,D,3")
    bench.arrive("1,5,late,2")
    assert bench.rows("id", "_is_deleted") == [(1, True)]


def test_history_keeps_every_version_with_its_time(tmp_path: Path) -> None:
    bench = OrdersLake(tmp_path / "lake", "history", sequence_by="seq")
    bench.arrive("1,5,a,1000000", "1,5,a,2000000")
    bench.arrive("1,5,c,4000000")
    bench.arrive("1,5,b,3000000")
    table = bench.lake.table("silver", "orders").snapshot().scan().sort("valid_from_utc").collect()
    assert table["note"].to_list() == ["a", "b", "c"]
    assert table["is_current"].to_list() == [False, False, True]
    assert table["valid_to_utc"].to_list()[:2] == table["valid_from_utc"].to_list()[1:]


def test_a_version_that_a_late_row_splits_begins_where_its_sequence_says(tmp_path: Path) -> None:
    """The second part of a split version kept the first part's sequence: the table depended on the batching."""
    lake = OrdersLake(tmp_path, mode="history", sequence_by="seq")
    lake.arrive("1,10,a,100", "1,10,a,300")
    lake.arrive("1,20,b,200")
    found = lake.lake.table("silver", "orders").snapshot().scan().collect().sort("valid_from_utc")
    assert found["seq"].to_list() == [100, 200, 300]
    assert found["valid_from_utc"].dt.epoch("us").to_list() == [100, 200, 300]


def test_only_files_with_touched_keys_are_rewritten(tmp_path: Path) -> None:
    bench = OrdersLake(tmp_path / "lake", "upsert")
    bench.arrive(*(f"{n},1,x," for n in range(100)))
    first = set(bench.lake.table("silver", "orders").snapshot().uris())
    bench.arrive(*(f"{n},1,x," for n in range(1000, 1100)))
    bench.arrive("1050,2,changed,")
    assert first < set(bench.lake.table("silver", "orders").snapshot().uris())
    assert len(bench.rows("id")) == 200


def test_a_missing_required_column_refuses_the_rows_not_the_run(bench: OrdersLake) -> None:
    result = bench.arrive("1,x", header="id,note")
    assert (result.accepted, result.quarantined) == (0, 1)
    assert bench.refused()[0][0] == ["not_null(amount)"]


def test_a_transform_that_loses_rows_commits_nothing(tmp_path: Path) -> None:
    bench = OrdersLake(tmp_path / "lake", transform=lambda frame: frame.filter(pl.col("id") > 1))
    with pytest.raises(ConservationError, match="2 rows in, 1 out of the transform"):
        bench.arrive("1,1,x,", "2,1,x,")
    assert not bench.lake.table("silver", "orders").exists()


def test_a_transform_that_fails_is_named(tmp_path: Path) -> None:
    def transform(frame: pl.LazyFrame) -> pl.LazyFrame:
        raise KeyError("colour")

    with pytest.raises(ContractError, match=r"orders_of_test\.transform failed: KeyError: 'colour'"):
        OrdersLake(tmp_path / "lake", transform=transform).arrive("1,1,x,")


def test_a_value_that_cannot_be_cast_is_refused_whatever_the_transform_selects(tmp_path: Path) -> None:
    def transform(frame: pl.LazyFrame) -> pl.LazyFrame:
        return frame.select(
            "_batch_id", "_source_file", "_source_row", "id", "amount", "seq", note=pl.lit("x")
        )

    bench = OrdersLake(tmp_path / "lake", transform=transform)
    result = bench.arrive("1,1,a,1", "2,2,b,soon", "3,much,c,soon", "4,4,d,")
    assert (result.accepted, result.quarantined) == (2, 2)
    second, third = (set(rules) for rules, *_ in bench.refused())
    assert second == {"castable(seq)"}
    assert third >= {"castable(amount)", "castable(seq)"}
    assert bench.rows("id", "note", "seq") == [(1, "x", 1), (4, "x", None)]


def test_a_transform_that_drops_flags_and_lineage_is_told_what_to_keep(tmp_path: Path) -> None:
    bench = OrdersLake(tmp_path / "lake", transform=lambda frame: frame.select("id", "amount", "note", "seq"))
    with pytest.raises(ContractError, match="drops _batch_id, _source_file, _source_row"):
        bench.arrive("1,1,a,1")


def test_a_history_begins_when_the_path_says(tmp_path: Path) -> None:
    source = {"path": "orders/*/*.csv", "path_columns": {"since": r"orders/([^/]+)/"}}
    bench = OrdersLake(tmp_path / "lake", "history", source=source, sequence_by="since")
    for day, amount in (("2024-03-02", 1), ("2024-03-01T10:00", 2)):
        path = Path(bench.settings.landing, "orders", day, "a.csv")
        path.parent.mkdir(parents=True)
        path.write_text(f"id,amount,note,seq\n1,{amount},x,\n")
        bench.run()
    begins = bench.rows("valid_from_utc", "amount")
    assert [(f"{at:%d %H}", amount) for at, amount in begins] == [("01 10", 2.0), ("02 00", 1.0)]


@pytest.mark.parametrize(
    ("folder", "message"), [("01.02.2024", "such as '01.02.2024'"), ("x-", "no since, so")]
)
def test_a_path_without_a_date_that_can_be_read_is_named(tmp_path: Path, folder: str, message: str) -> None:
    source = {"path": "orders/*/*.csv", "path_columns": {"since": r"orders/([\d.]+)/"}}
    bench = OrdersLake(tmp_path / "lake", "history", source=source, sequence_by="since")
    path = Path(bench.settings.landing, "orders", folder, "a.csv")
    path.parent.mkdir(parents=True)
    path.write_text("id,amount,note,seq\n1,1,x,\n")
    with pytest.raises(ContractError, match=message) as caught:
        bench.run()
    assert "path_columns" in str(caught.value.hint)


class Comma(Contract):
    """The source's ``amount`` has a comma; the contract's column has another name."""

    id: pl.Int64 = pa.Field(description="Number.")
    amount_eur: pl.Float64 = pa.Field(nullable=True, description="Euros.")

    class Config:
        unique = ["id"]


def test_numbers_with_separators_are_read_from_a_source_column_of_another_name(tmp_path: Path) -> None:
    """As docs/pipelines.md says it."""

    def transform(raw: pl.LazyFrame) -> pl.LazyFrame:
        text = pl.col("amount").str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        return raw.with_columns(amount_eur=text)

    bench = OrdersLake(
        tmp_path / "lake", contract=Comma, source={"csv": {"delimiter": ";"}}, transform=transform
    )
    result = bench.arrive("1;1.234,5", "2;much", "3;", header="id;amount")
    assert (result.accepted, result.quarantined) == (2, 1)
    assert bench.rows("id", "amount_eur") == [(1, 1234.5), (3, None)]
    assert bench.refused()[0][0] == ["castable(amount_eur)"]


@pytest.mark.parametrize(
    ("mode", "options", "rows"),
    [
        ("append", {}, 60_000),
        ("upsert", {"sequence_by": "seq"}, 60_000),
        ("history", {"sequence_by": "seq"}, 100_000),
    ],
)
def test_a_batch_larger_than_memory_allows_gives_the_same_table(
    tmp_path: Path, mode: str, options: dict[str, Any], rows: int
) -> None:
    """10,000 rows are the smallest slice; a limit of one byte makes ten of them, with keys repeated across."""
    lines = [f"{n % 60_000},{n % 7},x,{n}" for n in range(100_000)]
    tables = []
    for limit in ("4GiB", "1B"):
        bench = OrdersLake(tmp_path / limit, mode, **options)
        bench.settings = bench.settings.model_copy(update={"memory_limit": limit})
        result = bench.arrive(*lines)
        assert (result.accepted, result.rows_in) == (rows, 100_000)
        tables.append(bench.rows("id", "amount", "seq"))
    assert tables[0] == tables[1]
    assert len(tables[0]) == rows


def test_refused_rows_of_a_lost_commit_are_not_kept_twice(
    bench: OrdersLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quarantine commit is done, the data commit is lost, and more has arrived before the next run."""
    bench.arrive("1,1,x,")
    from lakehouse.storage import Snapshot

    def lost(self: Snapshot, **arguments: Any) -> int:
        if self.table.layer == "silver":
            raise KeyboardInterrupt
        return real(self, **arguments)

    real = Snapshot.commit
    monkeypatch.setattr(Snapshot, "commit", lost)
    with pytest.raises(KeyboardInterrupt):
        bench.arrive("2,-1,bad,")
    monkeypatch.setattr(Snapshot, "commit", real)
    result = bench.arrive("3,-1,bad too,")
    assert (result.rows_in, result.quarantined) == (2, 2)
    assert len(bench.refused()) == 2


@pytest.mark.slow
def test_a_large_batch_whose_commit_was_lost_is_taken_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try leaves out, by a join, what the first one refused; the rest goes through slices on disk."""
    from lakehouse.storage import Snapshot

    bench = OrdersLake(tmp_path / "lake", "upsert", sequence_by="seq")
    bench.settings = bench.settings.model_copy(update={"memory_limit": "1B"})
    bench.arrive("0,1,x,0")
    real = Snapshot.commit

    def lost(self: Snapshot, **arguments: Any) -> int:
        if self.table.layer == "silver":
            raise KeyboardInterrupt
        return real(self, **arguments)

    monkeypatch.setattr(Snapshot, "commit", lost)
    rows = range(1, 300_001)
    with pytest.raises(KeyboardInterrupt):
        bench.arrive("300001,-1,bad,1", *(f"{n},{n % 7},x,{n}" for n in rows))
    monkeypatch.setattr(Snapshot, "commit", real)
    result = bench.run()
    assert (result.rows_in, result.accepted, result.quarantined) == (300_001, 300_000, 1)
    assert [row[0] for row in bench.rows("id")] == [0, *rows]


@pytest.mark.parametrize(
    ("mode", "options"),
    [("append", {}), ("upsert", {"sequence_by": "seq"})],
)
def test_the_ledger_accounts_for_every_batch_of_a_commit_of_several(
    tmp_path: Path, mode: str, options: dict[str, Any]
) -> None:
    bench = OrdersLake(tmp_path / "lake", mode, **options)
    bench.arrive("1,1,a,5")
    for lines in (("1,1,a,5", "2,1,b,1"), ("1,-1,bad,9", "3,1,c,1", "3,1,c,1")):
        bench.land(*lines)
        ingest(bench.lake, bench.settings, bench.pipeline)
    result = refine(bench.lake, bench.settings, bench.pipeline)
    assert result.batches == (2, 3)
    ledger.sync(bench.lake, [bench.pipeline])
    rows = (
        bench.lake.table("ops", "batches").snapshot().scan().filter(stage="silver").sort("batch_id").collect()
    )
    counts = rows.select("batch_id", "rows_in", "accepted", "deduplicated", "quarantined").rows()
    assert counts == [(1, 1, 1, 0, 0), (2, 2, 1, 1, 0), (3, 3, 1, 1, 1)]
    assert all(count.ok for count in reconcile(bench.lake, bench.settings, {"orders": bench.pipeline}))
