"""``lakehouse run``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lakehouse.defs.execute import RunOutcome
    from lakehouse.settings import Settings


def run(
    select: Annotated[
        str | None,
        typer.Option(
            help="What to run, separated by commas: pipelines, patterns (air*), gold, gold/TABLE. Default: all with news."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take whatever has arrived through bronze, silver and gold, check it, and publish it.

    Example: lakehouse run --select flights,weather
    """
    from dataclasses import asdict

    from lakehouse.cli.output import print_json, say
    from lakehouse.settings import load_settings

    settings = load_settings()
    outcome = execute(settings, select, quiet=as_json)
    if as_json:
        print_json({**asdict(outcome), "checks_failed": sum(not check.passed for check in outcome.checks)})
    elif outcome.nothing_new and outcome.published is None:
        say(f"Nothing has arrived yet below {settings.landing}.")
        say("Next: lakehouse demo (sample data), or lakehouse new pipeline --from FILE (your own)")
    elif outcome.nothing_new:
        say(nothing_new(outcome))
    raise typer.Exit(code_of(settings, outcome))


def execute(settings: Settings, select: str | None = None, *, quiet: bool = False) -> RunOutcome:
    """Run through Dagster with a progress display, and say how it ended unless there was nothing to do."""
    from lakehouse.cli.progress import Display
    from lakehouse.defs.execute import run_pipelines

    display = Display(quiet=quiet)
    try:
        outcome = run_pipelines(settings, _expand(settings, select), display.event)
    finally:
        display.close()
    if not quiet and not outcome.nothing_new:
        display.conclude(outcome)
    return outcome


def nothing_new(outcome: RunOutcome) -> str:
    """What is said when there was nothing to do."""
    return f"Nothing new: all that has arrived is published (restore point {outcome.published}). Nothing was written."


def code_of(settings: Settings, outcome: RunOutcome) -> int:
    """The exit code of a run. Failures that trying again may cure have their own, when there are no others."""
    from lakehouse import errors
    from lakehouse.cli import exits

    if outcome.success:
        return exits.NOTHING if outcome.nothing_new and outcome.published is None else exits.OK
    from lakehouse.ops import failures
    from lakehouse.storage import Lake

    kinds = [
        getattr(errors, found.error, None)
        for found in failures.open_failures(Lake.from_settings(settings)).values()
    ]
    transient = [isinstance(kind, type) and issubclass(kind, errors.TransientError) for kind in kinds]
    return exits.TRANSIENT if transient and all(transient) else exits.FAILED


def _expand(settings: Settings, select: str | None) -> list[str] | None:
    """Names as they are; patterns as the pipelines and gold tables that they match."""
    wanted = [part.strip() for part in (select or "").split(",") if part.strip()]
    if not any(mark in name for name in wanted for mark in "*?["):
        return wanted or None
    from fnmatch import fnmatchcase

    from lakehouse.errors import DeclarationError
    from lakehouse.gold.dbt_run import load_project
    from lakehouse.pipelines import load_pipelines

    models = load_project(settings)[0].models
    known = [*load_pipelines(settings), *models, *(f"gold/{model}" for model in models)]
    chosen: list[str] = []
    for name in wanted:
        matches = (
            [candidate for candidate in known if fnmatchcase(candidate, name)]
            if set(name) & set("*?[")
            else [name]
        )
        if not matches:
            raise DeclarationError(
                f"--select {name}: nothing is named like it", hint=f"known: {', '.join(known)}"
            )
        chosen += matches
    return list(dict.fromkeys(chosen))


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(run)
