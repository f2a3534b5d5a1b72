"""A lake without anything in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.settings import load_settings
from lakehouse.storage import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake.from_settings(load_settings(root=str(tmp_path / "lake")))
