"""Columns as a source writes them, and as a table can hold them: names, and values as text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import polars as pl

from lakehouse import names
from lakehouse.storage.schema import instance

_INVALID = re.compile(r"[^A-Za-z0-9_]+")
#: What bronze adds, and what a refused row gets beside what bronze has of it.
_RESERVED = {*names.LINEAGE, names.RESCUED, "_broken_rules"}


def clean_names(raw: Sequence[str]) -> list[str]:
    """A valid, unique table column for each source column, in order.

    ``Flight No.`` → ``Flight_No``, ``größe`` → ``grosse``, `` `` → ``column_3``, a second ``id`` or ``ID`` → ``id_2``,
    ``2nd`` → ``_2nd``. The same input always gives the same names, so a re-read file lands in the same columns.
    """
    taken: set[str] = set()
    cleaned: list[str] = []
    for position, name in enumerate(raw, start=1):
        text = unicodedata.normalize("NFKD", name.strip().lstrip("\ufeff").replace("ß", "ss"))
        text = text.encode("ascii", "ignore").decode()
        text = _INVALID.sub("_", text)
        text = text if _INVALID.sub("_", name) == name else text.strip("_")
        text = text or f"column_{position}"
        text = f"_{text}" if text[0].isdigit() else text
        text = f"source{text}" if text.lower() in _RESERVED else text
        candidate, count = text, 1
        while candidate.lower() in taken:
            count += 1
            candidate = f"{text}_{count}"
        taken.add(candidate.lower())
        cleaned.append(candidate)
    return cleaned


def one_spelling(frames: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """``frames`` with one spelling for each column, the first: to a table ``id`` and ``ID`` are one name."""
    spelled: dict[str, str] = {}
    alike = []
    for frame in frames:
        spellings = {name: spelled.setdefault(name.lower(), name) for name in frame.collect_schema()}
        other = {name: spelling for name, spelling in spellings.items() if name != spelling}
        alike.append(frame.rename(other) if other else frame)
    return alike


def as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """The column as text: nested values as JSON, bytes as hexadecimal digits."""
    column = pl.col(name)
    printed = without_bytes(column, dtype)
    if isinstance(dtype, pl.Struct):
        return pl.when(column.is_not_null()).then(printed.struct.json_encode())
    if isinstance(dtype, (pl.List, pl.Array)):
        return pl.when(column.is_not_null()).then(pl.struct(printed.alias(name)).struct.json_encode())
    return printed.cast(pl.String)


def without_bytes(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """``column`` with hexadecimal digits for bytes, however deep: the writer of JSON panics over them."""
    if dtype == pl.Binary:
        return column.bin.encode("hex")
    if "Binary" not in str(dtype):
        return column
    if isinstance(dtype, pl.Array):
        column = column.arr.to_list()
    if isinstance(dtype, (pl.List, pl.Array)):
        return column.list.eval(without_bytes(pl.element(), instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        fields = [
            without_bytes(column.struct.field(field.name), instance(field.dtype)).alias(field.name)
            for field in dtype.fields
        ]
        return pl.when(column.is_not_null()).then(pl.struct(fields))
    return column
