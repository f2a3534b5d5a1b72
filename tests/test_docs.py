"""What the documentation says is so."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer.main

from lakehouse.cli.app import app
from lakehouse.pipelines import model as pipeline_model
from lakehouse.settings import PROJECT_DIR, Settings
from tests.conftest import DemoLake, run_cli

README = (PROJECT_DIR / "README.md").read_text()
PAGES = sorted([PROJECT_DIR / "README.md", *(PROJECT_DIR / "docs").rglob("*.md")])


def _commands(text: str) -> list[str]:
    """Every line of every bash block, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _verbs() -> list[str]:
    """``demo``, ``quarantine list`` … as the command line has them."""
    root = typer.main.get_command(app)
    found = []
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found += [f"{name} {sub}" for sub in command.commands] if hasattr(command, "commands") else [name]
    return found


@pytest.mark.slow
def test_every_command_of_the_readme_works(demo_lake: DemoLake, tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text("order_id,amount\n1,2.5\n2,3.5\n")
    tried = []
    for line in _commands(README):
        words = shlex.split(line)
        if words[0] == "make":
            targets = subprocess.run(
                ["make", "-n", *words[1:]], cwd=PROJECT_DIR, capture_output=True, text=True, check=False
            )
            assert targets.returncode == 0, targets.stderr
        elif words[0] == "lakehouse":
            _try(words[1:], demo_lake, orders)
        else:
            assert line == "source .venv/bin/activate"
        tried.append(words[0])
    assert tried.count("lakehouse") >= 7
    assert tried.count("make") >= 2


def _try(words: list[str], lake: DemoLake, orders: Path) -> None:
    if words[:2] == ["new", "pipeline"]:
        words = [*words[: words.index("--from")], "--from", str(orders), "--dry-run"]
    if words[:2] == ["run", "--select"]:  # the table that the step before would have written
        assert words[2] == "orders"
        return
    done = run_cli(*words, root=lake.root)
    assert done.returncode == 0, f"lakehouse {' '.join(words)}\n{done.stderr}"


@pytest.mark.slow
def test_the_query_of_the_readme_is_about_published_tables(demo_lake: DemoLake) -> None:
    query = next(shlex.split(line)[2] for line in _commands(README) if line.startswith("lakehouse query"))
    done = run_cli("query", query, root=demo_lake.root)
    assert len(done.stdout.strip().splitlines()) == 2 + 5


def test_every_verb_stands_in_its_page() -> None:
    page = (PROJECT_DIR / "docs" / "cli.md").read_text()
    assert [verb for verb in _verbs() if f"`lakehouse {verb}`" not in page] == []


def test_every_command_in_every_page_is_a_verb() -> None:
    verbs = set(_verbs())
    unknown = []
    for page in PAGES:
        for words in (shlex.split(line) for line in _commands(page.read_text())):
            if words[0] != "lakehouse" or words[1].startswith("-"):
                continue
            if not ({words[1], " ".join(words[1:3])} & verbs):
                unknown.append(f"{page.name}: {' '.join(words)}")
    assert unknown == []


def test_every_setting_stands_in_its_table_as_it_is_declared_and_no_other() -> None:
    page = (PROJECT_DIR / "docs" / "settings.md").read_text()
    found = re.findall(r"^\| `LAKEHOUSE_([A-Z_]+)` \| ([^|]*) \| (.*) \|$", page, re.MULTILINE)
    rows = {name: default for name, default, _ in found}
    said = {name: text for name, _, text in found}
    assert said == {name.upper(): field.description for name, field in Settings.model_fields.items()}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, str | int | float) and field.default not in ("", None):
            assert rows[name.upper()].strip() == f"`{field.default}`", name


def test_every_option_of_a_pipeline_stands_in_its_table() -> None:
    page = (PROJECT_DIR / "docs" / "pipelines.md").read_text()
    parts = {
        "": pipeline_model.PipelineSpec,
        "source.": pipeline_model.SourceSpec,
        "source.csv.": pipeline_model.CsvOptions,
        "silver.": pipeline_model.SilverSpec,
        "checks.": pipeline_model.ChecksSpec,
    }
    nested = {"source", "silver", "checks", "source.csv", "source.csv.columns"}
    wanted = {f"{prefix}{name}" for prefix, model in parts.items() for name in model.model_fields} - nested
    assert sorted(name for name in wanted if f"`{name}`" not in page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_DIR)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_every_make_target_has_a_line_of_help() -> None:
    text = (PROJECT_DIR / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    shown = subprocess.run(
        ["make", "help"], cwd=PROJECT_DIR, capture_output=True, text=True, check=True
    ).stdout
    assert {target for target in phony if f"make {target} " not in shown} == set()


def test_the_lock_names_no_index_and_pins_every_package_with_hashes() -> None:
    lock = (PROJECT_DIR / "requirements.txt").read_text()
    assert "://" not in lock
    assert "--index" not in lock
    assert "--find-links" not in lock
    packages = re.findall(
        r"^[a-z0-9][^\s=]*==\S+ \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.MULTILINE
    )
    assert len(packages) == len(re.findall(r"^[a-z0-9]", lock, re.MULTILINE))


def test_every_direct_dependency_is_locked_and_says_why_it_is_here() -> None:
    project = (PROJECT_DIR / "pyproject.toml").read_text()
    lock = (PROJECT_DIR / "requirements.txt").read_text()
    block = project.split("dependencies = [", 1)[1].split("[project.scripts]")[0]
    lines = [line for line in block.splitlines() if line.startswith('  "')]
    assert len(lines) > 25
    for line in lines:
        name = re.match(r'  "([A-Za-z0-9_-]+)', line).group(1)  # type: ignore[union-attr]
        assert re.search(r"#\s+\S", line), f"{name} has no reason"
        assert re.search(rf"^{re.escape(name)}(\[[a-z]+\])?==", lock, re.MULTILINE | re.IGNORECASE), (
            f"{name} is not locked"
        )
