"""The fleet as it is shipped: `lakehouse up`, its daemon and its sensors, while files arrive at the mission's rate.

Between a file's arrival and a run there are the sensor's interval and the start of a process; neither is in the benchmark's other
phases.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.fleet_arrivals import Arrivals
from benchmarks.fleet_pace import Feed
from benchmarks.fleet_worker import published, settings_of

_LOOK_S = 0.2
#: The first run of a daemon parses what no run has parsed before; a breakdown is no latency.
_WARM_S, _LAST_S = 5.0, 300.0


@dataclass(frozen=True)
class Shipped:
    """How late each file was published by the daemon's runs, how many those were, and what all its processes took."""

    landed_bytes: int
    wall_s: float
    late_s: list[float]
    publications: int
    cpu_s: float
    sensor_interval_s: int
    run_interval_s: int


def shipped(folder: Path, sources: Arrivals, seconds: float) -> Shipped:
    """Files that arrive for so long, and the daemon that takes them. The lake is the fleet's, as the other phases left it.

    Raises:
        RuntimeError: the daemon ended, or left files unpublished for minutes.
    """
    from lakehouse.servers import running
    from lakehouse.storage import Lake

    settings = settings_of(folder)
    lake, seen = Lake.from_settings(settings), dict[str, int]()
    published(lake, seen)  # what the other phases did is no news
    warm, feed = (
        Feed(sources, folder / f"waiting {name}", Path(settings.landing), length)
        for name, length in (("warm", _WARM_S), ("shipped", seconds))
    )
    harness.settle()
    variables = {
        "LAKEHOUSE_PIPELINES_DIR": settings.pipelines_dir, "LAKEHOUSE_DBT_PROJECT": settings.dbt_project,
        "LAKEHOUSE_RESTORE_POINTS_DAYS": str(settings.restore_points_days), "PYTHONPATH": str(harness.ROOT),
    }  # fmt: skip
    with running(settings, _free_port(), variables=variables) as servers:
        look = _Look(settings.catalog_path, lake, seen)
        warm.start()
        look.until_published(warm, servers)
        began, cpu, count = time.monotonic(), _cpu_seconds(servers), look.publications
        feed.start()
        look.until_published(feed, servers)
        return Shipped(
            feed.landed_bytes, time.monotonic() - began, feed.late_s, look.publications - count,
            _cpu_seconds(servers) - cpu, settings.sensor_interval_s, settings.run_interval_s,
        )  # fmt: skip


class _Look:
    """Tells a feed what analysts see, as soon as the catalog is another file."""

    def __init__(self, catalog: Path, lake: Any, seen: dict[str, int]) -> None:
        self._catalog, self._lake, self._seen = catalog, lake, seen
        self._shown = catalog.stat().st_mtime_ns
        self.publications = 0

    def until_published(self, feed: Feed, servers: Any) -> None:
        last = time.monotonic()
        while not feed.is_over or feed.unpublished:
            time.sleep(_LOOK_S)
            if name := servers.dead():
                raise RuntimeError(f"the {name} ended; its log is in {servers.logs}")
            shown = self._catalog.stat().st_mtime_ns
            if shown != self._shown:
                self._shown, last = shown, time.monotonic()
                self.publications += 1
                paths = published(self._lake, self._seen)
                feed.published(paths, shown / 1e9)
                for path in paths:
                    os.unlink(path)
            elif time.monotonic() - last > _LAST_S:
                raise RuntimeError(
                    f"{feed.unpublished} files are not published after {_LAST_S:.0f} s; logs: {servers.logs}"
                )


def _cpu_seconds(servers: Any) -> float:
    """Of both servers and of all that they have started so far."""
    import psutil

    total = 0.0
    for server in (servers.webserver, servers.daemon):
        process = psutil.Process(server.pid)
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
