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
from lakehouse.contracts.columns import UNCASTABLE

_TEXT = "__rescued__"


def type_columns(
    bronze: pl.LazyFrame, contract: CompiledContract, null_markers: typed.NullMarkers
) -> pl.LazyFrame:
    """``contract.type_columns``, and what was set aside of the contract's columns as far as it can be read.

    A number or a moment is read as the contract reads text. All else (bytes, nested values) was printed, and what was printed is
    not what was sent: it is flagged like any value that has no counterpart in the contract's type.
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
    markers = _markers(null_markers, texts)
    frame = typed.type_columns(frame, bare, null_markers=null_markers)
    readable = [column for column in bare if column.name in texts and _is_scalar(schema[column.name])]
    frame = typed.type_columns(
        frame.with_columns(pl.col(_TEXT + name).alias(f"{_TEXT}sent__{name}") for name in texts),
        [replace(column, name=_TEXT + column.name) for column in readable],
        null_markers=markers,
    )
    present = frame.collect_schema().names()
    merged = []
    for name in texts:
        value, sent = pl.col(name), pl.col(f"{_TEXT}sent__{name}").str.strip_chars()
        is_lost = value.is_null() & sent.is_not_null()
        if any(column.name == name for column in readable):
            read = pl.col(_TEXT + name)
            flag = UNCASTABLE + _TEXT + name
            is_lost &= pl.col(flag) if flag in present else pl.lit(False)
            merged.append(value.fill_null(read).alias(name))
        if UNCASTABLE + name in present:
            is_lost |= pl.col(UNCASTABLE + name)
        merged.append(is_lost.alias(UNCASTABLE + name))
    frame = frame.with_columns(merged)
    frame = frame.drop(column for column in present if _TEXT in column)
    of_texts = [column for column in contract.columns if column.name in texts]
    return frame.with_columns(typed.defaults(of_texts, present))


def _texts(bronze: pl.LazyFrame, columns: Sequence[str]) -> list[str]:
    """The columns of which something was set aside."""
    if names.RESCUED not in bronze.collect_schema() or not columns:
        return []
    decoded = pl.col(names.RESCUED).str.json_decode(pl.Struct(dict.fromkeys(columns, pl.String())))
    rescued = bronze.select(names.RESCUED).filter(pl.col(names.RESCUED).is_not_null())
    there = rescued.select(decoded.alias(_TEXT)).unnest(_TEXT).select(pl.all().is_not_null().any())
    found = there.collect(engine="streaming").row(0, named=True)
    return [name for name in columns if found[name]]


def _is_scalar(dtype: pl.DataType) -> bool:
    """Whether what was set aside beside a column of this type may be a number or a moment. All of those fit a text column, so that
    beside one there are only bytes and nested values."""
    return not (dtype.is_nested() or isinstance(dtype, (pl.String, pl.Binary)))


def _markers(markers: typed.NullMarkers, texts: Sequence[str]) -> typed.NullMarkers:
    if isinstance(markers, dict):
        return {**markers, **{_TEXT + name: markers.get(name, markers.get("*", ())) for name in texts}}
    return markers
