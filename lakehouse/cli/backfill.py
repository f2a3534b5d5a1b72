"""``lakehouse backfill``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lakehouse.settings import Settings
    from lakehouse.silver import Backfilled, Period


def backfill(
    table: Annotated[str, typer.Argument(help="Pipeline whose past to process again.")],
    first: Annotated[str, typer.Option("--from", help="First day, 2013-03-01, or month, 2013-03.")],
    last: Annotated[
        str | None, typer.Option("--to", help="Last day or month. Default: that of --from.")
    ] = None,
    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help="Do it, build gold and publish. Without this, only say what would change."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Process days of a table again from bronze, with today's transform and contract. Nothing else changes.

    Example: lakehouse backfill flights --from 2013-03-01 --to 2013-03-31
    """
    from lakehouse import silver
    from lakehouse.cli.output import print_json
    from lakehouse.defs.execute import find_pipeline
    from lakehouse.pipelines import load_pipelines
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings()
    settings.tune_process()
    period = silver.Period.parse(first, last or first)
    if apply:
        _apply(settings, table, period, as_json)
        return
    pipeline = find_pipeline(load_pipelines(settings), table)
    done = silver.backfill(Lake.from_settings(settings), settings, pipeline, period)
    if as_json:
        print_json(_document(done))
    else:
        _print(done)


def _apply(settings: Settings, table: str, period: Period, as_json: bool) -> None:
    """One run: backfill, checks, gold, publish; told as ``lakehouse run`` tells of its runs."""
    from dataclasses import asdict

    from lakehouse.cli.output import print_json
    from lakehouse.cli.progress import Display
    from lakehouse.cli.quarantine_actions import current_user
    from lakehouse.cli.run import code_of
    from lakehouse.defs.execute import run_backfill

    display = Display(quiet=as_json)
    try:
        outcome, done = run_backfill(settings, table, period, actor=current_user(), progress=display.event)
    finally:
        display.close()
    if as_json:
        print_json({"backfill": _document(done) if done else None, "run": asdict(outcome)})
    else:
        if done is not None:
            _print(done)
        display.conclude(outcome)
    raise typer.Exit(code_of(settings, outcome))


def _document(done: Backfilled) -> dict[str, Any]:
    figures = {name: value for name, value in vars(done).items() if name != "period"}
    days = {"first_day": done.period.first, "last_day": done.period.last}
    return {"table": done.table, **days, "changes_nothing": done.changes_nothing, **figures}


def _print(done: Backfilled) -> None:
    from lakehouse.cli.output import print_table, say

    say((done.table, "bold"), f", {done.period}: {done.rows:,} bronze rows processed again")
    if done.changes_nothing:
        say("Nothing differs: silver has what today's rules make of them. Nothing was written.")
        return
    lines = [
        ("keys that come out differently", done.keys_changed),
        ("  of these, out of the range or into it", done.keys_moved),
        ("keys added", done.keys_added),
        ("keys removed", done.keys_removed),
        ("rows newly refused, to quarantine", done.newly_refused),
        ("rows refused again that had been released", done.reopened),
        ("rows released from quarantine", done.released),
        ("rows that stay out: marked as resolved", done.kept_out),
    ]
    heading = "" if done.applied else "would be"
    print_table(("", heading), [line for line in lines if line[1]], right=(heading,))
    for rule, rows in list(done.broken_rules.items())[:10]:
        say(f"  refused by {rule}: {rows:,}")
    if not done.applied:
        say("Nothing was written. To do it: add --apply")


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(backfill)
