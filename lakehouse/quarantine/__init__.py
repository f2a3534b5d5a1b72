"""Refused rows and what became of them: kept whole, selected, released by a replay, or resolved by a person."""

from lakehouse.quarantine.actions import Action, record
from lakehouse.quarantine.book import Book, Counts, open_counts, state_counts
from lakehouse.quarantine.export import export
from lakehouse.quarantine.resolve import Resolved, resolve
from lakehouse.quarantine.rows import IDENTITY, SCHEMA, append, half_done, is_of_backfill, of_backfill
from lakehouse.quarantine.select import STATES, Selection, State, there_since
from lakehouse.quarantine.undo import undo_backfills

__all__ = [
    "IDENTITY",
    "SCHEMA",
    "STATES",
    "Action",
    "Book",
    "Counts",
    "Resolved",
    "Selection",
    "State",
    "append",
    "export",
    "half_done",
    "is_of_backfill",
    "of_backfill",
    "open_counts",
    "record",
    "resolve",
    "state_counts",
    "there_since",
    "undo_backfills",
]
