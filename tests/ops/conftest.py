"""A lake without anything in it, and one of two published deliveries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lakehouse.settings import load_settings
from lakehouse.storage import Lake
from tests.faults import lab
from tests.faults.lab import Lab
from tests.ops.two_deliveries import fresh, new_lab


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.from_settings(load_settings(root=str(tmp_path / "lake")))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Path]:
    """Two deliveries, published one after the other, and a copy of all that. The second one's contract has a column more."""
    folder = tmp_path_factory.mktemp("rollback")
    the_lab = new_lab(folder / "lab")
    for delivery in (1, 2):
        lab.arrive(the_lab, delivery)
        lab.run(the_lab, delivery)
    shutil.copytree(the_lab.folder, folder / "copy")
    return the_lab, folder / "copy"


@pytest.fixture
def two_deliveries(made_once: tuple[Lab, Path]) -> Lab:
    return fresh(made_once)
