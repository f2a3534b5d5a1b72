"""Rows that backfills refused, when silver goes back to before those backfills.

A backfill refuses rows of batches that silver has, after the fact. Where silver has such a batch again as it was, the row is back in
silver; where it has to take the batch once more, the row counts as refused by a run whose data commit was lost: it stays refused, and is
accounted for among its batch.
"""

from __future__ import annotations

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict
from lakehouse.quarantine.book import Book
from lakehouse.quarantine.rows import IDENTITY, is_of_backfill, without_backfill
from lakehouse.storage import Lake, Snapshot

_ATTEMPTS = 20


def undo_backfills(lake: Lake, table: str, *, batch_id: int, version: int | None) -> int:
    """Make quarantine agree with a silver table that goes back; the number of rows that left it. Run again, it finds nothing to do.

    Rows that a replay has planned to release, or released since, stay: their release is carried out again.

    Args:
        batch_id: the last batch that silver has then.
        version: of quarantine when silver was there; None when nothing had been refused yet.

    Raises:
        CommitConflict: twenty attempts met other writers.
    """
    for _ in range(_ATTEMPTS):
        book = Book(lake, table)
        newest, place = book.refused, list(IDENTITY)
        then = None if version is None else newest.table.snapshot(version)
        since = newest.scan().filter(is_of_backfill(), pl.col("_stage") == "silver").select(place)
        if then is not None:
            known = then.scan().filter(is_of_backfill()).select(place)
            since = since.join(known, on=place, how="anti", nulls_equal=True)
        rows = since.collect(engine="streaming")
        if rows.is_empty():
            return 0
        acted = book.latest.filter(pl.col("_state").is_in(["released", "releasing"])).select(place)
        again = rows.filter(pl.col(names.BATCH_ID) > batch_id)
        gone = rows.filter(pl.col(names.BATCH_ID) <= batch_id).join(
            acted, on=place, how="anti", nulls_equal=True
        )
        try:
            _rewrite(newest, gone, again)
            return gone.height
        except CommitConflict:
            continue
    raise CommitConflict(f"quarantine.{table}: {_ATTEMPTS} attempts met other writers", hint="run again")


def _rewrite(newest: Snapshot, gone: pl.DataFrame, again: pl.DataFrame) -> None:
    """One commit: the files that hold any of these rows are written without the one, and with the other as refused by the stage."""
    place = list(IDENTITY)
    concerned = pl.concat([gone, again])
    files = newest.files().select("path", "uri").rows()

    def has_one(uri: str) -> bool:
        found = newest.scan(place, uris=[uri]).join(concerned.lazy(), on=place, how="semi", nulls_equal=True)
        return not found.head(1).collect().is_empty()

    touched = [(path, uri) for path, uri in files if has_one(uri)]
    if not touched:
        return
    rest = newest.scan(uris=[uri for _, uri in touched])
    rest = rest.join(gone.lazy(), on=place, how="anti", nulls_equal=True)
    marked = again.lazy().with_columns(__again=pl.lit(True))
    rest = rest.join(marked, on=place, how="left", nulls_equal=True).with_columns(
        _run_id=pl.when(pl.col("__again")).then(without_backfill()).otherwise("_run_id")
    )
    staged = newest.table.stage(rest.drop("__again"))
    newest.commit(
        add=staged,
        remove=[path for path, _ in touched],
        metadata={"action": "rollback", "withdrawn": gone.height},
    )
