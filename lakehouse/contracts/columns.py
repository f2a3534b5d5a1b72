"""Columns of a contract: what is declared per field, read from Pandera and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

import polars as pl

from lakehouse.errors import DeclarationError

Sensitivity = Literal["public", "internal", "personal"]
OnFailure = Literal["quarantine", "warn", "fail"]

#: Prefix of the boolean columns that carry "this value could not be cast" from typing to screening.
UNCASTABLE = "__uncastable__"

#: True for rows that delete their key: of the others' columns they need say nothing, so only rules of the key judge them.
DELETING = "__deleting"

#: A field that says nothing is for everyone who works here, and for nobody else.
DEFAULT_SENSITIVITY: Sensitivity = "internal"

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_KNOWN_METADATA = ("sensitivity", "on_failure", "remedy")


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a silver table.

    ``nullable`` says whether silver may hold nulls in it. ``required`` is false for a column that a source
    may lack altogether (``float | None``); such a column is nullable, because the lakehouse adds it as nulls.
    ``default`` replaces nulls.
    """

    name: str
    dtype: pl.DataType
    nullable: bool
    description: str
    sensitivity: Sensitivity
    required: bool = True
    default: Any = None


def check_name(contract: str, name: object) -> str:
    """The name itself if it can be a column. Raises DeclarationError otherwise."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise DeclarationError(
            f"column name {name!r} is not a plain identifier; use letters, digits and underscores, not starting "
            "with a digit (Field(alias=...) sets it)",
            file=contract,
            field=str(name),
        )
    if name.startswith("__"):
        raise DeclarationError(
            "names that start with two underscores belong to the lakehouse; rename the column",
            file=contract,
            field=name,
        )
    return name


def check_dtype(contract: str, field: str, declared: object) -> pl.DataType:
    """The complete Polars type that a field declares. Raises DeclarationError when it is none, or half of one."""

    def wrong(reason: str) -> DeclarationError:
        return DeclarationError(
            reason,
            file=contract,
            field=field,
            hint="use a complete Polars type, as in `int`, `pl.Date`, TimestampUtc, "
            "`pl.List(pl.String)`, `pl.Decimal(10, 2)`",
        )

    try:
        dtype = declared() if isinstance(declared, type) else declared
    except TypeError as error:
        raise wrong(f"type {getattr(declared, '__name__', declared)} needs arguments ({error})") from error
    if not isinstance(dtype, pl.DataType):
        # A bare `pl.List` is an instance of Polars' class-of-types; only its instances hold data.
        raise wrong(f"type {declared!r} is not a Polars type")
    for part in _parts(dtype):
        if isinstance(part, (pl.Object, pl.Unknown, pl.Null, pl.Array)):
            say = "use pl.List" if isinstance(part, pl.Array) else "say which type the values have"
            raise wrong(f"type {part} cannot be stored in a Delta table; {say}")
        if not isinstance(part, pl.DataType):
            raise wrong(f"type {part!r} is incomplete")
    return dtype


def _parts(dtype: pl.DataType) -> list[Any]:
    """A type and every type inside it."""
    if isinstance(dtype, pl.Struct):
        return [dtype, *(p for f in dtype.fields for p in _inner(f.dtype))]
    if isinstance(dtype, pl.List):
        return [dtype, *_inner(getattr(dtype, "inner", None))]
    return [dtype]


def _inner(dtype: Any) -> list[Any]:
    if isinstance(dtype, pl.DataType):
        return _parts(dtype)
    if isinstance(dtype, type) and not getattr(dtype, "is_nested", bool)():
        return [dtype()]
    return [dtype]


def check_metadata(contract: str, field: str | None, metadata: object) -> Mapping[str, Any]:
    """A field's (or, with ``field`` None, a contract's) metadata after checking the keys that mean something.

    Other keys are the team's own and are left alone, unless they look like a misspelling of ours.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise DeclarationError(
            f"metadata must be a dict, not {type(metadata).__name__}", file=contract, field=field
        )
    for key in metadata:
        if key not in _KNOWN_METADATA and (close := get_close_matches(str(key), _KNOWN_METADATA, 1, 0.75)):
            raise DeclarationError(
                f"metadata key {key!r} is unknown; did you mean {close[0]!r}?", file=contract, field=field
            )
    if "sensitivity" in metadata:
        check_choice(contract, field, "sensitivity", metadata["sensitivity"], get_args(Sensitivity))
    wanted = metadata.get("on_failure")
    for kind, choice in wanted.items() if isinstance(wanted, Mapping) else [("", wanted)]:
        if choice is not None:
            what = f"on_failure[{kind!r}]" if kind else "on_failure"
            check_choice(contract, field, what, choice, get_args(OnFailure))
    if not isinstance(metadata.get("remedy", ""), str):
        raise DeclarationError("metadata 'remedy' must be a sentence", file=contract, field=field)
    return metadata


def check_choice(
    contract: str, field: str | None, what: str, value: object, allowed: tuple[str, ...]
) -> None:
    """Raises DeclarationError when ``value`` is not among the words that are allowed."""
    if value not in allowed:
        raise DeclarationError(
            f"{what} is {value!r}; it can be {', '.join(allowed)}", file=contract, field=field
        )
