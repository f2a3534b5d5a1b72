"""Text files as UTF-8 with line feeds, whatever they came as; bytes that mean nothing are marked, not lost."""

from __future__ import annotations

import codecs
import itertools
import re
import uuid
from dataclasses import replace
from pathlib import Path

from lakehouse.connectors.local import LocalFile

#: Stands before every byte that could not be decoded. A noncharacter of Unicode: no text has it.
MARK = "\ufdd0"
_ERRORS = "lakehouse-mark"
_UTF8 = ("utf-8", "ascii")
#: Wide encodings say themselves what they are; the longer mark first, because one begins with the other.
_WIDE_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PROBE_BYTES = 1 << 16
_BARE_RETURN = re.compile("\r(?!\n)")


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(f"{MARK}\\x{byte:02x}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error(_ERRORS, _mark)


def decode(raw: bytes, encoding: str = "utf-8") -> str:
    """Text in which every byte that ``encoding`` does not know is ``MARK`` and ``\\xNN``."""
    return raw.decode(encoding, errors=_ERRORS)


def printable(raw: bytes) -> str:
    """Text that keeps every byte: UTF-8 where it is valid, ``\\xNN`` where it is not."""
    return raw.decode("utf-8", errors="backslashreplace")


def as_utf8(file: LocalFile, encoding: str, spool: Path, *, keep_bom: bool = True) -> LocalFile:
    """The file itself when its bytes are UTF-8 lines already, else a decoded copy in ``spool``.

    A byte order mark of UTF-16 or UTF-32 counts for more than the declared encoding. Files whose lines end in
    a bare carriage return get line feeds, in every encoding.
    """
    head, _ = file.head(_PROBE_BYTES)
    found = next((name for bom, name in _WIDE_BOMS if head.startswith(bom)), None)
    encoding = found or encoding
    bare_returns = b"\r" in head and _has_bare_returns(head, encoding)
    has_bom = head.startswith(codecs.BOM_UTF8)
    if encoding in _UTF8 and not bare_returns and (keep_bom or not has_bom):
        return file
    return _decoded(file, "utf-8-sig" if encoding in _UTF8 else encoding, spool, bare_returns)


def _has_bare_returns(head: bytes, encoding: str) -> bool:
    """Told from the text: in a wide encoding the bytes of a line feed are part of other characters, too."""
    text = codecs.getincrementaldecoder(encoding)(errors=_ERRORS).decode(head)
    return "\r" in text and "\n" not in text


def _decoded(file: LocalFile, encoding: str, spool: Path, bare_returns: bool) -> LocalFile:
    spool.mkdir(parents=True, exist_ok=True)
    target = spool / f"{uuid.uuid4().hex}.txt"
    decoder = codecs.getincrementaldecoder(encoding)(errors=_ERRORS)
    problems: list[str] = []
    marked = False
    held = ""  # a carriage return at the end of a piece, until it is known what follows
    with open(target, "w", encoding="utf-8", errors="backslashreplace", newline="") as sink:
        for chunk in itertools.chain(file.chunks(problems), [None]):
            text = decoder.decode(b"", final=True) if chunk is None else decoder.decode(chunk)
            marked = marked or MARK in text
            if bare_returns:
                text, held = held + text, ""
                if chunk is not None and text.endswith("\r"):
                    text, held = text[:-1], "\r"
                text = _BARE_RETURN.sub("\n", text)
            sink.write(text)
    return replace(
        file,
        path=target,
        original=file.source_path,
        problem=problems[0] if problems else None,
        has_marks=marked,
    )
