"""``lakehouse backfill`` as a person runs it: dry first, then applied, and what it answers when it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lakehouse.demo.landing import land_before
from lakehouse.settings import PROJECT_DIR, Settings
from tests.conftest import run_cli

pytestmark = pytest.mark.slow

DAYS = ("--from", "2013-01-01", "--to", "2013-01-01")


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and "dagster" not in path.parts)


@pytest.mark.slow
def test_a_backfill_is_dry_until_it_is_applied(tmp_path: Path) -> None:
    root, declared = tmp_path / "lake", tmp_path / "pipelines"
    shutil.copytree(PROJECT_DIR / "lakehouse" / "defs" / "nyc", declared / "nyc")
    land_before(Settings(root=str(root), pipelines_dir=str(declared)), "2013-01-02T00:00:00Z")

    def cli(*arguments: str) -> Any:
        return run_cli(*arguments, root=root, LAKEHOUSE_PIPELINES_DIR=str(declared))

    assert cli("run").returncode == 0
    text = (declared / "nyc" / "flights" / "defs.yaml").read_text()
    changed = text.replace("lakehouse.silver.transforms.flights.transform", "tests.defs.corrections.farther")
    (declared / "nyc" / "flights" / "defs.yaml").write_text(changed)
    before = _files(root)

    said = cli("backfill", "flights", *DAYS)
    assert said.returncode == 0, said.stderr
    assert "add --apply" in said.stdout
    told = json.loads(cli("backfill", "flights", *DAYS, "--json").stdout)
    assert told["keys_changed"] == told["rows"] > 700
    assert _files(root) == before

    done = json.loads(cli("backfill", "flights", *DAYS, "--apply", "--json").stdout)
    assert done["backfill"]["keys_changed"] == told["keys_changed"]
    assert done["run"]["success"]
    again = cli("backfill", "flights", *DAYS, "--apply")
    assert again.returncode == 0
    assert "Nothing differs" in again.stdout
    assert cli("reconcile").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("flights", "--from", "yesterday"), 2, "neither a day nor a month"),
        (("flights", "--from", "2013-02", "--to", "2013-01"), 2, "before it begins"),
        (("fligths", "--from", "2013-01"), 2, "did you mean flights"),
        (("planes", "--from", "2013-01"), 2, "silver.partition_by"),
        (("flights", "--from", "2013-01"), 3, "does not exist yet"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run_cli("backfill", *arguments, root=tmp_path / "lake")
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
