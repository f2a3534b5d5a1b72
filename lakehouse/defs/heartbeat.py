"""Is the daemon alive? Told from the heartbeats that it writes into Dagster's own database."""

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
