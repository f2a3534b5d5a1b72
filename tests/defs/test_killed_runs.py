"""Runs that are killed, and an orchestrator that forgets everything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse.defs.execute import run_pipelines
from lakehouse.defs.instance import open_instance
from lakehouse.events import recent
from lakehouse.ops import backlog, failures
from lakehouse.pipelines import load_pipelines
from lakehouse.settings import PROJECT_DIR, Settings
from lakehouse.storage import Lake
from tests.defs.arrivals import in_a_process, land, one_more_flight

pytestmark = pytest.mark.slow


def test_losing_dagsters_home_loses_nothing(first_day: Callable[..., Settings]) -> None:
    import shutil

    settings = first_day()
    shutil.rmtree(settings.dagster_home)

    assert run_pipelines(settings).nothing_new
    one_more_flight(settings)
    outcome = run_pipelines(settings)
    seen = backlog.look(Lake.from_settings(settings), settings, load_pipelines(settings))

    assert outcome.success, outcome.failures
    assert seen.is_empty


def test_a_run_that_is_killed_neither_blocks_the_next_nor_loses_rows(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    one_more_flight(settings)
    program = (
        "from lakehouse.defs.execute import run_pipelines\n"
        "from lakehouse.settings import load_settings\n"
        "run_pipelines(load_settings(), progress=lambda item: print(item.kind, item.name, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=PROJECT_DIR,
        env={"LAKEHOUSE_ROOT": settings.root, "LAKEHOUSE_PIPELINES_DIR": settings.pipelines_dir},
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == "start silver/flights":
                child.kill()
                break

    outcome = run_pipelines(settings)

    assert outcome.success, outcome.failures
    lake = Lake.from_settings(settings)
    assert (
        lake.table("silver", "flights").snapshot().num_rows()
        == lake.table("bronze", "flights").snapshot().num_rows()
    )
    assert failures.open_failures(lake) == {}
    with open_instance(settings) as instance:
        assert {run.status.value for run in instance.get_runs()} == {"SUCCESS", "FAILURE"}


def test_files_that_are_renamed_sent_again_or_rewritten_between_a_kill_and_the_next_run_land(
    first_day: Callable[..., Settings],
) -> None:
    settings = first_day()
    lake = Lake.from_settings(settings)
    folders = {name: Path(settings.landing, name) for name in ("airlines", "airports", "planes")}
    for name, folder in folders.items():
        header, first, *_ = next(folder.rglob("*.csv")).read_text().splitlines()
        key, _, rest = first.partition(",")
        land(settings, f"{name}/{name}_2013-02-01.csv", f"{header}\n{key[:-1]}_,{rest}\n")
    program = (
        "import os, sys\n"
        "import lakehouse.bronze\n"
        "from lakehouse.defs.execute import run_pipelines\n"
        "from lakehouse.settings import load_settings\n"
        "stage = sys.modules['lakehouse.bronze.ingest']\n"
        "stage.read_and_write = lambda *_: os.kill(os.getpid(), 9)\n"
        "run_pipelines(load_settings())\n"
    )
    killed = in_a_process(settings, program)
    assert killed.returncode == -9, killed.stderr
    before = {name: lake.table("bronze", name).snapshot().num_rows() for name in folders}
    airlines, airports, planes = (folder / f"{name}_2013-02-01.csv" for name, folder in folders.items())
    airlines.rename(airlines.with_name("airlines_2013-02-02.csv"))
    os.utime(airports, (1_900_000_000, 1_900_000_000))
    planes.write_text(planes.read_text() + planes.read_text().splitlines()[1].replace("_,", "-,") + "\n")

    outcome = run_pipelines(settings)

    assert outcome.success, outcome.failures
    grown = {name: lake.table("bronze", name).snapshot().num_rows() - before[name] for name in folders}
    assert grown == {"airlines": 1, "airports": 1, "planes": 2}
    assert {event.kind for event in recent(lake)} <= {"returned", "schema"}
    assert run_pipelines(settings).nothing_new
