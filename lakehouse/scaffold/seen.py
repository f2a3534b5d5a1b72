"""What a person would like to know of a column's values before writing a rule for it."""

from __future__ import annotations

import re

import polars as pl

_PERSONAL = re.compile(
    r"e_?mail|phone|mobile|birth|ssn|passport|street|address|first_?name|last_?name|surname|full_?name|iban|card",
    re.IGNORECASE,
)
_FEW, _SHORT = 8, 20


def is_personal(name: str) -> bool:
    """True when the name suggests data about a person."""
    return bool(_PERSONAL.search(name))


def describe_values(values: pl.Series, dtype: pl.DataType, name: str) -> str | None:
    """A range for numbers and times, the values themselves when they are few and short; never personal data."""
    if is_personal(name) or values.is_empty():
        return None
    if dtype.is_numeric() or dtype.is_temporal():
        typed = values.cast(dtype, strict=False) if dtype.is_numeric() else values
        low, high = typed.min(), typed.max()
        return (
            None
            if low is None
            else f"{_short(low)} … {_short(high)}"
            if low != high
            else f"only {_short(low)}"
        )
    if dtype != pl.String or values.n_unique() > _FEW:
        return None
    words = sorted(values.unique().to_list())
    return ", ".join(words) if all(len(word) <= _SHORT and word.isprintable() for word in words) else None


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:25]
