"""Dagster's own history of runs, kept short: a run of 47 pipelines leaves nine megabytes there.

Nothing rests on it: what happened to the data is told by the Delta logs and the tables below ``ops/``, which stay.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.event_log import SqlEventLogStorage
from sqlalchemy.exc import OperationalError

from lakehouse.defs.history_rows import forget_checks
from lakehouse.errors import StorageError, TransientError
from lakehouse.settings import Settings

_SUCCEEDED = [DagsterRunStatus.SUCCESS]
_ENDED_OTHERWISE = [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
#: So many at once: each takes some milliseconds in which no run can write its events, and leaves the next ones to them.
_AT_ONCE = 500
_PAUSE_S = 0.02


def forget_old_runs(instance: dg.DagsterInstance, settings: Settings, now_utc: datetime | None = None) -> int:
    """Delete what Dagster keeps of old runs, the oldest first; how many there were.

    Of the runs that succeeded the newest ``run_history_runs`` stay, and as many of those that did not; none for longer than
    ``run_history_days``. A run that has not ended is left alone. What sensors printed goes after the same time.

    Raises:
        StorageError: what some runs printed could not be removed (another user's files): those runs stay; the others went.
        TransientError: the database did not take it, a busy one for example.
    """
    oldest = (now_utc or datetime.now(UTC)) - timedelta(days=settings.run_history_days)
    old = instance.get_run_ids(RunsFilter(statuses=_SUCCEEDED + _ENDED_OTHERWISE, created_before=oldest))
    many = [
        instance.get_run_ids(RunsFilter(statuses=statuses))[settings.run_history_runs :]
        for statuses in (_SUCCEEDED, _ENDED_OTHERWISE)
    ]
    # Dagster lists the newest first.
    doomed = list(dict.fromkeys([*reversed(old), *reversed(many[0]), *reversed(many[1])]))[:_AT_ONCE]
    kept: list[OSError] = []
    for run_id in doomed:
        try:
            _forget(instance, run_id)
        except OSError as error:
            kept.append(error)
        except OperationalError as error:
            raise TransientError(
                f"Dagster's history could not be written: {error.orig}", hint="later: lakehouse maintain"
            ) from error
        time.sleep(_PAUSE_S)
    _forget_printed(settings.dagster_home / "storage", oldest)
    if kept:
        raise StorageError(
            f"{len(kept)} of {len(doomed)} old runs stay in Dagster's history: {kept[0]}",
            hint=f"remove what they printed below {settings.dagster_home / 'storage'}, or give it to the daemon's user",
        )
    return len(doomed)


def _forget(instance: dg.DagsterInstance, run_id: str) -> None:
    """The list of runs is last: what a kill leaves of the others is then found again."""
    with suppress(FileNotFoundError):  # somebody else removes it, too
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    events = instance.event_log_storage
    if isinstance(events, SqlEventLogStorage):
        with events.index_connection() as index:
            forget_checks(index, run_id)
    events.delete_events(run_id)
    instance.delete_run(run_id)


def _forget_printed(storage: Path, oldest: datetime) -> None:
    """What sensors printed: Dagster forgets their ticks, and not that."""
    for folder, _, names in os.walk(storage):
        for path in (Path(folder, name) for name in names):
            with suppress(OSError):  # gone meanwhile, or another user's
                if path.stat().st_mtime < oldest.timestamp():
                    path.unlink()
