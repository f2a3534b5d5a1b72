"""``lakehouse quarantine list | show | export``, and the verbs that change something."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lakehouse.pipelines import Pipeline
    from lakehouse.quarantine import Selection
    from lakehouse.settings import Settings
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
Until = Annotated[
    str | None,
    typer.Option(
        help="Only rows that were there at this instant (UTC): neither refused nor opened again later."
    ),
]
StateOption = Annotated[str, typer.Option("--state", help="open, releasing, released, resolved or all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_(
    rule: Rule = None,
    batch: Batch = None,
    file: File = None,
    stage: Stage = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """How many rows each rule refused, per table, and what became of them.

    Example: lakehouse quarantine list
    """
    from lakehouse.cli.output import print_json, print_table, say
    from lakehouse.ops import refused

    found = refused.summary(_lake(), selection(rule, batch, file, stage, until=until)).to_dicts()
    if as_json:
        print_json(found)
    elif not found:
        chosen = any(value is not None for value in (rule, batch, file, stage, until))
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
    until: Until = None,
    state: StateOption = "open",
    limit: Annotated[int, typer.Option(help="At most so many rows, the newest first.", min=1)] = 10,
    as_json: AsJson = False,
) -> None:
    """The refused rows of one table as they came, with the rules they broke and where they stood.

    Example: lakehouse quarantine show flights --batch 3 --limit 5
    """
    from lakehouse.cli.output import print_json, say
    from lakehouse.ops import refused

    found = refused.rows(
        _lake(), table, selection(rule, batch, file, stage, limit, until), states=_states(state)
    ).to_dicts()
    if as_json:
        print_json(found)
        return
    for row in found:
        where = row["_source_position"] or f"row {row['_source_row']}"
        say((", ".join(row["_broken_rules"] or []), "bold"))
        say(f"  batch {row['_batch_id']}, {row['_source_file']}, {where}")
        if row["_state"] != "open":
            said = f": {row['_note']}" if row["_note"] else ""
            say(f"  {row['_state']} by {row['_actor']}{said}")
        say(f"  {row['_raw']}")
    if not found:
        say("No row fits." if state == "all" else f"No {state} row fits (--state all shows every one).")


def export(
    table: Table,
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            help="File to write; its ending says the format: .csv, .jsonl, .parquet. With --landable: as the source's files end.",
        ),
    ],
    rule: Rule = None,
    batch: Batch = None,
    file: File = None,
    stage: Stage = None,
    until: Until = None,
    state: StateOption = "open",
    limit: Limit = None,
    landable: Annotated[
        bool,
        typer.Option(
            "--landable",
            help="Only the source's own columns, written as its files are, so that the corrected file can be landed.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write refused rows to a file, to look at them or to repair and land them again.

    Example: lakehouse quarantine export flights --to refused.csv --landable
    """
    from dataclasses import replace

    import polars as pl

    from lakehouse import quarantine
    from lakehouse.cli.output import print_json, say
    from lakehouse.ops import refused
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings, states = load_settings(), _states(state)
    lake = Lake.from_settings(settings)
    source = find_pipeline(settings, table).spec.source if landable else None
    bronze = lake.table("bronze", table).snapshot_or_none() if landable else None
    types = bronze.schema() if bronze is not None else None
    chosen, left_out = selection(rule, batch, file, stage, limit, until), 0
    # What bronze refused has no columns: it is not in the file, and must not count towards its limit.
    if landable:
        unreadable = replace(chosen, stage="bronze", limit=None)
        left_out = 0 if stage == "silver" else refused.rows(lake, table, unreadable, states=states).height
        chosen = replace(chosen, stage="silver") if stage is None else chosen
    rows = refused.rows(lake, table, chosen, states=states, newest_first=False)
    written = quarantine.export(rows, to, source=source, types=types, overwrite=overwrite)
    if as_json:
        print_json({"table": table, "file": str(to), "rows": written, "left_out": left_out})
        return
    say(f"{written} rows of {table} written to {to}")
    if left_out:
        say(
            f"{left_out} could not be read into columns and are not among them: export them without --landable"
        )
    marked = rows.filter(pl.col("_state") == "open")
    if landable and written and marked.height:
        say(
            f"Next: correct the file, land it under a new name, lakehouse run --select {table}, and then mark the rows:"
        )
        # Rows that come until then, the corrected ones among them, may be refused again: they stay open.
        newest = marked.select(quarantine.there_since().max()).item()
        exported = replace(chosen, limit=limit and marked.height, until=newest)
        say(
            f"  lakehouse quarantine resolve {table}{as_options(exported)} --note 'landed again as …'   (then with --apply)"
        )


def as_options(chosen: Selection) -> str:
    """A selection as a person would type it again: what was shown or exported is what the next command is about."""
    values = vars(chosen) | {"until": chosen.until and instant(chosen.until)}
    return "".join(
        f" --{name} {shlex.quote(str(value))}" for name, value in values.items() if value is not None
    )


def instant(value: datetime) -> str:
    """An instant in UTC, whole, as ``--until`` takes it."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def selection(
    rule: str | None = None,
    batch: int | None = None,
    file: str | None = None,
    stage: str | None = None,
    limit: int | None = None,
    until: str | None = None,
) -> Selection:
    """The options of a verb as one value. A stage that does not exist, or no instant, is wrong usage."""
    from lakehouse.quarantine import Selection

    if stage not in (None, "bronze", "silver"):
        raise typer.BadParameter(f"{stage!r} is neither bronze nor silver", param_hint="--stage")
    try:
        latest = None if until is None else datetime.fromisoformat(until)
    except ValueError:
        raise typer.BadParameter(
            f"{until!r} is no instant; write for example 2013-03-09T12:00:00Z", param_hint="--until"
        ) from None
    if latest is not None:
        latest = latest.replace(tzinfo=UTC) if latest.tzinfo is None else latest.astimezone(UTC)
    return Selection(rule, batch, file, stage, limit, latest)


def _states(state: str) -> tuple[str, ...]:
    from lakehouse.quarantine import STATES

    if state == "all":
        return STATES
    if state not in STATES:
        raise typer.BadParameter(f"{state!r} is none of {', '.join(STATES)}, all", param_hint="--state")
    # A release that was stopped half-way still waits for somebody.
    return ("open", "releasing") if state == "open" else (state,)


def find_pipeline(settings: Settings, table: str) -> Pipeline:
    """The declaration of the table. Raises ``DeclarationError`` when there is none."""
    from lakehouse.errors import DeclarationError
    from lakehouse.pipelines import load_pipelines

    pipelines = load_pipelines(settings)
    if table not in pipelines:
        raise DeclarationError(
            f"no pipeline is named {table!r}", hint=f"known: {', '.join(pipelines) or 'none'}"
        )
    return pipelines[table]


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
