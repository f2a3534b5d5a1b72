"""``lakehouse status``"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lakehouse.ops.report import Overview


def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Where everything stands: per pipeline and gold table the lag, the hop, rows, refused rows, and the SLA.

    Example: lakehouse status
    """
    from lakehouse.cli.output import print_json
    from lakehouse.ops import report
    from lakehouse.pipelines import load_pipelines
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings()
    seen = report.overview(Lake.from_settings(settings), settings, load_pipelines(settings))
    if as_json:
        print_json(report.as_json(seen))
    else:
        _print(seen)


def _print(seen: Overview) -> None:
    from lakehouse.cli.output import duration, print_table, say

    if seen.point is None:
        say("Published: nothing yet. Next: lakehouse demo, or lakehouse run for your own pipelines")
    else:
        created = datetime.fromisoformat(seen.point.created_at_utc)
        age = duration((datetime.now(UTC) - created).total_seconds())
        say("Published: restore point ", (f"{seen.point.id}", "bold"), f", {age} ago; catalog {seen.catalog}")
    if seen.hold is not None:
        say(("HELD", "bold red"), f": {seen.hold.why}. No run begins. Next: {seen.hold.next_step}")
    say()
    print_table(
        ("pipeline", "lag", "stands at", "waiting", "last batch", "last arrival", "bronze", "silver", "refused", "open"),
        [
            (p.name, duration(p.lag_s), p.hop or "published", f"{p.waiting_files} files" if p.waiting_files else "",
             p.last_batch, p.last_arrival_utc, p.bronze_rows, p.silver_rows, p.quarantined_rows, p.open_rows)
            for p in seen.pipelines
        ],
        right=("lag", "last batch", "bronze", "silver", "refused", "open"),
    )  # fmt: skip
    say()
    print_table(
        ("gold table", "SLA", "lag", "stands at", "rows", "complete to"),
        [
            (g.table, g.status, duration(g.lag_s), g.hop or "published", g.rows, _instant(g.complete_to_utc))
            for g in seen.gold
        ],
        right=("lag", "rows"),
    )
    say()
    for problem in seen.problems:
        say((problem, "red"))
    for state in seen.pipelines:
        if state.problem:
            say((state.name, "red"), f": {state.problem}")
    for silence in seen.silent:
        say(
            f"silent: {silence.source} has sent nothing for {duration(silence.silent_s)} (expected every {duration(silence.expected_every_s)})"
        )
    _print_sources(seen)
    budget = seen.budget
    say(
        f"Error budget (30 days): {duration(max(budget.remaining_s, 0))} of {duration(budget.allowed_s)} left, {budget.good_percent:.2f} % within the SLA"
    )


def _print_sources(seen: Overview) -> None:
    """Files that wait for somebody, and what the sources did lately that somebody should know."""
    from lakehouse.cli.output import say

    for file in seen.held:
        say(("held", "yellow"), f": {file.path}: {file.note}. Next: lakehouse accept {file.pipeline}")
    for event in seen.events:
        if event.kind != "held":
            batch = "" if event.batch_id is None else f" batch {event.batch_id}"
            when = _instant(event.at_utc.isoformat() if event.at_utc else None)
            say(f"{when} {event.kind}: {event.pipeline}{batch}: {event.message}")


def _instant(text: str | None) -> str:
    return "·" if text is None else text[:19].replace("T", " ") + "Z"


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(status)
