"""Which process carries a run, so that a run whose process was killed does not block the next for ever.

Dagster's default launcher cannot tell that a worker is gone: the run stays "started", holds its pools, and
every sensor that waits for it waits for ever. Each run notes its host, process and that process's start.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import psutil
from dagster import DagsterRunStatus, RunsFilter

from lakehouse.defs.ahead import left_at_work
from lakehouse.errors import PermanentError
from lakehouse.ops import failures
from lakehouse.settings import Settings
from lakehouse.storage import Lake

TAG = "lakehouse/worker"
#: The step of table maintenance. Nobody waits for it, and it comes again by itself.
MAINTENANCE_STEP = "maintain_tables"
#: Steps of backfills. Whoever asked for one waits for it, and asks again; new arrivals of the table do not wait.
BACKFILL_STEPS = "backfill_"
#: A run that may be at work.
ALIVE = [
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def worker_tag() -> dict[str, str]:
    """The tag that names this process."""
    pid = os.getpid()
    return {TAG: f"{socket.gethostname()} {pid} {_start_of(pid)}"}


def _start_of(pid: int) -> str:
    """When a process started, in a way that no clock which is set changes: the boot, and the kernel's ticks since.

    Raises:
        psutil.NoSuchProcess: there is none of this number.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Behind the name, which may hold anything, in parentheses.
        return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except OSError:
        return f"{psutil.Process(pid).create_time():.2f}"  # it is gone, or this is no Linux


def note_worker(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag the run with this process, unless it is already."""
    tag = worker_tag()
    if run.tags.get(TAG) != tag[TAG]:
        instance.add_run_tags(run.run_id, tag)


@dataclass(frozen=True)
class Reaped:
    """A run that was ended because its process is gone, and the steps that it was in."""

    run_id: str
    steps: tuple[str, ...]


def reap(instance: dg.DagsterInstance) -> list[Reaped]:
    """End the runs whose process on this host is gone, and give their pools back."""
    ended = []
    for run in instance.get_runs(RunsFilter(statuses=ALIVE)):
        if not _is_dead(run.tags.get(TAG)):
            continue
        stats = instance.get_run_step_stats(run.run_id)
        open_steps = tuple(stat.step_key for stat in stats if stat.start_time and not stat.end_time)
        instance.report_run_failed(
            run, "The process that carried this run is gone (killed, or the machine stopped)."
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        ended.append(Reaped(run.run_id, open_steps))
    return ended


def note_reaped(ended: Sequence[Reaped], lake: Lake, settings: Settings) -> None:
    """Note the step in which a process died as a failure of its source: what kills its process each time (too
    much memory, for one) is then retried apart, and the others go on.

    Where stages ran on threads ahead of the steps, the step that Dagster knows may be another: each of those counts.
    """
    for run in ended:
        steps = [
            stage_of(step)
            for step in run.steps
            if step != MAINTENANCE_STEP and not step.startswith(BACKFILL_STEPS)
        ]
        for stage, source in left_at_work(settings, run.run_id) or steps:
            error = PermanentError(
                f"the process died in this step (run {run.run_id}): killed, out of memory, or the machine stopped",
                hint=f"lakehouse run --select {source or stage}; lakehouse doctor shows memory and disk",
            )
            failures.record(lake, stage, source, error, run_id=run.run_id)


def stage_of(step_key: str) -> tuple[str, str | None]:
    """Stage and source of a step: ``("bronze", "flights")`` of ``bronze_flights``."""
    for prefix, stage in (("bronze_", "bronze"), ("silver_", "silver"), ("references_of_", "references")):
        if step_key.startswith(prefix):
            return stage, step_key.removeprefix(prefix)
    return step_key, None


def _is_dead(tag: str | None) -> bool:
    """True only when it is certain: the tag names this host, and no such process runs on it any more."""
    if tag is None:
        return False
    with contextlib.suppress(ValueError):
        host, pid, started = tag.rsplit(" ", 2)
        if host != socket.gethostname():
            return False
        try:
            if ":" in started:
                return _start_of(int(pid)) != started
            return bool(abs(psutil.Process(int(pid)).create_time() - float(started)) > 1.0)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False
    return False
