"""Plan a new pipeline from a file, and write its declaration without ever overwriting anything."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from lakehouse import validation
from lakehouse.errors import DeclarationError
from lakehouse.scaffold.content import load
from lakehouse.scaffold.loading import check_loads
from lakehouse.scaffold.pattern import base_name, find_pattern
from lakehouse.scaffold.profile import profile
from lakehouse.scaffold.render import Plan, render_contract, render_yaml
from lakehouse.scaffold.sniff import Sniffed, sniff
from lakehouse.settings import PROJECT_DIR, Settings

DEFAULT_SYSTEM = "files"
_MODES = ("append", "upsert", "history")


@dataclass(frozen=True)
class NewPipeline:
    """What would be, or was, written: path → text, and everything that was assumed."""

    plan: Plan
    files: dict[Path, str]
    assumptions: tuple[str, ...]


def plan_pipeline(
    settings: Settings,
    file: Path,
    *,
    name: str | None = None,
    key: tuple[str, ...] = (),
    mode: str | None = None,
    system: str | None = None,
) -> NewPipeline:
    """Look at ``file`` and work out its pipeline. Writes nothing.

    Raises:
        SourceError: the file cannot be read.
        DeclarationError: a name, key or mode that cannot be, or a pipeline that would not load.
    """
    if mode is not None and mode not in _MODES:
        raise DeclarationError(
            f"mode {mode!r} is not known; write one of {', '.join(_MODES)}", field="--mode"
        )
    sniffed = sniff(Path(os.path.abspath(file)))  # without `..`, which a declaration may not have
    notes = list(sniffed.assumptions)
    if name is None:
        name = suggest_name(sniffed)
        notes.append(f"name: {name} (from the file's name); --name changes it")
    if system is None:
        system = DEFAULT_SYSTEM
        notes.append(f"source system: {system}; --source-system changes it")
    for value, option in ((name, "--name"), (system, "--source-system")):
        try:
            validation.check_identifier(value, option)
        except ValueError as error:
            raise DeclarationError(
                str(error), hint=f"lakehouse new pipeline --from {file} {option} …"
            ) from error
    pattern = find_pattern(settings.landing, sniffed)
    notes += pattern.notes
    result = profile(sniffed, load(sniffed), key=key)
    _check_key(key, [column.name for column in result.columns])
    notes += result.assumptions
    if mode is None:
        mode = "upsert" if result.key else "append"
        notes.append(f"mode: {mode}; --mode changes it")
    plan = Plan(name, system, pattern.path, mode, sniffed, result)
    if mode == "history" and plan.sequence_by is None:
        raise DeclarationError(
            "mode history needs a column that says when a row's state began (such as updated_at), and none is named so",
            field="--mode",
            hint="use --mode upsert, then write mode: history and sequence_by: [column] into the YAML",
        )
    if mode in ("upsert", "history") and not result.key:
        raise DeclarationError(
            f"mode {mode} needs a key, and no column is one", field="--mode", hint="add --key column"
        )
    if plan.renames:
        pairs = ", ".join(f"{old!r} → {new}" for old, new in list(plan.renames.items())[:4])
        notes.append(f"columns get plain names: {pairs}{' …' if len(plan.renames) > 4 else ''}")
    return NewPipeline(plan, _files(settings, plan), tuple(notes))


def _files(settings: Settings, plan: Plan) -> dict[Path, str]:
    declaration, contract = render_yaml(plan), render_contract(plan)
    check_loads(plan, declaration, contract)
    return {
        Path(settings.pipelines_dir, plan.system, plan.name, "defs.yaml"): declaration,
        PROJECT_DIR / "lakehouse" / "contracts" / f"{plan.name}.py": contract,
    }


def write_pipeline(new: NewPipeline) -> None:
    """Write every file, or none when one of them exists (raises DeclarationError naming it)."""
    there = [path for path in new.files if path.exists()]
    if there:
        raise DeclarationError(
            f"{', '.join(map(str, there))} exists already; nothing was written",
            hint="choose another --name, or remove it first",
        )
    for path, text in new.files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _check_key(key: tuple[str, ...], columns: list[str]) -> None:
    for column in key:
        if column not in columns:
            raise DeclarationError(
                f"{column!r} is not a column; the columns are {', '.join(columns)}", field="--key"
            )


def suggest_name(sniffed: Sniffed) -> str:
    """A table name made of the file's."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", base_name(sniffed)).strip("_").lower() or "table"
    return f"t_{text}" if text[0].isdigit() else text
