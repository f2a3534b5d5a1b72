"""A source file on this machine: plain, gzip or zstd, opened as bytes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

CHUNK_BYTES = 32 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class LocalFile:
    """``name`` is what lineage shows (path or URL); ``path`` is where the bytes are."""

    name: str
    path: Path
    size_bytes: int

    def compression(self) -> str | None:
        """``gzip``, ``zstd`` or None, by content: names lie."""
        with open(self.path, "rb") as reader:
            magic = reader.read(4)
        if magic[:2] == _GZIP_MAGIC:
            return "gzip"
        return "zstd" if magic == _ZSTD_MAGIC else None

    def open(self) -> IO[bytes]:
        """The decompressed bytes."""
        kind = self.compression()
        if kind == "gzip":
            return cast(IO[bytes], gzip.open(self.path, "rb"))
        if kind == "zstd":
            import pyarrow as pa

            return cast(IO[bytes], pa.input_stream(str(self.path), compression="zstd"))
        return open(self.path, "rb")

    def line_chunks(self, problems: list[str], chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The content in pieces that end at a line's end; memory is bounded by a piece and the longest line.

        A broken compressed stream ends the iteration; what could be decompressed has been yielded and
        ``problems`` says where it broke.
        """
        rest = b""
        position = 0
        with self.open() as reader:
            while True:
                try:
                    chunk = cast(Any, reader).read(chunk_bytes)
                except (EOFError, OSError, ValueError) as error:
                    problems.append(f"{type(error).__name__}: {error} after {position} decompressed bytes")
                    chunk = b""
                if not chunk:
                    break
                position += len(chunk)
                rest += chunk
                cut = rest.rfind(b"\n") + 1
                if cut:
                    yield rest[:cut]
                    rest = rest[cut:]
        if rest:
            yield rest
