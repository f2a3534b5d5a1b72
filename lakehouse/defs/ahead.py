"""Bronze and silver of a run's pipelines, on worker threads, ahead of the steps that tell Dagster of them.

Dagster runs the steps of a process one after the other, and each spends half its time in Python. Here the next
pipelines are read and written meanwhile, on some threads, so that the cores stay busy. A step takes the
outcome of its stage, or the error; what the stages do, and their order within a pipeline, is the same.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakehouse.memory import SharedMemory
from lakehouse.settings import Settings

#: A stage of a pipeline: layer and source.
Stage = tuple[str, str]
#: What runs a stage, with the memory that it shares with the others. The flag says whether what follows may run.
Act = Callable[[str, str, SharedMemory], tuple[Any, bool]]


@dataclass
class _Job:
    source: str
    layers: Sequence[str]


class Ahead:
    """Runs ``act`` for every layer of every source. Threads end with their work, and never hold up the process.

    Which stages are at work stands in a file of the run: where the process is killed, Dagster knows another step.
    """

    def __init__(
        self, run_id: str, sources: Iterable[str], layers: Sequence[str], settings: Settings, act: Act
    ) -> None:
        self._jobs = deque(_Job(source, layers) for source in sources)
        self._act = act
        self._note = _note(settings, run_id)
        self._at_work: set[Stage] = set()
        self._lock = threading.Lock()
        self._futures: dict[Stage, Future[Any]] = {
            (layer, job.source): Future() for job in self._jobs for layer in layers
        }
        self._untaken = set(self._futures)
        # One more than cores: while one waits for the disk, or for Python, the others keep the cores busy.
        more = 1 if settings.thread_count > 1 else 0
        workers = min(settings.thread_count + more, len(self._jobs))
        #: What they share; a stage that a step takes up itself (a retry) is one more of them.
        self.memory = SharedMemory(settings.memory_limit_bytes, workers + 1)
        for number in range(workers):
            threading.Thread(target=self._work, name=f"stages-{number}", daemon=True).start()

    def take(self, layer: str, source: str) -> Any:
        """The stage's outcome, waited for; its error is raised. None where the caller must work itself.

        That is so for stages that are not of these, for retries, and after a stage that let nothing follow.
        """
        if (layer, source) not in self._untaken:
            return None
        self._untaken.remove((layer, source))
        return self._futures[layer, source].result()

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                return
            goes_on = True
            for layer in job.layers:
                goes_on = self._run(layer, job.source) if goes_on else self._leave(layer, job.source)

    def _run(self, layer: str, source: str) -> bool:
        stage, future = (layer, source), self._futures[layer, source]
        self._say(self._at_work.add, stage)
        try:
            outcome, goes_on = self._act(layer, source, self.memory)
        except BaseException as error:  # noqa: BLE001  it belongs to the step that asks
            self._say(self._at_work.discard, stage)
            future.set_exception(error)
            return False
        self._say(self._at_work.discard, stage)
        future.set_result(outcome)
        return goes_on

    def _say(self, change: Callable[[Stage], None], stage: Stage) -> None:
        """Note what is at work now. A disk that does not take the note is no reason to stop the stage."""
        with self._lock, contextlib.suppress(OSError):
            change(stage)
            self._write()

    def _write(self) -> None:
        if not self._at_work:
            self._note.unlink(missing_ok=True)
            return
        self._note.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._note.with_suffix(".new")
        fresh.write_text(json.dumps(sorted(self._at_work)))
        fresh.replace(self._note)

    def _leave(self, layer: str, source: str) -> bool:
        self._futures[layer, source].set_result(None)
        return False


def _note(settings: Settings, run_id: str) -> Path:
    return Path(settings.state_dir, "working", f"{run_id}.json")


def left_at_work(settings: Settings, run_id: str) -> list[Stage] | None:
    """The stages in which a run's process died, and forget them; None when it had none on worker threads."""
    note = _note(settings, run_id)
    try:
        stages = [(layer, source) for layer, source in json.loads(note.read_text())]
    except FileNotFoundError:
        return None
    note.unlink(missing_ok=True)
    return stages
