"""Corruptions of whole files: real daily files, spoilt, and what must become of their rows."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

#: whole: every row lands as it was. refused: no row lands, and the quarantine names the file. partly: what lands is
#: right, and the quarantine says where the rest was lost. recognised: nothing is read twice, and the ledger says so.
Outcome = Literal["whole", "refused", "partly", "recognised"]


@dataclass(frozen=True)
class FileKind:
    """``spoil`` gives (suffix of the name, content); a ``recognised`` copy lies beside the sound file."""

    name: str
    spoil: Callable[[bytes], tuple[str, bytes]]
    expect: Outcome


def _reordered(content: bytes) -> bytes:
    return b"".join(b",".join(reversed(line.split(b","))) + b"\n" for line in content.splitlines())


def _renamed(content: bytes) -> bytes:
    return content.replace(b",dest,", b",destination,", 1)


def _without(content: bytes) -> bytes:
    rows = [line.split(b",") for line in content.splitlines()]
    at = rows[0].index(b"distance")
    return b"".join(b",".join(row[:at] + row[at + 1 :]) + b"\n" for row in rows)


def _with_one_more(content: bytes) -> bytes:
    lines = content.splitlines()
    return b"".join([lines[0] + b",remark\n", *(line + b",none\n" for line in lines[1:])])


def _twice_named(content: bytes) -> bytes:
    return content.replace(b",hour,minute,", b",hour,hour,", 1)


def _half(content: bytes) -> bytes:
    packed = gzip.compress(content, mtime=0)
    return packed[: len(packed) // 2]


def _plain(change: Callable[[bytes], bytes]) -> Callable[[bytes], tuple[str, bytes]]:
    return lambda content: ("", change(content))


FILE_KINDS = [
    FileKind("byte order mark", _plain(lambda c: b"\xef\xbb\xbf" + c), "whole"),
    FileKind("UTF-16 with byte order mark", _plain(lambda c: c.decode().encode("utf-16")), "whole"),
    FileKind("UTF-16 without byte order mark", _plain(lambda c: c.decode().encode("utf-16-le")), "refused"),
    FileKind("EBCDIC", _plain(lambda c: c.decode().encode("cp037")), "refused"),
    FileKind("CR LF line ends", _plain(lambda c: c.replace(b"\n", b"\r\n")), "whole"),
    FileKind("CR line ends", _plain(lambda c: c.replace(b"\n", b"\r")), "whole"),
    FileKind("columns in another order", _plain(_reordered), "whole"),
    FileKind("a new column", _plain(_with_one_more), "whole"),
    FileKind("a column renamed", _plain(_renamed), "refused"),
    FileKind("a column lost", _plain(_without), "refused"),
    FileKind("a column name twice", _plain(_twice_named), "whole"),
    FileKind("gzip under a plain name", _plain(lambda c: gzip.compress(c, mtime=0)), "whole"),
    FileKind("gzip cut in half", lambda c: (".gz", _half(c)), "partly"),
    FileKind("gzip with a wrong checksum", lambda c: (".gz", gzip.compress(c, mtime=0)[:-8] + b"\0" * 8), "partly"),
    FileKind("a picture under the name of a table", _plain(lambda c: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) + c[-99:]), "refused"),
    FileKind("no header", _plain(lambda c: c.split(b"\n", 1)[1]), "refused"),
    FileKind("a hole of NUL bytes at the end", _plain(lambda c: c + b"\0" * 4096), "partly"),
    FileKind("the same content under another name", lambda c: (".copy.csv", c), "recognised"),
]  # fmt: skip
