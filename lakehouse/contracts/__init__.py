"""Contracts: what a silver table promises, and the screening of rows compiled from it.

One Python class per table (``lakehouse/contracts/<table>.py``) derived from :class:`Contract`.
``compile_contract`` turns it into a :class:`CompiledContract`: types, key, rules and a hash, which type and
screen frames with Polars expressions alone. Importing this package is cheap: pandera, which takes most of a
second to import, comes in with the first contract.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakehouse.contracts.columns import ColumnSpec
    from lakehouse.contracts.compile import compile_contract
    from lakehouse.contracts.compiled import CompiledContract
    from lakehouse.contracts.model import Contract, TimestampUtc
    from lakehouse.contracts.rules import Rule
    from lakehouse.contracts.screen import ScreenCounts

__all__ = [
    "ColumnSpec",
    "CompiledContract",
    "Contract",
    "Rule",
    "ScreenCounts",
    "TimestampUtc",
    "compile_contract",
]

_HOME = {
    "ColumnSpec": "columns",
    "CompiledContract": "compiled",
    "Contract": "model",
    "Rule": "rules",
    "ScreenCounts": "screen",
    "TimestampUtc": "model",
    "compile_contract": "compile",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"lakehouse.contracts.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
