"""From a contract's class to a CompiledContract; every declaration is checked here, before any data is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from inspect import cleandoc
from typing import Any

import polars as pl
from pandera.api.checks import Check
from pandera.api.function_dispatch import Dispatcher

from lakehouse.contracts import columns as declared
from lakehouse.contracts.capture import CheckShapeError, predicate_of
from lakehouse.contracts.columns import DEFAULT_SENSITIVITY, ColumnSpec
from lakehouse.contracts.compiled import CompiledContract
from lakehouse.contracts.fingerprint import canonical, contract_hash, source_of
from lakehouse.contracts.model import Contract
from lakehouse.contracts.on_failure import check_rule_kinds, chosen_on_failure
from lakehouse.contracts.rules import (
    KINDS,
    ByPandera,
    Castable,
    Expression,
    NotNull,
    Predicate,
    Rule,
    Unique,
    builtin_name,
)
from lakehouse.errors import DeclarationError

#: Options of pandera that would change data or bend the contract; each with what to do instead.
_REFUSED_OPTIONS = {
    "dtype": "declare a type per column",
    "drop_invalid_rows": "screening splits rows, and keeps the rejected ones in quarantine",
}


def compile_contract(model: type[Contract]) -> CompiledContract:
    """Compile a contract, once per process. Raises DeclarationError naming the contract and the field that is wrong."""
    return _compiled(model) if isinstance(model, type) else _Compiler(model).compile()


@lru_cache(maxsize=1024)
def _compiled(model: type[Contract]) -> CompiledContract:
    return _Compiler(model).compile()


class _Compiler:
    def __init__(self, model: type[Contract]) -> None:
        if not (isinstance(model, type) and issubclass(model, Contract)):
            raise DeclarationError(
                f"{model!r} is not a contract", hint="derive a class from lakehouse.contracts.model.Contract"
            )
        self.model = model
        self.where = model.__name__
        try:
            self.schema = model.to_schema()
        except Exception as error:
            raise DeclarationError(f"pandera cannot read this contract: {error}", file=self.where) from error
        config = model.__config__
        self.metadata = declared.check_metadata(self.where, None, getattr(config, "metadata", None))
        self.fields: dict[str, Mapping[str, Any]] = {}
        self.rules: list[Rule] = []
        self.code: dict[str, Any] = {}

    def compile(self) -> CompiledContract:
        self._refuse_options()
        specs = tuple(self._column(str(name), column) for name, column in self.schema.columns.items())
        if not specs:
            raise DeclarationError("the contract declares no columns", file=self.where)
        key = self._key([spec.name for spec in specs])
        types = {spec.name: spec.dtype for spec in specs}
        specs = tuple(self._column_rules(spec, key, types) for spec in specs)
        self._frame_rules(types)
        for column, metadata in self.fields.items():
            check_rule_kinds(self.where, column, metadata, self.schema.columns[column].checks)
        check_rule_kinds(self.where, None, self.metadata, self.schema.checks)
        strict, ordered = self.schema.strict, bool(self.schema.ordered)
        return CompiledContract(
            name=str(self.schema.name or self.where),
            description=cleandoc(self.schema.description or ""),
            key=key,
            columns=specs,
            rules=tuple(self.rules),
            hash=contract_hash(specs, key, self.rules, self.code, [strict, ordered]),
            strict="filter" if strict == "filter" else bool(strict),
            ordered=ordered,
        )

    # -- columns -----------------------------------------------------------------------------------

    def _refuse_options(self) -> None:
        for option, instead in _REFUSED_OPTIONS.items():
            if getattr(self.schema, option, None):
                raise DeclarationError(f"Config.{option} is not supported; {instead}", file=self.where)

    def _column(self, name: str, column: Any) -> ColumnSpec:
        if column.regex:
            raise DeclarationError(
                "a field that matches many columns (regex=True) is not supported; name each column",
                file=self.where,
                field=name,
            )
        declared.check_name(self.where, name)
        metadata = declared.check_metadata(self.where, name, column.metadata)
        self.fields[name] = metadata
        dtype = declared.check_dtype(self.where, name, getattr(column.dtype, "type", column.dtype))
        if column.default is not None:
            self._check_default(name, dtype, column.default)
        return ColumnSpec(
            name=name,
            dtype=dtype,
            nullable=bool(column.nullable) or not column.required,
            description=" ".join((column.description or column.title or "").split()),
            sensitivity=metadata.get("sensitivity", DEFAULT_SENSITIVITY),
            required=bool(column.required),
            default=column.default,
        )

    def _check_default(self, name: str, dtype: pl.DataType, default: Any) -> None:
        try:
            pl.select(pl.lit(default, dtype=dtype))
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            raise DeclarationError(
                f"default {default!r} is not a value of type {dtype}", file=self.where, field=name
            ) from error

    def _key(self, names: list[str]) -> tuple[str, ...]:
        unique: Any = self.schema.unique or []
        key = [unique] if isinstance(unique, str) else list(unique)
        for column in key:
            if not isinstance(column, str):
                raise DeclarationError(
                    f'Config.unique is {unique!r}; a table has one key, as in unique = ["order_id"]',
                    file=self.where,
                )
            if column not in names:
                raise DeclarationError(
                    f"Config.unique names {column!r}, which is no column; the columns are {', '.join(names)}",
                    file=self.where,
                    field=column,
                )
        if len(set(key)) != len(key):
            raise DeclarationError(f"Config.unique names a column twice: {', '.join(key)}", file=self.where)
        return tuple(key)

    # -- rules -------------------------------------------------------------------------------------

    def _column_rules(
        self, spec: ColumnSpec, key: tuple[str, ...], types: Mapping[str, pl.DataType]
    ) -> ColumnSpec:
        column = self.schema.columns[spec.name]
        self._add(spec.name, "castable", Castable(spec.name), f"castable({spec.name})",
                  f"{spec.name} can be read as {spec.dtype}")  # fmt: skip
        if spec.name in key and self.rules[-1].on_failure == "warn":
            raise DeclarationError(
                "a row whose key cannot be read cannot be let in; on_failure for castable must be quarantine or fail",
                file=self.where,
                field=spec.name,
            )
        if not spec.nullable or spec.name in key:
            why = " (it is part of the key)" if spec.name in key else ""
            self._add(spec.name, "not_null", NotNull(spec.name, spec.dtype.is_float()),
                      f"not_null({spec.name})", f"{spec.name} is always known{why}")  # fmt: skip
            admits_null = self.rules[-1].on_failure == "warn"
            if admits_null and spec.name in key:
                raise DeclarationError(
                    "a row without its key cannot be let in; on_failure for not_null must be quarantine or fail",
                    file=self.where,
                    field=spec.name,
                )
            spec = _replace_nullable(spec, admits_null)
        if column.unique and key != (spec.name,):
            # The key itself is the stage's business: it keeps one row per key, and counts the others.
            self._add(spec.name, "unique", Unique(spec.name), f"unique({spec.name})",
                      f"no two rows of a batch have the same {spec.name}")  # fmt: skip
        for check in column.checks:
            self._check(check, spec.name, types)
        return spec

    def _frame_rules(self, types: Mapping[str, pl.DataType]) -> None:
        for check in self.schema.checks:
            self._check(check, None, types)

    def _check(self, check: Check, column: str | None, types: Mapping[str, pl.DataType]) -> None:
        kind = KINDS.get(str(check.name), str(check.name))
        named = None
        if column is not None and isinstance(check._check_fn, Dispatcher):
            named = builtin_name(kind, column, check.statistics or {})
        if named is None:
            kind, label = "custom", str(check.name)
            # One function for several columns is one rule per column.
            name = f"{column}: {label}" if column and self._shared(label) else label
            text = " ".join((check.description or check.error or check.title or label).split())
            named = (name, text)
            self.code_of(name, check)
        else:
            self.code[named[0]] = [canonical(check.statistics), bool(check.ignore_na)]
        try:
            predicate = predicate_of(check, column, types)
        except CheckShapeError as error:
            raise DeclarationError(f"check {check.name!r}: {error}", file=self.where, field=column) from error
        except pl.exceptions.PolarsError as error:
            of_type = f" on a column of type {types[column]}" if column else ""
            raise DeclarationError(
                f"rule {named[0]!r} cannot be computed{of_type}: {str(error).partition(chr(10))[0]}",
                file=self.where,
                field=column,
            ) from error
        self._add(column, kind, predicate, *named, check=check)

    def code_of(self, name: str, check: Check) -> None:
        """Remember what a custom check does, for the hash."""
        function: Any = check._check_fn
        closure = dict(
            zip(function.__code__.co_freevars, (c.cell_contents for c in function.__closure__ or ()), strict=True)
        ) if hasattr(function, "__code__") else {}  # fmt: skip
        owner = closure.get("self")
        # Pandera wraps a model's method in an adapter of its own; the method is what matters.
        original = getattr(owner, "check_fn", None) or function
        options = [bool(check.ignore_na), bool(check.element_wise)]
        self.code[name] = [source_of(original), canonical(check._check_kwargs), options]

    def _shared(self, label: str) -> bool:
        """Whether a custom check of this name guards several columns."""
        return sum(str(c.name) == label for column in self.schema.columns.values() for c in column.checks) > 1

    def _add(
        self, column: str | None, kind: str, predicate: Predicate, name: str, description: str,
        *, check: Check | None = None,
    ) -> None:  # fmt: skip
        if any(rule.name == name for rule in self.rules):
            raise DeclarationError(
                f"two rules are called {name!r}; give one of them another name", file=self.where, field=column
            )
        metadata = self.metadata if column is None else self.fields[column]
        remedy = metadata.get("remedy") or (
            f"correct it at the source, or change the rule in contract {self.where}; then replay the quarantine"
        )
        self.rules.append(
            Rule(
                name=name,
                columns=_columns_of(predicate, column),
                on_failure=chosen_on_failure(kind, metadata, check),
                description=description,
                remedy=remedy,
                kind=kind,
                predicate=predicate,
            )
        )


def _columns_of(predicate: Predicate, column: str | None) -> tuple[str, ...]:
    if isinstance(predicate, Expression):
        return tuple(dict.fromkeys(predicate.passes.meta.root_names()))
    if isinstance(predicate, ByPandera):
        return (column,) if column else ()
    return (predicate.column,)


def _replace_nullable(spec: ColumnSpec, nullable: bool) -> ColumnSpec:
    """The column as silver will hold it: a key is never null, a column that only warns may be."""
    return replace(spec, nullable=nullable)
