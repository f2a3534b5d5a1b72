"""Which column identifies a row. Combinations are never guessed.

A wrong key loses rows (those that share it are taken for one), and in a sample some combination is always
unique by chance. So only single columns are proposed, and only where name or position says identifier.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from lakehouse.scaffold.content import Content
from lakehouse.scaffold.sniff import Sniffed

_NAMED = re.compile(
    r"(?:^|[_\W])(?:id|key|uuid|guid|code|number|nr|no|sku|isbn|iata|icao)$|^(?:id|uuid|key)_|[a-z](?:Id|ID|Key|Code|Number)$|num$",
)
#: Longer texts are prose or payload, not identifiers.
_LONGEST_KEY = 64


def propose_key(sniffed: Sniffed, content: Content, candidates: Sequence[str]) -> str | None:
    """The column of ``candidates`` (filled ones, named as in the file) that identifies a row, or None."""
    frame = content.frame
    for name in sorted(
        candidates, key=lambda name: (not _NAMED.search(_spaced(name)), frame.columns.index(name))
    ):
        if not (_NAMED.search(_spaced(name)) or name == frame.columns[0]) or not _may_identify(frame[name]):
            continue
        if frame[name].n_unique() < frame.height:
            continue
        if sniffed.format == "parquet" and not content.complete and not _holds_in_file(sniffed, name):
            continue
        return name
    return None


def _spaced(name: str) -> str:
    return name if re.search(r"[a-z][A-Z]", name) else name.lower()


def _may_identify(values: pl.Series) -> bool:
    if values.dtype == pl.String:
        return bool((values.str.len_chars() <= _LONGEST_KEY).all())
    return values.dtype.is_integer()


def _holds_in_file(sniffed: Sniffed, name: str) -> bool:
    """Filled and unique in the whole Parquet file, not only in the rows looked at (seconds for 20M rows)."""
    counted = (
        pl.scan_parquet(sniffed.path, glob=False)
        .select(rows=pl.len(), distinct=pl.col(name).n_unique(), nulls=pl.col(name).null_count())
        .collect(engine="streaming")
    )
    rows, distinct, nulls = counted.row(0)
    return bool(rows == distinct and nulls == 0)
