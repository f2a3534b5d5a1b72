"""Delta's deletion vectors: rows taken out of a data file without writing the file again.

The library reads them and cannot write them (deltalake 1.6.6), so a commit with vectors is written here
(``storage.log``). Two files go with it, under one name: the vectors as the protocol wants them, for every Delta reader,
and the same positions as a Parquet file, for plain SQL that knows nothing of Delta (the analysts' catalog).
Format: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vectors
"""

from __future__ import annotations

import base64
import struct
import threading
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from lakehouse.errors import StorageError
from lakehouse.storage.objects import Objects

FEATURE = "deletionVectors"
#: Columns of the Parquet file beside the vectors: name of a data file, and a position in it that is taken out. Names, not
#: addresses: a lake may be copied or moved.
FILE, ROW = "file", "row"

_VERSION = b"\x01"
_MAGIC = 1681511377
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
#: What kept vectors may take together, and a vector's own part and that of each 65,536 rows it goes through (measured).
_KEPT_BYTES = 64 << 20
_VECTOR_BYTES, _CONTAINER_BYTES, _BITS_BYTES = 500, 160, 8_192
#: Of so many times as many rows, those that are asked for are sought and not all listed.
_FEW = 32


@dataclass(frozen=True)
class Vector:
    """Which rows of one data file are gone: where the log says that it is kept.

    name          of the two files in the table's folder, without their endings
    offset        where the vector begins in the first
    size_bytes    of the vector
    cardinality   rows that are gone
    """

    name: str
    offset: int
    size_bytes: int
    cardinality: int

    @property
    def path(self) -> str:
        return f"{self.name}.bin"

    @property
    def rows_path(self) -> str:
        return f"{self.name}.rows.parquet"

    @property
    def paths(self) -> tuple[str, str]:
        """Both files, relative to the table."""
        return self.path, self.rows_path

    def descriptor(self) -> dict[str, Any]:
        """As an action of the log has it."""
        number = uuid.UUID(self.name.removeprefix("deletion_vector_")).bytes
        coded = base64.b85encode(number).decode().translate(str.maketrans(_B85, _Z85))
        return {
            "storageType": "u", "pathOrInlineDv": coded, "offset": self.offset,
            "sizeInBytes": self.size_bytes, "cardinality": self.cardinality,
        }  # fmt: skip


def vector_of(descriptor: Mapping[str, Any]) -> Vector:
    """The vector that an action of the log describes.

    Raises:
        StorageError: another program wrote it, in a way that this one does not.
    """
    coded = str(descriptor["pathOrInlineDv"])
    if descriptor["storageType"] != "u" or len(coded) != 20:
        raise StorageError(
            f"a deletion vector of storage type {descriptor['storageType']} was written by another program",
            hint="rewrite the table there without deletion vectors; silver tables are this lakehouse's own to write",
        )
    number = uuid.UUID(bytes=base64.b85decode(coded.translate(str.maketrans(_Z85, _B85))))
    return Vector(
        f"deletion_vector_{number}", int(descriptor.get("offset") or 0),
        int(descriptor["sizeInBytes"]), int(descriptor["cardinality"]),
    )  # fmt: skip


class Gone:
    """Rows of one data file that are gone. Immutable."""

    def __init__(self, bitmap: Any) -> None:
        self.bitmap = bitmap

    @classmethod
    def none(cls) -> Gone:
        from pyroaring import BitMap64

        return cls(BitMap64())

    def __len__(self) -> int:
        return len(self.bitmap)

    def plus(self, positions: Any) -> Gone:
        """With these (a NumPy array of integers) besides."""
        from pyroaring import BitMap64

        return Gone(self.bitmap | BitMap64(positions.astype("uint64")))

    @property
    def positions(self) -> Any:
        """Ascending, as a NumPy array of unsigned 32-bit numbers. Not kept: they take more room than the bitmap, and a few nanoseconds a row."""
        import numpy

        return numpy.array(self.bitmap.to_array(), dtype=numpy.uint32)

    @property
    def memory_bytes(self) -> int:
        """About what it takes: two bytes a row, or less, and more for rows that lie far from each other."""
        last = self.bitmap.max() if self.bitmap else 0
        containers = min(len(self.bitmap), last // 65_536 + 1)
        rows = min(2 * len(self.bitmap), _BITS_BYTES * containers)
        return rows + _CONTAINER_BYTES * containers + _VECTOR_BYTES

    def bits(self, rows: int) -> bytes:
        """A bit for each of a file's rows, 1 where it is gone, the first row's in front; zeros fill the last byte."""
        import numpy

        mask = numpy.zeros(rows, dtype=bool)
        mask[self.positions] = True
        return numpy.packbits(mask).tobytes()

    def beyond(self, other: Gone) -> Any:
        """Positions gone here and not there, ascending, as a NumPy array."""
        import numpy

        return numpy.array((self.bitmap - other.bitmap).to_array(), dtype=numpy.int64)

    def contains(self, positions: Any) -> Any:
        """For each of the positions (a NumPy array) whether it is gone."""
        import numpy

        if len(positions) < len(self.bitmap) // _FEW:
            from pyroaring import BitMap64

            found = (self.bitmap & BitMap64(positions.astype("uint64"))).to_array()
            return numpy.isin(positions, numpy.array(found, dtype=positions.dtype))
        gone = self.positions
        if not len(gone):
            return numpy.zeros(len(positions), dtype=bool)
        at = numpy.minimum(numpy.searchsorted(gone, positions), len(gone) - 1)
        return gone[at] == positions


def write_vectors(objects: Objects, gone: Mapping[str, Gone]) -> dict[str, Vector]:
    """Keep which rows are gone of some data files (by path) as one pair of files.

    Nobody sees them until a commit names them. They are on the disk, not only in its cache, when this returns.
    """
    name = f"deletion_vector_{uuid.uuid4()}"
    blob, vectors = bytearray(_VERSION), {}
    for path, rows in gone.items():
        data = struct.pack("<I", _MAGIC) + rows.bitmap.serialize()
        vectors[path] = Vector(name, len(blob), len(data), len(rows))
        blob += struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))
    objects.put_if_absent(f"{name}.bin", bytes(blob), durable=True)
    objects.put_if_absent(f"{name}.rows.parquet", _listed(gone), durable=True)
    for path, vector in vectors.items():
        _RECENT.put(objects, vector, gone[path])
    return vectors


