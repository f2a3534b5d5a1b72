"""What was made of an append-only table's rows, kept in the process: the next look reads the new files alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from lakehouse.storage.snapshot import Snapshot

_Made = TypeVar("_Made")


class Folded(Generic[_Made]):
    """One value for each table that is asked for; it holds nothing that the table's files do not say.

    Args:
        nothing: what there is before any row.
        fold: what was made so far, and some files of a version → what is made of both. It must not change the former.
    """

    def __init__(self, nothing: _Made, fold: Callable[[_Made, Snapshot, Sequence[str]], _Made]) -> None:
        self._nothing, self._fold = nothing, fold
        self._lock = threading.Lock()
        self._known: dict[str, tuple[frozenset[str], _Made]] = {}

    def at(self, snapshot: Snapshot) -> _Made:
        """What this version of the table comes to."""
        uris = frozenset(snapshot.uris())
        with self._lock:
            read, made = self._known.get(snapshot.table.uri, (frozenset[str](), self._nothing))
            if not read <= uris:  # compacted, an older version, or another table
                read, made = frozenset(), self._nothing
            if fresh := uris - read:
                made = self._fold(made, snapshot, sorted(fresh))
                self._known[snapshot.table.uri] = (uris, made)
            return made
