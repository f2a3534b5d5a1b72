"""Does somebody look for new arrivals? Told from Dagster's own database: the daemon's heartbeats, and the runs."""

from __future__ import annotations

import time

from lakehouse.settings import Settings


def heartbeat_age_s(settings: Settings) -> float | None:
    """Seconds since the newest heartbeat of the sensor daemon; None when there never was one."""
    if not (settings.dagster_home / "dagster.yaml").is_file():
        return None
    from lakehouse.defs.instance import open_instance

    with open_instance(settings) as instance:
        beats = [
            status.last_heartbeat
            for status in instance.get_daemon_statuses().values()
            if status.last_heartbeat
        ]
    return min((time.time() - beat.timestamp for beat in beats), default=None)


def newest_run_age_s(settings: Settings) -> float | None:
    """Seconds since the newest run of the pipelines was started or ended; None when there never was one."""
    if not (settings.dagster_home / "dagster.yaml").is_file():
        return None
    from dagster import RunsFilter

    from lakehouse.defs.compose import JOB
    from lakehouse.defs.instance import open_instance

    with open_instance(settings) as instance:
        newest = instance.get_run_records(RunsFilter(job_name=JOB), limit=1)
    signs = [sign for run in newest for sign in (run.create_timestamp.timestamp(), run.end_time) if sign]
    return time.time() - max(signs) if signs else None
