"""A contract after compilation: what the stages use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from lakehouse.contracts import screen, typed
from lakehouse.contracts.columns import UNCASTABLE, ColumnSpec
from lakehouse.contracts.rules import Rule
from lakehouse.contracts.screen import ScreenCounts
from lakehouse.contracts.typed import NullMarkers
from lakehouse.errors import ContractError


@dataclass(frozen=True)
class CompiledContract:
    """Columns, key and rules of one silver table.

    ``hash`` changes when any type, rule or the key does. ``strict`` true refuses frames with columns that the
    contract does not know, "filter" drops them; names that start with an underscore are never meant.
    ``ordered`` puts the contract's columns first, in its order.
    """

    name: str
    description: str
    key: tuple[str, ...]
    columns: tuple[ColumnSpec, ...]
    rules: tuple[Rule, ...]
    hash: str
    strict: bool | Literal["filter"] = False
    ordered: bool = False

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Column → type, in the contract's order."""
        return {column.name: column.dtype for column in self.columns}

    def column(self, name: str) -> ColumnSpec:
        """One column. Raises KeyError."""
        return {column.name: column for column in self.columns}[name]

    def rule(self, name: str) -> Rule:
        """One rule. Raises KeyError."""
        return {rule.name: rule for rule in self.rules}[name]

    def type_columns(
        self, raw: pl.LazyFrame, *, null_markers: NullMarkers = (), keep_empty_text: bool = False
    ) -> pl.LazyFrame:
        """Cast every contract column that is present; see :func:`lakehouse.contracts.typed.type_columns`."""
        return typed.type_columns(
            raw, self.columns, null_markers=null_markers, keep_empty_text=keep_empty_text
        )

    def add_missing(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Add contract columns that are absent, as typed nulls (or their default)."""
        return typed.add_missing(frame, self.columns)

    def count(self, frame: pl.LazyFrame, *, ordering: Sequence[str] = ()) -> ScreenCounts:
        """How many rows break each rule.

        Args:
            ordering: columns that order a key's rows. Rows that delete their key are judged by its rules and theirs alone.

        Raises ContractError when the frame does not have the contract's columns and types, or when a rule
        cannot be computed on the data.
        """
        self._check_frame(frame.collect_schema())
        return screen.count(frame, self.rules, self.name, (*self.key, *ordering))

    def split(
        self, frame: pl.LazyFrame, counts: ScreenCounts, *, ordering: Sequence[str] = ()
    ) -> tuple[pl.LazyFrame, pl.LazyFrame | None]:
        """Accepted rows and rejected rows (None when there are none); their heights add up to the frame's.

        ``counts`` are those of the same frame, and of the same ``ordering``. Rejected rows have ``_broken_rules``: the names of the rules
        with ``on_failure: quarantine`` that they break. Raises ContractError when a rule with ``on_failure:
        fail`` is broken.
        """
        accepted, rejected = screen.split(frame, counts, self.rules, self.name, (*self.key, *ordering))
        names = accepted.collect_schema().names()
        if self.strict == "filter" and (unknown := self._unknown(names)):
            accepted = accepted.drop(unknown)
            names = [name for name in names if name not in unknown]
        if self.ordered:
            known = [name for name in self.schema if name in names]
            accepted = accepted.select(*known, *(name for name in names if name not in self.schema))
        return accepted, rejected

    def _unknown(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self.schema and not name.startswith("_")]

    def _check_frame(self, present: Mapping[str, pl.DataType]) -> None:
        missing = [column.name for column in self.columns if column.name not in present]
        if missing:
            raise ContractError(
                f"contract {self.name}: the frame lacks {', '.join(missing)}",
                hint="add_missing() adds columns that a source does not bring",
            )
        wrong = [
            f"{name} is {present[name]}, the contract says {dtype}"
            for name, dtype in self.schema.items()
            if present[name] != dtype
        ]
        if wrong:
            raise ContractError(
                f"contract {self.name}: {'; '.join(wrong)}",
                hint="let the transform return the contract's types, or run type_columns() after it",
            )
        if self.strict is True:
            unknown = self._unknown([name for name in present if not name.startswith(UNCASTABLE)])
            if unknown:
                raise ContractError(
                    f"contract {self.name} is strict and does not know {', '.join(unknown)}",
                    hint="declare the columns, or drop them in the transform",
                )
