"""Typing: what is read, what is refused, and that nothing is rounded, cut or guessed."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import inf, isnan
from typing import Any

import polars as pl
import pytest

from lakehouse.contracts.columns import ColumnSpec
from lakehouse.contracts.typed import add_missing, type_columns

UNCASTABLE = object()
UTC_US = pl.Datetime("us", "UTC")


def typed(values: list[Any], source: pl.DataType, target: pl.DataType, **options: Any) -> list[Any]:
    """The typed values, with UNCASTABLE where the flag is set; checks type, height and both engines."""
    column = ColumnSpec("a", target, nullable=True, description="", sensitivity="public")
    raw = pl.LazyFrame({"a": pl.Series(values, dtype=source, strict=False), "other": ["x"] * len(values)})
    lazy = type_columns(raw, [column], **options)
    frame = lazy.collect(engine="streaming")
    assert frame.schema["a"] == target
    assert frame.height == len(values)
    assert lazy.collect().equals(frame, null_equal=True)
    assert set(frame.columns) <= {"a", "other", "__uncastable__a"}
    flags = (
        frame["__uncastable__a"].to_list() if "__uncastable__a" in frame.columns else [False] * len(values)
    )
    cells = frame["a"].to_list()
    assert all(cell is None for cell, flag in zip(cells, flags, strict=True) if flag)
    return [UNCASTABLE if flag else cell for cell, flag in zip(cells, flags, strict=True)]


TEXT = pl.String()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), ("007", 7), (" 7 ", 7), ("+7", 7), ("-7", -7), ("3.0", 3), ("1e3", 1000), ("", None), ("  ", None),
        ("9223372036854775807", 2**63 - 1),
        ("3.7", UNCASTABLE), ("1,000", UNCASTABLE), ("1_000", UNCASTABLE), ("0x10", UNCASTABLE),
        ("9223372036854775808", UNCASTABLE), ("99999999999999999.0", UNCASTABLE), ("NaN", UNCASTABLE),
        ("inf", UNCASTABLE), ("seven", UNCASTABLE), ("7 8", UNCASTABLE),
    ],
)  # fmt: skip
def test_text_becomes_an_integer_exactly_or_not_at_all(text: str, value: object) -> None:
    assert typed([text], TEXT, pl.Int64()) == [value]


def test_an_integer_that_overflows_its_type_is_uncastable() -> None:
    assert typed(["127", "128", "-1"], TEXT, pl.Int8()) == [127, UNCASTABLE, -1]
    assert typed(["255", "256", "-1"], TEXT, pl.UInt8()) == [255, UNCASTABLE, UNCASTABLE]
    assert typed([127, 128, None], pl.Int64(), pl.Int8()) == [127, UNCASTABLE, None]
    assert typed([2**63, 1], pl.UInt64(), pl.Int64()) == [UNCASTABLE, 1]


def test_text_becomes_a_float_and_nan_text_is_nan() -> None:
    values = typed(["1.5", "1e3", "NaN", "inf", "-Infinity", "1e400", "1,5", "x", ""], TEXT, pl.Float64())
    assert isnan(values.pop(2))
    assert values == [1.5, 1000.0, inf, -inf, UNCASTABLE, UNCASTABLE, UNCASTABLE, None]
    assert typed(["1e39", "0.5"], TEXT, pl.Float32()) == [UNCASTABLE, 0.5]
    assert typed([1e39, 0.5], pl.Float64(), pl.Float32()) == [UNCASTABLE, 0.5]


def test_a_float_with_a_fraction_is_no_integer() -> None:
    values = [1.5, 2.0, float("nan"), 1e30, None]
    assert typed(values, pl.Float64(), pl.Int64()) == [UNCASTABLE, 2, UNCASTABLE, UNCASTABLE, None]


def test_decimals_are_never_rounded() -> None:
    money = pl.Decimal(8, 2)
    values = typed(["1.2", "1.20", "1.239", "1000000", "x"], TEXT, money)
    assert values == [Decimal("1.20"), Decimal("1.20"), UNCASTABLE, UNCASTABLE, UNCASTABLE]
    # A float is never exactly 1.1: its own error is forgiven, digits are not.
    assert typed([1.1, 1.239], pl.Float64(), money) == [Decimal("1.10"), UNCASTABLE]
    assert typed([Decimal("1.239"), Decimal("1.500")], pl.Decimal(10, 3), money) == [
        UNCASTABLE,
        Decimal("1.50"),
    ]


def test_booleans_are_read_from_the_usual_words_in_any_case() -> None:
    true, false = ["true", "T", "YES", "y", "1"], ["False", "f", "no", "N", "0"]
    assert typed(true + false, TEXT, pl.Boolean()) == [True] * 5 + [False] * 5
    assert typed(["on", "2", "ja", ""], TEXT, pl.Boolean()) == [UNCASTABLE, UNCASTABLE, UNCASTABLE, None]
    assert typed([0, 1, 2], pl.Int64(), pl.Boolean()) == [False, True, UNCASTABLE]


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2013-01-01T10:00:00Z", 10), ("2013-01-01 10:00:00", 10), ("2013-01-01T10:00:00", 10),
        ("2013-01-01T10:00:00.000Z", 10), ("2013-01-01T10:00:00+02:00", 8), ("2013-01-01 10:00:00-0500", 15),
        ("2013-01-01T10:00:00+05", 5), ("2013-01-01 10:00", 10), ("2013-01-01", 0), ("2013-01-01 10:00:00 UTC", 10),
    ],
)  # fmt: skip
def test_iso_text_becomes_an_instant_in_utc(text: str, hour: int) -> None:
    assert typed([text], TEXT, UTC_US) == [datetime(2013, 1, 1, hour, tzinfo=UTC)]
    assert typed([text], TEXT, pl.Datetime("ms")) == [datetime(2013, 1, 1, hour)]  # noqa: DTZ001 - asked for
    new_york = typed([text], TEXT, pl.Datetime("us", "America/New_York"))
    assert new_york == [datetime(2013, 1, 1, hour, tzinfo=UTC)]


def test_spellings_of_instants_may_be_mixed_in_one_column_and_fractions_are_kept() -> None:
    texts = [
        "2013-01-01 10:00:00",
        "2013-01-01T10:00:00.25Z",
        "2013-01-01T10:00:00,25Z",
        "2013-01-01T10:00:00Z",
    ]
    whole, part = datetime(2013, 1, 1, 10, tzinfo=UTC), datetime(2013, 1, 1, 10, 0, 0, 250_000, tzinfo=UTC)
    assert typed(texts, TEXT, UTC_US) == [whole, part, part, whole]


@pytest.mark.parametrize(
    "text", ["2013-02-30T00:00:00Z", "2013-01-01T25:00:00Z", "01/02/2013", "1357034400", "now"]
)
def test_text_that_is_no_iso_instant_is_uncastable(text: str) -> None:
    assert typed([text], TEXT, UTC_US) == [UNCASTABLE]


def test_a_date_is_read_only_where_no_time_of_day_gets_lost() -> None:
    texts = ["2013-01-31", "2013-01-31T00:00:00Z", "2013-01-31 05:00", "2013-02-30", "31/01/2013"]
    assert typed(texts, TEXT, pl.Date()) == [date(2013, 1, 31)] * 2 + [UNCASTABLE] * 3
    instants = [datetime(2013, 1, 31, tzinfo=UTC), datetime(2013, 1, 31, 5, tzinfo=UTC)]
    assert typed(instants, UTC_US, pl.Date()) == [date(2013, 1, 31), UNCASTABLE]


@pytest.mark.parametrize(
    "text",
    ["31-01-24", "24-01-31", "-024-01-31", "31-01-24T10:00:00Z", "  31-01-24T10:00:00Z", "031-01-24T10:00:00.5+01:00",
     "0000-01-01", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "+12024-01-31T10:00:00Z"],
)  # fmt: skip
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_years_have_four_digits_and_python_knows_them(text: str, unit: Any) -> None:
    assert typed([text, "2024-01-31"], TEXT, pl.Date()) == [UNCASTABLE, date(2024, 1, 31)]
    for zone in ("UTC", None, "America/New_York"):
        instant = datetime(2024, 1, 31, tzinfo=UTC if zone else None)
        assert typed([text, "2024-01-31T00:00:00Z"], TEXT, pl.Datetime(unit, zone)) == [UNCASTABLE, instant]


def test_early_years_with_four_digits_and_the_last_microsecond_are_read() -> None:
    assert typed(["0001-01-01", "0999-12-31"], TEXT, pl.Date()) == [date(1, 1, 1), date(999, 12, 31)]
    texts = ["0001-01-01T00:00:00Z", "1000-01-01T00:00:00+01:00", "9999-12-31T23:59:59.999999Z"]
    assert typed(texts, TEXT, UTC_US) == [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(999, 12, 31, 23, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    assert typed(["1600-01-01T00:00:00Z"], TEXT, pl.Datetime("ns", "UTC")) == [
        UNCASTABLE
    ]  # it would overflow


@pytest.mark.parametrize(
    "source", [pl.Date(), pl.Datetime("ms"), UTC_US, pl.Datetime("us", "America/New_York")]
)
@pytest.mark.parametrize(
    "target", [pl.Date(), pl.Datetime("ms"), UTC_US, pl.Datetime("us", "America/New_York")]
)
def test_dates_and_instants_that_python_does_not_know_are_uncastable(
    source: pl.DataType, target: pl.DataType
) -> None:
    days = pl.Series([-719_529, 0, 2_932_897, None], dtype=pl.Int32).cast(pl.Date())  # year -1, 1970, 10000
    column = ColumnSpec("a", target, nullable=True, description="", sensitivity="public")
    values = days if source == pl.Date() else days.cast(pl.Datetime("ms")).cast(source)
    frame = type_columns(pl.LazyFrame({"a": values}), [column]).collect()
    assert frame["__uncastable__a"].to_list() == [True, False, True, False]
    assert frame["a"].is_null().to_list() == [True, False, True, True]


def test_instants_without_a_zone_are_taken_as_utc() -> None:
    naive = [datetime(2013, 1, 1, 10), None]  # noqa: DTZ001 - the point of the test
    assert typed(naive, pl.Datetime("ns"), UTC_US) == [datetime(2013, 1, 1, 10, tzinfo=UTC), None]
    assert typed([date(2013, 1, 1)], pl.Date(), UTC_US) == [datetime(2013, 1, 1, tzinfo=UTC)]


def test_a_number_is_never_guessed_to_be_an_instant() -> None:
    assert typed([1357034400, None], pl.Int64(), UTC_US) == [UNCASTABLE, None]


def test_times_and_categories() -> None:
    assert typed(["10:05", "10:05:01", "25:00"], TEXT, pl.Time()) == [time(10, 5), time(10, 5, 1), UNCASTABLE]
    assert typed(["low", " high ", "mid"], TEXT, pl.Enum(["low", "high"])) == ["low", "high", UNCASTABLE]
    assert typed(["low", ""], TEXT, pl.Categorical()) == ["low", None]


def test_text_keeps_its_spaces_and_leading_zeros() -> None:
    assert typed([" 007 ", "NA", " NA ", "", " "], TEXT, TEXT, null_markers=["NA"]) == [" 007 ", *[None] * 4]


def test_empty_text_is_kept_where_a_pipeline_says_so() -> None:
    assert typed(["", " ", "NA"], TEXT, TEXT, keep_empty_text=True, null_markers=["NA"]) == ["", " ", None]
    assert typed([""], TEXT, pl.Int64(), keep_empty_text=True) == [None]


def test_null_markers_match_exactly_after_trimming() -> None:
    assert typed(["NA", " NA", "na", "-999", "5"], TEXT, pl.Int64(), null_markers=["NA", "-999"]) == [
        None, None, UNCASTABLE, None, 5,
    ]  # fmt: skip


def test_other_types_become_text_without_being_able_to_fail() -> None:
    assert typed([7, None], pl.Int64(), TEXT) == ["7", None]
    assert typed([True], pl.Boolean(), TEXT) == ["true"]
    assert typed([{"a": 1, "b": "x"}, None], pl.Struct({"a": pl.Int64, "b": pl.String}), TEXT) == [
        '{"a":1,"b":"x"}', None,
    ]  # fmt: skip
    assert typed([[1, 2], None], pl.List(pl.Int64), TEXT) == ["[1,2]", None]
    assert typed([b"ab", b"\xff"], pl.Binary(), TEXT) == ["ab", UNCASTABLE]


PLACE = pl.Struct({"id": pl.Int64, "since": pl.Date})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"id":1,"since":"2024-01-01"}', {"id": 1, "since": date(2024, 1, 1)}),
        ('{"id":1,"more":2}', {"id": 1, "since": None}),
        ("null", None), ("", None),
        ('{"id":1.5}', UNCASTABLE), ('{"id":"x"}', UNCASTABLE), ('{"id":{"a":1}}', UNCASTABLE),
        ("[1]", UNCASTABLE), ("{broken", UNCASTABLE),
    ],
)  # fmt: skip
def test_json_text_becomes_a_struct_whole_or_not_at_all(text: str, value: object) -> None:
    good = {"id": 9, "since": None}
    assert typed(['{"id":9}', text, '{"id":9}'], TEXT, PLACE) == [good, value, good]


def test_json_text_becomes_a_list() -> None:
    texts = ["[1,2]", "[null,1]", "[]", "[1.5]", '["a"]', "{}"]
    assert typed(texts, TEXT, pl.List(pl.Int64)) == [[1, 2], [None, 1], [], *[UNCASTABLE] * 3]


def test_nested_values_change_shape_leaf_by_leaf() -> None:
    source = pl.Struct({"id": pl.Int64, "since": pl.String, "gone": pl.Int64})
    rows = [{"id": 1, "since": "2024-01-01", "gone": 1}, {"id": 1, "since": "soon", "gone": 1}, None]
    assert typed(rows, source, PLACE) == [{"id": 1, "since": date(2024, 1, 1)}, UNCASTABLE, None]
    assert typed([[1], [300], None, []], pl.List(pl.Int64), pl.List(pl.Int8)) == [[1], UNCASTABLE, None, []]


def test_an_empty_frame_is_typed_too() -> None:
    for target in (pl.Int64(), UTC_US, PLACE, pl.List(pl.Int64), pl.Decimal(8, 2), pl.Boolean(), TEXT):
        assert typed([], TEXT, target) == []


def test_typing_twice_keeps_the_first_run_s_failures() -> None:
    column = ColumnSpec("a", pl.Int64(), nullable=True, description="", sensitivity="public")
    once = type_columns(pl.LazyFrame({"a": ["1", "x"]}), [column])
    assert type_columns(once, [column]).collect()["__uncastable__a"].to_list() == [False, True]


def test_columns_outside_the_contract_are_left_as_they_are() -> None:
    column = ColumnSpec("a", pl.Int64(), nullable=True, description="", sensitivity="public")
    frame = type_columns(pl.LazyFrame({"b": [" x "], "a": ["1"], "_batch_id": [7]}), [column]).collect()
    assert frame.rows(named=True) == [{"b": " x ", "a": 1, "_batch_id": 7, "__uncastable__a": False}]


def test_missing_columns_arrive_as_typed_nulls_or_their_default() -> None:
    columns = [
        ColumnSpec("a", pl.Int64(), nullable=True, description="", sensitivity="public"),
        ColumnSpec("b", PLACE, nullable=True, description="", sensitivity="public"),
        ColumnSpec("c", TEXT, nullable=False, description="", sensitivity="public", default="new"),
    ]
    frame = add_missing(pl.LazyFrame({"a": [1, 2]}), columns).collect()
    assert frame.schema == {"a": pl.Int64, "b": PLACE, "c": pl.String}
    assert frame.rows() == [(1, None, "new"), (2, None, "new")]
    filled = type_columns(pl.LazyFrame({"c": ["", "x"]}), columns).collect()
    assert filled["c"].to_list() == ["new", "x"]


@pytest.mark.parametrize(
    ("precision", "scale", "text", "is_exact"),
    [
        (38, 0, "3.7", False), (38, 0, "3.0", True), (38, 9, "1.0123456789", False), (38, 9, "1.0123456780", True),
        (36, 2, "1.20001", False), (36, 2, "1.20", True), (38, 2, "-0.005", False), (30, 2, "12", True), (30, 2, ".5", True),
        (18, 2, "1.200000000000000000001", False), (38, 9, "0E-8", True), (20, 2, "0E-8", True), (20, 2, "1E+3", True),
        (20, 2, "1.23456e2", False), (20, 2, "1.234e2", True), (20, 2, "1.23e1", True), (38, 9, "5e-9", True), (38, 9, "5e-10", False),
    ],
)  # fmt: skip
def test_a_decimal_of_any_width_is_exact_or_refused(
    precision: int, scale: int, text: str, is_exact: bool
) -> None:
    expected = Decimal(text) if is_exact else UNCASTABLE
    assert typed([text], TEXT, pl.Decimal(precision, scale)) == [expected]


def test_an_integer_becomes_a_float_only_where_that_can_hold_it() -> None:
    large = [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, None]
    assert typed(large, pl.Int64(), pl.Float64()) == [2.0**53, UNCASTABLE, UNCASTABLE, UNCASTABLE, None]
    assert typed([2**24, 2**24 + 1], pl.Int32(), pl.Float32()) == [2.0**24, UNCASTABLE]
    assert typed([2**63, 2**64 - 1], pl.UInt64(), pl.Float64()) == [2.0**63, UNCASTABLE]
    assert typed([-128, 127], pl.Int8(), pl.Float32()) == [-128.0, 127.0]
