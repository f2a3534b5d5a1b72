"""A source file on this machine: plain, gzip or zstd, opened as bytes, in pieces that end at a line's end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

CHUNK_BYTES = 32 << 20
#: A longer line is refused unread by the careful readers: judging one takes several times its size in memory.
LINE_LIMIT_BYTES = 64 << 20
_KEPT_OF_LONG_LINE = 1 << 16
_GZIP_MAGIC = b"\x1f\x8b"
_STEP_BYTES = 1 << 16
#: A larger file is unpacked as it is read, each time: a small file may hold any number of bytes.
UNPACKED_LIMIT_BYTES = 1 << 30
#: What is unpacked at once stays in the processor's cache until it is written.
_UNPACKED_STEP_BYTES = 1 << 18
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class LocalFile:
    """``name`` is what lineage shows (path or URL); ``path`` is where the bytes are.

    A file that was decoded to UTF-8 has its own bytes at ``original``; ``problem`` says where the original's
    compressed stream broke, and ``has_marks`` that some bytes could not be decoded.
    """

    name: str
    path: Path
    size_bytes: int
    original: Path | None = None
    problem: str | None = None
    has_marks: bool = False

    @property
    def source_path(self) -> Path:
        """Where the bytes are as they came."""
        return self.original or self.path

    def compression(self) -> str | None:
        """``gzip``, ``zstd`` or None, by content: names lie."""
        with open(self.path, "rb") as reader:
            magic = reader.read(4)
        if magic[:2] == _GZIP_MAGIC:
            return "gzip"
        return "zstd" if magic == _ZSTD_MAGIC else None

    def head(self, size_bytes: int) -> tuple[bytes, str | None]:
        """The first bytes, decompressed, and the problem that ended them early."""
        collected, problems = b"", list[str]()
        for chunk in self.chunks(problems, min(size_bytes, CHUNK_BYTES)):
            collected += chunk
            if len(collected) >= size_bytes:
                return collected[:size_bytes], None
        return collected, problems[0] if problems else None

    def has_long_line(self, limit_bytes: int = LINE_LIMIT_BYTES) -> bool:
        """True for every file with a line of twice the limit, False where all are shorter than it. Not known if compressed.

        A line so long covers a whole stretch of the limit's length that begins at a multiple of it. So of each stretch only
        what stands before its first line end is read: next to nothing, and no line is ever held.
        """
        size_bytes = self.path.stat().st_size  # of an unpacked copy, not of what came
        if size_bytes <= limit_bytes or self.compression() is not None:
            return False
        with open(self.path, "rb") as reader:
            for start in range(0, size_bytes - limit_bytes + 1, limit_bytes):
                reader.seek(start)
                left = limit_bytes
                while left and b"\n" not in (step := reader.read(min(left, _STEP_BYTES))) and step:
                    left -= len(step)
                if not left:
                    return True
        return False

    def chunks(self, problems: list[str], chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The content in pieces. A broken compressed stream ends it: ``problems`` then says where it broke."""
        kind = self.compression()
        if self.problem:
            problems.append(self.problem)
        if kind == "gzip":
            yield from self._gunzip(problems, chunk_bytes)
            return
        if kind == "zstd":
            yield from self._unzstd(problems, chunk_bytes)
            return
        with open(self.path, "rb") as reader:
            while chunk := reader.read(chunk_bytes):
                yield chunk

    def unpacked(self, folder: Path, limit_bytes: int = UNPACKED_LIMIT_BYTES) -> LocalFile:
        """A copy without compression in ``folder``, for who reads the bytes more than once; itself where there is none, or
        where the copy would be larger than the limit or does not fit the disk. Either says where the stream broke: the
        fast readers take no notice of a checksum that is wrong or missing.
        """
        if self.compression() is None:
            return self
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{uuid.uuid4().hex}.raw"
        problems: list[str] = []
        left = limit_bytes
        try:
            with open(target, "wb") as sink:
                for chunk in self.chunks(problems, _UNPACKED_STEP_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        break
                    sink.write(chunk)
        except OSError:  # a full disk is no fault of the file: it is read as it is
            left = -1
        if left < 0:
            target.unlink(missing_ok=True)
            problems = []
            for _ in self.chunks(problems, _UNPACKED_STEP_BYTES):
                pass
            return replace(self, problem=problems[0]) if problems else self
        return replace(
            self, path=target, original=self.source_path, problem=problems[0] if problems else None
        )

    def _unzstd(self, problems: list[str], chunk_bytes: int) -> Iterator[bytes]:
        """What a zstd file gives before it breaks, read in small steps: a step that breaks is lost whole."""
        import pyarrow as pa

        position, parts, held = 0, list[bytes](), 0
        with pa.input_stream(str(self.path), compression="zstd") as reader:
            while True:
                try:
                    part = bytes(reader.read(_STEP_BYTES))
                except (OSError, ValueError) as error:
                    problems.append(f"{error} after {position} decompressed bytes")
                    part = b""
                position += len(part)
                held += len(part)
                parts.append(part)
                if held >= chunk_bytes or not part:
                    if held:
                        yield b"".join(parts)
                    parts, held = [], 0
                if not part:
                    return

    def _gunzip(self, problems: list[str], chunk_bytes: int) -> Iterator[bytes]:
        """What a gzip file (of one or more members) gives before it breaks, up to a byte or two; `gzip` drops far more."""
        from isal import igzip_lib, isal_zlib  # not at the top: few commands read a file

        position = 0
        member = isal_zlib.decompressobj(wbits=31)
        with open(self.path, "rb") as reader:
            packed = reader.read(1 << 20)
            while packed:
                try:
                    chunk = member.decompress(packed, chunk_bytes)
                except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stubs call the class an instance
                    problems.append(f"{error} after {position} decompressed bytes")
                    return
                position += len(chunk)
                if chunk:
                    yield chunk
                packed = member.unconsumed_tail
                if member.eof:
                    packed = member.unused_data.lstrip(b"\x00")
                    while not packed:  # zeros may fill up what follows, as on tapes
                        padding = reader.read(1 << 20)
                        if not padding:
                            return
                        packed = padding.lstrip(b"\x00")
                    member = isal_zlib.decompressobj(wbits=31)
                packed = packed or reader.read(1 << 20)
        tail = member.flush()
        position += len(tail)
        if tail:
            yield tail
        problems.append(f"the compressed stream ends early, after {position} decompressed bytes")


@dataclass(frozen=True)
class LongLine:
    """A line that was not read: its number, its size and its first bytes."""

    line_no: int
    size_bytes: int
    head: bytes


class LineReader:
    """The lines of one file, in pieces; memory is bounded by a piece and the line limit.

    After the iteration ``problem`` says where a compressed stream broke, ``tail`` holds the line that was cut
    there (nobody knows whether it is whole), and ``long_lines`` the lines that were passed over.
    """

    def __init__(
        self, file: LocalFile, *, chunk_bytes: int = CHUNK_BYTES, line_limit_bytes: int = LINE_LIMIT_BYTES
    ) -> None:
        self._file = file
        self._chunk_bytes = chunk_bytes
        self._limit = line_limit_bytes
        self.problem: str | None = None
        self.tail = b""
        self.next_line = 1
        self.long_lines: list[LongLine] = []
        self._rest: list[bytes] = []
        self._held = 0
        self._head: bytes | None = None

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(number of the first line, bytes that end at a line's end)."""
        problems: list[str] = []
        for chunk in self._file.chunks(problems, self._chunk_bytes):
            cut = chunk.rfind(b"\n") + 1
            if cut:
                yield from self._finish(chunk[:cut])
            if cut < len(chunk):
                self._hold(chunk[cut:] if cut else chunk)
        self.problem = problems[0] if problems else None
        if self.problem:
            self.tail = self._head if self._head is not None else b"".join(self._rest)
        elif self._held:
            yield from self._finish(b"")

    def _hold(self, part: bytes) -> None:
        """Keep the beginning of a line; of a line over the limit only its first bytes and its size."""
        self._held += len(part)
        if self._head is None:
            self._rest.append(part)
            if self._held > self._limit:
                self._head = b"".join(self._rest)[:_KEPT_OF_LONG_LINE]
                self._rest = []

    def _finish(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        first_end = chunk.find(b"\n") + 1
        if self._head is not None:
            self._hold(chunk[:first_end])
            self.long_lines.append(LongLine(self.next_line, self._held, self._head))
            self.next_line += 1
            chunk = chunk[first_end:]
        elif self._rest:
            chunk = b"".join([*self._rest, chunk])
        self._rest, self._held, self._head = [], 0, None
        if chunk:
            yield self.next_line, chunk
            self.next_line += chunk.count(b"\n") + (not chunk.endswith(b"\n"))
