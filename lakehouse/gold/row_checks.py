"""What the rows of one build must satisfy before they are committed; each failure names a row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from lakehouse.errors import GoldBuildError
from lakehouse.gold.project import Model
from lakehouse.storage import quote_identifier

_CORRECT = "correct the model or what it reads, then: lakehouse run --select gold"


def check_constraints(cursor: Any, model: Model, new_rows: str) -> None:
    """The contract's not_null and check constraints. Raises ``GoldBuildError`` for the first that a row breaks."""
    constraints = model.constraints
    if not constraints:
        return
    # As in SQL, a check whose outcome is unknown (a null) holds; not_null never is unknown.
    counted = ", ".join(f"count(*) FILTER (WHERE NOT ({expression}))" for _, expression in constraints)
    broken = cursor.execute(f"SELECT {counted} FROM ({new_rows})").fetchone()
    for (name, expression), count in zip(constraints, broken, strict=True):
        if count:
            example = _example(cursor, f"SELECT * FROM ({new_rows}) WHERE NOT ({expression})")
            raise GoldBuildError(
                f"model {model.name}: {count:,} rows break {name}, such as {example}", hint=_CORRECT
            )


def check_keys(cursor: Any, model: str, key: Sequence[str], new_rows: str) -> None:
    """Merge keys are there, filled and unique. Raises ``GoldBuildError`` otherwise."""
    columns = ", ".join(quote_identifier(column) for column in key)
    missing = " OR ".join(f"{quote_identifier(column)} IS NULL" for column in key)
    known = {row[0] for row in cursor.execute(f"DESCRIBE {new_rows}").fetchall()}
    for column in key:
        if column not in known:
            raise GoldBuildError(
                f"model {model}: unique_key names '{column}', which is not one of its columns", hint=_CORRECT
            )
    nulls = cursor.execute(f"SELECT count(*) FROM ({new_rows}) WHERE {missing}").fetchone()[0]
    if nulls:
        raise GoldBuildError(
            f"model {model}: {nulls:,} rows have a null in unique_key ({', '.join(key)}); merge cannot match them",
            hint=_CORRECT,
        )
    twice = _example(
        cursor,
        f"SELECT {columns}, count(*) AS rows FROM ({new_rows}) GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL",
    )
    if twice:
        raise GoldBuildError(
            f"model {model}: unique_key ({', '.join(key)}) is not unique in the rows to merge, such as {twice}",
            hint="make the model return one row per key, or complete unique_key",
        )


def check_group_key(model: str, key: Sequence[str], columns: Collection[str]) -> None:
    """The model returns every column of its group_key. Raises ``GoldBuildError`` otherwise."""
    for column in key:
        if column not in columns:
            raise GoldBuildError(
                f"model {model}: group_key names '{column}', which is not one of its columns", hint=_CORRECT
            )


def check_inside(cursor: Any, model: str, predicate: str, new_rows: str, what: str = "") -> None:
    """Every row satisfies what decides which old rows go. Raises ``GoldBuildError`` otherwise."""
    outside = f"WITH new_rows AS ({new_rows}) SELECT * FROM new_rows WHERE NOT coalesce(({predicate}), false)"
    count = cursor.execute(f"SELECT count(*) FROM ({outside})").fetchone()[0]
    what = what or f"replace_where ({predicate})"
    if count:
        raise GoldBuildError(
            f"model {model}: {count:,} rows lie outside {what}, such as {_example(cursor, outside)}",
            hint="select only rows that satisfy the predicate: what lies outside would be doubled by the next build",
        )


def _example(cursor: Any, sql: str) -> str:
    """The first row as ``column=value, …``; empty when there is none."""
    found = cursor.execute(f"SELECT * FROM ({sql}) LIMIT 1")
    names = [column[0] for column in found.description]
    row = found.fetchone()
    return "" if row is None else ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True))
