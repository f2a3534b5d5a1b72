"""Whether somebody looks for new arrivals, as the doctor tells it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dagster as dg
import pytest

from lakehouse.defs import heartbeat
from lakehouse.defs.compose import JOB
from lakehouse.defs.instance import open_instance
from lakehouse.servers import daemon_state
from lakehouse.settings import Settings

LATE_S = 2 * 3600


def lake_with(tmp_path: Path, arrived_s_ago: float, **changes: float) -> Settings:
    """A lake without a daemon, on which one file arrived and no run has taken it."""
    settings = Settings(root=str(tmp_path / "lake"), **changes)  # type: ignore[arg-type]
    file = Path(settings.landing, "airlines", "airlines_2013-01-01.csv")
    file.parent.mkdir(parents=True)
    file.write_text("carrier,name\nUA,United\n")
    os.utime(file, (time.time() - arrived_s_ago,) * 2)
    return settings


def run_that_ended(settings: Settings) -> None:
    with open_instance(settings) as instance:
        run = instance.add_run(dg.DagsterRun(job_name=JOB))
        instance.report_run_failed(run)


def test_without_a_daemon_what_has_just_arrived_is_no_alarm(tmp_path: Path) -> None:
    settings = lake_with(tmp_path, 60)

    found = daemon_state(settings)

    assert found.state == "ok"
    assert "airlines waits since" in found.detail
    assert not settings.dagster_home.exists(), "the doctor makes nothing"


def test_late_arrivals_that_nobody_looks_for_are_said_with_what_to_do(tmp_path: Path) -> None:
    found = daemon_state(lake_with(tmp_path, LATE_S))

    assert found.state == "warn"
    assert "nobody looks for new arrivals: airlines waits since" in found.detail
    assert "lakehouse up" in found.next_step


def test_a_source_that_cannot_be_listed_is_not_said_to_have_nothing_waiting(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path / "lake"))
    Path(settings.landing).mkdir(parents=True)
    Path(settings.landing, "airlines").symlink_to("airlines")  # a circle, which nothing can look into

    found = daemon_state(settings)

    assert (found.state, found.next_step) == ("warn", "lakehouse status says why")
    assert "airlines cannot be listed" in found.detail


def test_where_runs_come_from_a_scheduler_a_late_source_is_not_the_daemons_fault(tmp_path: Path) -> None:
    settings = lake_with(tmp_path, LATE_S)
    run_that_ended(settings)

    found = daemon_state(settings)

    assert found.state == "ok"
    assert "`lakehouse status` says why" in found.detail
    impatient = settings.model_copy(update={"sla_warn_minutes": 1e-5, "sla_fail_minutes": 2e-5})
    assert daemon_state(impatient).state == "warn", "the scheduler has stopped"


def test_a_daemon_that_something_else_started_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = lake_with(tmp_path, LATE_S)
    monkeypatch.setattr(heartbeat, "heartbeat_age_s", lambda _: 12.0)

    assert daemon_state(settings).detail == "alive, last heartbeat 12 s ago"
