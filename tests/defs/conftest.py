"""A lake with the first day of the demo's data, run once through Dagster and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakehouse.defs.execute import RunOutcome, run_pipelines
from lakehouse.demo.landing import land_before
from lakehouse.gold.dbt_run import load_project, manifest_path
from lakehouse.settings import PROJECT_DIR, Settings


def settings_for(folder: Path, **changes: Any) -> Settings:
    return Settings(root=str(folder / "lake"), pipelines_dir=str(folder / "pipelines"), **changes)


@pytest.fixture(scope="session")
def with_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Settings], Settings]:
    """Gives a fresh lake the parsed dbt project, so that not each of them parses the same files again."""
    parsed = Settings(root=str(tmp_path_factory.mktemp("parsed")))
    load_project(parsed)

    def lend(settings: Settings) -> Settings:
        shutil.copytree(manifest_path(parsed).parent, manifest_path(settings).parent)
        return settings

    return lend


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunOutcome]:
    """A folder with ``pipelines`` and ``lake`` as the first run left it, and what that run said."""
    folder = tmp_path_factory.mktemp("first_day")
    shutil.copytree(PROJECT_DIR / "lakehouse" / "defs" / "nyc", folder / "pipelines" / "nyc")
    settings = settings_for(folder)
    land_before(settings, "2013-01-02T00:00:00Z")
    outcome = run_pipelines(settings)
    shutil.copytree(folder, folder.with_name("pristine"))
    return folder, outcome


@pytest.fixture
def first_day(first_run: tuple[Path, RunOutcome]) -> Callable[..., Settings]:
    """Settings of that lake, as it was. It stays at one place: to the ledger a moved file is a new file."""
    folder, _ = first_run
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("pristine"), folder)
    return lambda **changes: settings_for(folder, **changes)
