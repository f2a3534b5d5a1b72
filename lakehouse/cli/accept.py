"""``lakehouse accept``"""

from __future__ import annotations

from typing import Annotated

import typer


def accept(
    pipeline: Annotated[str, typer.Argument(help="Pipeline whose held files to take.")],
    files: Annotated[
        list[str] | None, typer.Argument(help="Names or ends of paths; default: all that are held.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Plan them; without it nothing is written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take files that came with new content under a known name and wait for somebody to look.

    They become a batch of their own, beside the rows of their old content. In mode upsert and history the new
    rows win by key; in mode append rows with a known key count as duplicates, and without a key all land again.

    Example: lakehouse accept flights flights_2013-01-01.csv --apply
    """
    from lakehouse import planning
    from lakehouse.cli.output import print_json, say, size
    from lakehouse.errors import DeclarationError, WrongUsage
    from lakehouse.ledger import Ledger
    from lakehouse.pipelines import load_pipelines
    from lakehouse.settings import load_settings
    from lakehouse.storage import Lake

    settings = load_settings()
    pipelines = load_pipelines(settings)
    if pipeline not in pipelines:
        raise DeclarationError(
            f"there is no pipeline {pipeline!r}", hint=f"pipelines: {', '.join(sorted(pipelines))}"
        )
    lake = Lake.from_settings(settings)
    held = Ledger(lake).held(pipeline)
    chosen = [(file, note) for file, note in held if not files or any(file.path.endswith(f) for f in files)]
    if files and not chosen:
        names = ", ".join(file.path for file, _ in held) or "none"
        raise WrongUsage(
            f"no held file of {pipeline} ends in {' or '.join(files)}; held: {names}",
            hint=f"lakehouse accept {pipeline} lists them",
        )
    batches = planning.accept(lake, settings, pipelines[pipeline], [f for f, _ in chosen]) if apply else []
    if as_json:
        listed = [{"path": file.path, "size_bytes": file.size_bytes, "note": note} for file, note in chosen]
        print_json({"files": listed, "batches": [batch.batch_id for batch in batches]})
        return
    if not chosen:
        say(f"No file of {pipeline} is held.")
        return
    for file, note in chosen:
        say(f"{file.path} ({size(file.size_bytes)}): {note}")
    if apply:
        numbers = ", ".join(str(batch.batch_id) for batch in batches)
        say(f"Planned as batch {numbers}. Next: lakehouse run --select {pipeline}")
    else:
        say(f"Nothing was written. To take {'them' if len(chosen) > 1 else 'it'}: the same with --apply")


def register(app: typer.Typer) -> None:
    """Hang the verb into the command tree."""
    app.command()(accept)
