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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lakehouse.silver.prepare import PLACE_SCHEMA, POSITION
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
#: Rows whose size tells that of the others.
_SAMPLE_ROWS = 1_000
#: What is copied at once takes about so much as values, and a few times as much on its way.
_PIECE_BYTES = 16 << 20
#: A copy is not made where the disk would have less than this left.
_LEFT_ON_DISK = 0.1
#: A copy that nobody has read for so long makes room for others.
_UNUSED_S = 86_400
_STALE_S = 3_600
_ROW, _CHECK = "row", "check"


class RowCopies:
    """The copies of one table's rows.

    Args:
        folder: where they lie; made when first needed. The copies of other tables lie beside it.
        limit_bytes: what all of them may take together.
        large_rows: a file with fewer rows is decoded.
    """

    def __init__(self, folder: Path, limit_bytes: int, large_rows: int = LARGE_ROWS) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.large_rows = large_rows

    def find(self, snapshot: Snapshot, path: str, on_disk: int, places: pl.DataFrame) -> pl.DataFrame | None:
        """The rows of one file at these places, whole; None where they have to be read from Parquet.

        Args:
            on_disk: rows of the file, deleted ones too.
            places: ``POSITION``, ascending, and what else is known of the rows (their key), which they must have.
        """
        layout = RowLayout.of(snapshot.schema())
        if layout is None or not self._is_worth_it(places[POSITION].to_numpy(), on_disk):
            return None
        target = self.folder / _name(path, layout)
        try:
            if not target.exists() and not self._make(snapshot, path, on_disk, layout, target):
                return None
        except Exception as error:  # noqa: BLE001  a cache must not stop a batch, whatever happens to it
            _log.warning(
                "silver.%s: the rows of %s are not copied to %s: %s",
                snapshot.table.name, path, self.folder, error,
            )  # fmt: skip
            return None
        try:
            rows = _read(target, places[POSITION].to_numpy(), layout)
            known = [name for name in places.columns if name not in PLACE_SCHEMA]
            if not rows.select(known).equals(places.select(known)):
                raise ValueError("it has other rows")
            os.utime(target)
            return rows
        except Exception as error:  # noqa: BLE001
            _log.warning(
                "silver.%s: the copy of the rows of %s in %s is of no use (%s); it is removed, and Parquet is read",
                snapshot.table.name, path, self.folder, error,
            )  # fmt: skip
            with suppress(OSError):
                target.unlink(missing_ok=True)
            return None

    def forget_others(self, snapshot: Snapshot) -> None:
        """Remove copies of files that the table does not have any more, or not so, and what a killed process left."""
        layout = RowLayout.of(snapshot.schema())
        kept = set() if layout is None else {_name(path, layout) for path in snapshot.files()["path"]}
        for file, _, used in _entries(self.folder):
            # What is young may be another process's, which reads a newer version of the table.
            if file.name not in kept and time.time() - used > _STALE_S:
                with suppress(OSError):
                    file.unlink()

    def _is_worth_it(self, positions: Any, on_disk: int) -> bool:
        """True for few rows all through a large file."""
        import numpy

        if on_disk < self.large_rows or not 0 < len(positions) <= _FEW * on_disk:
            return False
        return len(numpy.unique(positions // ROW_GROUP_ROWS)) > _ALL_THROUGH * on_disk / ROW_GROUP_ROWS

    def _make(self, snapshot: Snapshot, path: str, on_disk: int, layout: RowLayout, target: Path) -> bool:
        """Copy a file's rows; False where there is no room."""
        import pyarrow as pa

        self.folder.mkdir(parents=True, exist_ok=True)
        if self._room_bytes() <= 0:
            return False
        sample = min(on_disk, _SAMPLE_ROWS)
        (rows,) = _values(snapshot, path, sample, layout, sample)
        row_bytes = rows.nbytes / sample + 8
        if (missing := row_bytes * on_disk - self._room_bytes()) > 0 and not self._make_room(missing):
            return False
        at_once = max(int(_PIECE_BYTES / row_bytes), _SAMPLE_ROWS)
        beside = self.folder / f"{uuid.uuid4().hex}.tmp"
        schema = pa.schema([(_ROW, pa.large_binary()), (_CHECK, pa.uint64())])
        try:
            with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                for rows in _values(snapshot, path, on_disk, layout, at_once):
                    writer.write_batch(pa.record_batch([rows, _checks(rows)], schema=schema))
                    if sink.tell() > 1.5 * row_bytes * on_disk:
                        return False  # the first rows were shorter than the others
            sync_file(beside)  # a copy that has its name is whole, even if the power goes
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
        return True

    def _room_bytes(self) -> float:
        disk = shutil.disk_usage(self.folder)
        taken = sum(size for _, size, _ in _entries(*self.folder.parent.iterdir()))
        return min(self.limit_bytes - taken, disk.free - _LEFT_ON_DISK * disk.total)

    def _make_room(self, missing: float) -> bool:
        """Remove copies of any table that nobody has read for long, the longest unread first."""
        unread = sorted(_entries(*self.folder.parent.iterdir()), key=lambda entry: entry[2])
        unread = [entry for entry in unread if time.time() - entry[2] > _UNUSED_S]
        if sum(size for _, size, _ in unread) < missing:
            return False
        for file, size, _ in unread:
            if missing <= 0:
                break
            file.unlink(missing_ok=True)
            missing -= size
        return True


def _entries(*folders: Path) -> Iterator[tuple[Path, int, float]]:
    """(file, its size in bytes, when it was last used) of everything in these folders; others come and go meanwhile."""
    for folder in folders:
        with suppress(OSError):
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    about = entry.stat()
                    yield Path(entry.path), about.st_size, about.st_mtime


def _values(
    snapshot: Snapshot, path: str, rows: int, layout: RowLayout, at_once: int
) -> Iterator[pa.LargeBinaryArray]:
    """The first ``rows`` rows of a file, deleted ones too, as values."""
    scan = snapshot.scan_places(list(layout.schema), uris=[snapshot.table.objects.url(path)], place=POSITION)
    for start in range(0, rows, at_once):
        yield layout.packed(scan.slice(start, min(at_once, rows - start)).drop(POSITION).collect())


def _checks(values: pa.LargeBinaryArray) -> Any:
    """64 bits of hash for each value."""
    return pl.Series(pl.from_arrow(values), dtype=pl.Binary).hash().to_arrow()


def _name(path: str, layout: RowLayout) -> str:
    """Other columns or types: another copy."""
    told = f"{path} {layout.identity}"
    return f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.arrow"


def _read(file: Path, positions: Any, layout: RowLayout) -> pl.DataFrame:
    """The rows at these positions. Raises whatever a damaged file makes of it."""
    import numpy
    import pyarrow as pa

    with open(file, "rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
    mapped.madvise(mmap.MADV_RANDOM)  # what lies around a row is not read with it
    reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
    found: list[Any] = []
    checks: list[Any] = []
    first = 0
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        here = positions[slice(*numpy.searchsorted(positions, [first, first + len(batch)]))] - first
        first += len(batch)
        if len(here):
            _, offsets, values = batch.column(0).buffers()
            ends = numpy.frombuffer(offsets, numpy.int64)
            starts, ends = ends[here], ends[here + 1]
            # Nobody else looks at them: a damaged one would be followed out of the file.
            if starts.min() < 0 or (ends < starts).any() or ends.max() > values.size:
                raise ValueError("its rows lie outside")
            taken = pa.array(here)
            found.append(batch.column(0).take(taken))
            checks.append(batch.column(1).take(taken))
    rows = pa.concat_arrays(found)
    if len(rows) != len(positions) or not _checks(rows).equals(pa.concat_arrays(checks)):
        raise ValueError("it is damaged")
    return layout.unpacked(rows)
