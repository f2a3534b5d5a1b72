"""Parquet files made one without decoding a value: their bytes one behind the other, and one footer that tells of all.

To read small files and write them again as one costs a core a second for 30 to 50 MB; this, for 300 (measured).
No library within reach of Python does it: Arrow's own writes footers only for the files that it has written.

A footer is a Thrift struct in the compact protocol (https://github.com/apache/thrift, doc/specs; its fields:
https://github.com/apache/parquet-format, parquet.thrift). Here it is read and written as it is, field by field, so
nothing that a writer tells there is lost; only positions are moved. What is not understood in full is not joined.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

_MAGIC = b"PAR1"
_TAIL_BYTES = 8
# Types of the compact protocol.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12
# Fields of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData.
_SCHEMA, _NUM_ROWS, _ROW_GROUPS, _KEY_VALUES, _COLUMN_ORDERS, _ENCRYPTION = 2, 3, 4, 5, 7, 8
_GROUP_COLUMNS, _GROUP_OFFSET, _GROUP_ORDINAL = 1, 5, 7
_CHUNK_PATH, _CHUNK_OFFSET, _CHUNK_DETAILS, _CHUNK_CRYPTO = 1, 2, 3, 8
#: Where the page indexes are. They hold positions themselves, so they are left behind; no reader needs them.
_PAGE_INDEXES = (4, 5, 6, 7)
#: Of pages, the index page, the dictionary page, and the Bloom filter.
_DETAILS_OFFSETS = (9, 10, 11, 14)
_ORDINAL_MAX = 2**15 - 1

#: A struct by field id: (type, value). A list is (type of its elements, elements).
_Struct = dict[int, tuple[int, Any]]


class _NotUnderstood(Exception):
    """A footer has something that is not handled here."""


def joined(files: Sequence[bytes]) -> bytes | None:
    """The content of one Parquet file with the row groups of all, in this order; None when they do not fit together.

    They do when their schemas are the same to the last field, nothing is encrypted, and no part lies in another file.
    """
    try:
        return _joined(files)
    except (_NotUnderstood, IndexError, KeyError, struct.error):
        return None


def _joined(files: Sequence[bytes]) -> bytes | None:
    bodies: list[bytes | memoryview] = [_MAGIC]
    whole: _Struct | None = None
    groups: list[_Struct] = []
    at = len(_MAGIC)
    for content in files:
        end, footer = _footer(content)
        if whole is None:
            whole = footer
        elif any(whole.get(name) != footer.get(name) for name in (_SCHEMA, _KEY_VALUES, _COLUMN_ORDERS)):
            return None
        else:
            whole[_NUM_ROWS] = (_I64, whole[_NUM_ROWS][1] + footer[_NUM_ROWS][1])
        groups += [_moved(group, at - len(_MAGIC)) for group in footer[_ROW_GROUPS][1][1]]
        bodies.append(memoryview(content)[len(_MAGIC) : end])
        at += end - len(_MAGIC)
    if whole is None or len(groups) > _ORDINAL_MAX:
        return None
    for number, group in enumerate(groups):
        if _GROUP_ORDINAL in group:
            group[_GROUP_ORDINAL] = (_I16, number)
    whole[_ROW_GROUPS] = (_LIST, (_STRUCT, groups))
    text = bytearray()
    _write_struct(text, whole)
    return b"".join([*bodies, text, struct.pack("<I", len(text)), _MAGIC])


def _footer(content: bytes) -> tuple[int, _Struct]:
    """Where the footer begins, and what it says."""
    if content[:4] != _MAGIC or content[-4:] != _MAGIC:
        raise _NotUnderstood
    begin = len(content) - _TAIL_BYTES - struct.unpack("<I", content[-_TAIL_BYTES:-4])[0]
    if begin < len(_MAGIC):
        raise _NotUnderstood
    footer = _Reader(content, begin).struct()
    if _ENCRYPTION in footer:
        raise _NotUnderstood
    return begin, footer


def _moved(group: _Struct, by: int) -> _Struct:
    """The row group ``by`` bytes further on."""
    _move(group, (_GROUP_OFFSET,), by)
    for chunk in group[_GROUP_COLUMNS][1][1]:
        if _CHUNK_PATH in chunk or _CHUNK_CRYPTO in chunk:
            raise _NotUnderstood
        for name in _PAGE_INDEXES:
            chunk.pop(name, None)
        _move(chunk, (_CHUNK_OFFSET,), by)
        _move(chunk[_CHUNK_DETAILS][1], _DETAILS_OFFSETS, by)
    return group


def _move(fields: _Struct, names: Sequence[int], by: int) -> None:
    for name in names:
        if name in fields and fields[name][1]:  # nothing lies at 0: it says that there is none
            kind, offset = fields[name]
            fields[name] = (kind, offset + by)


class _Reader:
    """Reads the compact protocol."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content, self.at = content, at

    def struct(self) -> _Struct:
        fields: _Struct = {}
        name = 0
        while head := self._byte():
            step, kind = head >> 4, head & 0x0F
            name = name + step if step else self._signed()
            fields[name] = (kind, self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind == _STRUCT:
            return self.struct()
        if kind == _LIST:
            return self._list()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BYTE:
            return self._byte()
        raise _NotUnderstood

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        size, kind = head >> 4, head & 0x0F
        if size == 15:
            size = self._unsigned()
        if kind in (_TRUE, _FALSE):  # a byte each in a list
            return kind, [self._byte() for _ in range(size)]
        return kind, [self._value(kind) for _ in range(size)]

    def _byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def _bytes(self, size: int) -> bytes:
        if self.at + size > len(self.content):
            raise _NotUnderstood
        self.at += size
        return self.content[self.at - size : self.at]

    def _unsigned(self) -> int:
        number = shift = 0
        while True:
            part = self._byte()
            number |= (part & 0x7F) << shift
            if part < 0x80:
                return number
            shift += 7

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)


def _write_struct(out: bytearray, fields: _Struct) -> None:
    before = 0
    for name, (kind, value) in sorted(fields.items()):
        step = name - before
        before = name
        if 0 < step <= 15:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            _write_signed(out, name)
        _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in (_TRUE, _FALSE):
        return  # the type says it
    if kind in (_I16, _I32, _I64):
        _write_signed(out, value)
    elif kind == _BINARY:
        _write_unsigned(out, len(value))
        out += value
    elif kind == _STRUCT:
        _write_struct(out, value)
    elif kind == _LIST:
        _write_list(out, *value)
    elif kind == _DOUBLE:
        out += value
    else:
        out.append(value)


def _write_list(out: bytearray, kind: int, values: Sequence[Any]) -> None:
    if len(values) < 15:
        out.append(len(values) << 4 | kind)
    else:
        out.append(0xF0 | kind)
        _write_unsigned(out, len(values))
    if kind in (_TRUE, _FALSE):
        out += bytes(values)
        return
    for value in values:
        _write_value(out, kind, value)


def _write_unsigned(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _write_signed(out: bytearray, number: int) -> None:
    _write_unsigned(out, number << 1 if number >= 0 else (-number << 1) - 1)
