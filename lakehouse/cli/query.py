"""``lakehouse query`` and ``lakehouse sql``: read what is published."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def query(
    sql: Annotated[
        str, typer.Argument(help="One SELECT (DuckDB's SQL). Tables: gold ones by name, silver.<table>.")
    ],
    output: Annotated[Format, typer.Option("--format", "-f", help="How to print the result.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    limit: Annotated[int, typer.Option(help="Rows to print as a table; 0 = all.", min=0)] = 100,
) -> None:
    """Ask the published tables one question. Nothing can be changed by it.

    Example: lakehouse query "select carrier, count(*) from fct_flights group by all order by 2 desc"
    """
    from lakehouse.gold.query import query as ask
    from lakehouse.settings import load_settings

    result = ask(load_settings(), sql)
    if as_json or output is Format.JSON:
        from lakehouse.cli.output import print_json

        print_json(result.to_dicts())
    elif output is Format.CSV:
        _print_csv(result.columns, result.rows())
    else:
        print_result(result.columns, result.rows(), limit=limit)


def print_result(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, limit: int = 100) -> None:
    """Rows as a table, and how many there are when some are left out."""
    from numbers import Number

    from lakehouse.cli.output import cell, print_table, say

    shown = rows[:limit] if limit else rows
    right = [
        name
        for position, name in enumerate(columns)
        if any(isinstance(row[position], Number) and not isinstance(row[position], bool) for row in shown)
    ]
    # Numbers as they are: a thousands separator would make "2,013" of a year.
    texts = [[str(value) if isinstance(value, Number) else cell(value) for value in row] for row in shown]
    print_table(columns, texts, right=right)
    if len(shown) < len(rows):
        say(f"{len(shown):,} of {len(rows):,} rows; --limit 0 prints all")


def _print_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    import csv
    import sys

    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    writer.writerows(rows)


def sql() -> None:
    """Open a shell on the published tables. `.tables`, `.schema TABLE`, `.help`; arrow keys recall what you typed.

    Example: lakehouse sql
    """
    from lakehouse.cli.shell import run_shell
    from lakehouse.settings import load_settings

    run_shell(load_settings())


def register(app: typer.Typer) -> None:
    """Hang the verbs into the command tree."""
    app.command()(query)
    app.command()(sql)
