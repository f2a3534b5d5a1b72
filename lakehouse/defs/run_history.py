"""Dagster's own history of runs, kept short: a run of 47 pipelines leaves nine megabytes there.

Nothing rests on it: what happened to the data is told by the Delta logs and the tables below ``ops/``, which stay.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from lakehouse.settings import Settings

_SUCCEEDED = [DagsterRunStatus.SUCCESS]
_ENDED_OTHERWISE = [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
#: So many at once: each takes some milliseconds in which no run can write its events.
_AT_ONCE = 2_000


def forget_old_runs(instance: dg.DagsterInstance, settings: Settings, now_utc: datetime | None = None) -> int:
    """Delete what Dagster keeps of old runs, the oldest first; how many there were.

    Of the runs that succeeded the newest ``run_history_runs`` stay, and as many of those that did not; none for longer than
    ``run_history_days``. A run that has not ended is left alone.
    """
    oldest = (now_utc or datetime.now(UTC)) - timedelta(days=settings.run_history_days)
    old = instance.get_run_ids(RunsFilter(statuses=_SUCCEEDED + _ENDED_OTHERWISE, created_before=oldest))
    many = [
        instance.get_run_ids(RunsFilter(statuses=statuses))[settings.run_history_runs :]
        for statuses in (_SUCCEEDED, _ENDED_OTHERWISE)
    ]
    # Dagster lists the newest first.
    doomed = list(dict.fromkeys([*reversed(old), *reversed(many[0]), *reversed(many[1])]))[:_AT_ONCE]
    for run_id in doomed:
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    return len(doomed)
