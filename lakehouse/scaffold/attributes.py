"""What the columns, types and class of a contract are called in its module: names that stand for nothing else there."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from lakehouse.contracts import Contract

#: What a contract's module imports. Pandera reads annotations with the class's own names first, then the module's.
_IMPORTED = frozenset({"Annotated", "Contract", "TimestampUtc", "pa", "pl"})
#: Attributes of every contract: one of them as a field would take its place, or Pandera passes over the field.
_TAKEN = _IMPORTED | frozenset(dir(Contract))
#: What the types of nested columns are called, above the class.
_TYPE = re.compile(r"[A-Z0-9_]+_(FIELDS|ITEM)")


def attributes(columns: Iterable[str]) -> dict[str, str]:
    """Column → attribute of the contract, each another: the column's own name wherever it can be.

    ``class`` → ``class_``, ``_rev`` → ``rev_``, ``_2019`` → ``column_2019``.
    """
    columns = list(columns)
    found = {name: name for name in columns if _can_be(name)}
    used = {name.lower() for name in found}
    for name in columns:
        if name in found:
            continue
        plain = name.strip("_") or "column"
        plain = f"column_{plain}" if plain[0].isdigit() else f"{plain}_"
        candidate, count = plain, 1
        while not _can_be(candidate) or candidate.lower() in used:
            count += 1
            candidate = f"{plain.rstrip('_')}_{count}"
        used.add(candidate.lower())
        found[name] = candidate
    return found


def _can_be(name: str) -> bool:
    return not (
        keyword.iskeyword(name) or name in _TAKEN or name.startswith("_") or _TYPE.fullmatch(name) is not None
    )


def class_name(table: str) -> str:
    """``web_orders`` → ``WebOrders``; a name that the module needs itself gets ``Table`` behind it."""
    name = "".join(part[:1].upper() + part[1:] for part in table.split("_") if part)
    unfit = not name.isidentifier() or keyword.iskeyword(name) or name.lower() in map(str.lower, _IMPORTED)
    return f"{'_' if name[:1].isdigit() else ''}{name}Table" if unfit else name
