"""``lakehouse quarantine list | show | export``, and the verbs that change something."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lakehouse.quarantine import Selection
    from lakehouse.storage import Lake

Table = Annotated[str, typer.Argument(help="Table whose refused rows are meant.")]
Rule = Annotated[str | None, typer.Option(help="Only rows that broke this rule.")]
Batch = Annotated[int | None, typer.Option(help="Only rows of this batch.")]
File = Annotated[
    str | None, typer.Option(help="Only rows of this file: its path, the end of it, or a pattern with *.")
]
Stage = Annotated[
    str | None,
    typer.Option(
        help="bronze (lines and files that could not be read) or silver (rows that broke the contract)."
    ),
]
Limit = Annotated[int | None, typer.Option(help="At most so many rows, the oldest first.", min=1)]
StateOption = Annotated[str, typer.Option("--state", help="open, releasing, released, resolved or all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_(
    rule: Rule = None, batch: Batch = None, file: File = None, stage: Stage = None, as_json: AsJson = False
) -> None:
    """How many rows each rule refused, per table, and what became of them.

    Example: lakehouse quarantine list
    """
    from lakehouse.cli.output import print_json, print_table, say
    from lakehouse.ops import refused

    found = refused.summary(_lake(), selection(rule, batch, file, stage)).to_dicts()
    if as_json:
        print_json(found)
    elif not found:
        chosen = any(value is not None for value in (rule, batch, file, stage))
        say("No row fits." if chosen else "Quarantine is empty: every row that came was accepted.")
    else:
        print_table(
            ("table", "stage", "broken rule", "rows", "open", "released", "resolved", "batches", "last"),
            [
                (row["table"], row["stage"], row["rule"], row["rows"], row["open"], row["released"], row["resolved"],
                 _span(row["first_batch"], row["last_batch"]), row["last_at_utc"])
                for row in found
            ],
            right=("rows", "open", "released", "resolved"),
        )  # fmt: skip
        say("The rows themselves: lakehouse quarantine show TABLE")


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def show(
    table: Table,
    rule: Rule = None,
    batch: Batch = None,
    file: File = None,
    stage: Stage = None,
    state: StateOption = "open",
    limit: Annotated[int, typer.Option(help="At most so many rows, the newest first.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """The refused rows of one table as they came, with the rules they broke and where they stood.

    Example: lakehouse quarantine show flights --batch 3 --limit 5
    """
    from lakehouse.cli.output import console, print_json, say
    from lakehouse.ops import refused

    found = refused.rows(
        _lake(), table, selection(rule, batch, file, stage, limit), states=_states(state)
    ).to_dicts()
    if as_json:
        print_json(found)
        return
    plain = console()
    for row in found:
        where = row["_source_position"] or f"row {row['_source_row']}"
        plain.print(", ".join(row["_broken_rules"] or []), style="bold", markup=False, soft_wrap=True)
        plain.print(
            f"  batch {row['_batch_id']}, {row['_source_file']}, {where}", markup=False, soft_wrap=True
        )
        if row["_state"] != "open":
            said = f": {row['_note']}" if row["_note"] else ""
            plain.print(f"  {row['_state']} by {row['_actor']}{said}", markup=False, soft_wrap=True)
        plain.print(f"  {row['_raw']}", markup=False, soft_wrap=True)
    if not found:
        say("No row fits." if state == "all" else f"No {state} row fits (--state all shows every one).")


def export(
    table: Table,
    to: Annotated[
        Path, typer.Option("--to", help="File to write; its ending says the format: .csv, .jsonl, .parquet.")
    ],
    rule: Rule = None,
    batch: Batch = None,
    file: File = None,
    stage: Stage = None,
    state: StateOption = "open",
    limit: Limit = None,
    landable: Annotated[
        bool,
        typer.Option(
            "--landable", help="Only the source's own columns, so that the corrected file can be landed."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write refused rows to a file, to look at them or to repair and land them again.

    Example: lakehouse quarantine export flights --to refused.csv --landable
    """
    from lakehouse import quarantine
    from lakehouse.cli.output import print_json, say
    from lakehouse.ops import refused

    rows = refused.rows(
        _lake(), table, selection(rule, batch, file, stage, limit), states=_states(state), newest_first=False
    )
    written = quarantine.export(rows, to, landable=landable, overwrite=overwrite)
    unreadable = rows.height - written
    if as_json:
        print_json({"table": table, "file": str(to), "rows": written, "left_out": unreadable})
        return
    say(f"{written} rows of {table} written to {to}")
    if unreadable:
        say(
            f"{unreadable} could not be read into columns and are not among them: export them without --landable"
        )
    if landable and written:
        say(
            f"Next: correct the file, land it under a new name, lakehouse run --select {table}, and then mark the rows:"
        )
        chosen = _as_options(rule=rule, batch=batch, file=file, stage=stage, limit=limit)
        say(
            f"  lakehouse quarantine resolve {table}{chosen} --note 'landed again as …'   (then with --apply)"
        )


def _as_options(**values: str | int | None) -> str:
    """The options of a verb as a person would type them again: what was exported is what is marked."""
    return "".join(
        f" --{name} {shlex.quote(str(value))}" for name, value in values.items() if value is not None
    )


def selection(
    rule: str | None = None,
    batch: int | None = None,
    file: str | None = None,
    stage: str | None = None,
    limit: int | None = None,
) -> Selection:
    """The options of a verb as one value. A stage that does not exist is wrong usage."""
    from lakehouse.quarantine import Selection

    if stage not in (None, "bronze", "silver"):
        raise typer.BadParameter(f"{stage!r} is neither bronze nor silver", param_hint="--stage")
    return Selection(rule, batch, file, stage, limit)


def _states(state: str) -> tuple[str, ...]:
    from lakehouse.quarantine import STATES

    if state == "all":
        return STATES
    if state not in STATES:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(STATES)}, all", param_hint="--state")
    # A release that was stopped half-way still waits for somebody.
    return ("open", "releasing") if state == "open" else (state,)


def _lake() -> Lake:
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    return Lake.from_settings(load_settings())


def register(app: typer.Typer) -> None:
    """Hang the verbs into the command tree."""
    from lakehouse.cli import quarantine_actions

    group = typer.Typer(
        no_args_is_help=True, help="Rows that a contract refused: whole, with the rules they broke."
    )
    verbs: dict[str, Any] = {
        "list": list_,
        "show": show,
        "export": export,
        "replay": quarantine_actions.replay,
        "resolve": quarantine_actions.resolve,
    }
    for name, verb in verbs.items():
        group.command(name)(verb)
    app.add_typer(group, name="quarantine")
