"""Polars types and Delta's: what Delta cannot hold is widened, never narrowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl


def delta_dtype(dtype: pl.DataType) -> pl.DataType:
    """The type in which a column of ``dtype`` is stored: the same, or the next wider one that Delta has."""
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: delta_dtype(instance(field.dtype)) for field in dtype.fields})
    if isinstance(dtype, (pl.List, pl.Array)):
        return pl.List(delta_dtype(instance(dtype.inner)))
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", dtype.time_zone and "UTC")
    if isinstance(dtype, pl.Decimal):
        return dtype
    widened: dict[type[pl.DataType], pl.DataType] = {
        pl.UInt8: pl.Int16(),
        pl.UInt16: pl.Int32(),
        pl.UInt32: pl.Int64(),
        pl.UInt64: pl.Decimal(20, 0),
        pl.Int128: pl.Decimal(38, 0),
        pl.Categorical: pl.String(),
        pl.Enum: pl.String(),
        pl.Time: pl.String(),
        pl.Null: pl.String(),
        pl.Duration: pl.Int64(),
    }
    return widened.get(type(dtype), dtype)


def instance(dtype: Any) -> pl.DataType:
    """Polars gives a type within another as a class where it has no parameters."""
    instance: pl.DataType = dtype() if isinstance(dtype, type) else dtype
    return instance


def delta_ready(frame: pl.LazyFrame) -> pl.LazyFrame:
    """``frame`` with every column cast to a type that Delta holds. Durations become microseconds."""
    casts = []
    for name, dtype in frame.collect_schema().items():
        target = delta_dtype(dtype)
        if target != dtype:
            source = pl.col(name).dt.total_microseconds() if isinstance(dtype, pl.Duration) else pl.col(name)
            if isinstance(dtype, pl.Datetime) and dtype.time_zone:
                source = source.dt.convert_time_zone("UTC")
            casts.append(source.cast(target).alias(name))
    return frame.with_columns(casts) if casts else frame


def delta_schema(schema: Mapping[str, pl.DataType]) -> Any:
    """The Delta schema of these columns, all nullable."""
    import deltalake

    ready = {name: delta_dtype(instance(dtype)) for name, dtype in schema.items()}
    return deltalake.Schema.from_arrow(pl.Schema(ready))
