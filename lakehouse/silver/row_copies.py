"""Rows of large data files laid out one behind the other, so that a history finds a few of very many without decoding all.

Parquet gives no row without its page, and 100,000 keys among millions have a row in every page. So the rows of a file that a batch
goes all through are copied once, into an Arrow file in the state folder that has one value for each. It is mapped into memory, and
a row costs the pages of it that it lies on. Data files never change, so a copy is true for ever; like the key index it may be
deleted at any time, and whatever is not there is read from Parquet.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lakehouse.silver.prepare import FILE, PLACE_SCHEMA, POSITION
from lakehouse.silver.row_layout import RowLayout
from lakehouse.storage import Snapshot, sync_file
from lakehouse.storage.table import ROW_GROUP_ROWS

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)
#: Smaller files are decoded: a row of them costs a tenth of a microsecond.
LARGE_ROWS = 250_000
#: A batch goes all through a file when it has rows in so large a part of its row groups, ...
_ALL_THROUGH = 0.5
#: ... and wants few of them when it is less than this share: more are had sooner by decoding.
_FEW = 0.1
#: Rows that are copied at once, and one record batch of the copy.
_ROWS_AT_ONCE = 4 * ROW_GROUP_ROWS
#: A copy is not made where the disk would have less than this left.
_LEFT_ON_DISK = 0.1
_STALE_S = 3_600


class RowCopies:
    """The copies of one table's rows.

    Args:
        folder: where they lie; made when first needed.
        limit_bytes: what all copies of the lake may take together; none are made beyond.
        large_rows: a file with fewer rows is decoded.
    """

    def __init__(self, folder: Path, limit_bytes: int, large_rows: int = LARGE_ROWS) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.large_rows = large_rows

    def rows_at(self, snapshot: Snapshot, places: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
        """The rows that stand at these places, with them.

        Args:
            places: what is known of the rows (their key), ``FILE`` and ``POSITION``; none comes twice.
        """
        files = snapshot.files().select("path", pl.col("num_records") + pl.col("num_deleted"))
        on_disk = dict(files.iter_rows())
        layout = RowLayout.of(snapshot.schema())
        schema = snapshot.schema()
        found = [pl.DataFrame(schema={**{name: schema[name] for name in columns}, **PLACE_SCHEMA})]
        for (path,), part in places.sort(POSITION).partition_by(FILE, as_dict=True).items():
            positions = part[POSITION].to_numpy()
            rows = None
            if layout is not None and self._is_worth_it(positions, on_disk[path]):
                rows = self._from_copy(snapshot, path, on_disk[path], part, layout)
            if rows is None:
                rows = snapshot.rows_at(path, positions, columns)
            found.append(rows.select(columns).with_columns(part[FILE], part[POSITION]))
        if layout is not None:
            self._forget_others({_name(path, layout) for path in on_disk})
        return pl.concat(found)

    def _is_worth_it(self, positions: Any, on_disk: int) -> bool:
        """True for few rows all through a large file."""
        import numpy

        if on_disk < self.large_rows or len(positions) > _FEW * on_disk:
            return False
        return len(numpy.unique(positions // ROW_GROUP_ROWS)) > _ALL_THROUGH * on_disk / ROW_GROUP_ROWS

    def _from_copy(
        self, snapshot: Snapshot, path: str, on_disk: int, places: pl.DataFrame, layout: RowLayout
    ) -> pl.DataFrame | None:
        """None where there is no copy, and none may be made."""
        target = self.folder / _name(path, layout)
        try:
            if not target.exists() and not self._make(snapshot, path, on_disk, layout, target):
                return None
            rows = _read(target, places[POSITION].to_numpy(), layout)
            if not rows.select(known := _known(places)).equals(places.select(known)):
                raise ValueError("it has other rows")
            return rows
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            _log.warning(
                "silver.%s: the rows of %s are not read from their copy in %s (%s), but from Parquet",
                snapshot.table.name, path, self.folder, error,
            )  # fmt: skip
            with suppress(OSError):
                target.unlink(missing_ok=True)
            return None

    def _make(self, snapshot: Snapshot, path: str, on_disk: int, layout: RowLayout, target: Path) -> bool:
        import pyarrow as pa

        self.folder.mkdir(parents=True, exist_ok=True)
        sample = min(on_disk, 1_000)
        needed = sum(rows.nbytes for rows in _packed(snapshot, path, sample, layout))
        needed = needed * on_disk // sample
        disk = shutil.disk_usage(self.folder)
        taken = sum(file.stat().st_size for file in self.folder.parent.glob("*/*"))
        if taken + needed > self.limit_bytes or disk.free - needed < _LEFT_ON_DISK * disk.total:
            return False
        beside = self.folder / f"{uuid.uuid4().hex}.tmp"
        try:
            schema = pa.schema([("row", pa.large_binary())])
            with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for rows in _packed(snapshot, path, on_disk, layout):
                    writer.write_batch(pa.record_batch([rows], schema=schema))
            sync_file(beside)  # a copy that has its name is whole, even if the power goes
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
        return True

    def _forget_others(self, kept: set[str]) -> None:
        """Remove copies of files that the table does not have any more, or not so, and what a killed process left."""
        with suppress(OSError):
            for file in self.folder.iterdir():
                # What is young may be another process's, which reads a newer version of the table.
                with suppress(FileNotFoundError):
                    if file.name not in kept and time.time() - file.stat().st_mtime > _STALE_S:
                        file.unlink()


def _known(places: pl.DataFrame) -> list[str]:
    return [name for name in places.columns if name not in PLACE_SCHEMA]


def _packed(snapshot: Snapshot, path: str, rows: int, layout: RowLayout) -> Iterator[pa.Array]:
    """The first ``rows`` rows of a file, deleted ones too."""
    scan = snapshot.scan_places(list(layout.schema), uris=[snapshot.table.objects.url(path)], place=POSITION)
    for start in range(0, rows, _ROWS_AT_ONCE):
        yield layout.packed(scan.slice(start, min(_ROWS_AT_ONCE, rows - start)).drop(POSITION).collect())


def _name(path: str, layout: RowLayout) -> str:
    """Other columns or types: another copy."""
    told = f"{path} {layout.identity}"
    return f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.arrow"


def _read(file: Path, positions: Any, layout: RowLayout) -> pl.DataFrame:
    import numpy
    import pyarrow as pa

    with open(file, "rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
    mapped.madvise(mmap.MADV_RANDOM)  # what lies around a row is not read with it
    reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
    found = []
    for number in range(reader.num_record_batches):
        first, last = numpy.searchsorted(positions, [number * _ROWS_AT_ONCE, (number + 1) * _ROWS_AT_ONCE])
        if first < last:
            rows = reader.get_batch(number).column(0)
            found.append(rows.take(pa.array(positions[first:last] - number * _ROWS_AT_ONCE)))
    return layout.unpacked(pa.concat_arrays(found))
