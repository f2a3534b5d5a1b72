"""Which DuckDB types a gold table may have: those that Parquet and Delta hold exactly."""

from __future__ import annotations

from typing import Any

import polars as pl

from lakehouse.errors import GoldBuildError

_EXACT: dict[str, pl.DataType] = {
    "boolean": pl.Boolean(),
    "tinyint": pl.Int8(),
    "smallint": pl.Int16(),
    "integer": pl.Int32(),
    "bigint": pl.Int64(),
    "float": pl.Float32(),
    "double": pl.Float64(),
    "varchar": pl.String(),
    "blob": pl.Binary(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us"),
    "timestamp with time zone": pl.Datetime("us", "UTC"),
}
#: What to write instead. A sum of integers is a HUGEINT, which a Parquet file would hold as an inexact DOUBLE.
_CAST_TO = {
    "hugeint": "bigint (or decimal(38, 0))",
    "uhugeint": "decimal(38, 0)",
    "utinyint": "smallint",
    "usmallint": "integer",
    "uinteger": "bigint",
    "ubigint": "decimal(20, 0)",
    "timestamp_s": "timestamp",
    "timestamp_ms": "timestamp",
    "timestamp_ns": "timestamp",
}


def delta_columns(cursor: Any, model: str, sql: str) -> dict[str, pl.DataType]:
    """Columns and types of a query, without running it.

    Raises:
        GoldBuildError: a column has a type that the table would not hold exactly, or two columns share a name.
    """
    relation = cursor.sql(sql.rstrip().rstrip(";"))
    if relation is None:
        raise GoldBuildError(f"model {model}: its SQL is not a query")
    columns: dict[str, pl.DataType] = {}
    for name, dtype in zip(relation.columns, relation.types, strict=True):
        if name.lower() in (known.lower() for known in columns):
            raise GoldBuildError(f"model {model}: two columns are called '{name}'")
        columns[name] = _dtype(dtype, model, name)
    return columns


def _dtype(dtype: Any, model: str, column: str) -> pl.DataType:
    kind = str(dtype.id)
    if kind == "decimal":
        details = dict(dtype.children)
        return pl.Decimal(int(details["precision"]), int(details["scale"]))
    if kind in ("list", "array"):
        return pl.List(_dtype(dict(dtype.children)["child"], model, column))
    if kind == "struct":
        return pl.Struct({name: _dtype(child, model, f"{column}.{name}") for name, child in dtype.children})
    if kind in _EXACT:
        return _EXACT[kind]
    raise GoldBuildError(
        f"model {model}: column {column} is {str(dtype).upper()}, which a Delta table does not hold exactly",
        hint=f"cast it to {_CAST_TO.get(kind, 'varchar, or another plain type')} in the model",
    )
