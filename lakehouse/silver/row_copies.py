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
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate, pairwise
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
_UNUSED_S = 7 * 86_400
_STALE_S = 3_600
#: Ending of an empty file in the place of a copy that became too large.
_REFUSED = ".refused"


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

    def find(self, snapshot: Snapshot, places: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
        """Path → the rows of a file at these places, whole, for the files whose copies have them; the others have to be read.

        Args:
            places: path → ``POSITION``, ascending, and what else is known of the rows (their key), which they must have.
        """
        layout = self.layout(snapshot)
        if layout is None:
            return {}
        on_disk = snapshot.rows_on_disk(places)
        wanted = {
            path: self.folder / _name(path, layout)
            for path, rows in places.items()
            if self._is_worth_it(rows[POSITION].to_numpy(), on_disk[path])
        }
        # Before any is made: room is taken from copies that nobody reads.
        there = [path for path, copy in wanted.items() if copy.exists()]
        values: dict[str, pa.Array] = {}
        for path in there:
            self._read(snapshot, path, wanted[path], places[path], values)
        for path in wanted:
            if path not in there and self._make(snapshot, path, wanted[path], on_disk[path], layout):
                self._read(snapshot, path, wanted[path], places[path], values)
        self._forget_others({_name(path, layout) for path in snapshot.files()["path"]})
        return self._unpacked(snapshot, values, places, layout)

    def layout(self, snapshot: Snapshot) -> RowLayout | None:
        """How the table's rows are laid out; None when there are no copies of them."""
        return RowLayout.of(snapshot.schema()) if self.limit_bytes > 1 else None

    def is_few(self, rows: int, among: int) -> bool:
        """True when so many rows are sooner had one by one than by decoding those among which they are."""
        return 0 < rows <= _FEW * among

    def _is_worth_it(self, positions: Any, on_disk: int) -> bool:
        """True for few rows all through a large file."""
        import numpy

        if on_disk < self.large_rows or not self.is_few(len(positions), on_disk):
            return False
        return len(numpy.unique(positions // ROW_GROUP_ROWS)) > _ALL_THROUGH * on_disk / ROW_GROUP_ROWS

    def _read(
        self, snapshot: Snapshot, path: str, copy: Path, places: pl.DataFrame, into: dict[str, pa.Array]
    ) -> None:
        try:
            into[path] = _rows(copy, places[POSITION].to_numpy())
        except Exception as error:  # noqa: BLE001  a cache must not stop a batch, whatever happens to it
            self._refuse(snapshot, path, copy, error)
            return
        with suppress(OSError):
            os.utime(copy)

    def _unpacked(
        self,
        snapshot: Snapshot,
        values: dict[str, pa.Array],
        places: Mapping[str, pl.DataFrame],
        layout: RowLayout,
    ) -> dict[str, pl.DataFrame]:
        """The rows of all files at once, each file's then cut out: one by one the columns of 35 files cost more than the
        100,000 rows in them (measured)."""
        import pyarrow as pa

        if not values:
            return {}
        starts = [0, *accumulate(map(len, values.values()))]
        pieces = list(zip(values, pairwise(starts), strict=True))
        try:
            together = pa.concat_arrays(list(values.values()))
        except Exception as error:  # noqa: BLE001  as above
            _log.warning("silver.%s: Parquet is read instead of copies: %s", snapshot.table.name, error)
            return {}
        values.clear()  # each has its rows in the whole now: they are not held twice
        try:
            rows = layout.unpacked(together)
            expected = pl.concat([places[path] for path, _ in pieces])
            known = [name for name in expected.columns if name not in PLACE_SCHEMA]
            if not rows.select(known).equals(expected.select(known)):
                raise ValueError("it has other rows")
        except Exception as error:  # noqa: BLE001  as above
            if len(pieces) == 1:
                ((path, _),) = pieces
                self._refuse(snapshot, path, self.folder / _name(path, layout), error)
                return {}
            _log.info(
                "silver.%s: rows of %d copies are unpacked one by one: %s",
                snapshot.table.name,
                len(pieces),
                error,
            )
            alone = (
                self._unpacked(snapshot, {path: together[start:end]}, places, layout)
                for path, (start, end) in pieces
            )
            return {path: found for one in alone for path, found in one.items()}
        return {path: rows[start:end] for path, (start, end) in pieces}

    def _refuse(self, snapshot: Snapshot, path: str, copy: Path, error: Exception) -> None:
        _log.warning(
            "silver.%s: the copy of the rows of %s in %s is of no use (%s); Parquet is read instead",
            snapshot.table.name, path, self.folder, error,
        )  # fmt: skip
        if not isinstance(error, OSError | MemoryError):  # those may pass, and tell nothing of the copy
            with suppress(OSError):
                copy.unlink()

    def _make(self, snapshot: Snapshot, path: str, copy: Path, on_disk: int, layout: RowLayout) -> bool:
        """Copy a file's rows; False where there is no room for them, or they cannot be copied."""
        refused = copy.with_suffix(_REFUSED)
        if refused.exists():
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sample = min(on_disk, _SAMPLE_ROWS)
            (rows,) = _values(snapshot, path, sample, layout, sample)
            row_bytes = rows.nbytes / sample
            room = self._room_bytes(row_bytes * on_disk)
            if room < row_bytes * on_disk:
                return False
            at_once = max(int(_PIECE_BYTES / row_bytes), _SAMPLE_ROWS)
            limit = min(room, 1.5 * row_bytes * on_disk)
            if not _write(copy, _values(snapshot, path, on_disk, layout, at_once), limit):
                refused.touch()  # the first rows were shorter than the others: not again with every batch
                return False
        except Exception as error:  # noqa: BLE001  nor what keeps it from being made
            _log.warning(
                "silver.%s: the rows of %s are not copied to %s: %s",
                snapshot.table.name, path, self.folder, error,
            )  # fmt: skip
            return False
        return True

    def _room_bytes(self, wanted: float) -> float:
        """The room that there is. Where it is too little, copies of any table that nobody has read for long go first."""
        disk = shutil.disk_usage(self.folder)
        there = sorted(_entries(*self.folder.parent.iterdir()), key=lambda entry: entry[2])
        taken = sum(size for _, size, _ in there)
        room = min(self.limit_bytes - taken, disk.free - _LEFT_ON_DISK * disk.total)
        unread = [entry for entry in there if time.time() - entry[2] > _UNUSED_S]
        if room + sum(size for _, size, _ in unread) < wanted:
            return room
        for file, size, _ in unread:
            if room >= wanted:
                break
            file.unlink(missing_ok=True)
            room += size
        return room

    def _forget_others(self, kept: set[str]) -> None:
        """Remove copies of files that the table does not have any more, or not so, and what a killed process left."""
        for file, _, used in _entries(self.folder):
            # What is young may be another process's, which reads a newer version of the table.
            if file.name not in kept and time.time() - used > _STALE_S:
                with suppress(OSError):
                    file.unlink()


def _write(copy: Path, values: Iterator[pa.LargeBinaryArray], limit_bytes: float) -> bool:
    """Write a copy that is there whole or not at all; False when it becomes larger than this."""
    import pyarrow as pa

    beside = copy.with_name(f"{uuid.uuid4().hex}.tmp")
    schema = pa.schema([("row", pa.large_binary())])
    try:
        with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for rows in values:
                writer.write_batch(pa.record_batch([rows], schema=schema))
                if sink.tell() > limit_bytes:
                    return False
        sync_file(beside)  # a copy that has its name is whole, even if the power goes
        os.replace(beside, copy)
    finally:
        beside.unlink(missing_ok=True)
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


def _name(path: str, layout: RowLayout) -> str:
    """Other columns or types: another copy."""
    told = f"{path} {layout.identity}"
    return f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.arrow"


def _rows(file: Path, positions: Any) -> pa.Array:
    """The values at these positions. Raises whatever a damaged file makes of it."""
    import numpy
    import pyarrow as pa

    with open(file, "rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
    mapped.madvise(mmap.MADV_RANDOM)  # what lies around a row is not read with it
    reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped)))
    found: list[Any] = []
    first = 0
    for number in range(reader.num_record_batches):
        rows = reader.get_batch(number).column(0)
        here = positions[slice(*numpy.searchsorted(positions, [first, first + len(rows)]))] - first
        first += len(rows)
        if len(here):
            _, offsets, values = rows.buffers()
            ends = numpy.frombuffer(offsets, numpy.int64)
            starts, ends = ends[here], ends[here + 1]
            # Nobody else looks at them: a damaged one would be followed out of the file.
            if starts.min() < 0 or (ends < starts).any() or ends.max() > values.size:
                raise ValueError("its rows lie outside")
            found.append(rows.take(pa.array(here)))
    if sum(map(len, found)) != len(positions):
        raise ValueError("it ends too early")
    return pa.concat_arrays(found)
