"""A batch's columns brought to the table's: new columns by policy, drifting types rescued, nothing lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from lakehouse import names
from lakehouse.connectors.columns import as_text
from lakehouse.errors import SourceError
from lakehouse.storage.schema import delta_dtype, delta_ready


@dataclass(frozen=True)
class Aligned:
    """``frame`` has the table's columns; ``added`` must be added to the table before it is written."""

    frame: pl.LazyFrame
    added: dict[str, pl.DataType]
    changes: tuple[str, ...]


def align(
    frame: pl.LazyFrame,
    table: Mapping[str, pl.DataType] | None,
    label: str,
    *,
    new_columns: str,
    changed_types: str,
) -> Aligned:
    """Fit a source's frame to the bronze table's schema (None: there is no table yet).

    The first columns of a source are no change: a table that only unreadable files have made has none.

    Raises:
        SourceError: there is a new column, or a column of another type, and the policy for it is ``fail``.
    """
    frame = delta_ready(frame)
    incoming = {name: delta_dtype(dtype) for name, dtype in frame.collect_schema().items()}
    if table is None:
        return Aligned(frame.with_columns(pl.lit(None, pl.String).alias(names.RESCUED)), {}, ())
    existing = {name.lower(): name for name in table}
    rename = {
        name: existing[name.lower()] for name in incoming if name not in table and name.lower() in existing
    }
    frame = frame.rename(rename)
    incoming = {rename.get(name, name): dtype for name, dtype in incoming.items()}
    new = {name: dtype for name, dtype in incoming.items() if name not in table}
    retyped = {name: dtype for name, dtype in incoming.items() if name in table and table[name] != dtype}
    missing = [name for name in table if name not in incoming and name not in (*names.LINEAGE, names.RESCUED)]
    if all(name in (*names.LINEAGE, names.RESCUED) for name in table):
        return Aligned(frame.with_columns(_rescued({})), new, ())
    changes = [f"new column {name} ({dtype})" for name, dtype in new.items()]
    changes += [
        f"column {name} came as {dtype}, the table has {table[name]}" for name, dtype in retyped.items()
    ]
    changes += [f"column {name} is missing" for name in missing]
    for option, value, found in (
        ("new_columns", new_columns, new),
        ("changed_types", changed_types, retyped),
    ):
        if found and value == "fail":
            raise SourceError(
                f"{label}: {'; '.join(changes)}; the source's {option} policy is fail",
                hint=f"talk to the source's owner, or set {option}: rescue in the pipeline's YAML",
            )
    rescued = {name: as_text(name, dtype) for name, dtype in new.items()} if new_columns == "rescue" else {}
    fitted = []
    for name in retyped:
        fitting, fits = _fitted(pl.col(name), incoming[name], table[name])
        fitted.append(fitting.alias(name))
        rescued[name] = pl.when(~fits).then(_printed(name, incoming[name]))
    frame = frame.with_columns(_rescued(rescued), *fitted)
    if new_columns == "rescue":
        frame, new = frame.drop(list(new)), {}
    absent = [pl.lit(None, table[name]).alias(name) for name in missing]
    return Aligned(frame.with_columns(absent), new, tuple(changes))


def _printed(name: str, dtype: pl.DataType) -> pl.Expr:
    """As ``as_text``, but digits of bytes say so: beside numbers they would be taken for one."""
    text = as_text(name, dtype)
    return pl.concat_str(pl.lit("\\x"), text) if dtype == pl.Binary else text


def _fitted(column: pl.Expr, source: pl.DataType, target: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
    """(the column in the table's type, null where it does not fit; where it fits: the cast keeps the value).

    Numbers fit numbers and texts, moments fit moments, where casting back gives the same. A boolean or a moment as text
    says the same as before. All else has no cast, or one that means something else: to Polars 19000 is a day in 2022.
    """
    if target == pl.String and (source == pl.Boolean or _kind(source) == "moment"):
        return column.cast(pl.String), pl.lit(True)
    if {_kind(source), _kind(target)} not in ({"number"}, {"moment"}, {"number", "text"}):
        return pl.lit(None, target), column.is_null()
    cast = column.cast(target, strict=False)
    back = cast.cast(source, strict=False)
    same = back == column
    if source == pl.String and target.is_float():
        same |= back == column + ".0"  # a whole number beside others with a point
    fits = (column.is_null() | same).fill_null(False)
    return pl.when(fits).then(cast), fits


def _kind(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    if isinstance(dtype, (pl.Date, pl.Datetime)):
        return "moment"
    return "text" if dtype == pl.String else str(dtype)


def _rescued(values: Mapping[str, pl.Expr]) -> pl.Expr:
    """The ``_rescued`` column: a JSON object of the values that the table has no place for, null when none."""
    if not values:
        return pl.lit(None, pl.String).alias(names.RESCUED)
    packed = pl.struct(expression.alias(name) for name, expression in values.items())
    any_value = pl.any_horizontal(expression.is_not_null() for expression in values.values())
    return pl.when(any_value).then(packed.struct.json_encode()).alias(names.RESCUED)
