"""A pandera check as a Polars expression.

Pandera's Polars checks, built-in and custom alike, are functions from a frame to ``frame.select(<boolean>)``.
Handing them a frame that only writes down what is selected yields the very expression that pandera would
have run, so screening and pandera agree by construction. A check that does anything else with the frame
is left to pandera.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any

import polars as pl
from pandera.api.checks import Check
from pandera.api.function_dispatch import Dispatcher
from pandera.api.polars.types import PolarsData
from pandera.backends.polars import builtin_checks

from lakehouse.contracts.rules import ByPandera, Expression

#: Up to so many texts are compared one by one: a third of the time of a lookup (measured on 2 to 7 values).
_COMPARED_TEXTS = 12


class _NotAnExpressionError(Exception):
    """The check looked at data, or did something other than one select."""


class CheckShapeError(Exception):
    """The check's result is not one boolean per row. The message says what it is."""


class _Selected:
    def __init__(self, exprs: tuple[pl.Expr, ...]) -> None:
        self.exprs = exprs


class _Recorder:
    """Stands in for the LazyFrame; knows its schema, has no data."""

    def __init__(self, schema: Mapping[str, pl.DataType]) -> None:
        self._schema = pl.Schema(schema)

    def select(self, *exprs: Any, **named: Any) -> _Selected:
        flat = [e for x in exprs for e in (x if isinstance(x, Iterable) and not isinstance(x, str) else [x])]
        flat += [(pl.col(e) if isinstance(e, str) else e).alias(name) for name, e in named.items()]
        return _Selected(tuple(pl.col(e) if isinstance(e, str) else e for e in flat))

    def lazy(self) -> _Recorder:
        return self

    def collect_schema(self) -> pl.Schema:
        return self._schema

    @property
    def schema(self) -> pl.Schema:
        return self._schema

    @property
    def columns(self) -> list[str]:
        return self._schema.names()

    def __getattr__(self, name: str) -> Any:
        raise _NotAnExpressionError(name)


def predicate_of(check: Check, key: str | None, schema: Mapping[str, pl.DataType]) -> Expression | ByPandera:
    """How to test a check on frames of ``schema``.

    Raises PolarsError when the expression cannot run on these types, CheckShapeError when the check's result
    is not one boolean per row.
    """
    fallback = ByPandera(check, key, tuple(schema))
    passes = _expression(check, key, schema)
    if passes is None:
        return fallback
    sample = _sample(schema, ["", "a"])
    try:
        result = sample.select(passes)
    except pl.exceptions.PolarsError:
        if isinstance(check._check_fn, Dispatcher):
            raise
        # A team's own check may rightly refuse our made-up text; on nulls it has to work.
        result = _sample(schema, [None, None]).select(passes)
    if result.width != 1:
        # `pl.all() > 0` and the like: what it expands to depends on the frame, which pandera handles.
        return fallback
    if result.dtypes[0] != pl.Boolean:
        raise CheckShapeError(
            f"it gives {result.dtypes[0]} values; a check gives booleans, true where a row is good"
        )
    if result.height not in (1, sample.height):
        raise CheckShapeError("it gives neither one value per row nor one for the whole frame")
    passes = _compared(check, key) if _compares_texts(check, key, schema) else passes
    return Expression(passes, ignore_na=bool(check.ignore_na), scalar=result.height == 1)


def _compares_texts(check: Check, key: str | None, schema: Mapping[str, pl.DataType]) -> bool:
    """Is it pandera's ``isin`` of a few texts on a text column?"""
    values = check._check_kwargs.get("allowed_values")
    return (
        isinstance(check._check_fn, Dispatcher)
        and check.name == "isin"
        and key is not None
        and schema.get(key) == pl.String
        and values is not None
        and 0 < len(values) <= _COMPARED_TEXTS
        and all(isinstance(value, str) for value in values)
    )


def _compared(check: Check, key: str | None) -> pl.Expr:
    """``isin`` as comparisons: null stays null, as it does in a lookup."""
    assert key is not None
    values = sorted(check._check_kwargs["allowed_values"])
    passes: pl.Expr = reduce(or_, [pl.col(key) == value for value in values])
    return passes


def _expression(check: Check, key: str | None, schema: Mapping[str, pl.DataType]) -> pl.Expr | None:
    function: Any = check._check_fn
    arguments = dict(check._check_kwargs)
    if isinstance(function, Dispatcher):
        function = getattr(builtin_checks, str(function), function)
    if check.element_wise:
        if key is None:
            return None
        return pl.col(key).map_elements(lambda value: function(value, **arguments), return_dtype=pl.Boolean)
    if check.groupby is not None:
        return None
    try:
        result = function(PolarsData(_Recorder(schema), key or "*"), **arguments)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - a team's code given a frame without data may raise anything
        return None
    if isinstance(result, bool):
        # It may have looked at nothing, or at something we cannot see: only pandera's own run knows.
        return None
    if isinstance(result, (pl.Expr, pl.Series, pl.DataFrame)):
        raise CheckShapeError(
            f"it returns a polars {type(result).__name__}; return `data.lazyframe.select(<expression>)`"
        )
    if not isinstance(result, _Selected) or not result.exprs:
        return None
    if len(result.exprs) == 1:
        return result.exprs[0]
    if any(expr.meta.has_multiple_outputs() for expr in result.exprs):
        return None
    # Several columns: a row is good when all of them are, folded as pandera does.
    passes = pl.lit(True)
    for expr in result.exprs:
        passes = passes & expr
    return passes


def _sample(schema: Mapping[str, pl.DataType], texts: list[str | None]) -> pl.DataFrame:
    """Three rows to try an expression on: enough to tell a value per row from one per frame.

    They are null, but for text: Polars looks at a pattern only when there is something to match.
    """
    return pl.DataFrame(
        {
            name: pl.Series(name, [None, *texts] if dtype == pl.String else [None] * 3, dtype=dtype)
            for name, dtype in schema.items()
        }
    )
