"""Refused rows and what became of them: kept whole, selected, released by a replay, or resolved by a person."""

from lakehouse.quarantine.actions import Action, record
from lakehouse.quarantine.book import Book, Counts, open_counts, state_counts
from lakehouse.quarantine.export import export
from lakehouse.quarantine.going_back import go_back, release_again
from lakehouse.quarantine.resolve import Resolved, resolve
from lakehouse.quarantine.rows import IDENTITY, SCHEMA, append, half_done, is_of_backfill, of_backfill
from lakehouse.quarantine.select import STATES, Selection, State, there_since

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
    "go_back",
    "half_done",
    "is_of_backfill",
    "of_backfill",
    "open_counts",
    "record",
    "release_again",
    "resolve",
    "state_counts",
    "there_since",
]
