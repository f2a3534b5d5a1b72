"""Rules: one promise about a column or a row, its name as people read it, and how to test it.

Names are stable and readable (``dep_delay_min >= -120``): they stand in quarantine, checks and messages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import polars as pl

from lakehouse.contracts.columns import UNCASTABLE, OnFailure

#: Allowed values that a rule's name spells out; a longer list is cut, with its length.
_NAMED_VALUES = 6

#: Pandera's long names of checks → the option of Field that declares them.
KINDS = {
    "equal_to": "eq",
    "not_equal_to": "ne",
    "greater_than": "gt",
    "greater_than_or_equal_to": "ge",
    "less_than": "lt",
    "less_than_or_equal_to": "le",
}


@dataclass(frozen=True)
class Castable:
    """Breaks where typing recorded a value that has no counterpart in the contract's type."""

    column: str

    def fails(self, present: Collection[str]) -> pl.Expr | None:
        flag = UNCASTABLE + self.column
        return pl.col(flag) if flag in present else None


@dataclass(frozen=True)
class NotNull:
    """Breaks on null, and on NaN as in pandera; a null that typing caused is castable's to report."""

    column: str
    is_float: bool

    def fails(self, present: Collection[str]) -> pl.Expr | None:
        value = pl.col(self.column)
        missing = value.is_null()
        if self.is_float:
            missing = missing | value.is_nan().fill_null(False)
        flag = UNCASTABLE + self.column
        return missing & ~pl.col(flag) if flag in present else missing


@dataclass(frozen=True)
class Expression:
    """Breaks where ``passes`` is false; on null only when the check asked for it (``ignore_na=False``).

    ``scalar``: the check says one thing about the whole frame, so either every row breaks it or none.
    """

    passes: pl.Expr
    ignore_na: bool = True
    scalar: bool = False

    def fails(self, present: Collection[str]) -> pl.Expr | None:
        return ~self.passes.fill_null(self.ignore_na)


@dataclass(frozen=True)
class Unique:
    """Breaks on every row whose value another row has too (two nulls are alike, as in pandera)."""

    column: str


@dataclass(frozen=True)
class ByPandera:
    """A check that is no expression: pandera itself runs it, on the collected frame."""

    check: Any
    key: str | None
    columns: tuple[str, ...]


Predicate = Castable | NotNull | Expression | Unique | ByPandera


@dataclass(frozen=True)
class Rule:
    """One rule of a contract.

    ``kind`` is castable, not_null, unique, an option of ``pa.Field`` (ge, isin, …) or custom. ``columns`` are
    those the rule reads, empty when only its code knows. ``remedy`` is the sentence that a failing check shows.
    """

    name: str
    columns: tuple[str, ...]
    on_failure: OnFailure
    description: str
    remedy: str
    kind: str
    predicate: Predicate = field(repr=False, compare=False)


def builtin_name(kind: str, column: str, arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """Name and description of a check that pandera ships; None when it is not one of those."""
    a = {key: value for key, value in arguments.items() if value is not None}
    shown = {
        key: show(value) for key, value in a.items() if key not in ("allowed_values", "forbidden_values")
    }
    match kind:
        case "eq":
            return f"{column} = {shown['value']}", f"{column} is always {shown['value']}"
        case "ne":
            return f"{column} <> {shown['value']}", f"{column} is never {shown['value']}"
        case "gt":
            return f"{column} > {shown['min_value']}", f"{column} is more than {shown['min_value']}"
        case "ge":
            return f"{column} >= {shown['min_value']}", f"{column} is at least {shown['min_value']}"
        case "lt":
            return f"{column} < {shown['max_value']}", f"{column} is less than {shown['max_value']}"
        case "le":
            return f"{column} <= {shown['max_value']}", f"{column} is at most {shown['max_value']}"
        case "in_range":
            low = "<=" if a.get("include_min", True) else "<"
            high = "<=" if a.get("include_max", True) else "<"
            name = f"{shown['min_value']} {low} {column} {high} {shown['max_value']}"
            return name, f"{column} lies between {shown['min_value']} and {shown['max_value']}"
        case "isin":
            values = _listed(a["allowed_values"])
            return f"{column} in {values}", f"{column} is one of {values}"
        case "notin":
            values = _listed(a["forbidden_values"])
            return f"{column} not in {values}", f"{column} is none of {values}"
        case "str_matches":
            return (
                f"{column} matches {shown['pattern']}",
                f"{column} starts with a match of {shown['pattern']}",
            )
        case "str_contains":
            return (
                f"{column} contains {shown['pattern']}",
                f"{column} has a match of {shown['pattern']} in it",
            )
        case "str_startswith":
            return f"{column} starts with {shown['string']}", f"{column} starts with {shown['string']}"
        case "str_endswith":
            return f"{column} ends with {shown['string']}", f"{column} ends with {shown['string']}"
        case "str_length":
            return _length(column, shown)
        case "unique_values_eq":
            values = _listed(a["values"])
            return f"values({column}) = {values}", f"each batch of {column} has all of {values}, nothing else"
    return None


def _length(column: str, shown: Mapping[str, str]) -> tuple[str, str]:
    low, high = shown.get("min_value"), shown.get("max_value")
    if (exact := shown.get("exact_value")) is not None:
        return f"length({column}) = {exact}", f"{column} has {exact} characters"
    if high is None:
        return f"length({column}) >= {low}", f"{column} has at least {low} characters"
    if low is None:
        return f"length({column}) <= {high}", f"{column} has at most {high} characters"
    return f"{low} <= length({column}) <= {high}", f"{column} has {low} to {high} characters"


def show(value: Any) -> str:
    """A constant as a reader of a rule's name expects it."""
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if hasattr(value, "pattern"):
        return repr(value.pattern)
    return repr(value) if isinstance(value, str) else str(value)


def _listed(values: Collection[Any]) -> str:
    # A set has another order in every process; a declared list keeps its own.
    ordered = sorted(values, key=repr) if isinstance(values, (set, frozenset)) else list(values)
    shown = ", ".join(show(value) for value in ordered[:_NAMED_VALUES])
    return f"[{shown}]" if len(ordered) <= _NAMED_VALUES else f"[{shown}, … {len(ordered)} values]"
