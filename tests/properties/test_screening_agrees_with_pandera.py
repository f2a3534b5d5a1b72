"""Pandera is the reference: rule by rule, screening rejects exactly the rows that pandera reports."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.contracts import CompiledContract, Contract, TimestampUtc, compile_contract
from lakehouse.contracts.rules import ByPandera, Expression

pytestmark = pytest.mark.slow

NAN = float("nan")


class EveryRule(Contract):
    """One row per anything; every rule kind that a contract can have."""

    eq: int = pa.Field(eq=1, nullable=True)
    ne: int = pa.Field(ne=1, nullable=True)
    gt: int = pa.Field(gt=0, nullable=True)
    ge: float = pa.Field(ge=0, nullable=True)
    lt: float = pa.Field(lt=10)
    le: pl.Int8 = pa.Field(le=10)
    inside: float = pa.Field(in_range=(0, 1), nullable=True)
    between: int = pa.Field(
        in_range={"min_value": 0, "max_value": 9, "include_min": False, "include_max": False}
    )
    one_of: str = pa.Field(isin=["EWR", "JFK"], nullable=True)
    none_of: int = pa.Field(notin=[0, 13])
    matches: str = pa.Field(str_matches=r"N[0-9]+", nullable=True)
    contains: str = pa.Field(str_contains="b+")
    starts: str = pa.Field(str_startswith="a", nullable=True)
    ends: str = pa.Field(str_endswith="z")
    length: str = pa.Field(str_length=(1, 3), nullable=True)
    exact_length: str = pa.Field(str_length={"exact_value": 2}, nullable=True)
    two_rules: int = pa.Field(ge=0, le=5, isin=[0, 2, 4, 7])
    unique_number: int = pa.Field(unique=True, nullable=True)
    unique_text: str = pa.Field(unique=True)
    unique_float: float = pa.Field(unique=True, nullable=True)
    instant: TimestampUtc = pa.Field(ge=datetime(2020, 1, 1, tzinfo=UTC), nullable=True)
    day: pl.Date = pa.Field(lt=date(2020, 1, 1))
    flag: bool = pa.Field(eq=True, nullable=True)
    money: pl.Decimal(8, 2) = pa.Field(gt=0, nullable=True)  # type: ignore[valid-type]
    level: pl.Enum(["low", "high"]) = pa.Field(ne="low", nullable=True)  # type: ignore[valid-type]
    strict_null: int = pa.Field(ge=0, nullable=True, ignore_na=False)
    even: int
    by_row: int
    by_python: int

    @pa.check("even")
    def is_even(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key) % 2 == 0)

    @pa.check("by_row", element_wise=True)
    def small(cls, value: int) -> bool:
        return value < 3

    @pa.check("by_python")
    def odd_one_out(cls, data: pa.PolarsData) -> pl.LazyFrame:
        values = data.lazyframe.collect().get_column(data.key).to_list()
        return pl.LazyFrame({"good": [value != 3 for value in values]}, schema={"good": pl.Boolean})

    @pa.dataframe_check
    def ordered(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("eq") <= pl.col("gt"))

    @pa.dataframe_check
    def both(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("le") < 10, a=pl.col("even") >= 0)

    @pa.dataframe_check
    def above_the_mean(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col("lt") <= pl.col("lt").max() - 1)


class Nested(Contract):
    """One row per anything with a list. Apart, because pandera's report of whole rows fails on empty lists."""

    tags: pl.List(pl.String) = pa.Field(nullable=True)  # type: ignore[valid-type]
    numbers: pl.List(pl.Int64)  # type: ignore[valid-type]

    @pa.check("tags", ignore_na=False)
    def has_tags(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).list.len() > 0)

    @pa.check("numbers")
    def rising(cls, data: pa.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(pl.col(data.key).list.diff().list.min() > 0)


class WholeFrame(Contract):
    """One row per anything; the check says yes or no to all rows. Apart, because pandera's report cannot
    put such a check beside others."""

    a: int = pa.Field(nullable=True)

    @pa.dataframe_check
    def not_only_nulls(cls, data: pa.PolarsData) -> bool:
        return bool(data.lazyframe.select(pl.col("a").is_not_null().any()).collect().item())


EVERY_RULE, NESTED = compile_contract(EveryRule), compile_contract(Nested)
WHOLE_FRAME = compile_contract(WholeFrame)

NESTED_POOLS: dict[str, list[Any]] = {
    "tags": [[], ["a"], [None], None],
    "numbers": [[], [1, 2], [2, 1], [1, None], None],
}

POOLS: dict[str, list[Any]] = {
    "eq": [1, 1, 2, None],
    "ne": [1, 2, None],
    "gt": [-1, 0, 1, None],
    "ge": [-0.5, 0.0, 3.0, NAN, None],
    "lt": [9.5, 10.0, NAN, None],
    "le": [10, 11, None],
    "inside": [0.0, 1.0, 1.5, NAN, float("inf"), None],
    "between": [0, 1, 9, None],
    "one_of": ["EWR", "JFK", "ewr", "", None],
    "none_of": [0, 1, 13, None],
    "matches": ["N1", "xN1", "N", "", None],
    "contains": ["abc", "ac", "bb", None],
    "starts": ["a", "ba", "", None],
    "ends": ["z", "za", None],
    "length": ["", "a", "äöü", "abcd", None],
    "exact_length": ["a", "ab", "éé", None],
    "two_rules": [-1, 0, 1, 7, None],
    "unique_number": [*range(40), 1, 1, None],
    "unique_text": [*"abcdefghijklmnop", "a", "", None],
    "unique_float": [*(float(n) for n in range(40)), 0.0, -0.0, NAN, None],
    "instant": [datetime(2019, 12, 31, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC), None],
    "day": [date(2019, 12, 31), date(2020, 1, 1), None],
    "flag": [True, False, None],
    "money": [Decimal("0.00"), Decimal("0.01"), Decimal("-1.00"), None],
    "level": ["low", "high", None],
    "strict_null": [-1, 0, None],
    "even": [-2, 1, 2, None],
    "by_row": [1, 3, None],
    "by_python": [1, 3, None],
}


def frames(contract: CompiledContract, pools: dict[str, list[Any]]) -> st.SearchStrategy[pl.DataFrame]:
    """Frames of up to eight rows, every cell drawn from its column's pool of good and bad values."""
    rows = st.tuples(*(st.sampled_from(pools[name]) for name in contract.schema))
    return st.lists(rows, max_size=8).map(lambda r: pl.DataFrame(r, schema=contract.schema, orient="row"))


def rows_that_pandera_refuses(model: type[Contract], frame: pl.DataFrame) -> dict[str, set[int]]:
    """Rule name → row numbers, from pandera's lazy validation."""
    refused: dict[str, set[int]] = defaultdict(set)
    try:
        model.to_schema().validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        for case in error.failure_cases.rows(named=True):
            # A check that says no to the whole frame has no index.
            rows = set(range(frame.height)) if case["index"] is None else {case["index"]}
            refused[rule_of(model, case)] |= rows
    return {rule: rows for rule, rows in refused.items() if rows}


def rule_of(model: type[Contract], case: dict[str, Any]) -> str:
    """The name of our rule for a failure case: pandera numbers the checks of a column, and of the frame."""
    column, check, number = case["column"], case["check"], case["check_number"]
    if check in ("not_nullable", "field_uniqueness"):
        return f"not_null({column})" if check == "not_nullable" else f"unique({column})"
    schema = model.to_schema()
    if case["schema_context"] == "DataFrameSchema":
        return str(schema.checks[number].name)
    start = next(i for i, rule in enumerate(RULES[model]) if rule.name == f"castable({column})")
    checks = [rule for rule in RULES[model][start:] if rule.kind not in ("castable", "not_null", "unique")]
    return checks[number].name


RULES = {EveryRule: EVERY_RULE.rules, Nested: NESTED.rules, WholeFrame: WHOLE_FRAME.rules}


def assert_agreement(model: type[Contract], contract: CompiledContract, frame: pl.DataFrame) -> None:
    lazy = frame.with_row_index("_row").lazy()
    counts = contract.count(lazy)
    accepted, rejected = contract.split(lazy, counts)
    kept = accepted.collect()
    refused = rejected.collect() if rejected is not None else None

    ours: dict[str, set[int]] = defaultdict(set)
    for row in refused.rows(named=True) if refused is not None else []:
        for rule in row["_broken_rules"]:
            ours[rule].add(row["_row"])
    theirs = rows_that_pandera_refuses(model, frame)
    assert dict(ours) == theirs
    assert counts.violations == {rule: len(rows) for rule, rows in theirs.items()}
    assert counts.rows == frame.height == kept.height + (refused.height if refused is not None else 0)
    assert kept.columns == ["_row", *frame.columns]


SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(frames(EVERY_RULE, POOLS))
def test_every_rule_rejects_exactly_the_rows_that_pandera_reports(frame: pl.DataFrame) -> None:
    assert_agreement(EveryRule, EVERY_RULE, frame)


@SETTINGS
@given(frames(NESTED, NESTED_POOLS))
def test_rules_about_lists_reject_exactly_the_rows_that_pandera_reports(frame: pl.DataFrame) -> None:
    assert_agreement(Nested, NESTED, frame)


@SETTINGS
@given(frames(WHOLE_FRAME, {"a": [1, None, None]}))
def test_a_check_of_the_whole_frame_rejects_all_rows_or_none(frame: pl.DataFrame) -> None:
    if frame.height:
        assert_agreement(WholeFrame, WHOLE_FRAME, frame)


def test_the_property_covers_expressions_and_pandera_fallbacks() -> None:
    kinds = {rule.kind for rule in EVERY_RULE.rules}
    assert kinds >= {
        "not_null", "unique", "eq", "ne", "gt", "ge", "lt", "le", "in_range", "isin", "notin",
        "str_matches", "str_contains", "str_startswith", "str_endswith", "str_length", "custom",
    }  # fmt: skip
    fallbacks = {rule.name for rule in EVERY_RULE.rules if isinstance(rule.predicate, ByPandera)}
    assert fallbacks == {"odd_one_out"}
    for rule in EVERY_RULE.rules:
        if rule.kind not in ("castable", "not_null", "unique") and rule.name not in fallbacks:
            assert isinstance(rule.predicate, Expression), rule.name
