"""Dagster's home: a folder with ``dagster.yaml`` and its databases. It may be deleted at any moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

_MARK = "# Written by lakehouse at every start. Remove this line to keep your own version of the file.\n"

_TEMPLATE = """\
# The lake's state is not here: losing this folder loses run history and nothing else.
# Storage is SQLite in this folder; docs/operations.md shows the lines for Postgres.

event_log_storage: {module: lakehouse.defs.history, class: EventLog, config: {base_dir: "HOME/history/runs"}}
run_storage: {module: lakehouse.defs.history, class: Runs, config: {base_dir: "HOME/history"}}
schedule_storage: {module: lakehouse.defs.history, class: Schedules, config: {base_dir: "HOME/schedules"}}
# A source that takes its time to be listed must not keep the SLA from being watched.
sensors: {use_threads: true, num_workers: 2}

telemetry:
  enabled: false
nux:                     # no welcome dialogs over the pages
  enabled: false
freshness:               # evaluate the FreshnessPolicy of every asset, for the UI
  enabled: true

concurrency:
  runs:
    max_concurrent_runs: 3
  pools:                 # one pool a table: two runs never write one table at once
    default_limit: 1
    granularity: op

run_queue:               # a run that was asked for waits a second for its turn, not Dagster's five
  dequeue_interval_seconds: 1

run_monitoring:          # a run whose process is gone ends as failed, and its pools are given back
  enabled: true
  start_timeout_seconds: 180
  free_slots_after_run_end_seconds: 30
  poll_interval_seconds: 15

retention:
  sensor:                # ticks without news are not worth keeping
    purge_after_days: {skipped: 1, failure: 14, success: 30, started: 1}
"""


def ensure_home(settings: Settings) -> Path:
    """Create the home, or bring its ``dagster.yaml`` up to date. A file without our first line is left alone."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    path = home / "dagster.yaml"
    wanted = _MARK + _TEMPLATE.replace("HOME", str(home))
    current = path.read_text() if path.exists() else None
    if current is None or (current.startswith(_MARK) and current != wanted):
        temporary = path.with_suffix(".yaml.new")
        temporary.write_text(wanted)
        temporary.replace(path)
    return home


def open_instance(settings: Settings) -> DagsterInstance:
    """The instance of this lake, so that runs from the command line appear in the UI."""
    from dagster import DagsterInstance

    # Dagster's own switch, which it reads at every event: what it sends as a batch is stored as one.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "500")
    return DagsterInstance.from_config(str(ensure_home(settings)))
