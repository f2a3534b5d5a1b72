"""``lakehouse quarantine list | show``"""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_(as_json: AsJson = False) -> None:
    """How many rows each rule refused, per table.

    Example: lakehouse quarantine list
    """
    from lakehouse.cli.output import print_json, print_table, say
    from lakehouse.ops import refused
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    found = refused.summary(Lake.from_settings(load_settings())).to_dicts()
    if as_json:
        print_json(found)
    elif not found:
        say("Quarantine is empty: every row that came was accepted.")
    else:
        print_table(
            ("table", "stage", "broken rule", "rows", "batches", "last"),
            [
                (
                    row["table"],
                    row["stage"],
                    row["rule"],
                    row["rows"],
                    _span(row["first_batch"], row["last_batch"]),
                    row["last_at_utc"],
                )
                for row in found
            ],
            right=("rows",),
        )
        say("The rows themselves: lakehouse quarantine show TABLE")


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def show(
    table: Annotated[str, typer.Argument(help="Table whose refused rows to show.")],
    batch: Annotated[int | None, typer.Option(help="Only rows of this batch.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only rows that broke this rule.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many rows, the newest first.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """The refused rows of one table as they came, with the rules they broke and where they stood.

    Example: lakehouse quarantine show flights --batch 3 --limit 5
    """
    from lakehouse.cli.output import console, print_json, say
    from lakehouse.errors import TableNotFound
    from lakehouse.ops import refused
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    lake = Lake.from_settings(load_settings())
    try:
        found = refused.rows(lake, table, batch=batch, rule=rule, limit=limit).to_dicts()
    except TableNotFound:
        known = ", ".join(lake.tables("quarantine")) or "none"
        raise TableNotFound(
            f"nothing of {table!r} is in quarantine (tables with refused rows: {known})",
            hint="lakehouse quarantine list",
        ) from None
    if as_json:
        print_json(found)
        return
    plain = console()
    for row in found:
        where = row["_source_position"] or f"row {row['_source_row']}"
        say(f"[bold]{', '.join(row['_broken_rules'] or [])}[/]")
        plain.print(
            f"  batch {row['_batch_id']}, {row['_source_file']}, {where}", markup=False, soft_wrap=True
        )
        plain.print(f"  {row['_raw']}", markup=False, soft_wrap=True)
    if not found:
        say("No row fits.")


def register(app: typer.Typer) -> None:
    """Hang the verbs into the command tree."""
    group = typer.Typer(
        no_args_is_help=True, help="Rows that a contract refused: whole, with the rules they broke."
    )
    group.command("list")(list_)
    group.command("show")(show)
    app.add_typer(group, name="quarantine")
