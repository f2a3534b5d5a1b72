"""Which files of a table are worth writing again: small ones together, worn ones alone. A pure decision over the file list; nothing is read or written.

Files are taken together only with their neighbours in the table's order (batches in bronze, the key in silver), so
that the new file covers no wider range than its parts and readers go on skipping what they do not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from lakehouse import names

#: A file below this share of the target size is small: the rest costs a reader about as much per byte as a full one.
SMALL_SHARE = 0.25
#: A file of which this share is marked as deleted is worn: every reader goes through those rows for nothing. At a fifth
#: each deleted row makes five others be written again, whatever the table's size.
WORN_SHARE = 0.2
#: Fewer are left alone: each costs a reader about 1 ms on a disk and 10 to 50 ms on an object store.
MIN_FILES = 8
#: A file is written again only together with at least as much from others. So a row is rewritten about log2(n) times
#: in its life, not once for every few files that come after it.
_GROWTH = 2
#: Below this a file counts as if it were as large: to write it again costs hardly more than to open it.
_FLAT_BYTES = 1 << 20


@dataclass(frozen=True)
class Layout:
    """How a table's rows lie: ``range_by`` is the column by which its files are told apart (None: by age),
    ``sort_by`` the columns by which the rows of a combined file are sorted (none: they keep their order), and ``apart_by`` the
    column that decides which files never come together: those in which it is never null, and the others."""

    range_by: str | None = None
    sort_by: tuple[str, ...] = ()
    apart_by: str | None = None


def layout_of(layer: names.Layer, schema: Mapping[str, pl.DataType], key: Sequence[str] = ()) -> Layout:
    """The layout that the stages give the tables of a layer. ``key``: of the silver table's contract."""
    if layer == "silver" and key and set(key) <= set(schema):
        if names.is_history(schema):
            return Layout(key[0], (*key, names.VALID_FROM), names.VALID_TO)
        return Layout(key[0], tuple(key))
    if layer in ("bronze", "silver", "quarantine") and names.BATCH_ID in schema:
        return Layout(names.BATCH_ID)
    return Layout()


@dataclass(frozen=True)
class _File:
    path: str
    size_bytes: int
    rows: int
    low: Any
    high: Any

    @property
    def weight(self) -> int:
        return max(self.size_bytes, _FLAT_BYTES)


def groups(
    files: pl.DataFrame,
    layout: Layout,
    *,
    target_bytes: int,
    max_rows: int | None = None,
    min_files: int = MIN_FILES,
) -> list[list[str]]:
    """Paths to write again as one file each, in the order in which their rows shall lie. Worn files come last.

    Args:
        files: as ``Snapshot.files()`` gives them.
        target_bytes: no combined file gets larger.
        max_rows: nor has more rows, where they must be held in memory.
    """
    found: list[list[str]] = []
    for kind in _kinds(files, layout):
        for run in _neighbours(_ordered(kind, layout), small_below=int(target_bytes * SMALL_SHARE)):
            for part in _filled(run, target_bytes, max_rows):
                found += [[file.path for file in group] for group in _worth_it(part, min_files)]
    combined = {path for group in found for path in group}
    return found + [[path] for path in _worn(files) if path not in combined]


def _kinds(files: pl.DataFrame, layout: Layout) -> list[pl.DataFrame]:
    """The files that may come together with each other."""
    nulls = f"null_count.{layout.apart_by}"
    if layout.apart_by is None or nulls not in files.columns:
        return [files]
    never_null = pl.col(nulls).eq_missing(0)
    return [files.filter(never_null), files.filter(~never_null)]


def _worn(files: pl.DataFrame) -> list[str]:
    """Files of which too much is gone, the most worn first."""
    share = pl.col("num_deleted") / (pl.col("num_records") + pl.col("num_deleted"))
    return (
        files.select("path", share=share)
        .filter(pl.col("share") >= WORN_SHARE)
        .sort("share", descending=True)["path"]
        .to_list()
    )


def _ordered(files: pl.DataFrame, layout: Layout) -> list[_File]:
    column = layout.range_by
    known = column is not None and {f"min.{column}", f"max.{column}"} <= set(files.columns)
    bounds = [
        pl.col(f"min.{column}").alias("low") if known else pl.lit(0).alias("low"),
        pl.col(f"max.{column}").alias("high") if known else pl.lit(0).alias("high"),
    ]
    there = pl.col("num_records") / (pl.col("num_records") + pl.col("num_deleted"))
    size = (pl.col("size_bytes") * there.fill_nan(1.0).fill_null(1.0)).cast(pl.Int64)
    rows = files.sort("modification_time", "path").select("path", size, "num_records", *bounds)
    if known:
        rows = rows.sort("low", nulls_last=False, maintain_order=True)
    return [_File(path, size, count or 0, low, high) for path, size, count, low, high in rows.iter_rows()]


def _neighbours(files: Sequence[_File], small_below: int) -> list[list[_File]]:
    """Runs of small files. A large file ends a run, unless the next small one overlaps the run in any case."""
    runs: list[list[_File]] = []
    reach: Any = None
    behind_a_large_one = False
    for file in files:
        if file.size_bytes >= small_below:
            behind_a_large_one = True
            continue
        apart = reach is not None and file.low is not None and file.low > reach
        if not runs or (behind_a_large_one and apart):
            runs.append([])
            reach = None
        behind_a_large_one = False
        runs[-1].append(file)
        if file.high is not None:
            reach = file.high if reach is None else max(reach, file.high)
    return runs


def _filled(run: Sequence[_File], target_bytes: int, max_rows: int | None) -> list[list[_File]]:
    """The run cut into parts that fit into one file."""
    parts: list[list[_File]] = []
    size = rows = 0
    for file in run:
        too_long = max_rows is not None and rows + file.rows > max_rows
        if not parts or size + file.size_bytes > target_bytes or too_long:
            parts.append([])
            size = rows = 0
        parts[-1].append(file)
        size += file.size_bytes
        rows += file.rows
    return parts


def _worth_it(part: Sequence[_File], min_files: int) -> list[list[_File]]:
    """The parts of ``part`` that pay: enough files, and none that outweighs all the others together."""
    waiting, found = [list(part)], []
    while waiting:
        files = waiting.pop()
        if len(files) < max(2, min_files):
            continue
        largest = max(range(len(files)), key=lambda index: files[index].weight)
        if sum(file.weight for file in files) >= _GROWTH * files[largest].weight:
            found.append(files)
        else:
            waiting += [files[largest + 1 :], files[:largest]]
    return found
