"""``lakehouse maintain`` as a person runs it: what it would do, that it did it, and that it is quiet afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse.storage import Lake
from tests.conftest import run_cli

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A lake with nine small files in ``silver.things``."""
    table = Lake(str(tmp_path / "lake")).table("silver", "things")
    frame = pl.DataFrame({"id": [1, 2, 3]})
    table.create(frame.schema)
    for _ in range(9):
        table.snapshot().commit(add=table.stage(frame.lazy()))
    return tmp_path / "lake"


def cli(root: Path, *arguments: str) -> Any:
    declared = root.with_name("pipelines")
    declared.mkdir(exist_ok=True)
    return run_cli("maintain", *arguments, root=root, LAKEHOUSE_PIPELINES_DIR=str(declared))


def test_it_says_what_it_would_do_does_it_and_is_done(root: Path) -> None:
    before = sorted(root.rglob("*.parquet"))
    told = cli(root, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "9 small files would become 1" in told.stdout
    assert sorted(root.rglob("*.parquet")) == before

    (done,) = json.loads(cli(root, "--json").stdout)
    assert (done["name"], done["files_before"], done["files_after"]) == ("silver/things", 9, 1)
    assert len(sorted(root.rglob("*.parquet"))) == len(before) + 1, "what was in use a moment ago is spared"

    again = cli(root, "--select", "things")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout


def test_what_cannot_be_done_is_said_with_its_exit_code(root: Path, tmp_path: Path) -> None:
    wrong = cli(root, "--select", "thigns")
    assert (wrong.returncode, "tables: silver/things" in wrong.stderr) == (2, True), wrong.stderr
    next(iter(root.rglob("silver/things/*.parquet"))).write_bytes(b"torn")
    broken = cli(root)
    assert broken.returncode == 1
    assert "silver/things" in broken.stdout
    shutil.rmtree(root)
    nothing = cli(root)
    assert (nothing.returncode, "Nothing has landed yet" in nothing.stdout) == (0, True)
