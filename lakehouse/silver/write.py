"""Finding the rows that a change touches, and taking them out: marked as deleted, or with the files that hold them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.silver.prepare import FILE, PLACE_SCHEMA, POSITION
from lakehouse.storage import Snapshot, StagedFile, Table

#: A file of which more than this share is gone is written again, so that readers do not go through rows for nothing.
#: Maintenance does it earlier; this is for where it does not run.
_WORN = 0.5
#: So many of them by one commit: files wear alike, and one batch must not have to write the whole table.
_WORN_AT_ONCE = 2


@dataclass(frozen=True)
class Rewrite:
    """Files to adopt, paths to remove, and rows to take out of files that stay (path → positions), for one commit."""

    add: list[StagedFile]
    remove: list[str]
    delete: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows_deleted(self) -> int:
        return sum(len(rows) for rows in self.delete.values())


def candidate_files(
    snapshot: Snapshot,
    changes: pl.DataFrame | pl.LazyFrame,
    key: Sequence[str],
    since: datetime | None = None,
) -> list[str]:
    """URIs of the files whose statistics allow a key of ``changes``.

    Args:
        since: of a history. Files in which every version ended before this instant are left out.
    """
    files = snapshot.files()
    if since is not None:
        files = files.filter(~pl.col("uri").is_in(files_of_ended(snapshot, before=since)))
    if files.is_empty():
        return []
    ends = [
        end for column in key for end in (pl.col(column).min(), pl.col(column).max().name.suffix("__max"))
    ]
    found = changes.lazy().select(ends).collect(engine="streaming")
    if found.is_empty() or found[key[0]][0] is None:
        return []
    possible = pl.lit(True)
    for column in key:
        low, high = f"min.{column}", f"max.{column}"
        if low not in files.columns or high not in files.columns:
            continue
        dtype = files.schema[low]
        bounds = found.select(pl.col(column).cast(dtype), pl.col(f"{column}__max").cast(dtype))
        smallest, largest = bounds.row(0)
        outside = (pl.col(high) < smallest) | (pl.col(low) > largest)
        possible = possible & outside.not_().fill_null(True)
    return files.filter(possible)["uri"].to_list()


def files_of_ended(snapshot: Snapshot, *, before: datetime | None = None) -> list[str]:
    """URIs of a history's files that hold nothing but versions that ended, and before this instant."""
    files, nulls, last = snapshot.files(), f"null_count.{names.VALID_TO}", f"max.{names.VALID_TO}"
    if not {nulls, last} <= set(files.columns):
        return []
    in_time = pl.lit(True) if before is None else pl.col(last) < before
    return files.filter(pl.col(nulls) == 0, in_time)["uri"].to_list()


def existing_rows(
    snapshot: Snapshot,
    changes: pl.DataFrame | pl.LazyFrame,
    key: Sequence[str],
    columns: Sequence[str],
    among: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None,
    uris: Sequence[str] | None = None,
) -> pl.DataFrame:
    """The table's rows whose key is among the changes' keys: key, ``columns``, and where the row stands (streamed).

    Args:
        among: picks the rows; default is all that have one of the keys.
        uris: the files to read; default is all whose statistics allow one of the keys.
    """
    wanted = [*dict.fromkeys([*key, *columns])]
    uris = candidate_files(snapshot, changes, key) if uris is None else list(uris)
    if not uris:
        schema = snapshot.schema()
        return pl.DataFrame(schema={**{name: schema[name] for name in wanted}, **PLACE_SCHEMA})
    rows = snapshot.scan_places(wanted, uris=uris, place=POSITION)
    found = among(rows) if among else rows.join(changes.lazy().select(key).unique(), on=key, how="semi")
    return _placed(snapshot, uris, found.collect(engine="streaming"))


