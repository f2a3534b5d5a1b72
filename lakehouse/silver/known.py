"""What a table has of the keys that changes name: by the key index where the table is large, else by reading it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import cast

import polars as pl

from lakehouse.silver import merge
from lakehouse.silver.index import KeyIndex
from lakehouse.silver.prepare import FILE, POSITION, SEQUENCE
from lakehouse.silver.row_copies import LARGE_ROWS, RowCopies
from lakehouse.silver.spool import Spool
from lakehouse.silver.write import candidate_files, existing_rows, files_of_ended
from lakehouse.storage import Snapshot

_log = logging.getLogger(__name__)


def places(
    snapshot: Snapshot | None,
    changes: pl.DataFrame,
    key: Sequence[str],
    sequence: str | None,
    spool: Spool,
    uris: Sequence[str] | None = None,
) -> pl.DataFrame | None:
    """The changes' keys that the table has, with sequence and place, from the index; None where reading costs no more.

    Args:
        uris: the files to look in; default is all that may have one of the keys.
    """
    if snapshot is None:
        return None
    uris = candidate_files(snapshot, changes, key) if uris is None else uris
    near = snapshot.files().filter(pl.col("uri").is_in(list(uris)))
    if int((near["num_records"] + near["num_deleted"]).sum() or 0) < max(spool.index_min_rows, 1):
        return None
    index = KeyIndex(spool.index_folder / snapshot.table.name, key, sequence, spool.memory_bytes)
    try:
        return index.find(snapshot, changes.select(key).unique(), near["path"].to_list())
    except OSError as error:  # a cache: without it the table is read, which takes longer
        _log.warning("silver.%s: no key index (%s); the table is read instead", snapshot.table.name, error)
        return None


def known_rows(
    snapshot: Snapshot,
    changes: pl.DataFrame,
    key: Sequence[str],
    sequence_by: Sequence[str],
    columns: Sequence[str],
    spool: Spool,
) -> pl.DataFrame:
    """The table's rows of the changes' keys: key, sequence and place, from the index where it has them.

    A change with another sequence than the table's row wins or loses by that alone. Only where they are equal does the
    rest of the row decide: it is read for those keys, and null for the others.
    """
    found = None
    if KeyIndex.fits(snapshot.schema(), sequence_by):
        found = places(snapshot, changes, key, sequence_by[0], spool)
    if found is None:
        found = existing_rows(snapshot, changes, key, sequence_by)
    order = [*dict.fromkeys([*key, *sequence_by])]
    tied = changes.select(order).join(found, on=order, how="semi", nulls_equal=True)
    # Without ties this reads nothing, and has the columns and types that the others are filled up to.
    whole = existing_rows(snapshot, tied, key, columns)
    return pl.concat([whole, found.join(tied, on=key, how="anti")], how="diagonal")


def known_versions(
    snapshot: Snapshot, changes: pl.DataFrame, key: Sequence[str], columns: Sequence[str], spool: Spool
) -> pl.DataFrame:
    """The versions of a history that the changes can touch, whole, and where they stand.

    Of large files that the batch goes all through, a few rows each, those rows alone are read: the index says where, and copies
    have them singly. It is asked of files with open versions only, of which a key has one. Files of ended ones, which a late row concerns,
    and whatever has no copy are read from Parquet and picked as they come.
    """
    since = cast("datetime | None", changes[SEQUENCE].min())
    uris = candidate_files(snapshot, changes, key, since)
    singly, read = _from_copies(snapshot, changes, key, columns, spool, uris)
    rest = existing_rows(
        snapshot, changes, key, columns,
        among=lambda rows: merge.versions_concerned(rows, changes, key), uris=[uri for uri in uris if uri not in read],
    )  # fmt: skip
    if not singly:
        return rest
    concerned = merge.versions_concerned(pl.concat(singly).lazy(), changes, key).collect()
    return pl.concat([rest, concerned.select(rest.columns)])


def _from_copies(
    snapshot: Snapshot,
    changes: pl.DataFrame,
    key: Sequence[str],
    columns: Sequence[str],
    spool: Spool,
    uris: Sequence[str],
) -> tuple[list[pl.DataFrame], set[str]]:
    """Rows with their places, and the files that need not be read any more: these, and those in which the keys are not."""
    files = snapshot.files().select("path", "uri", pl.col("num_records") + pl.col("num_deleted"))
    ended = files_of_ended(snapshot)
    asked = files.filter(pl.col("uri").is_in(list(uris)), ~pl.col("uri").is_in(ended))
    folder = spool.copies_folder / snapshot.table.name
    copies = RowCopies(folder, spool.copies_bytes, min(LARGE_ROWS, spool.index_min_rows))
    is_few = copies.is_few(changes.height, int(asked["num_records"].sum() or 0))
    if not is_few or copies.layout(snapshot) is None:
        return [], set()
    found = places(snapshot, changes, key, None, spool, asked["uri"].to_list())
    if found is None or found.height > spool.rows_that_fit:
        return [], set()
    parts = found.sort(POSITION).partition_by(FILE, as_dict=True)
    by_file = {str(path): part for (path,), part in parts.items()}
    singly = copies.find(snapshot, by_file)
    rows = [
        part.select(columns).with_columns(by_file[path][FILE], by_file[path][POSITION])
        for path, part in singly.items()
    ]
    is_read = asked["path"].is_in(list(singly)) | ~asked["path"].is_in(list(by_file))
    return rows, set(asked.filter(is_read)["uri"])
