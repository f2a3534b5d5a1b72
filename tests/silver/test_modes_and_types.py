"""What users declare and sources send: deletions in every form, all types twice, columns and modes that change."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from lakehouse import names, quarantine
from lakehouse.contracts import Contract
from lakehouse.contracts.model import TimestampUtc
from lakehouse.errors import ContractError
from lakehouse.silver import replay
from tests.lakes import Orders, OrdersLake

pytestmark = pytest.mark.slow


class Flagged(Contract):
    """One row per order, with a mark for deleted ones."""

    id: pl.Int64 = pa.Field(description="Number.")
    gone: pl.Boolean = pa.Field(nullable=True, description="Deleted in the source.")
    code: pl.Int64 = pa.Field(nullable=True, description="1 for deleted.")
    word: pl.String = pa.Field(nullable=True, description="The same in words.")
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["id"]


@pytest.mark.parametrize(
    ("column", "value"),
    [("gone", True), ("gone", "true"), ("gone", 1), ("gone", "T"), ("code", 1), ("code", "1"), ("code", True),
     ("word", "yes"), ("word", True)],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["upsert", "history"])
def test_a_deletion_is_known_whatever_type_marks_it(
    tmp_path: Path, mode: str, column: str, value: str | int | bool
) -> None:
    lake = OrdersLake(
        tmp_path, mode, contract=Flagged, sequence_by="seq", delete_when={"column": column, "value": value}
    )
    lake.arrive("1,false,0,no,1", "2,false,0,no,1", "3,,,,1", header="id,gone,code,word,seq")
    lake.arrive("1,TRUE,1,yes,2", header="id,gone,code,word,seq")
    rows = lake.lake.table("silver", "orders").snapshot().scan().filter(pl.col(names.IS_DELETED)).collect()
    assert rows["id"].to_list() == [1]


def test_a_mark_that_no_file_has_is_a_clear_error(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "upsert", delete_when={"column": "op", "value": "D"})
    with pytest.raises(ContractError, match="no column 'op' has come yet"):
        lake.arrive("1,5,x,1")


def test_false_may_mark_a_deletion_too(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Flagged, delete_when={"column": "gone", "value": False})
    lake.arrive("1,false,0,no,1", "2,true,0,no,1", "3,,,,1", header="id,gone,code,word,seq")
    assert lake.rows("id", names.IS_DELETED) == [(1, True), (2, False), (3, False)]


@pytest.mark.parametrize("mode", ["upsert", "history"])
@pytest.mark.parametrize("order", [("1,5,zz,7", "1,5,D,7"), ("1,5,D,7", "1,5,zz,7")])
def test_a_deletion_with_the_time_of_the_last_change_counts_whatever_came_first(
    tmp_path: Path, mode: str, order: tuple[str, str]
) -> None:
    """A source that marks a row as deleted often leaves its time of change as it was."""
    for number, batches in enumerate([order, (order[0] + "\n" + order[1],)]):
        lake = OrdersLake(
            tmp_path / str(number), mode, sequence_by="seq", delete_when={"column": "note", "value": "D"}
        )
        for batch in batches:
            lake.arrive(batch)
        newest = lake.lake.table("silver", "orders").snapshot().scan()
        if mode == "history":
            newest = newest.filter(pl.col(names.VALID_TO).is_null())
        assert newest.collect()[names.IS_DELETED].to_list() == [True]


def test_ties_of_numbers_that_json_does_not_know_are_settled_once(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "upsert", sequence_by="seq")
    counts = [lake.arrive(f"1,{amount},x,7").accepted for amount in ("inf", "5", "inf", "5", "inf")]
    assert sum(counts) <= 2


class Everything(Contract):
    """A column of each type that Delta stores as another one."""

    id: pl.UInt32 = pa.Field(description="Number.")
    small: pl.UInt8 = pa.Field(nullable=True, description="x")
    large: pl.UInt64 = pa.Field(nullable=True, description="x")
    kind: pl.Enum(["a", "b"]) = pa.Field(nullable=True, description="x")  # type: ignore[valid-type]
    at: pl.Time = pa.Field(nullable=True, description="x")
    ms: pl.Datetime("ms", "UTC") = pa.Field(nullable=True, description="x")  # type: ignore[valid-type]
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["id"]


@pytest.mark.parametrize("mode", ["append", "upsert", "history"])
def test_types_that_delta_stores_as_wider_ones_are_taken_again_and_again(tmp_path: Path, mode: str) -> None:
    options: dict[str, Any] = {} if mode == "append" else {"sequence_by": "seq"}
    lake = OrdersLake(tmp_path, mode, contract=Everything, **options)
    header = "id,small,large,kind,at,ms,seq"
    for number in (1, 2, 3):
        result = lake.arrive(
            f"{number},200,18446744073709551615,a,10:20:30,2024-01-01T00:00:00.001Z,{number}",
            f"9,{number},1,b,00:00:00,2024-01-01T00:00:00Z,{number}",
            header=header,
        )
        assert result.quarantined == 0
    rows = lake.rows("id", "small", "large")
    assert [row for row in rows if row[0] == 1] == [(1, 200, 18446744073709551615)]
    nine = [row[1] for row in rows if row[0] == 9]
    assert nine == {"append": [1], "upsert": [3], "history": [1, 2, 3]}[mode]


@pytest.mark.parametrize(
    ("before", "after"), [("upsert", "history"), ("append", "history"), ("history", "upsert")]
)
def test_a_table_does_not_become_a_history_or_stop_being_one(tmp_path: Path, before: str, after: str) -> None:
    options = {"append": {}, "upsert": {"sequence_by": "seq"}, "history": {"sequence_by": "seq"}}
    OrdersLake(tmp_path, before, **options[before]).arrive("1,5,old,1000000")
    lake = OrdersLake(tmp_path, after, **options[after])
    lake.files = 1
    with pytest.raises(ContractError, match="history"):
        lake.arrive("1,6,new,2000000")


class Narrow(Contract):
    """Without the note."""

    id: pl.Int64 = pa.Field(description="Number.")
    amount: pl.Float64 = pa.Field(ge=0, description="Euros.")
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["id"]


def test_a_column_that_left_the_contract_keeps_what_it_holds(tmp_path: Path) -> None:
    OrdersLake(tmp_path, "upsert", sequence_by="seq").arrive("1,5,one,1", "2,5,two,1")
    lake = OrdersLake(tmp_path, "upsert", contract=Narrow, sequence_by="seq")
    lake.files = 1
    lake.arrive("1,6,ignored,2")
    assert lake.rows("id", "amount", "note") == [(1, 6.0, None), (2, 5.0, "two")]


class Signed(Contract):
    """Bytes beside a rule."""

    id: pl.Int64 = pa.Field(ge=0, description="Number.")
    body: pl.Binary = pa.Field(nullable=True, description="Bytes.")

    class Config:
        unique = ["id"]


def test_a_refused_row_with_bytes_is_kept_as_text(tmp_path: Path) -> None:
    lake = OrdersLake(
        tmp_path, "upsert", contract=Signed, source={"path": "orders/*.parquet", "format": "parquet"}
    )
    folder = Path(lake.settings.landing, "orders")
    folder.mkdir(parents=True)
    pl.DataFrame(
        {"id": [1, -1], "body": [b"\xff\x00", b"\xfe"], "list": [[b"\xff"], [b"\xfd"]]}
    ).write_parquet(folder / "a.parquet")
    result = lake.run()
    assert (result.accepted, result.quarantined) == (1, 1)
    raw = json.loads(lake.refused()[0][1])
    assert (raw["id"], raw["body"], raw["list"]) == (-1, "fe", ["fd"])
    pl.DataFrame({"id": [1], "body": [b"\xfa"], "list": [[b"\xff"]]}).write_parquet(folder / "b.parquet")
    assert lake.run().accepted == 1


class Exact(Orders):
    amount: pl.Decimal(18, 2) = pa.Field(description="Euros.")  # type: ignore[valid-type]


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        (12345678.02, True),
        (12345678.019, False),
        (0.1 + 0.2, True),
        (5e9 + 0.125, False),
        (-7.1, True),
        (0.0, True),
    ],
)
def test_a_float_becomes_a_decimal_only_where_it_is_one(tmp_path: Path, value: float, is_taken: bool) -> None:
    lake = OrdersLake(
        tmp_path, "append", contract=Exact, source={"path": "orders/*.parquet", "format": "parquet"}
    )
    folder = Path(lake.settings.landing, "orders")
    folder.mkdir(parents=True)
    pl.DataFrame({"id": [1], "amount": [value], "note": ["x"], "seq": [1]}).write_parquet(
        folder / "a.parquet"
    )
    result = lake.run()
    assert (result.accepted, result.quarantined) == ((1, 0) if is_taken else (0, 1))


class Mailed(Contract):
    """No two rows of a batch have one address."""

    id: pl.Int64 = pa.Field(description="Number.")
    mail: pl.String = pa.Field(unique=True, description="Address.")
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["id"]


def test_a_rule_about_a_batch_is_asked_of_each_batch_that_waits(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Mailed, sequence_by="seq")
    for day in (1, 2, 3):
        lake.land(f"1,a@x,{day}", f"2,b@x,{day}", header="id,mail,seq")
        lake.ingest()
    result = lake.run()
    assert (result.rows_in, result.quarantined) == (6, 0)
    assert result.batches == (1, 2, 3)


class First(Contract):
    """Of rows with one address the first alone: a window over the batch."""

    id: pl.Int64 = pa.Field(description="Number.")
    mail: pl.String = pa.Field(description="Address.")

    @pa.check("mail")
    def first_of_its_kind(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).is_first_distinct())

    class Config:
        unique = ["id"]


def test_a_row_that_its_batch_refused_is_not_released_because_it_is_looked_at_alone(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "append", contract=First)
    assert lake.arrive("1,a@x", "2,a@x", header="id,mail").quarantined == 1
    done = replay(lake.lake, lake.settings, lake.pipeline, quarantine.Selection(), actor="test")
    assert (done.released, lake.rows("id")) == (0, [(1,)])


def test_two_runs_that_take_different_batches_refuse_each_row_once(tmp_path: Path) -> None:
    """One planned batches 1 and 2 and has kept what they refuse; the other, which had begun before, planned 1 to 3."""
    lake = OrdersLake(tmp_path)
    for number in (1, 2, 3):
        lake.land(f"{number},-1,bad,1")
        lake.ingest()
    rows = pl.LazyFrame(
        {
            "_batch_id": [1, 2, 3],
            "_source_file": ["a", "b", "c"],
            "_source_row": [1, 1, 1],
            "_broken_rules": [["x"]] * 3,
            "_raw": ["{}"] * 3,
        }
    )
    given = {"stage": "silver", "contract_hash": None, "run_id": "r"}
    assert quarantine.append(lake.lake, "orders", rows.head(2), batch_id=2, first_batch_id=1, **given) == 2
    assert quarantine.append(lake.lake, "orders", rows, batch_id=3, first_batch_id=1, **given) == 1
    kept = lake.lake.table("quarantine", "orders").snapshot().scan().collect()
    assert sorted(kept["_batch_id"]) == [1, 2, 3]
    known = quarantine.half_done(lake.lake, "orders", stage="silver", batches=(1, 4))
    assert known is not None
    assert known.height == 3


def test_times_of_day_are_what_they_were(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Everything, sequence_by="seq")
    lake.arrive("1,,,,10:20:30,,1", header="id,small,large,kind,at,ms,seq")
    (stored,) = lake.rows("at")
    assert datetime.time.fromisoformat(stored[0]) == datetime.time(10, 20, 30)


class Dated(Contract):
    """One row per day."""

    day: pl.Date = pa.Field(description="Day.")
    at: TimestampUtc = pa.Field(description="Instant.")

    class Config:
        unique = ["day", "at"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_date_that_python_does_not_know_is_refused_instead_of_stopping_the_table(
    tmp_path: Path, form: str
) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Dated, source={"path": f"orders/*.{form}", "format": form})
    if form == "csv":
        lake.land("0000-01-01,2024-01-01T00:00:00Z", "2024-01-01,0001-01-01T00:00:00+01:00",
                  "2024-01-01,2024-01-01T00:00:00Z", header="day,at")  # fmt: skip
    else:
        days = pl.Series([-719_600, 0, 0, 2_932_900], dtype=pl.Int32).cast(pl.Date())
        instants = pl.Series([0, -(10**17), 10**15, 0], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
        folder = Path(lake.settings.landing, "orders")
        folder.mkdir(parents=True)
        pl.DataFrame({"day": days, "at": instants}).write_parquet(folder / "a.parquet")
    result = lake.run()
    assert (result.accepted, result.quarantined) == (1, 2 if form == "csv" else 3)
    assert {rule for rules, *_ in lake.refused() for rule in rules} >= {"castable(day)", "castable(at)"}
