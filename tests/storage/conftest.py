"""A table of three things, not created yet."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from lakehouse.storage import Lake, Table

FRAME = pl.DataFrame({"id": [1, 2, 3], "name": ["a", "b", None]})


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Lake(str(tmp_path / "lake")).table("silver", "things")


def create(table: Table, frame: pl.DataFrame = FRAME, batch: int = 1) -> None:
    table.create(
        frame.schema, add=table.stage(frame.lazy()), txns={"silver/things": batch}, metadata={"n": batch}
    )
