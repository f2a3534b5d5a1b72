"""``lakehouse quarantine replay | resolve``: the verbs that say what becomes of refused rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lakehouse.cli.quarantine import (
    AsJson,
    Batch,
    File,
    Limit,
    Rule,
    Stage,
    Table,
    Until,
    as_options,
    find_pipeline,
    selection,
)

if TYPE_CHECKING:
    import polars as pl

    from lakehouse.quarantine import Resolved, Selection
    from lakehouse.silver import Replayed

Actor = Annotated[str | None, typer.Option(help="Who does it. Default: the user of this machine.")]
#: So many places are printed; counts are of all rows.
_SHOWN = 20
_SHOWN_JSON = 1_000


def replay(
    table: Table,
    rule: Rule = None,
    batch: Batch = None,
    file: File = None,
    stage: Stage = None,
    limit: Limit = None,
    until: Until = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what today's rules would release; write nothing.")
    ] = False,
    note: Annotated[str, typer.Option(help="Why, kept beside the rows.")] = "",
    actor: Actor = None,
    as_json: AsJson = False,
) -> None:
    """Send refused rows through today's contract again; those that pass go into silver, once.

    Example: lakehouse quarantine replay flights --dry-run
    """
    from lakehouse import silver
    from lakehouse.cli.output import print_json
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings()
    chosen = selection(rule, batch, file, stage, limit, until)
    lake = Lake.from_settings(settings)
    done = silver.replay(
        lake, settings, find_pipeline(settings, table), chosen,
        dry_run=dry_run, actor=actor or current_user(), note=note,
    )  # fmt: skip
    if as_json:
        print_json(_as_json(done))
    else:
        _print(done, chosen)


def resolve(
    table: Table,
    note: Annotated[str, typer.Option(help="What was done about the rows; kept beside them.")],
    rule: Rule = None,
    batch: Batch = None,
    file: File = None,
    stage: Stage = None,
    limit: Limit = None,
    until: Until = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it. Without this, only say which rows are meant.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Open rows again that were resolved by mistake.")
    ] = False,
    actor: Actor = None,
    as_json: AsJson = False,
) -> None:
    """Mark refused rows as dealt with, with a reason. They stay in quarantine and are not replayed.

    Example: lakehouse quarantine resolve flights --file 2013-03.csv --note "landed again, corrected" --apply
    """
    from lakehouse import quarantine
    from lakehouse.cli.output import print_json
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    done = quarantine.resolve(
        Lake.from_settings(load_settings()), table, selection(rule, batch, file, stage, limit, until),
        note=note, actor=actor or current_user(), apply=apply, undo=undo,
    )  # fmt: skip
    if as_json:
        rows = done.rows.select(
            "_stage", "_batch_id", "_source_file", "_source_row", "_source_position", "_broken_rules"
        )
        print_json(
            {"table": table, "applied": done.action_id is not None, "undo": undo, "action_id": done.action_id,
             "rows": rows.height, "places": rows.head(_SHOWN_JSON).to_dicts()}
        )  # fmt: skip
        return
    _print_resolved(done, apply)


def current_user() -> str:
    """Name of the operating system's user; its number where it has no name."""
    import getpass
    import os

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _as_json(done: Replayed) -> dict[str, Any]:
    document = {name: value for name, value in vars(done).items() if name not in ("release", "held")}
    document["held"] = done.held.height
    document["still_broken"] = done.still_broken
    document["release"] = done.release.head(_SHOWN_JSON).to_dicts()
    document["hold"] = done.held.head(_SHOWN_JSON).to_dicts()
    return document


def _print(done: Replayed, chosen: Selection) -> None:
    from lakehouse.cli.output import say

    name = done.table
    if done.healed or done.reopened:
        again = f"; {done.reopened} of it are refused again and open" if done.reopened else ""
        say(f"First ended what an earlier replay had begun: {done.healed} rows released{again}")
    if done.pending:
        say(f"{done.pending} rows of an earlier replay that was stopped are released first")
    would = "would be " if done.dry_run else ""
    if done.selected or not (done.unreadable or done.healed):
        say((f"{done.released}", "bold"), f" of {done.selected} open rows of {name} {would}released")
    _print_places(done.release)
    if done.released and not done.dry_run and done.version is not None:
        parts = [f"{value} {what}" for what, value in (
            ("new or changed in silver", done.accepted), ("there already", done.deduplicated),
            ("overtaken by another of the same key", done.superseded), ("older than what silver has", done.late),
        ) if value]  # fmt: skip
        say(f"  {', '.join(parts)} (release {done.action_id}, silver.{name} version {done.version})")
    elif done.released and not done.dry_run:
        say(f"  carried out by another replay at the same time (release {done.action_id})")
    if done.held.height:
        say((f"{done.held.height}", "bold"), " are still refused by today's rules:")
        for rule, rows in done.still_broken.items():
            say(f"  {rows:>7,}  {rule}")
    if done.unreadable:
        # Those that were met and no others: lines of the corrected file may be refused again, and stay open.
        met = replace(
            chosen, stage="bronze", limit=chosen.limit and done.unreadable, until=done.unreadable_until_utc
        )
        options = as_options(met)
        say(f"{done.unreadable} lines or files could not be read at all; no rule can release them.")
        say(
            f"  next: lakehouse quarantine export {name}{options} --to broken.csv; correct them, land them again, then:"
        )
        say(
            f"        lakehouse quarantine resolve {name}{options} --note 'landed again'   (then with --apply)"
        )
    if done.missing:
        say(f"{done.missing} are not in bronze any more and stay open")
    if done.unrefined:
        say(f"{done.unrefined} wait for silver to take their batch: lakehouse run --select {name}")
    if done.dry_run:
        say(
            "Nothing was written."
            + (f" To do it: lakehouse quarantine replay {name}{as_options(chosen)}" if done.released else "")
        )
    elif done.released or done.healed:
        say(f"Next: lakehouse run --select {name} checks and publishes them")


def _print_places(rows: pl.DataFrame) -> None:
    from lakehouse.cli.output import say

    for row in rows.head(_SHOWN).iter_rows(named=True):
        say(f"  batch {row['_batch_id']}, {row['_source_file']}, row {row['_source_row']}")
    if rows.height > _SHOWN:
        say(f"  and {rows.height - _SHOWN:,} more (--json lists up to {_SHOWN_JSON:,})")


def _print_resolved(done: Resolved, apply: bool) -> None:
    from lakehouse.cli.output import say

    what = "opened again" if done.undone else "marked as resolved"
    if done.rows.is_empty():
        say(f"No {'resolved' if done.undone else 'open'} row fits.")
        return
    say((f"{done.rows.height}", "bold"), f" rows of {done.table} {'' if apply else 'would be '}{what}")
    for row in done.rows.head(_SHOWN).iter_rows(named=True):
        where = row["_source_position"] or f"row {row['_source_row']}"
        say(
            f"  batch {row['_batch_id']}, {row['_source_file']}, {where}: {', '.join(row['_broken_rules'] or [])}"
        )
    if done.rows.height > _SHOWN:
        say(f"  and {done.rows.height - _SHOWN:,} more")
    if not apply:
        say("Nothing was written. To do it, add --apply")
