"""Which process carries a run, so that a run whose process was killed does not block the next for ever.

Dagster's default launcher cannot tell that a worker is gone: the run stays "started", holds its pools, and
every sensor that waits for it waits for ever. Each run notes its host, process and that process's start time.
"""

from __future__ import annotations

import contextlib
import socket

import dagster as dg
import psutil
from dagster import DagsterRunStatus, RunsFilter

TAG = "lakehouse/worker"
_ALIVE = [
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def worker_tag() -> dict[str, str]:
    """The tag that names this process."""
    process = psutil.Process()
    return {TAG: f"{socket.gethostname()} {process.pid} {process.create_time():.2f}"}


def note_worker(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tag the run with this process, unless it is already."""
    tag = worker_tag()
    if run.tags.get(TAG) != tag[TAG]:
        instance.add_run_tags(run.run_id, tag)


def reap(instance: dg.DagsterInstance) -> list[str]:
    """End the runs whose process on this host is gone, and give their pools back; their ids."""
    ended = []
    for run in instance.get_runs(RunsFilter(statuses=_ALIVE)):
        if _is_dead(run.tags.get(TAG)):
            instance.report_run_failed(run, "The process that carried this run is gone (killed, or the machine stopped).")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended.append(run.run_id)
    return ended


def _is_dead(tag: str | None) -> bool:
    """True only when it is certain: the tag names this host, and no such process runs on it any more."""
    if tag is None:
        return False
    with contextlib.suppress(ValueError):
        host, pid, started = tag.rsplit(" ", 2)
        if host != socket.gethostname():
            return False
        try:
            return bool(abs(psutil.Process(int(pid)).create_time() - float(started)) > 1.0)
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False
    return False
