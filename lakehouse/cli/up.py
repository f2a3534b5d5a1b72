"""``lakehouse up``"""

from __future__ import annotations

from typing import Annotated

import typer


def up(
    port: Annotated[int, typer.Option(help="Port of the web server, on this machine only.")] = 3000,
) -> None:
    """Start the web UI and the daemon with its sensors: new arrivals are taken as they come. Ctrl-C stops both.

    Example: lakehouse up --port 3001
    """
    import time

    from lakehouse.cli.output import say
    from lakehouse.errors import TransientError
    from lakehouse.servers import running
    from lakehouse.settings import load_settings

    settings = load_settings()
    settings.tune_process()
    say("Starting the web server and the daemon (some 15 seconds) …")
    with running(settings, port) as servers:
        say((servers.url, "bold"), "  is the web UI")
        say(f"New files are looked for every {settings.sensor_interval_s} s below {settings.landing}")
        say(f"Logs: {servers.logs}. Stop with Ctrl-C.")
        while (name := servers.dead()) is None:
            time.sleep(0.5)
        raise TransientError(f"the {name} ended by itself; its log is in {servers.logs}", hint="lakehouse up")


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(up)
