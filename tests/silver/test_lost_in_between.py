"""Values and rows that could go missing between what came and what silver holds, without any count that shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from lakehouse import names
from lakehouse.contracts import Contract
from lakehouse.errors import ConservationError, ContractError
from tests.lakes import Orders, OrdersLake

pytestmark = pytest.mark.slow

PARQUET = {"path": "orders/*.parquet", "format": "parquet"}


class Loose(Contract):
    """One row per order; nothing but the number has to be known."""

    id: pl.Int64 = pa.Field(description="Number.")
    amount: pl.Float64 = pa.Field(nullable=True, description="Euros.")
    note: pl.String = pa.Field(nullable=True, description="Free text.")
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["id"]


def _parquet(lake: OrdersLake, name: str, **columns: list[Any]) -> None:
    folder = Path(lake.settings.landing, "orders")
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"note": ["x"] * len(columns["id"]), **columns}).write_parquet(folder / f"{name}.parquet")


# -- values that bronze set aside because their column came in another type --------------------------


def test_a_value_of_another_type_that_the_contract_takes_is_taken(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Loose, source=PARQUET, sequence_by="seq")
    _parquet(lake, "a", id=[1, 2], amount=[12, 13], seq=[1, 1])
    lake.run()
    _parquet(lake, "b", id=[1, 2], amount=[12.5, None], seq=[2, 2])
    assert lake.run().accepted == 2
    assert lake.rows("id", "amount") == [(1, 12.5), (2, None)]


def test_a_value_of_another_type_that_the_contract_does_not_take_is_refused_and_no_null(
    tmp_path: Path,
) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Loose, source=PARQUET, sequence_by="seq")
    _parquet(lake, "a", id=[1, 2], amount=[12, 13], seq=[1, 1])
    lake.run()
    _parquet(lake, "b", id=[1, 2], amount=["twelve", "14"], seq=[2, 2])
    result = lake.run()
    assert (result.accepted, result.quarantined) == (1, 1)
    assert lake.rows("id", "amount", "seq") == [(1, 12.0, 1), (2, 14.0, 2)]
    ((rules, raw, _),) = lake.refused()
    assert rules == ["castable(amount)"]
    assert "twelve" in raw


def test_a_sequence_of_another_type_still_orders(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Loose, source=PARQUET, sequence_by="seq")
    _parquet(lake, "a", id=[1], amount=[1], seq=pl.Series([1], dtype=pl.Int32))
    lake.run()
    _parquet(lake, "b", id=[1], amount=[2], seq=[5_000_000_000])
    assert lake.run().late == 0
    assert lake.rows("id", "amount", "seq") == [(1, 2.0, 5_000_000_000)]


def test_what_bronze_printed_is_not_taken_for_what_was_sent(tmp_path: Path) -> None:
    """Bytes and nested values beside texts: their printed form would be another value."""
    lake = OrdersLake(tmp_path, "upsert", contract=Loose, source=PARQUET, sequence_by="seq")
    _parquet(lake, "a", id=[1, 2], amount=[1, 2], seq=[1, 1])
    lake.run()
    _parquet(lake, "b", id=[1], amount=[3], seq=[2], note=[b"AA100"])
    _parquet(lake, "c", id=[2], amount=[4], seq=[2], note=[["a", "b"]])
    result = lake.run()
    assert (result.accepted, result.quarantined) == (0, 2)
    _parquet(lake, "d", id=[2], amount=[b"12"], seq=[2])
    assert lake.run().quarantined == 1
    assert sorted(rules[0] for rules, *_ in lake.refused()) == ["castable(amount)", *["castable(note)"] * 2]
    assert lake.rows("id", "amount", "note") == [(1, 1.0, "x"), (2, 2.0, "x")]


class Noteless(Contract):
    """Before anybody knew of notes."""

    id: pl.Int64 = pa.Field(description="Number.")
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["id"]


def test_a_column_that_was_new_once_is_read_when_the_contract_gets_it(tmp_path: Path) -> None:
    """Its first values were set aside, as the source's policy was; the later ones have a column."""
    first = OrdersLake(
        tmp_path, "upsert", contract=Noteless, source={"new_columns": "rescue"}, sequence_by="seq"
    )
    first.land("1,1", header="id,seq")
    first.ingest()
    first.land("2,1,hello", header="id,seq,note")
    first.ingest()
    lake = OrdersLake(tmp_path, "upsert", contract=Loose, sequence_by="seq")
    lake.files = 2
    result = lake.arrive("3,1,world", header="id,seq,note")
    assert (result.accepted, result.quarantined) == (3, 0)
    assert lake.rows("id", "note") == [(1, None), (2, "hello"), (3, "world")]


