"""Rows at positions are those that a scan has there, whatever the types, the row groups and who decodes them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.storage import positions
from lakehouse.storage.positions import rows_in_groups, rows_in_windows

ROWS = 1_000
FRAME = pl.DataFrame(
    {
        "number": range(ROWS),
        "text": [None if n % 11 == 0 else f"{n % 7}" for n in range(ROWS)],
        "long text": [f"{n} " * (n % 9) for n in range(ROWS)],
        "day": [date(2024, 1, 1 + n % 28) for n in range(ROWS)],
        "at_utc": [datetime(2024, 1, 1, n % 24, tzinfo=UTC) for n in range(ROWS)],
        "real": [float("nan") if n % 13 == 0 else n / 3 for n in range(ROWS)],
        "exact": [Decimal(n) / 4 for n in range(ROWS)],
        "bytes": [bytes([n % 256]) for n in range(ROWS)],
        "list": [[n, None] if n % 3 else None for n in range(ROWS)],
        "nested": [{"a": f"{n % 5}", "b": n} for n in range(ROWS)],
        "empty": [None] * ROWS,
    },
    schema_overrides={"exact": pl.Decimal(20, 2), "empty": pl.String, "number": pl.Int64},
)


@pytest.fixture(scope="module", params=[64, 5_000], ids=["many groups", "one group"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("positions") / "rows.parquet"
    FRAME.write_parquet(path, row_group_size=request.param)
    return path


@given(
    places=st.sets(st.integers(0, ROWS - 1), max_size=60),
    names=st.lists(st.sampled_from(FRAME.columns), unique=True, min_size=1),
    at_once=st.integers(1, 4),
)
@settings(deadline=None, max_examples=60)
def test_rows_are_those_of_the_scan(file: Path, places: set[int], names: list[str], at_once: int) -> None:
    asked = np.array(sorted(places), dtype=np.int64)
    wanted = FRAME.select(names)[asked]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "GROUPS_AT_ONCE", at_once)
        patch.setattr(positions, "WINDOW_ROWS", 50 * at_once)
        found = rows_in_groups(str(file), asked, {name: FRAME.schema[name] for name in names})
        scanned = rows_in_windows(pl.scan_parquet(file).select(names), asked)
    assert found is not None
    assert (found.schema, scanned.schema) == (wanted.schema, wanted.schema)
    assert found.equals(wanted)
    assert scanned.equals(wanted)


def test_groups_without_a_position_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    FRAME.write_parquet(path, row_group_size=100)
    decoded: list[int] = []
    read = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_groups", lambda self, groups, **more: decoded.extend(groups) or read(self, groups, **more)
    )  # fmt: skip
    rows_in_groups(str(path), np.array([0, 99, 300, 950]), {"number": pl.Int64()})
    assert decoded == [0, 3, 9]


@pytest.mark.parametrize(
    "schema",
    [{"missing": pl.Int64()}, {"number": pl.Int32()}, {"at_utc": pl.Datetime("ms", "UTC")}, {"a.b": pl.Int64()}],
    ids=["missing", "narrower", "other unit", "dotted"],
)  # fmt: skip
def test_what_needs_a_cast_is_left_to_the_scan(file: Path, schema: dict[str, pl.DataType]) -> None:
    assert rows_in_groups(str(file), np.array([1, 2]), schema) is None


def test_texts_without_a_dictionary_in_some_groups(tmp_path: Path) -> None:
    """Where a dictionary grows too large the writer goes on without one, in the middle of a column."""
    frame = pl.DataFrame({"text": [f"{n:032}" for n in range(120_000)]})
    path = tmp_path / "rows.parquet"
    frame.write_parquet(path, row_group_size=60_000)
    asked = np.arange(0, 120_000, 999)
    found = rows_in_groups(str(path), asked, {"text": pl.String()})
    assert found is not None
    assert found.equals(frame[asked])
