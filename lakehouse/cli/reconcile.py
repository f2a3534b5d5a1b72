"""``lakehouse reconcile``"""

from __future__ import annotations

from typing import Annotated

import typer


def reconcile(
    select: Annotated[str | None, typer.Option(help="Only these pipelines, comma-separated.")] = None,
    sources: Annotated[
        bool, typer.Option(help="Also read the source files again, where they still exist.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Recount the whole lake from its tables and source files, and report every difference. Changes nothing.

    Example: lakehouse reconcile --select flights,weather
    """
    from lakehouse.cli import exits
    from lakehouse.cli.output import print_json, print_table, say
    from lakehouse.errors import DeclarationError
    from lakehouse.ops.reconcile import reconcile as recount
    from lakehouse.pipelines import load_pipelines
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings()
    pipelines = load_pipelines(settings)
    chosen = [name.strip() for name in select.split(",")] if select else list(pipelines)
    unknown = [name for name in chosen if name not in pipelines]
    if unknown:
        raise DeclarationError(
            f"no pipeline is named {', '.join(unknown)}; there are {', '.join(pipelines)}",
            hint="lakehouse status",
        )
    counts = list(
        recount(
            Lake.from_settings(settings),
            settings,
            {name: pipelines[name] for name in chosen},
            sources=sources,
        )
    )
    wrong = [count for count in counts if not count.ok]
    if as_json:
        print_json([{**vars(count), "ok": count.ok} for count in counts])
    elif not counts:
        say("Nothing has landed yet: there is nothing to recount.")
    else:
        print_table(
            ("pipeline", "what", "expected", "found", "", "detail"),
            [
                (c.pipeline, c.what, c.expected, c.found, "ok" if c.ok else "DIFFERS", c.detail)
                for c in counts
            ],
            right=("expected", "found"),
        )
        say(
            f"{len(counts)} comparisons, all agree."
            if not wrong
            else (f"{len(wrong)} of {len(counts)} comparisons differ.", "bold red")
        )
    if wrong:
        raise typer.Exit(exits.FAILED)


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(reconcile)