def _placed(snapshot: Snapshot, uris: Sequence[str], found: pl.DataFrame) -> pl.DataFrame:
    """Positions through all files become a file and a position in it; rows that are gone are left out."""
    import numpy

    files = {row[0]: row[1:] for row in snapshot.files().select("uri", "path", pl.col("num_records") + pl.col("num_deleted")).iter_rows()}  # fmt: skip
    ends = numpy.cumsum([files[uri][1] for uri in uris])
    through = found[POSITION].to_numpy()
    numbers = numpy.searchsorted(ends, through, side="right")
    positions = (through - numpy.concatenate([[0], ends])[numbers]).astype(numpy.uint32)
    there = numpy.ones(len(positions), dtype=bool)
    for number, uri in enumerate(uris):
        gone = snapshot.deleted_rows(files[uri][0])
        if len(gone):
            here = numpy.flatnonzero(numbers == number)
            there[here] = ~gone.contains(positions[here])
    paths = pl.Series([files[uri][0] for uri in uris], dtype=pl.String)
    placed = found.with_columns(
        paths.gather(pl.Series(numbers)).alias(FILE), pl.Series(POSITION, positions, dtype=pl.UInt32)
    )
    return placed if there.all() else placed.filter(pl.Series(there))


def ended(columns: Collection[str]) -> pl.Expr | None:
    """True for a history's versions that have ended, which have files of their own; None for a table of another mode.

    What comes later seldom concerns them, and whoever wants the others need not open them.
    """
    return pl.col(names.VALID_TO).is_not_null() if names.is_history(columns) else None


def rewrite(
    table: Table,
    snapshot: Snapshot | None,
    rows: list[pl.DataFrame | pl.LazyFrame],
    replaced: pl.DataFrame,
    identity: Sequence[str],
) -> Rewrite:
    """Stage ``rows``, and take out the table's rows that agree with one in ``replaced`` (with their places, where known)
    in the columns of ``identity``.

    In a large file they are marked as deleted; what else a small or worn file holds is staged with ``rows``.
    """
    pieces = [frame.lazy() for frame in rows]
    remove: list[str] = []
    delete: dict[str, Any] = {}
    if snapshot is not None and not replaced.is_empty():
        if FILE not in replaced.columns:
            replaced = existing_rows(snapshot, replaced, identity, [])
        remove, delete = _taken_out(table, snapshot, replaced)
        if remove:
            uris = snapshot.files().filter(pl.col("path").is_in(remove))["uri"].to_list()
            pieces.append(snapshot.scan(uris=uris).join(replaced.lazy(), on=identity, how="anti"))
    if not pieces:
        return Rewrite([], remove, delete)
    columns = pieces[0].collect_schema().names()
    if remove and snapshot is not None:
        # Columns that the contract has no more: what is written again keeps them.
        others = {name: dtype for name, dtype in snapshot.schema().items() if name not in columns}
        columns += others
        empty = [pl.lit(None, dtype).alias(name) for name, dtype in others.items()]
        pieces = [*(piece.with_columns(empty) for piece in pieces[:-1]), pieces[-1]]
    frame = pl.concat([piece.select(columns) for piece in pieces])
    return Rewrite(table.stage(frame, apart=ended(columns)), remove, delete)


def _taken_out(table: Table, snapshot: Snapshot, replaced: pl.DataFrame) -> tuple[list[str], dict[str, Any]]:
    """Files to write again, and rows to mark as deleted in the others."""
    gone = replaced.group_by(FILE).agg(pl.col(POSITION), pl.len().alias("__gone"))
    files = (
        snapshot.files()
        .select("path", "num_records", "num_deleted")
        .join(gone, left_on="path", right_on=FILE)
    )
    left = pl.col("num_records") - pl.col("__gone").cast(pl.Int64)
    on_disk = pl.col("num_records") + pl.col("num_deleted")
    small = files.filter((on_disk < table.deletion_vector_min_rows) | (left == 0))["path"].to_list()
    worn = files.filter(~pl.col("path").is_in(small), left < (1 - _WORN) * on_disk).sort(left / on_disk)
    remove = [*small, *worn["path"].head(_WORN_AT_ONCE)]
    marked = files.filter(~pl.col("path").is_in(remove)).select("path", POSITION)
    return remove, {
        path: positions.to_numpy() for path, positions in ((p, pl.Series(r)) for p, r in marked.iter_rows())
    }
