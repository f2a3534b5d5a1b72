"""Frames as they come, with the contract's types: the step before screening.

Works on LazyFrames, streams, and looks at single values from Python only where the usual way to read them failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from lakehouse.contracts import plain_text
from lakehouse.contracts.casting import Conversion, conversion
from lakehouse.contracts.columns import UNCASTABLE, ColumnSpec
from lakehouse.contracts.plain_text import Reading

#: Columns that live only inside one call: the value that the attempts start from.
_BEFORE = "__before__"


#: Texts that mean "no value": for every column, or per column with ``*`` for those not named.
NullMarkers = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Plan:
    """One column: the value to convert, how (None: take it as it is), and texts that mean null."""

    column: ColumnSpec
    value: pl.Expr
    convert: Conversion | None
    null_texts: tuple[str, ...] = ()
    from_text: bool = False

    @property
    def staged(self) -> bool:
        return self.convert is not None and self.convert.can_fail

    @property
    def is_plain_text(self) -> bool:
        """True for text that becomes a number, a truth value, an instant, a date or a time."""
        return self.staged and self.from_text and isinstance(self.column.dtype, plain_text.TARGETS)

    @property
    def reading(self) -> Reading:
        assert self.convert is not None  # plain text converts
        return Reading(self.column.name, self.column.dtype, self.convert.attempts, self.null_texts)


def type_columns(
    frame: pl.LazyFrame,
    columns: Sequence[ColumnSpec],
    *,
    null_markers: NullMarkers = (),
    keep_empty_text: bool = False,
) -> pl.LazyFrame:
    """The frame with every contract column that it has in the contract's type.

    Text that equals a null marker after trimming is null; so is empty text, except that ``keep_empty_text``
    keeps it in text columns. Text columns keep their spaces and leading zeros. A value without an exact
    counterpart becomes null and ``__uncastable__<column>`` true; that column exists where a cast can fail.
    """
    schema = frame.collect_schema()
    plans = [
        _plan(column, schema[column.name], _markers_of(column.name, null_markers), keep_empty_text)
        for column in columns
        if column.name in schema
    ]
    quick = [plan for plan in plans if plan.is_plain_text]
    staged = [plan for plan in plans if plan.staged and not plan.is_plain_text]
    # Stages rather than one big expression: Polars would compute every intermediate once per use.
    frame = frame.with_columns(
        *(pl.col(plan.column.name).alias(_BEFORE + plan.column.name) for plan in quick),
        *(plan.value.alias(_BEFORE + plan.column.name) for plan in staged),
        *(plain_text.first_try(plan.reading).alias(plan.column.name) for plan in quick),
        *(_direct(plan).alias(plan.column.name) for plan in plans if not plan.staged),
    ).with_columns(_without_null_texts(plan) for plan in staged if plan.null_texts)
    frame = frame.with_columns(plain_text.others(plan.reading, _BEFORE + plan.column.name) for plan in quick)
    for attempt in range(max((len(_attempts(plan)) for plan in staged), default=0)):
        frame = frame.with_columns(
            _attempted(plan, attempt) for plan in staged if attempt < len(_attempts(plan))
        )
    frame = frame.with_columns(_failed(plan, schema.names()) for plan in (*quick, *staged))
    frame = frame.drop(_BEFORE + plan.column.name for plan in (*quick, *staged))
    return frame.with_columns(defaults(columns, schema.names()))


def add_missing(frame: pl.LazyFrame, columns: Sequence[ColumnSpec]) -> pl.LazyFrame:
    """The frame with the contract columns that it lacks, holding their default, else nulls of their type."""
    present = frame.collect_schema()
    return frame.with_columns(
        pl.lit(column.default, dtype=column.dtype).alias(column.name)
        for column in columns
        if column.name not in present
    )


def _markers_of(column: str, markers: NullMarkers) -> Sequence[str]:
    if isinstance(markers, Mapping):
        return markers.get(column, markers.get("*", ()))
    return markers


def _plan(column: ColumnSpec, source: pl.DataType, markers: Sequence[str], keep_empty_text: bool) -> _Plan:
    value = pl.col(column.name)
    convert = conversion(source, column.dtype)
    if not isinstance(source, pl.String):
        return _Plan(column, value, convert)
    if isinstance(column.dtype, (pl.String, pl.Categorical)):
        nothing = [*markers] if keep_empty_text else [*markers, ""]
        # Trimmed for the comparison only: spaces in text are the source's business.
        return _Plan(column, plain_text.without(value, nothing) if nothing else value, convert)
    return _Plan(column, value.str.strip_chars(), convert, (*markers, *_nothing(column.dtype)), True)


def _nothing(dtype: pl.DataType) -> tuple[str, ...]:
    return ("", "null") if isinstance(dtype, (pl.List, pl.Struct)) else ("",)


def _attempts(plan: _Plan) -> tuple[object, ...]:
    return plan.convert.attempts if plan.convert else ()


def _direct(plan: _Plan) -> pl.Expr:
    return plan.convert(plan.value) if plan.convert else plan.value


def _without_null_texts(plan: _Plan) -> pl.Expr:
    before = pl.col(_BEFORE + plan.column.name)
    return pl.when(~before.is_in(plan.null_texts)).then(before)


def _attempted(plan: _Plan, number: int) -> pl.Expr:
    assert plan.convert is not None  # staged plans convert
    name = plan.column.name
    before, value = pl.col(_BEFORE + name), pl.col(name)
    attempt = plan.convert.attempts[number]
    if number == 0:
        return attempt(before).alias(name)
    return value.fill_null(attempt(pl.when(value.is_null()).then(before))).alias(name)


def _failed(plan: _Plan, present: Sequence[str]) -> pl.Expr:
    name = plan.column.name
    if plan.is_plain_text:
        failed = plain_text.failed(plan.reading, _BEFORE + name)
    else:
        failed = pl.col(name).is_null() & pl.col(_BEFORE + name).is_not_null()
    already = UNCASTABLE + name in present
    return (failed | pl.col(UNCASTABLE + name) if already else failed).alias(UNCASTABLE + name)


def defaults(columns: Sequence[ColumnSpec], present: Sequence[str]) -> list[pl.Expr]:
    """Of the columns that are present and have a default: the values, with the default in the place of nulls."""
    filled = []
    for column in columns:
        if column.default is not None and column.name in present:
            default = pl.lit(column.default, dtype=column.dtype)
            value = pl.col(column.name)
            # As in pandera: NaN counts as missing.
            value = value.fill_nan(default) if column.dtype.is_float() else value
            filled.append(value.fill_null(default))
    return filled