def test_bytes_and_objects_are_no_text_beside_numbers_either(tmp_path: Path) -> None:
    class Coded(Loose):
        amount: pl.String = pa.Field(nullable=True, description="A code.")

        class Config:
            unique = ["id"]

    lake = OrdersLake(tmp_path, "upsert", contract=Coded, source=PARQUET, sequence_by="seq")
    _parquet(lake, "a", id=[1], amount=[7], seq=[1])
    lake.run()
    for name, amount in (("b", b"AA"), ("c", {"a": 1})):
        _parquet(lake, name, id=[1], amount=[amount], seq=[2])
        assert lake.run().quarantined == 1
    _parquet(lake, "d", id=[1], amount=["A7"], seq=[3])
    assert lake.run().accepted == 1
    assert lake.rows("amount") == [("A7",)]


class Defaulted(Loose):
    amount: pl.Float64 = pa.Field(default=0.0, nullable=True, description="Euros, none if not said.")

    class Config:
        unique = ["id"]


def test_a_default_takes_the_place_of_no_value_and_not_of_one_that_was_set_aside(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Defaulted, source=PARQUET, sequence_by="seq")
    _parquet(lake, "a", id=[1, 2, 3], amount=[1, 1, 1], seq=[1, 1, 1])
    lake.run()
    _parquet(lake, "b", id=[1, 2, 3], amount=["12.5", "twelve", None], seq=[2, 2, 2])
    result = lake.run()
    assert (result.accepted, result.quarantined) == (2, 1)
    assert lake.rows("id", "amount") == [(1, 12.5), (2, 1.0), (3, 0.0)]


# -- deletions say which key, and little else --------------------------------------------------------


class Strict(Orders):
    note: pl.String = pa.Field(isin=["new", "sent", "D"], description="State.")
    mail: pl.String = pa.Field(unique=True, description="No two of a batch are alike.")

    @pa.dataframe_check
    def amount_is_round(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("amount") == pl.col("amount").round(2))

    class Config:
        unique = ["id"]


HEADER = "id,amount,note,seq,mail"


@pytest.mark.parametrize("mode", ["upsert", "history"])
def test_a_deletion_that_names_its_key_alone_deletes(tmp_path: Path, mode: str) -> None:
    lake = OrdersLake(
        tmp_path, mode, contract=Strict, sequence_by="seq", delete_when={"column": "note", "value": "D"}
    )
    lake.arrive("1,5,new,1,a", "2,6,new,1,b", "3,7,new,1,c", header=HEADER)
    result = lake.arrive("1,,D,2,", "2,,D,2,", "3,-1,sent,2,d", ",,D,2,", header=HEADER)
    assert (result.accepted, result.quarantined) == (2, 2)
    rows = lake.lake.table("silver", "orders").snapshot().scan().collect()
    if mode == "history":
        rows = rows.filter(pl.col(names.VALID_TO).is_null())
    assert dict(rows.select("id", names.IS_DELETED).iter_rows()) == {1: True, 2: True, 3: False}
    assert sorted(rule for rules, *_ in lake.refused() for rule in rules) == ["amount >= 0", "not_null(id)"]


def test_a_deletion_that_does_not_say_when_is_judged_like_any_row(tmp_path: Path) -> None:
    lake = OrdersLake(
        tmp_path, "upsert", contract=Strict, sequence_by="seq", delete_when={"column": "note", "value": "D"}
    )
    lake.arrive("1,5,new,1,a", header=HEADER)
    assert lake.arrive("1,,D,,", header=HEADER).quarantined == 1
    assert lake.rows("id", names.IS_DELETED) == [(1, False)]


class Ordered(Orders):
    seq: pl.Int64 = pa.Field(le=1_000, nullable=True, description="Version.")

    class Config:
        unique = ["id"]


def test_a_deletion_of_the_far_future_is_refused_where_the_contract_says_what_orders_rows(
    tmp_path: Path,
) -> None:
    lake = OrdersLake(
        tmp_path, "upsert", contract=Ordered, sequence_by="seq", delete_when={"column": "note", "value": "D"}
    )
    lake.arrive("1,5,x,1")
    assert lake.arrive("1,,D,99999").quarantined == 1
    assert lake.arrive("1,6,y,2").accepted == 1
    assert lake.rows("id", "amount", names.IS_DELETED) == [(1, 6.0, False)]


# -- a table that learns of deletions, and one that forgets them ---------------------------------------


