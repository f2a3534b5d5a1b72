"""A source file on this machine: plain, gzip or zstd, opened as bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def head(self, size_bytes: int) -> bytes:
        """The first bytes, decompressed, as far as they can be read."""
        collected = b""
        for chunk in self._chunks([], min(size_bytes, CHUNK_BYTES)):
            collected += chunk
            if len(collected) >= size_bytes:
                break
        return collected[:size_bytes]

    def line_chunks(self, problems: list[str], chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The content in pieces that end at a line's end; memory is bounded by a piece and the longest line.

        A broken compressed stream ends the iteration: what could be decompressed has been yielded, and
        ``problems`` says where it broke.
        """
        rest: list[bytes] = []
        for chunk in self._chunks(problems, chunk_bytes):
            cut = chunk.rfind(b"\n") + 1
            if cut:
                yield b"".join([*rest, chunk[:cut]])
                rest = []
            rest.append(chunk[cut:])
        last = b"".join(rest)
        if last:
            yield last

    def _chunks(self, problems: list[str], chunk_bytes: int) -> Iterator[bytes]:
        kind = self.compression()
        if kind == "gzip":
            yield from self._gunzip(problems, chunk_bytes)
            return
        position = 0
        with open(self.path, "rb") if kind is None else self._unzstd() as reader:
            while True:
                try:
                    chunk = bytes(reader.read(chunk_bytes))
                except (OSError, ValueError) as error:
                    problems.append(f"{error} after {position} decompressed bytes")
                    return
                if not chunk:
                    return
                position += len(chunk)
                yield chunk

    def _unzstd(self) -> Any:
        import pyarrow as pa

        return pa.input_stream(str(self.path), compression="zstd")

    def _gunzip(self, problems: list[str], chunk_bytes: int) -> Iterator[bytes]:
        """Every byte that a gzip file (of one or more members) gives before it breaks; `gzip` itself drops the last."""
        position = 0
        member = zlib.decompressobj(wbits=31)
        with open(self.path, "rb") as reader:
            packed = reader.read(1 << 20)
            while packed:
                try:
                    chunk = member.decompress(packed, chunk_bytes)
                except zlib.error as error:
                    problems.append(f"{error} after {position} decompressed bytes")
                    return
                position += len(chunk)
                if chunk:
                    yield chunk
                packed = member.unconsumed_tail
                if member.eof:
                    packed = member.unused_data.lstrip(b"\x00") or reader.read(1 << 20)
                    member = zlib.decompressobj(wbits=31)
                    if not packed:
                        return
                packed = packed or reader.read(1 << 20)
        tail = member.flush()
        position += len(tail)
        if tail:
            yield tail
        problems.append(f"the compressed stream ends early, after {position} decompressed bytes")
