"""The order of a run's steps: pipeline by pipeline, those that gold reads first, and gold before the others are done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse.defs import order
from lakehouse.defs.execute import run_pipelines
from lakehouse.gold.dbt_run import load_project, silver_read
from lakehouse.gold.restore_points import current_point
from lakehouse.settings import PROJECT_DIR, Settings
from lakehouse.storage import Lake
from tests.defs.conftest import settings_for

pytestmark = pytest.mark.slow


def test_without_a_parsed_project_the_order_is_that_of_names(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    assert silver_read(settings) == frozenset()
    assert order.sources(["weather", "flights", "aaa"], settings) == ["aaa", "flights", "weather"]
    load_project(settings)
    assert order.sources(["weather", "flights", "aaa"], settings) == ["flights", "weather", "aaa"]


def test_gold_goes_as_soon_as_what_it_reads_is_there(first_day: Callable[..., Settings]) -> None:
    settings = first_day()
    declared = (PROJECT_DIR / "lakehouse" / "defs" / "nyc" / "airlines" / "defs.yaml").read_text()
    for name in ("aaa_partners", "zzz_partners"):
        folder = Path(settings.pipelines_dir, name)
        folder.mkdir()
        changed = declared.replace("name: airlines", f"name: {name}").replace("airlines/", f"{name}/")
        (folder / "defs.yaml").write_text(changed)
        landing = Path(settings.landing, name)
        landing.mkdir()
        (landing / "airlines.csv").write_text("carrier,name\nZZ,Zeppelins\n")
    flights = next(Path(settings.landing, "flights").rglob("*.csv"))
    header, first, *_ = flights.read_text().splitlines()
    again = first.replace("2013-01-01", "2013-01-02").replace("2013,1,1,", "2013,1,2,")
    flights.with_name("flights_2013-01-02.csv").write_text(f"{header}\n{again}\n")

    outcome = run_pipelines(settings)

    assert outcome.success, outcome.failures
    assert [step.name for step in outcome.steps if "references" not in step.name] == [
        "bronze/flights", "silver/flights", "gold",
        "bronze/aaa_partners", "silver/aaa_partners", "bronze/zzz_partners", "silver/zzz_partners", "publish",
    ]  # fmt: skip
    point = current_point(Lake.from_settings(settings))
    assert point is not None
    assert {"silver/aaa_partners", "silver/zzz_partners"} <= point.tables.keys()
