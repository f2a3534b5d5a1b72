"""Refused input as rows of the quarantine: position, reason, and the bytes themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import polars as pl
from blake3 import blake3

from lakehouse.connectors.base import REJECT_SCHEMA, KeptFile
from lakehouse.connectors.encoding import printable
from lakehouse.connectors.local import LocalFile

#: So much of an unreadable file stands in its row; all of its bytes are kept beside the quarantine's tables.
RAW_LIMIT_BYTES = 1 << 16

#: (record number, position, rule, text as it came)
Reject = tuple[int | None, str, str, str]


def rejects_of(file: LocalFile, rows: Iterable[Reject]) -> pl.DataFrame:
    """One row per refused line or record of ``file``."""
    return pl.DataFrame(
        [(file.name, row, position, [rule], raw) for row, position, rule, raw in rows],
        schema=REJECT_SCHEMA,
        orient="row",
    )


def file_hash(path: Path) -> str:
    """BLAKE3 of a file's bytes, 32 hexadecimal digits. Raises ``OSError``."""
    with open(path, "rb") as reader:
        # Read, not mapped: a source may cut its file meanwhile. The types know hashlib's own digests alone.
        return hashlib.file_digest(reader, blake3).hexdigest(length=16)  # type: ignore[arg-type,call-arg]


def earlier_file_hash(path: Path) -> str:
    """BLAKE2b of a file's bytes, 32 hexadecimal digits: what stood for ``file_hash`` before BLAKE3. Raises ``OSError``."""
    with open(path, "rb") as reader:
        return hashlib.file_digest(reader, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def keep(file: LocalFile) -> KeptFile:
    """The order to copy the file's own bytes into quarantine, under their hash."""
    return KeptFile(file.source_path, file_hash(file.source_path))


def reject_file(file: LocalFile, reason: str, kept: KeptFile) -> pl.DataFrame:
    """One row for a file that cannot be read, with its first bytes and where all of them are kept."""
    with open(file.source_path, "rb") as reader:
        raw = reader.read(RAW_LIMIT_BYTES)
    position = f"file of {file.size_bytes} bytes, kept as {kept.lake_path}"
    return rejects_of(file, [(None, position, reason, printable(raw))])


def empty() -> pl.DataFrame:
    """No rejects."""
    return pl.DataFrame(schema=REJECT_SCHEMA)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
