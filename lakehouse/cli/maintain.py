"""``lakehouse maintain``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lakehouse.ops.maintenance import Maintained
    from lakehouse.settings import Settings


def maintain(
    select: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE,…", help="Only these: flights (in every layer), silver/flights, or silver."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one entry a table.")] = False,
) -> None:
    """Combine small files, and remove files that no kept version needs. Changes no row; what is published stays readable.

    Without --select, old runs go from Dagster's history as well (LAKEHOUSE_RUN_HISTORY_RUNS, LAKEHOUSE_RUN_HISTORY_DAYS).

    The daemon does this by itself (LAKEHOUSE_COMPACT_CRON, LAKEHOUSE_VACUUM_CRON). Safe beside running pipelines.

    Example: lakehouse maintain --select silver/flights --dry-run
    """
    from lakehouse.cli import exits
    from lakehouse.cli.output import print_json, say
    from lakehouse.ops.maintenance import maintain as maintain_tables
    from lakehouse.pipelines import load_pipelines
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings()
    chosen = [name.strip() for name in select.split(",") if name.strip()] if select else None
    done = list(
        maintain_tables(
            Lake.from_settings(settings), settings, load_pipelines(settings), select=chosen, dry_run=dry_run
        )
    )
    if as_json:
        print_json([{"name": table.name, **vars(table)} for table in done])
    elif not done:
        say("Nothing has landed yet: there is no table to maintain.")
    else:
        _show(done, dry_run=dry_run)
    if not chosen and not dry_run and settings.dagster_home.exists():
        _forget_old_runs(settings, tell=not as_json)
    if any(table.error for table in done):
        raise typer.Exit(exits.FAILED)


def _forget_old_runs(settings: Settings, *, tell: bool) -> None:
    from lakehouse.cli.output import say
    from lakehouse.defs.instance import open_instance
    from lakehouse.defs.run_history import forget_old_runs

    with open_instance(settings) as instance:
        forgotten = forget_old_runs(instance, settings)
    if forgotten and tell:
        say(f"{forgotten:,} old runs were deleted from Dagster's history.")


def _show(done: Sequence[Maintained], *, dry_run: bool) -> None:
    from lakehouse.cli.output import duration, print_table, say, size

    rows = [
        (
            table.name,
            f"{table.files_before:,}",
            f"{table.files_after:,}",
            size(table.bytes_before) if dry_run else size(table.bytes_after),
            f"{table.removed:,}",
            size(table.removed_bytes),
            table.skipped,
        )
        for table in done
        if table.did_something or table.skipped
    ]
    if rows:
        print_table(
            ("table", "files", "then", "size", "removed", "freed", ""),
            rows,
            right=("files", "then", "size", "removed", "freed"),
        )
    for table in done:
        if table.error:
            say((f"{table.name}:", "bold red"), f" {table.error}")
    combined, into = sum(t.combined for t in done), sum(t.into for t in done)
    removed, freed = sum(t.removed for t in done), sum(t.removed_bytes for t in done)
    if not combined and not removed and not any(t.checkpoint for t in done):
        say(f"{len(done)} tables, nothing to do: no small files that are worth combining, none to remove.")
    else:
        verbs = ("would become", "would be removed") if dry_run else ("became", "removed")
        told = [
            f"{combined:,} small files {verbs[0]} {into:,}" if combined else "",
            f"{removed:,} files that nobody needs {verbs[1]} ({size(freed)})" if removed else "",
            "overdue checkpoints written" if any(t.checkpoint for t in done) and not dry_run else "",
        ]
        text = "; ".join(part for part in told if part) or "checkpoints are overdue"
        say(f"{len(done)} tables: {text}; {duration(sum(t.seconds for t in done))}.")


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(maintain)
