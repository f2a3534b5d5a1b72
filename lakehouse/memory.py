"""Memory that several stages of one process share."""

from __future__ import annotations

import threading

#: Of a stage's equal part so much is its own, whatever the others hold; the rest goes to whoever asks for it first.
_OWN = 0.5


class SharedMemory:
    """A limit that ``stages`` stages at work at once keep to together.

    Equal parts would leave most of it unused: of many tables few are large, and those then work on disk, which took them
    twice as long (measured). So each stage has half of its part for certain, and borrows from the other halves what it needs.
    """

    def __init__(self, limit_bytes: int, stages: int = 1) -> None:
        self._own_bytes = limit_bytes if stages == 1 else int(limit_bytes * _OWN / stages)
        self._free_bytes = limit_bytes - self._own_bytes * stages
        self._lock = threading.Lock()

    def take(self, wanted_bytes: int) -> int:
        """How much the stage may use until it gives it back: never less than its own, nor more than it wants beside that."""
        with self._lock:
            borrowed = min(max(wanted_bytes - self._own_bytes, 0), self._free_bytes)
            self._free_bytes -= borrowed
        return self._own_bytes + borrowed

    def give_back(self, taken_bytes: int) -> None:
        with self._lock:
            self._free_bytes += taken_bytes - self._own_bytes
