"""``lakehouse new pipeline``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pipeline(
    file: Annotated[
        Path,
        typer.Option(
            "--from", help="One file of the data: CSV, JSON Lines, JSON or Parquet, also .gz and .zst."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Table name. Default: from the file's name.")] = None,
    key: Annotated[str | None, typer.Option(help="Columns that identify a row, separated by commas.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="append, upsert or history. Default: upsert with a key, else append.")
    ] = None,
    source_system: Annotated[
        str | None, typer.Option(help="Where the data comes from: the folder and group of the pipeline.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, write nothing.")
    ] = False,
) -> None:
    """Write a pipeline's YAML and first contract by looking at a file. Never overwrites anything.

    Example: lakehouse new pipeline --from ~/data/orders.csv --source-system shop
    """
    from lakehouse.cli.output import say
    from lakehouse.scaffold.new import plan_pipeline, write_pipeline
    from lakehouse.settings import load_settings

    columns = tuple(part.strip() for part in (key or "").split(",") if part.strip())
    new = plan_pipeline(load_settings(), file, name=name, key=columns, mode=mode, system=source_system)
    profile = new.plan.profile
    rows = f"{profile.rows:,} rows" if profile.rows is not None else f"more than {profile.rows_seen:,} rows"
    dialect = new.plan.sniffed.dialect
    how = f", delimiter {dialect.delimiter!r}, {dialect.encoding}" if dialect else ""
    say((file.name, "bold"), f": {new.plan.sniffed.format}{how}, {rows}, {len(profile.columns)} columns")
    say("\nAssumed (correct it in the files, or with options):")
    for note in new.assumptions:
        say(f"  - {note}")
    if dry_run:
        for path, text in new.files.items():
            say("\n", (str(path), "bold"), " (not written)")
            say(text)
        return
    write_pipeline(new)
    say("\nWritten:")
    for path in new.files:
        say(f"  {_short(path)}")
    table = new.plan.name
    say(
        f"\nNext:\n"
        f"  lakehouse validate                       is the declaration right?\n"
        f"  lakehouse run --select {table:<18}take the data through bronze and silver\n"
        f'  lakehouse query "select * from silver.{table} limit 5"\n'
        f"  what it takes from now on:               {new.plan.path}\n"
        f"  describe the columns, add rules, build a mart on it: docs/pipelines.md"
    )


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    group = typer.Typer(no_args_is_help=True, help="Start something new.")

    @group.callback()
    def _group() -> None:
        """Start something new."""

    group.command("pipeline")(pipeline)
    app.add_typer(group, name="new")
