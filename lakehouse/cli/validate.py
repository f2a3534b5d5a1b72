"""``lakehouse validate``"""

from __future__ import annotations

from typing import Annotated

import typer


def validate(as_json: Annotated[bool, typer.Option("--json", help="Problems as JSON.")] = False) -> None:
    """Check every declaration: YAML, contract, transform, references. Prints all that is wrong, not only the first.

    Example: lakehouse validate && lakehouse run
    """
    from lakehouse.cli import exits
    from lakehouse.cli.output import console, print_json, say
    from lakehouse.pipelines import find_problems
    from lakehouse.pipelines.load import declaration_files
    from lakehouse.settings import load_settings

    settings = load_settings()
    problems = find_problems(settings)
    count = len(declaration_files(settings.pipelines_dir))
    if as_json:
        found = [{"file": p.file, "line": p.line, "field": p.field, "message": p.message} for p in problems]
        print_json({"declarations": count, "problems": found})
    elif problems:
        err = console(stderr=True)
        for problem in problems:
            err.print(str(problem), soft_wrap=True)
        some = "problem" if len(problems) == 1 else "problems"
        err.print(f"{len(problems)} {some} in {count} declarations", style="bold red")
        err.print("  next: correct the lines above (docs/pipelines.md), then: lakehouse validate")
    else:
        say((f"{count} declarations, all right", "green"))
    if problems:
        raise typer.Exit(exits.USAGE)


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(validate)
