"""Files that arrive at the mission's rate, one by one, and how long after that analysts see each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.fleet_arrivals import MISSION_BYTES_S, Arrivals, arrive

#: Each source sends a file every so many seconds, those of the others in between.
_ROUND_S = 5.0


class Feed:
    """A thread that moves files, made before, to where the lake looks: each at its time, whatever the lake does."""

    def __init__(self, sources: Arrivals, waiting: Path, landing: Path, seconds: float) -> None:
        rounds = max(1, round(seconds / _ROUND_S))
        made = [sources.make(waiting, MISSION_BYTES_S * _ROUND_S) for _ in range(rounds)]
        step_s = _ROUND_S / len(made[0])
        files = [path for one in made for path in one]
        self._due = [
            (number * step_s, path, landing / path.relative_to(waiting)) for number, path in enumerate(files)
        ]
        self._open: dict[str, float] = {}
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.landed_bytes = sum(path.stat().st_size for path in files)
        #: Seconds from arrival until analysts see it, of each file.
        self.late_s: list[float] = []

    def start(self) -> None:
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def unpublished(self) -> int:
        return len(self._open)

    def published(self, paths: Iterable[str], at: float) -> None:
        """Analysts see these files since ``at`` (seconds of the epoch)."""
        with self._lock:
            self.late_s += [at - self._open.pop(path) for path in paths]

    def _run(self) -> None:
        began = time.monotonic()
        for due_s, waiting, target in self._due:
            time.sleep(max(0.0, due_s - (time.monotonic() - began)))
            with self._lock:
                self._open[str(target)] = time.time()
                arrive(waiting, target)
