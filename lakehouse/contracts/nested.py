"""Lists and structs: from JSON text, to JSON text, and between shapes.

A nested value converts as a whole: if one leaf cannot be converted, the value is uncastable, because a struct
with a hole in it would be a value that nobody sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from lakehouse.contracts.casting import Conversion
    from lakehouse.contracts.timestamps import Attempt

    Convert = Callable[[pl.DataType, pl.DataType], Conversion | None]

#: Text that means "nothing" inside nested values, where a pipeline's own markers do not reach.
_EMPTY = ""


def from_json(target: pl.DataType, convert: Convert) -> Attempt:
    """JSON text to a list or struct. Every leaf is read as text first, so that 1.5 is not cut to 1 on the way."""
    loose = _loose(target)
    typed = reshaped(loose, target, convert)
    opening = "[" if isinstance(target, pl.List) else "{"

    def decode(texts: pl.Series) -> pl.Series:
        name = texts.name
        frame = pl.select(text=texts).select(
            # One malformed value makes Polars' decoder refuse the whole column: take these out first.
            pl.when(
                pl.col("text").str.starts_with(opening)
                & pl.col("text").str.json_path_match(pl.lit("$")).is_not_null()
            ).then(pl.col("text"))
        )
        decoded = by_halves(lambda part: part.str.json_decode(loose), frame.to_series(), loose)
        return pl.select(value=decoded).select(typed(pl.col("value"))).to_series().alias(name)

    return lambda text: (
        pl.when(text != "null").then(text).map_batches(decode, return_dtype=target, is_elementwise=True)
    )


def by_halves(convert: Callable[[pl.Series], pl.Series], values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Convert a series where one bad value makes Polars refuse all of it.

    The series is halved around bad values until they stand alone and become null; good data is one call.
    """
    try:
        return convert(values)
    except pl.exceptions.ComputeError:
        if len(values) == 1:
            return pl.Series(values.name, [None], dtype=dtype)
        half = len(values) // 2
        return pl.concat([by_halves(convert, values[:half], dtype), by_halves(convert, values[half:], dtype)])


def _loose(dtype: Any) -> pl.DataType:
    """The same shape with text in every leaf."""
    if isinstance(dtype, pl.List):
        return pl.List(_loose(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _loose(field.dtype) for field in dtype.fields})
    return pl.String()


def reshaped(source: pl.DataType, target: pl.DataType, convert: Convert) -> Attempt:
    """Between nested types, leaf by leaf. Fields that the target lacks are dropped; missing ones are null."""
    if isinstance(source, pl.List) and isinstance(target, pl.List):
        return _list(source, target, convert)
    if isinstance(source, pl.Struct) and isinstance(target, pl.Struct):
        return _struct(source, target, convert)
    return lambda value: pl.when(value.is_null() & value.is_not_null()).then(pl.lit(None, dtype=target))


def _list(source: pl.List, target: pl.List, convert: Convert) -> Attempt:
    inner = _leaf(_complete(source.inner), _complete(target.inner), convert)
    before = _known(_complete(source.inner), _complete(target.inner))

    def attempt(value: pl.Expr) -> pl.Expr:
        there = value.list.eval(inner(pl.element()))
        lost = value.list.eval(before(pl.element())).list.sum() > there.list.drop_nulls().list.len()
        return pl.when(~lost).then(there).cast(target)

    return attempt


def _struct(source: pl.Struct, target: pl.Struct, convert: Convert) -> Attempt:
    present = {field.name: _complete(field.dtype) for field in source.fields}

    def attempt(value: pl.Expr) -> pl.Expr:
        fields: list[pl.Expr] = []
        lost = pl.lit(False)
        for field in target.fields:
            dtype = _complete(field.dtype)
            if field.name not in present:
                fields.append(pl.lit(None, dtype=dtype).alias(field.name))
                continue
            leaf = value.struct.field(field.name)
            there = _leaf(present[field.name], dtype, convert)(leaf)
            fields.append(there.alias(field.name))
            lost = lost | (_known(present[field.name], dtype)(leaf) & there.is_null())
        return pl.when(value.is_not_null() & ~lost).then(pl.struct(fields)).cast(target)

    return attempt


def _leaf(source: pl.DataType, target: pl.DataType, convert: Convert) -> Attempt:
    conversion = convert(source, target)
    if conversion is None:
        return lambda value: value
    if isinstance(source, pl.String) and not isinstance(target, pl.String):
        return lambda value: conversion(value.str.strip_chars())
    return conversion


def _known(source: pl.DataType, target: pl.DataType) -> Attempt:
    """Whether a leaf holds something that must not get lost; empty text is nothing, unless text is wanted."""
    if isinstance(source, pl.String) and not isinstance(target, pl.String):
        return lambda value: value.is_not_null() & (value.str.strip_chars() != _EMPTY)
    return lambda value: value.is_not_null()


def _complete(dtype: Any) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()


def to_json(source: pl.DataType, target: pl.DataType) -> Attempt:
    """JSON text of a nested value."""

    def attempt(value: pl.Expr) -> pl.Expr:
        if isinstance(source, pl.Struct):
            text = value.struct.json_encode()
        else:
            # Only structs encode: wrap as {"v": …} and cut the wrapping off again.
            text = pl.struct(value.alias("v")).struct.json_encode().str.slice(5).str.head(-1)
        return pl.when(value.is_not_null()).then(text).cast(target)

    return attempt
