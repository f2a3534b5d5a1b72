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
    window=st.sampled_from([50, 64, 200, 5_000]),
)
@settings(deadline=None, max_examples=60)
def test_rows_are_those_of_the_scan(file: Path, places: set[int], names: list[str], window: int) -> None:
    asked = np.array(sorted(places), dtype=np.int64)
    wanted = FRAME.select(names)[asked]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "WINDOW_ROWS", window)
        found = rows_in_groups(str(file), asked, {name: FRAME.schema[name] for name in names})
        scanned = rows_in_windows(pl.scan_parquet(file).select(names), asked)
    assert scanned.schema == wanted.schema
    assert scanned.equals(wanted)
    footer = pq.read_metadata(file)
    step = footer.row_group(0).num_rows
    if any(footer.row_group(place // step).num_rows > window for place in places):
        assert found is None, "a row group is larger than what is decoded at a time"
    else:
        assert found is not None
        assert found.schema == wanted.schema
        assert found.equals(wanted)


def test_groups_without_a_position_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    FRAME.write_parquet(path, row_group_size=100)
    decoded: list[list[int]] = []
    monkeypatch.setattr(positions, "WINDOW_ROWS", 200)
    read = pq.ParquetFile.read_row_groups
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_groups", lambda self, groups, **more: decoded.append(groups) or read(self, groups, **more)
    )  # fmt: skip
    rows_in_groups(str(path), np.array([0, 99, 300, 450, 950]), {"number": pl.Int64()})
    assert decoded == [[0, 3], [4, 9]], "two row groups are as many as are decoded at a time"


@pytest.mark.parametrize(
    "schema",
    [{"missing": pl.Int64()}, {"number": pl.Int32()}, {"at_utc": pl.Datetime("ms", "UTC")}, {"a.b": pl.Int64()}],
    ids=["missing", "narrower", "other unit", "dotted"],
)  # fmt: skip
def test_what_needs_a_cast_is_left_to_the_scan(file: Path, schema: dict[str, pl.DataType]) -> None:
    assert rows_in_groups(str(file), np.array([1, 2]), schema) is None


def test_texts_whose_dictionary_ends_in_the_middle_of_a_column(tmp_path: Path) -> None:
    """Where a dictionary grows too large a writer goes on without one."""
    frame = pl.DataFrame({"text": [f"{n:032}" for n in range(50_000)]})
    path = tmp_path / "rows.parquet"
    pq.write_table(frame.to_arrow(), path, row_group_size=25_000, dictionary_pagesize_limit=20_000)
    column = pq.read_metadata(path).row_group(0).column(0)
    assert column.has_dictionary_page
    assert "PLAIN" in column.encodings
    asked = np.arange(0, 50_000, 999)
    found = rows_in_groups(str(path), asked, {"text": pl.String()})
    assert found is not None
    assert found.equals(frame[asked])
