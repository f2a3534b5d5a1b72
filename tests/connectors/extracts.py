"""What the tests of readers share: a file, how to read it, and the rows that came out."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lakehouse.connectors.base import Care, Extract
from lakehouse.connectors.csv import read_csv
from lakehouse.connectors.local import LocalFile
from lakehouse.pipelines.model import CsvOptions


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    """What a full disk does to whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def local(path: Path) -> LocalFile:
    return LocalFile(str(path), path, path.stat().st_size)


def care_for(path: Path, careful: bool) -> Care:
    return Care(frozenset({str(path)})) if careful else Care()


def csv_extract(path: Path, content: bytes, *, careful: bool = True, **options: Any) -> Extract:
    path.write_bytes(content)
    return read_csv([local(path)], CsvOptions(**options), path.parent / "spool", care_for(path, careful))


def rows(extract: Extract, *columns: str) -> list[tuple[Any, ...]]:
    return extract.frame.select("_source_row", *columns).sort("_source_row").collect().rows()
