"""What can be loaded of the declarations while somebody is editing one of them."""

from __future__ import annotations

import re
from pathlib import Path

from lakehouse.errors import DeclarationError
from lakehouse.pipelines.load import Pipeline, Problem, declaration_files, display, read_all
from lakehouse.settings import Settings

_NAME = re.compile(r"^\s*name:\s*['\"]?(\w+)", re.MULTILINE)


def load_sound(settings: Settings) -> tuple[dict[str, Pipeline], dict[str, str]]:
    """The pipelines whose declaration, contract and transform can be loaded, and by name what is wrong with the others: one
    that somebody is editing must not stop the rest.

    Of a declaration that cannot be read, the name is what its text says, or that of its folder. A name that is declared twice
    is left out: nobody knows which of the two is meant.

    Raises:
        SettingsError: the folder of the declarations is not there.
    """
    pipelines, problems = read_all(settings)
    folders = {display(path): path for path in declaration_files(settings.pipelines_dir)}
    wrong = [(_name_at(folders[problem.file], problem.line), problem) for problem in problems]
    for name, pipeline in pipelines.items():
        try:
            _ = pipeline.contract, pipeline.transform
        except DeclarationError as error:
            wrong.append((name, Problem(pipeline.file, None, error.field or "", error.detail)))
    left_out: dict[str, str] = {}
    for name, problem in wrong:
        left_out[name] = f"{left_out[name]}; {problem}" if name in left_out else str(problem)
    return {name: found for name, found in pipelines.items() if name not in left_out}, left_out


def _name_at(path: Path, line: int | None) -> str:
    """The name in the document of a file that has this line (from 1); None: in the first one."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return path.parent.name
    begins = [number for number, text in enumerate(lines[: line or 0]) if text.startswith("---")]
    found = _NAME.search("\n".join(lines[begins[-1] if begins else 0 :]))
    return found[1] if found else path.parent.name
