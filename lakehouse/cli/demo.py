"""``lakehouse demo`` and ``lakehouse demo --live``"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lakehouse.settings import Settings


def demo(
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Replay December 2013 hour by hour, in a lake of its own, while the sensors work."
        ),
    ] = False,
    seconds_per_hour: Annotated[
        float, typer.Option(help="With --live: real seconds per replayed hour.", min=0.1)
    ] = 10.0,
    hours: Annotated[int | None, typer.Option(help="With --live: stop after so many hours.", min=1)] = None,
    port: Annotated[int, typer.Option(help="With --live: port of the web UI.")] = 3000,
) -> None:
    """Land the NYC flights data of 2013 (five tables), run everything, and show what came out.

    Example: lakehouse demo
    """
    from lakehouse.settings import load_settings

    settings = load_settings()
    settings.tune_process()
    if live:
        _live(_live_settings(settings), seconds_per_hour, hours, port)
        return
    raise typer.Exit(_demo(settings))


def _demo(settings: Settings) -> int:
    from lakehouse.cli.output import duration, say, size
    from lakehouse.cli.run import code_of, execute, nothing_new
    from lakehouse.cli.summary import print_summary
    from lakehouse.demo import landing

    started = time.monotonic()
    landed = landing.land_everything(settings)
    if landed.files:
        say(
            f"Landed {landed.files} files ({size(landed.bytes)}) in {settings.landing}, byte for byte as published"
        )
    outcome = execute(settings)
    if outcome.nothing_new:
        say(nothing_new(outcome))
        say(f"Look at it: lakehouse status. To start over, remove {settings.root} and run lakehouse demo")
    elif outcome.success:
        print_summary(settings)
        say(f"\nDone in {duration(time.monotonic() - started)}.")
    return code_of(settings, outcome)


def _live_settings(settings: Settings) -> Settings:
    """A lake beside the usual one: the replay must not meet the whole year's files."""
    from lakehouse.settings import load_settings

    root = settings.root.rstrip("/") + "-live"
    soon = min(settings.run_interval_s, 10)
    return load_settings(
        root=root, sensor_interval_s=min(settings.sensor_interval_s, soon or 1), run_interval_s=soon
    )


def _live(settings: Settings, seconds_per_hour: float, limit: int | None, port: int) -> None:
    from lakehouse.cli import exits
    from lakehouse.cli.output import say, size
    from lakehouse.cli.run import code_of, execute
    from lakehouse.demo import landing, live
    from lakehouse.servers import running

    say(f"A lake of its own: {settings.root}")
    landed = landing.land_before(settings, live.STARTS_UTC)
    if landed.files:
        say(f"Landed what came before 2013-12-01: {landed.files} files ({size(landed.bytes)})")
    outcome = execute(settings)
    if not outcome.success:
        raise typer.Exit(code_of(settings, outcome))
    say("Starting the web UI and the daemon (some 15 seconds) …")
    intervals = {
        "LAKEHOUSE_SENSOR_INTERVAL_S": str(settings.sensor_interval_s),
        "LAKEHOUSE_RUN_INTERVAL_S": str(settings.run_interval_s),
    }
    with running(settings, port, variables=intervals) as servers:
        say((servers.url, "bold"), "  watch the sensors and the runs there; Ctrl-C stops everything")
        say(f"Ask meanwhile: LAKEHOUSE_ROOT={settings.root} lakehouse status")
        shown = _point_id(settings)
        for hour in live.replay(settings, seconds_per_hour=seconds_per_hour, limit=limit):
            rows = ", ".join(f"{count} {table}" for table, count in hour.rows.items())
            say(f"{hour.at_utc[:16].replace('T', ' ')}Z  arrived: {rows}")
            now = _point_id(settings)
            if now != shown:
                say("                   ", ("published", "green"), f": restore point {now}")
                shown = now
            if name := servers.dead():
                say(
                    (f"the {name} ended", "red"),
                    f"; its log is in {servers.logs}. Next: lakehouse doctor, then the same command again",
                )
                raise typer.Exit(exits.FAILED)
        _await_publish(settings)
        say(
            f"The replay is over; everything that arrived is published (restore point {_point_id(settings)})."
        )


def _point_id(settings: Settings) -> str | None:
    from lakehouse.gold.restore_points import current_point
    from lakehouse.storage import Lake

    point = current_point(Lake.from_settings(settings))
    return point.id if point else None


def _await_publish(settings: Settings, timeout_s: float = 300.0) -> None:
    """Let the sensors take the last hours too before the servers are stopped."""
    from lakehouse.errors import TransientError
    from lakehouse.gold.catalog import shown_point_id
    from lakehouse.ops import backlog
    from lakehouse.pipelines import load_pipelines
    from lakehouse.storage import Lake

    pipelines = load_pipelines(settings)
    deadline = time.monotonic() + timeout_s
    while True:
        seen = backlog.look(Lake.from_settings(settings), settings, pipelines)
        # The point is current a moment before the catalog shows it.
        if seen.is_empty and seen.point is not None and shown_point_id(settings) == seen.point.id:
            return
        if time.monotonic() > deadline:
            raise TransientError(
                f"after {timeout_s:.0f} s not everything that arrived is published", hint="lakehouse status"
            )
        time.sleep(1.0)


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(demo)
