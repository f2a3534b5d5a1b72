"""Screening: counts, splits, and what each on_failure does."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from lakehouse.contracts import CompiledContract, Contract, compile_contract
from lakehouse.errors import ContractError


class Orders(Contract):
    """One row per order."""

    order_id: int = pa.Field(ge=1)
    customer: str = pa.Field(str_matches="^C")
    amount: float = pa.Field(ge=0, le=100, nullable=True)
    note: str = pa.Field(str_length={"max_value": 5}, nullable=True, metadata={"on_failure": "warn"})

    class Config:
        name = "orders"
        unique = ["order_id"]


ORDERS = compile_contract(Orders)


def text_frame(*rows: tuple[str | None, ...]) -> pl.LazyFrame:
    frame = pl.LazyFrame(rows, schema=dict.fromkeys(Orders.to_schema().columns, pl.String), orient="row")
    return frame.with_columns(_batch_id=pl.lit(7))


def screened(contract: CompiledContract, raw: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    frame = contract.type_columns(raw)
    accepted, rejected = contract.split(frame, contract.count(frame))
    return accepted.collect(), None if rejected is None else rejected.collect()


def test_clean_rows_all_pass_and_nothing_is_rejected() -> None:
    accepted, rejected = screened(ORDERS, text_frame(("1", "C1", "5.5", "ok"), ("2", "C2", None, None)))
    assert rejected is None
    assert accepted.columns == [*ORDERS.schema, "_batch_id"]
    assert accepted["amount"].to_list() == [5.5, None]


def test_a_row_is_rejected_once_with_every_rule_it_breaks() -> None:
    raw = text_frame(
        ("1", "C1", "5", "ok"), ("x", "D1", "-1", "ok"), ("2", None, "nan", "ok"), (None, "C3", "101", "ok")
    )
    accepted, rejected = screened(ORDERS, raw)
    assert rejected is not None
    assert accepted["order_id"].to_list() == [1]
    assert rejected["_broken_rules"].to_list() == [
        ["castable(order_id)", "customer matches '^C'", "amount >= 0"],
        # NaN lies above every number, as in Polars and pandera.
        ["not_null(customer)", "amount <= 100"],
        ["not_null(order_id)", "amount <= 100"],
    ]
    assert rejected.columns == [*ORDERS.schema, "_batch_id", "_broken_rules"]
    assert accepted.height + rejected.height == 4


def test_an_uncastable_value_is_not_reported_as_missing_as_well() -> None:
    frame = ORDERS.type_columns(text_frame(("x", "C1", None, None)))
    assert ORDERS.count(frame).violations == {"castable(order_id)": 1}


def test_a_warning_is_counted_and_rejects_nothing() -> None:
    frame = ORDERS.type_columns(text_frame(("1", "C1", "5", "too long"), ("2", "C1", "5", "ok")))
    counts = ORDERS.count(frame)
    assert counts.violations == {"length(note) <= 5": 1}
    assert not counts.clean
    accepted, rejected = ORDERS.split(frame, counts)
    assert rejected is None
    assert accepted.collect().height == 2


def test_counts_hold_every_rule_with_zeros() -> None:
    counts = ORDERS.count(ORDERS.type_columns(text_frame(("1", "C1", "5", None))))
    assert counts.rows == 1
    assert counts.clean
    assert list(counts.broken) == [rule.name for rule in ORDERS.rules]
    assert set(counts.broken.values()) == {0}


def test_an_empty_frame_breaks_nothing() -> None:
    accepted, rejected = screened(ORDERS, text_frame())
    assert rejected is None
    assert accepted.height == 0


def test_a_frame_in_which_every_row_is_bad_leaves_an_empty_accepted_frame() -> None:
    accepted, rejected = screened(ORDERS, text_frame(("0", "C1", "5", None), ("-1", "C1", "5", None)))
    assert rejected is not None
    assert (accepted.height, rejected.height) == (0, 2)


def test_on_failure_fail_stops_with_rule_count_and_remedy() -> None:
    class Strict(Contract):
        """One row per thing."""

        a: int = pa.Field(ge=0, metadata={"on_failure": {"ge": "fail"}, "remedy": "call the plant"})

    strict = compile_contract(Strict)
    frame = pl.LazyFrame({"a": [1, -1, -2]})
    with pytest.raises(
        ContractError, match=r"Strict: 2 of 3 rows break a >= 0; the table is left unchanged"
    ) as error:
        strict.split(frame, strict.count(frame))
    assert error.value.hint == "call the plant"


def test_the_key_s_uniqueness_is_left_to_the_stage_but_a_null_key_is_rejected() -> None:
    _, rejected = screened(ORDERS, text_frame(("1", "C1", "5", None), ("1", "C1", "5", None)))
    assert rejected is None
    _, rejected = screened(ORDERS, text_frame((None, "C1", "5", None)))
    assert rejected is not None
    assert rejected["_broken_rules"].to_list() == [["not_null(order_id)"]]


def test_every_row_of_a_duplicated_value_is_rejected() -> None:
    class Badges(Contract):
        """One row per badge."""

        serial: str = pa.Field(unique=True, nullable=True)
        parts: pl.List(pl.Int64) = pa.Field(unique=True)  # type: ignore[valid-type]

    badges = compile_contract(Badges)
    frame = pl.LazyFrame(
        {"serial": ["a", "b", "a", None, None, "c"], "parts": [[1], [2], [3], [4], [4], [5]]}
    )
    counts = badges.count(frame)
    assert counts.violations == {"unique(serial)": 4, "unique(parts)": 2}
    accepted, rejected = badges.split(frame, counts)
    assert accepted.collect()["serial"].to_list() == ["b", "c"]
    assert rejected is not None
    assert rejected.collect()["_broken_rules"].list.len().to_list() == [1, 1, 2, 2]


def test_a_check_that_is_no_expression_runs_in_pandera_on_the_same_rows() -> None:
    class Mixed(Contract):
        """One row per thing."""

        a: int = pa.Field(ge=0)

        @pa.check("a")
        def not_thirteen(cls, data: pa.PolarsData) -> pl.LazyFrame:
            values = data.lazyframe.collect()["a"].to_list()
            return pl.LazyFrame({"good": [value != 13 for value in values]})

    mixed = compile_contract(Mixed)
    frame = pl.LazyFrame({"a": [1, 13, -1, 13], "_batch_id": [1, 1, 1, 1]})
    counts = mixed.count(frame)
    assert counts.violations == {"a >= 0": 1, "not_thirteen": 2}
    accepted, rejected = mixed.split(frame, counts)
    assert rejected is not None
    assert accepted.collect().rows() == [(1, 1)]
    assert rejected.collect().rows() == [
        (13, 1, ["not_thirteen"]),
        (-1, 1, ["a >= 0"]),
        (13, 1, ["not_thirteen"]),
    ]


def test_a_check_of_the_whole_frame_speaks_for_every_row() -> None:
    class Batch(Contract):
        """One row per thing."""

        a: int

        @pa.dataframe_check
        def sum_below_10(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col("a").sum() < 10)

    batch = compile_contract(Batch)
    assert batch.count(pl.LazyFrame({"a": [1, 2]})).clean
    frame = pl.LazyFrame({"a": [1, 20]})
    counts = batch.count(frame)
    assert counts.violations == {"sum_below_10": 2}
    accepted, rejected = batch.split(frame, counts)
    assert rejected is not None
    assert (accepted.collect().height, rejected.collect().height) == (0, 2)


def test_a_rule_that_cannot_be_computed_on_the_data_is_named() -> None:
    class Codes(Contract):
        """One row per code."""

        code: str
        other: int = pa.Field(ge=0)

        @pa.check("code")
        def number_below_10(cls, data: pa.PolarsData) -> pl.LazyFrame:
            return data.lazyframe.select(pl.col(data.key).cast(pl.Int64) < 10)

    codes = compile_contract(Codes)
    assert codes.count(pl.LazyFrame({"code": ["1", "10"], "other": [1, 2]})).violations == {
        "number_below_10": 1
    }
    with pytest.raises(ContractError, match=r"Codes: rule 'number_below_10' cannot be computed on this data"):
        codes.count(pl.LazyFrame({"code": ["1", "x"], "other": [1, 2]}))


def test_an_error_of_the_frame_itself_is_not_blamed_on_a_rule() -> None:
    frame = pl.LazyFrame({"order_id": ["1", "x"]}).with_columns(pl.col("order_id").cast(pl.Int64))
    with pytest.raises(pl.exceptions.PolarsError):
        ORDERS.count(ORDERS.add_missing(frame))


def test_a_frame_with_wrong_or_missing_columns_is_refused_before_it_is_read() -> None:
    with pytest.raises(ContractError, match=r"orders: the frame lacks customer, amount, note"):
        ORDERS.count(pl.LazyFrame({"order_id": [1]}))
    wrong = ORDERS.add_missing(pl.LazyFrame({"order_id": ["1"]}))
    with pytest.raises(ContractError, match=r"orders: order_id is String, the contract says Int64"):
        ORDERS.count(wrong)


def test_strict_contracts_refuse_unknown_columns_and_filter_drops_them() -> None:
    class Refuses(Contract):
        """One row per thing."""

        a: int

        class Config:
            strict = True

    class Drops(Contract):
        """One row per thing."""

        b: int
        a: int

        class Config:
            strict = "filter"
            ordered = True

    frame = pl.LazyFrame({"x": [1], "a": [1], "_batch_id": [1], "b": [2]})
    with pytest.raises(ContractError, match="strict and does not know x, b"):
        compile_contract(Refuses).count(frame)
    drops = compile_contract(Drops)
    accepted, _ = drops.split(frame, drops.count(frame))
    assert accepted.collect().columns == ["b", "a", "_batch_id"]


def test_an_optional_column_may_be_absent_and_null() -> None:
    class Optionals(Contract):
        """One row per thing."""

        a: int
        b: float | None = pa.Field(ge=0)

    contract = compile_contract(Optionals)
    assert [(c.name, c.nullable, c.required) for c in contract.columns] == [
        ("a", False, True),
        ("b", True, False),
    ]
    frame = contract.add_missing(pl.LazyFrame({"a": [1]}))
    assert contract.count(frame).clean
    accepted, _ = contract.split(frame, contract.count(frame))
    assert_frame_equal(accepted.collect(), pl.DataFrame({"a": [1], "b": [None]}, schema=contract.schema))
