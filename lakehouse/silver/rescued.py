"""Values that bronze has set aside because their column came in another type than its table has (``_rescued``).

In bronze's own column they are null. Taken for that, a row would be accepted without a value that the source sent, in place of
one that had it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from lakehouse import names
from lakehouse.contracts import CompiledContract, typed
from lakehouse.contracts.columns import UNCASTABLE, ColumnSpec

_TEXT = "__rescued__"


def type_columns(
    bronze: pl.LazyFrame, contract: CompiledContract, null_markers: typed.NullMarkers
) -> pl.LazyFrame:
    """``contract.type_columns``, and what was set aside of the contract's columns as far as it can be read.

    A number, a moment or a text is read as the contract reads text. Bytes and nested values were printed, and what was printed
    is not what was sent: they are flagged like any value that has no counterpart in the contract's type.
    """
    schema = bronze.collect_schema()
    columns = [column.name for column in contract.columns if column.name in schema]
    texts = _texts(bronze, columns)
    if not texts:
        return contract.type_columns(bronze, null_markers=null_markers)
    decoded = pl.col(names.RESCUED).str.json_decode(pl.Struct(dict.fromkeys(texts, pl.String())))
    frame = bronze.with_columns(decoded.struct.rename_fields([_TEXT + name for name in texts]).alias(_TEXT))
    frame = frame.unnest(_TEXT)
    # What is missing may be among the texts: defaults come last.
    bare = [replace(column, default=None) if column.name in texts else column for column in contract.columns]
    frame = typed.type_columns(frame, bare, null_markers=null_markers)
    of_texts = [column for column in bare if column.name in texts]
    printed = {column.name: _was_printed(column, schema[column.name]) for column in of_texts}
    frame = frame.with_columns(
        *(printed[name].alias(f"{_TEXT}printed__{name}") for name in texts),
        *(pl.when(~printed[name]).then(pl.col(_TEXT + name)).alias(_TEXT + name) for name in texts),
    )
    own = [replace(column, name=_TEXT + column.name) for column in of_texts]
    frame = typed.type_columns(frame, own, null_markers=_markers(null_markers, texts))
    present = frame.collect_schema().names()
    merged = []
    for name in texts:
        value, flag = pl.col(name), UNCASTABLE + _TEXT + name
        is_lost = pl.col(f"{_TEXT}printed__{name}").fill_null(False)
        if flag in present:
            is_lost |= pl.col(flag)
        is_lost &= value.is_null()
        if UNCASTABLE + name in present:
            is_lost |= pl.col(UNCASTABLE + name)
        merged += [value.fill_null(pl.col(_TEXT + name)).alias(name), is_lost.alias(UNCASTABLE + name)]
    frame = frame.with_columns(merged)
    frame = frame.drop(column for column in present if _TEXT in column)
    defaulted = [column for column in contract.columns if column.name in texts]
    return frame.with_columns(typed.defaults(defaulted, present))


def _texts(bronze: pl.LazyFrame, columns: Sequence[str]) -> list[str]:
    """The columns of which something was set aside."""
    if names.RESCUED not in bronze.collect_schema() or not columns:
        return []
    decoded = pl.col(names.RESCUED).str.json_decode(pl.Struct(dict.fromkeys(columns, pl.String())))
    rescued = bronze.select(names.RESCUED).filter(pl.col(names.RESCUED).is_not_null())
    there = rescued.select(decoded.alias(_TEXT)).unnest(_TEXT).select(pl.all().is_not_null().any())
    found = there.collect(engine="streaming").row(0, named=True)
    return [name for name in columns if found[name]]


def _was_printed(column: ColumnSpec, in_bronze: pl.DataType) -> pl.Expr:
    """True for texts that stand for bytes or for nested values (``bronze.align`` marks bytes).

    Beside nested values, and beside text or for it, an object was nested: a text that looks like one fits a text column.
    """
    text = pl.col(_TEXT + column.name)
    if in_bronze.is_nested() or isinstance(in_bronze, pl.Binary):
        return text.is_not_null()
    printed = text.str.starts_with("\\x")
    if isinstance(in_bronze, pl.String) or isinstance(column.dtype, (pl.String, pl.Categorical)):
        printed |= text.str.starts_with("{")
    return printed


def _markers(markers: typed.NullMarkers, texts: Sequence[str]) -> typed.NullMarkers:
    if isinstance(markers, dict):
        return {**markers, **{_TEXT + name: markers.get(name, markers.get("*", ())) for name in texts}}
    return markers
