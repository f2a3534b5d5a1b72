"""``lakehouse run``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lakehouse.defs.execute import RunOutcome
    from lakehouse.ops.profile import Profile
    from lakehouse.settings import Settings


def run(
    select: Annotated[
        str | None,
        typer.Option(
            help="What to run, separated by commas: pipelines, patterns (air*), gold, gold/TABLE. Default: all with news."
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Measure each stage of each table; they then run one after the other."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take whatever has arrived through bronze, silver and gold, check it, and publish it.

    Example: lakehouse run --select flights,weather
    """
    from dataclasses import asdict

    from lakehouse.cli.output import print_json, say
    from lakehouse.settings import load_settings

    settings = load_settings()
    settings.tune_process()
    measured = _profile() if profile else None
    outcome = execute(settings, select, quiet=as_json, profile=measured)
    if as_json:
        document = {**asdict(outcome), "checks_failed": sum(not check.passed for check in outcome.checks)}
        if measured is not None:
            document |= {"profile": asdict(measured)["measured"]}
            document |= {"slowest": [asdict(item) for item in measured.slowest()]}
        print_json(document)
    elif outcome.nothing_new and outcome.published is None:
        say(f"Nothing has arrived yet below {settings.landing}.")
        say("Next: lakehouse demo (sample data), or lakehouse new pipeline --from FILE (your own)")
    elif outcome.nothing_new:
        say(nothing_new(outcome))
    if measured is not None and measured.measured and not as_json:
        _print_profile(measured)
    raise typer.Exit(code_of(settings, outcome))


def _profile() -> Profile:
    from lakehouse.ops.profile import Profile

    return Profile()


def _print_profile(profile: Profile) -> None:
    """A line per stage and table, and the slowest with a reason."""
    from lakehouse.cli.output import print_table, say, size

    def bytes_of(count: int | None) -> str | None:
        return None if count is None else size(count)

    say()
    numbers = ("seconds", "CPU s", "rows in", "rows out", "read", "written", "peak memory")
    print_table(
        ("stage", "table", *numbers),
        [
            (
                item.stage, item.table, f"{item.wall_s:.2f}", None if item.cpu_s is None else f"{item.cpu_s:.2f}",
                item.rows_in, item.rows_out, bytes_of(item.bytes_in), bytes_of(item.bytes_out),
                bytes_of(item.peak_rss_bytes),
            )
            for item in profile.measured
        ],
        right=numbers,
    )  # fmt: skip
    say()
    say("Slowest:")
    for item in profile.slowest():
        name = f"{item.stage} {item.table}".strip()
        say(f"  {name}, {item.wall_s:.1f} s{f': {item.why}' if item.why else ''}")


def execute(
    settings: Settings, select: str | None = None, *, quiet: bool = False, profile: Profile | None = None
) -> RunOutcome:
    """Run through Dagster with a progress display, and say how it ended unless there was nothing to do."""
    from lakehouse.cli.progress import Display
    from lakehouse.defs.execute import run_pipelines

    display = Display(quiet=quiet)
    try:
        outcome = run_pipelines(settings, _expand(settings, select), display.event, profile)
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
