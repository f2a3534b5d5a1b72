"""Quarantine beside a silver table that goes back: each row of a batch that silver has then is in one of the two, as it was.

Of batches that silver has then, what the stage and backfills have refused is made what it was at the point: rows that were refused since are in
silver again, and rows that were taken out since are not. Of later batches, which are taken again, all stays: it counts as refused by a run whose data commit
was lost. Rows that a backfill has refused of those are marked as the stage's own, or the sums of their batches would not add up.

What bronze has refused stays: bronze does not go back.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict
from lakehouse.quarantine import actions
from lakehouse.quarantine.book import Book
from lakehouse.quarantine.rows import IDENTITY, SCHEMA, is_of_backfill, without_backfill
from lakehouse.storage import Lake, Snapshot

_ATTEMPTS = 20
_PLACE = list(IDENTITY)
_OF_SILVER = pl.col("_stage") == "silver"


def go_back(
    lake: Lake, table: str, *, batch_id: int, version: int | None, since_utc: datetime, actor: str
) -> int:
    """Make quarantine agree with a silver table that goes back; the number of rows that came or went. Run again, it finds nothing to do.

    Args:
        batch_id: the last batch that silver has then.
        version: of quarantine when silver was published so; None when nothing had been refused yet.
        since_utc: when silver was written so. What a backfill refused later is not part of it, be it in that version.

    Raises:
        TableNotFound: nothing of the table was ever refused.
        CommitConflict: twenty attempts met other writers.
    """
    stored = lake.table("quarantine", table)
    for _ in range(_ATTEMPTS):
        newest = stored.snapshot()
        then = None if version is None else stored.snapshot(version)
        there, was = _refused(newest, batch_id), _refused(then, batch_id, since_utc)
        gone = there.join(was, on=_PLACE, how="anti", nulls_equal=True)
        back = was.join(there, on=_PLACE, how="anti", nulls_equal=True)
        later = pl.col(names.BATCH_ID) > batch_id
        again = newest.scan().filter(_OF_SILVER, later, is_of_backfill()).select(_PLACE).unique()
        marked = again.collect(engine="streaming")
        if gone.is_empty() and back.is_empty() and marked.is_empty():
            return 0
        try:
            _forget_actions(lake, table, gone, actor)
            _rewrite(newest, gone, marked, then, back)
            return gone.height + back.height
        except CommitConflict:
            continue
    raise CommitConflict(f"quarantine.{table}: {_ATTEMPTS} attempts met other writers", hint="run again")


def _refused(snapshot: Snapshot | None, batch_id: int, until_utc: datetime | None = None) -> pl.DataFrame:
    """Place of what silver's stage and backfills have refused of the batches up to this one, by backfills up to this instant."""
    if snapshot is None:
        return pl.DataFrame(schema={name: SCHEMA[name] for name in _PLACE})
    near = snapshot.files_in_range(names.BATCH_ID, 0, batch_id)
    rows = snapshot.scan(uris=near).filter(_OF_SILVER, pl.col(names.BATCH_ID) <= batch_id)
    if until_utc is not None:
        rows = rows.filter(is_of_backfill().not_() | (pl.col("_quarantined_at_utc") <= until_utc))
    return rows.select(_PLACE).unique().collect(engine="streaming")


def _forget_actions(lake: Lake, table: str, rows: pl.DataFrame, actor: str) -> None:
    """Take back what was done about rows that leave quarantine: should they be refused once more, they are open."""
    book = Book(lake, table)
    acted = book.latest.filter(pl.col("action") != "reopen").select(_PLACE)
    concerned = rows.join(acted, on=_PLACE, how="semi", nulls_equal=True)
    if concerned.height:
        actions.record(lake, book.actions, table, "reopen", concerned, actor=actor, note="rolled back")


def _rewrite(
    newest: Snapshot, gone: pl.DataFrame, again: pl.DataFrame, then: Snapshot | None, back: pl.DataFrame
) -> None:
    """One commit: the files that hold rows that go, or are marked anew, are written again, beside the rows that come back."""
    concerned = pl.concat([gone, again])

    def has_one(uri: str) -> bool:
        found = newest.scan(_PLACE, uris=[uri]).join(
            concerned.lazy(), on=_PLACE, how="semi", nulls_equal=True
        )
        return not found.head(1).collect().is_empty()

    files = newest.files().select("path", "uri").rows()
    touched = [] if concerned.is_empty() else [(path, uri) for path, uri in files if has_one(uri)]
    rest = newest.scan(uris=[uri for _, uri in touched])
    rest = rest.join(gone.lazy(), on=_PLACE, how="anti", nulls_equal=True)
    marked = again.lazy().with_columns(__again=pl.lit(True))
    rest = rest.join(marked, on=_PLACE, how="left", nulls_equal=True).with_columns(
        _run_id=pl.when(pl.col("__again")).then(without_backfill()).otherwise("_run_id")
    )
    staged = newest.table.stage(rest.drop("__again"))
    if then is not None and back.height:
        rows = then.scan().join(back.lazy(), on=_PLACE, how="semi", nulls_equal=True)
        staged += newest.table.stage(rows.select(list(newest.schema())))
    newest.commit(
        add=staged,
        remove=[path for path, _ in touched],
        metadata={"action": "rollback", "withdrawn": gone.height, "brought_back": back.height},
    )


def release_again(lake: Lake, table: str, *, merged: int, since_utc: datetime, actor: str) -> int:
    """Plan the release of rows that had been released when silver was there, and that somebody has reopened or resolved since; how many.

    Silver has them again. The next replay finds them there, and they count as released.

    Args:
        merged: the last release that silver has then.
        since_utc: when silver was written so.

    Raises:
        TableNotFound: nothing of the table was ever refused.
        CommitConflict: twenty attempts met other people's actions on the same table.
    """
    for _ in range(_ATTEMPTS):
        book = Book(lake, table)
        since = pl.col("recorded_at_utc") > since_utc
        changed = book.latest.filter(pl.col("action") != "release", since).select(_PLACE)
        if changed.is_empty():
            return 0
        then = actions.latest(book.actions, table, until_utc=since_utc)
        released = then.filter(pl.col("action") == "release", pl.col("action_id") <= merged)
        rows = changed.join(released, on=_PLACE, how="semi", nulls_equal=True)
        there = book.refused.scan().select(_PLACE).collect(engine="streaming") if rows.height else rows
        rows = rows.join(there, on=_PLACE, how="semi", nulls_equal=True)
        if rows.is_empty():
            return 0
        try:
            actions.record(lake, book.actions, table, "release", rows, actor=actor, note="rolled back")
            return rows.height
        except CommitConflict:
            continue
    raise CommitConflict(f"quarantine.{table}: {_ATTEMPTS} attempts met other actions", hint="run again")