def _listed(gone: Mapping[str, Gone]) -> bytes:
    """The rows as a Parquet file of ``file`` and ``row``. Differences of neighbours take a byte or two, and no time."""
    import numpy
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = numpy.repeat(numpy.arange(len(gone), dtype=numpy.int32), [len(rows) for rows in gone.values()])
    files = pa.DictionaryArray.from_arrays(pa.array(numbers), list(gone))
    positions = numpy.concatenate([rows.positions for rows in gone.values()]).astype(numpy.int64)
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({FILE: files, ROW: positions}), sink, use_dictionary=[FILE], compression="zstd",
        column_encoding={ROW: "DELTA_BINARY_PACKED"}, store_schema=False,
    )  # fmt: skip
    return bytes(sink.getvalue())


class _Recent:
    """Vectors that this process has seen last: a file of vectors never changes."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Vector], Gone] = OrderedDict()
        self._lock = threading.Lock()
        self._bytes = 0

    def get(self, objects: Objects, vector: Vector) -> Gone | None:
        with self._lock:
            found = self._known.get((objects.root, vector))
            if found is not None:
                self._known.move_to_end((objects.root, vector))
            return found

    def put(self, objects: Objects, vector: Vector, gone: Gone) -> None:
        with self._lock:
            if (objects.root, vector) not in self._known:
                self._bytes += gone.memory_bytes
            self._known[objects.root, vector] = gone
            while self._bytes > _KEPT_BYTES and len(self._known) > 1:
                self._bytes -= self._known.popitem(last=False)[1].memory_bytes


_RECENT = _Recent()


def rows_gone(objects: Objects, vector: Vector) -> Gone:
    """The rows that are gone.

    Raises:
        StorageError: the vector is missing or damaged: without it deleted rows would be seen again.
    """
    found = _RECENT.get(objects, vector)
    if found is None:
        found = _read(objects, vector)
        _RECENT.put(objects, vector, found)
    return found


def _read(objects: Objects, vector: Vector) -> Gone:
    from pyroaring import BitMap64

    raw = objects.read_range(vector.path, vector.offset, vector.size_bytes + 8)
    if raw is None:
        raise StorageError(
            f"{objects.url(vector.path)} is missing: it says which rows of a data file are gone",
            hint="bring the file back from a backup of the store; nothing is read without it",
        )
    data = raw[4:-4]
    intact = (
        struct.unpack(">I", raw[:4])[0] == vector.size_bytes == len(data)
        and struct.unpack(">I", raw[-4:])[0] == zlib.crc32(data)
        and struct.unpack("<I", data[:4])[0] == _MAGIC
    )
    found = Gone(BitMap64.deserialize(data[4:])) if intact else None
    if found is None or len(found) != vector.cardinality:
        raise StorageError(
            f"{objects.url(vector.path)} is damaged at byte {vector.offset}",
            hint="bring the file back from a backup of the store; nothing is read without it",
        )
    return found


def keep_masks(objects: Objects, requested: Iterable[tuple[Vector | None, int]]) -> pl.Series:
    """For each file (its vector, or None, and its rows on disk) which rows are there: a list of booleans, or null."""
    import numpy

    nothing = pl.Series([None], dtype=pl.List(pl.Boolean))
    masks: list[pl.Series] = []
    for vector, rows in requested:
        if vector is None:
            masks.append(nothing)
            continue
        kept = numpy.ones(rows, dtype=bool)
        kept[rows_gone(objects, vector).positions] = False
        masks.append(pl.Series(kept).implode())
    # Not a list of masks: to make a column of that took fifteen times as long.
    return pl.concat(masks).alias("selection_vector")
