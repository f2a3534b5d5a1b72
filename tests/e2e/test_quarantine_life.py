"""From a refused row to the analysts' table: the contract is corrected, the row replayed, the next run publishes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from lakehouse.contracts.weather import Weather
from lakehouse.settings import PROJECT_DIR
from tests.conftest import DemoLake, run_cli

pytestmark = pytest.mark.slow


class AnyWind(Weather):
    """The contract of a person who believes the one observation of 1,048 mph."""

    wind_speed_mph: pl.Float64 = pa.Field(ge=0, le=2000, nullable=True, description="x")
    wind_gust_mph: pl.Float64 = pa.Field(ge=0, le=2000, nullable=True, description="x")


def test_a_released_row_reaches_the_published_table_with_the_next_run(
    demo_lake: DemoLake, tmp_path: Path
) -> None:
    mine = demo_lake.copy_to(tmp_path / "lake")
    declarations = tmp_path / "declarations"
    shutil.copytree(
        PROJECT_DIR / "lakehouse" / "defs", declarations, ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    (weather,) = declarations.rglob("weather/defs.yaml")
    weather.write_text(
        weather.read_text().replace("lakehouse.contracts.weather.Weather", f"{__name__}.AnyWind")
    )

    def lakehouse(*words: str) -> Any:
        done = run_cli(*words, "--json", root=mine.root, LAKEHOUSE_PIPELINES_DIR=str(declarations))
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def published() -> int:
        answer = lakehouse("query", "select count(*) as rows from dim_weather_hour")
        return int(answer[0]["rows"] if isinstance(answer, list) else answer["rows"][0]["rows"])

    before = published()
    assert lakehouse("quarantine", "replay", "weather")["accepted"] == 1
    assert published() == before
    lakehouse("run")
    assert published() == before + 1
    assert lakehouse("run")["nothing_new"]
    (state,) = [p for p in lakehouse("status")["pipelines"] if p["name"] == "weather"]
    assert (state["quarantined_rows"], state["open_rows"], state["released_rows"]) == (1, 0, 1)
    counted = run_cli("reconcile", root=mine.root, LAKEHOUSE_PIPELINES_DIR=str(declarations))
    assert counted.returncode == 0, counted.stdout
