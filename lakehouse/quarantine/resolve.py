"""Resolve: a person says that refused rows have been dealt with, and why."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lakehouse import hold
from lakehouse.errors import CommitConflict, WrongUsage
from lakehouse.quarantine import actions
from lakehouse.quarantine.book import Book
from lakehouse.quarantine.rows import IDENTITY
from lakehouse.quarantine.select import Selection
from lakehouse.storage import Lake

_ATTEMPTS = 20


@dataclass(frozen=True)
class Resolved:
    """``rows`` are the refused rows concerned; ``action_id`` is None when nothing was written."""

    table: str
    rows: pl.DataFrame
    action_id: int | None
    undone: bool = False


def resolve(
    lake: Lake,
    table: str,
    selection: Selection,
    *,
    note: str,
    actor: str,
    apply: bool,
    undo: bool = False,
    run_id: str = "",
) -> Resolved:
    """Mark open rows as dealt with, or with ``undo`` resolved rows as open again. Dry unless ``apply``.

    While the lake is held after a rollback, rows whose release was undone can be dealt with, too: else the next replay releases them again.

    Raises:
        TableNotFound: nothing of the table was ever refused.
        WrongUsage: no note; a row that is marked as dealt with needs a reason.
        CommitConflict: twenty attempts met other people's actions on the same table.
    """
    if not note.strip():
        raise WrongUsage("a note is needed: what was done about these rows", hint="add --note 'fixed by …'")
    for _ in range(_ATTEMPTS):
        book = Book(lake, table)
        states = ["resolved"] if undo else ["open"]
        held = hold.current(lake)
        if not undo and held is not None and held.is_done:
            states.append("releasing")  # releases that a rollback undid; nobody carries them out meanwhile
        rows = selection.apply(book.rows().filter(pl.col("_state").is_in(states))).collect()
        if not apply or rows.is_empty():
            return Resolved(table, rows, None, undo)
        try:
            number = actions.record(
                lake, book.actions, table, "reopen" if undo else "resolve", rows.select(IDENTITY),
                actor=actor, note=note.strip(), run_id=run_id,
            )  # fmt: skip
        except CommitConflict:
            continue  # somebody acted on this table meanwhile: look again at what is open
        return Resolved(table, rows, number, undo)
    raise CommitConflict(f"quarantine.{table}: {_ATTEMPTS} attempts met other actions", hint="run again")