def test_a_history_that_learns_of_deletions_keeps_what_is_current(tmp_path: Path) -> None:
    OrdersLake(tmp_path, "history", contract=Loose, sequence_by="seq").arrive(
        "1,5,x,2000000", "2,6,y,2000000"
    )
    lake = OrdersLake(
        tmp_path, "history", contract=Loose, sequence_by="seq", delete_when={"column": "note", "value": "D"}
    )
    lake.files = 1
    # The same state once more, a late one, and one that was seen again later.
    lake.arrive("1,5,x,2000000", "1,4,w,1000000", "2,6,y,3000000")
    rows = lake.rows("id", "amount", names.IS_CURRENT)
    assert rows == [(1, 4.0, False), (1, 5.0, True), (2, 6.0, True)]


@pytest.mark.parametrize("mode", ["upsert", "history"])
def test_a_table_that_knows_of_deletions_does_not_forget_them(tmp_path: Path, mode: str) -> None:
    first = OrdersLake(
        tmp_path, mode, contract=Loose, sequence_by="seq", delete_when={"column": "note", "value": "D"}
    )
    first.arrive("1,5,x,1000000", "1,5,D,2000000")
    lake = OrdersLake(tmp_path, mode, contract=Loose, sequence_by="seq")
    lake.files = 1
    with pytest.raises(ContractError, match="delete_when is gone"):
        lake.arrive("1,5,x,1000000")


# -- keys, ties, transforms --------------------------------------------------------------------------


class Keyless(Contract):
    """One row per line."""

    id: pl.Int64 = pa.Field(description="Number.")
    amount: pl.Float64 = pa.Field(nullable=True, description="Euros.")


def test_a_key_that_the_rows_of_before_do_not_have_is_a_clear_error(tmp_path: Path) -> None:
    OrdersLake(tmp_path, contract=Keyless).arrive("1,5", "1,6", header="id,amount")

    class Keyed(Keyless):
        class Config:
            unique = ["id"]

    lake = OrdersLake(tmp_path, "upsert", contract=Keyed)
    lake.files = 1
    with pytest.raises(ContractError, match=r"rows with one key \(id\) twice"):
        lake.arrive("1,7", header="id,amount")


@pytest.mark.parametrize("mode", ["upsert", "history"])
@pytest.mark.parametrize("order", [("1,,x,1000000", "1,5,x,1000000"), ("1,5,x,1000000", "1,,x,1000000")])
def test_of_two_states_of_one_instant_the_one_that_says_more_counts(
    tmp_path: Path, mode: str, order: tuple[str, str]
) -> None:
    """A source that fills in a column it has just got often leaves the time of change as it was."""
    lake = OrdersLake(tmp_path, mode, contract=Loose, sequence_by="seq")
    for row in order:
        lake.arrive(row)
    assert lake.rows("id", "amount") == [(1, 5.0)]


class Tagged(Contract):
    """One row per order, with its tags."""

    id: pl.Int64 = pa.Field(description="Number.")
    Tags: pl.List(pl.String) = pa.Field(nullable=True, description="Tags.")  # type: ignore[valid-type]
    note: pl.String = pa.Field(nullable=True, description="Free text.")
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["id"]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_nested_values_that_are_alike_decide_no_tie(tmp_path: Path, order: tuple[str, str]) -> None:
    lake = OrdersLake(tmp_path, "upsert", contract=Tagged, source=PARQUET, sequence_by="seq")
    for name in order:
        _parquet(lake, name, id=[1], Tags=[["x", "y"]], note=[name], seq=[1])
        lake.run()
    assert lake.rows("note") == [("b",)]


def test_a_transform_that_drops_rows_refuses_none(tmp_path: Path) -> None:
    """What a faulty transform breaks would stay refused when it is mended."""
    lake = OrdersLake(tmp_path, "upsert", transform=lambda frame: frame.filter(pl.col("id") != 1).with_columns(amount=-pl.col("amount")))  # fmt: skip
    with pytest.raises(ConservationError, match="3 rows in, 2 out of the transform"):
        lake.arrive("1,5,x,1", "2,6,y,1", "3,7,z,1")
    assert not lake.lake.table("quarantine", "orders").exists()


def test_a_transform_that_drops_one_row_and_doubles_another_is_found(tmp_path: Path) -> None:
    def one_lost_one_doubled(frame: pl.LazyFrame) -> pl.LazyFrame:
        return pl.concat([frame.filter(pl.col("id") != 1), frame.filter(pl.col("id") == 2)])

    lake = OrdersLake(tmp_path, "upsert", transform=one_lost_one_doubled)
    with pytest.raises(ConservationError, match="drops rows and doubles others"):
        lake.arrive("1,5,x,1", "2,6,y,1", "3,7,z,1")
    assert not lake.lake.table("silver", "orders").exists()
