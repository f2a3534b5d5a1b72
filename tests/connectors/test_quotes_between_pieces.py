"""Quotes are paired across the pieces in which a file is read, wherever these end."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.connectors import csv
from lakehouse.connectors.local import LocalFile
from lakehouse.pipelines.model import CsvOptions


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 5, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "records", "goes_on"),
    [
        ('a,b\n"x","y"\n', 1, False),
        ('a,b\n"x""z","y,\n1"\n', 1, False),
        ('a,b\n"x",""\r\n"",1', 2, False),
        ('a,b\n1,"y"', 1, False),
        ('a,b\n"x"y"z",1\n', 1, True),
        ('a,b\n1,2\n1,"x"y"z"\n', 2, True),
        ('a,b\n"x""y"z,1\n', 1, True),
    ],
)
def test_where_a_piece_ends_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int, text: str, records: int, goes_on: bool
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    monkeypatch.setattr(csv, "_CACHED_BYTES", piece_bytes)
    file = LocalFile(str(path), path, path.stat().st_size)
    assert csv.goes_on_behind_quotes(file, CsvOptions()) is goes_on
    if not goes_on:
        assert not csv.has_short_lines(file, CsvOptions(), 2, records)
        assert csv.has_short_lines(file, CsvOptions(), 2, records + 1)
