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
#: Columns of the Parquet file beside the vectors: URI of a data file, and a position in it that is taken out.
FILE, ROW = "file", "row"

_VERSION = b"\x01"
_MAGIC = 1681511377
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_B85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_KEPT_POSITIONS = 256


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


def write_vectors(objects: Objects, positions: Mapping[str, Any]) -> dict[str, Vector]:
    """Keep the positions (a NumPy array per data file: path relative to the table) as one pair of files.

    Nobody sees them until a commit names them. They are on the disk, not only in its cache, when this returns.
    """
    import io

    from pyroaring import BitMap64

    name = f"deletion_vector_{uuid.uuid4()}"
    blob, vectors, frames = bytearray(_VERSION), {}, []
    for path, rows in positions.items():
        bitmap = BitMap64(rows.astype("uint64"))
        data = struct.pack("<I", _MAGIC) + bitmap.serialize()
        vectors[path] = Vector(name, len(blob), len(data), len(bitmap))
        blob += struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))
        frames.append(
            pl.DataFrame({ROW: rows}, schema={ROW: pl.Int64}).select(
                pl.lit(objects.url(path)).alias(FILE), ROW
            )
        )
    listed = io.BytesIO()
    pl.concat(frames).write_parquet(listed, compression="zstd", compression_level=1)
    objects.put_if_absent(f"{name}.bin", bytes(blob), durable=True)
    objects.put_if_absent(f"{name}.rows.parquet", listed.getvalue(), durable=True)
    return vectors


class _Positions:
    """Vectors that this process has read last: a file of vectors never changes."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Vector], Any] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, objects: Objects, vector: Vector) -> Any:
        key = (objects.root, vector)
        with self._lock:
            found = self._known.get(key)
        if found is None:
            found = _read(objects, vector)
            with self._lock:
                self._known[key] = found
                while len(self._known) > _KEPT_POSITIONS:
                    self._known.popitem(last=False)
        return found


_POSITIONS = _Positions()


def positions(objects: Objects, vector: Vector) -> Any:
    """The rows that are gone, ascending, as a NumPy array of unsigned 32- or 64-bit numbers.

    Raises:
        StorageError: the vector is missing or damaged: without it deleted rows would be seen again.
    """
    return _POSITIONS.of(objects, vector)


def _read(objects: Objects, vector: Vector) -> Any:
    import numpy
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
    found = numpy.array(BitMap64.deserialize(data[4:]).to_array(), dtype=numpy.uint32) if intact else None
    if found is None or len(found) != vector.cardinality:
        raise StorageError(
            f"{objects.url(vector.path)} is damaged at byte {vector.offset}",
            hint="bring the file back from a backup of the store; nothing is read without it",
        )
    return found


def keep_masks(objects: Objects, requested: Iterable[tuple[Vector | None, int]]) -> pl.Series:
    """For each file (its vector, or None, and its rows on disk) which rows are there: a list of booleans, or null."""
    import numpy

    masks: list[pl.Series | None] = []
    for vector, rows in requested:
        if vector is None:
            masks.append(None)
            continue
        kept = numpy.ones(rows, dtype=bool)
        kept[positions(objects, vector)] = False
        masks.append(pl.Series(kept))
    return pl.Series("selection_vector", masks, dtype=pl.List(pl.Boolean))
