"""The whole lake on an object store, by settings alone: landing, bronze, silver, gold, published, queried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lakehouse.demo.landing import land_before
from lakehouse.settings import load_settings
from lakehouse.storage import Lake
from tests.conftest import run_cli
from tests.servers import Store

pytestmark = pytest.mark.slow

QUESTIONS = (
    "select count(*), sum(distance_mi), max(dep_delay_min) from silver.flights",
    "select count(*) from fct_flights",
    "select count(*) from mart_daily_airline_punctuality",
    'select "table" from lakehouse_info.tables order by all',
)


def _answers(variables: dict[str, str], root: Path | str) -> list[object]:
    found = []
    for question in QUESTIONS:
        asked = run_cli("query", question, "--json", root=root, **variables)  # type: ignore[arg-type]
        assert asked.returncode == 0, asked.stderr + asked.stdout
        found.append(json.loads(asked.stdout))
    return found


def test_the_lake_is_the_same_on_an_object_store(store: Store, tmp_path: Path) -> None:
    here = tmp_path / "lake"
    there = {
        "LAKEHOUSE_LANDING": store.root("landing"),
        "LAKEHOUSE_STORAGE_OPTIONS": json.dumps(store.options),
        "LAKEHOUSE_CATALOG_DIR": str(tmp_path / "catalog"),
        "LAKEHOUSE_STATE_DIR": str(tmp_path / "state"),
    }
    root = store.root("whole-lake")
    far = load_settings(root=root, landing=store.root("landing"), storage_options=store.options)
    for before in ("2013-01-02T05:00:00Z", "2013-01-03T05:00:00Z"):
        land_before(load_settings(root=str(here)), before)
        land_before(far, before)
        for place, variables in ((str(here), {}), (root, there)):
            done = run_cli("run", root=place, **variables)  # type: ignore[arg-type]
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert _answers(there, root) == _answers({}, here)
    again = run_cli("run", root=root, **there)  # type: ignore[arg-type]
    assert "Nothing new" in again.stdout
    assert not (tmp_path / "state" / "spool").exists() or not list((tmp_path / "state" / "spool").iterdir())
    near = Lake(str(here))
    assert Lake.from_settings(far).tables("silver") == near.tables("silver")
    for table in near.tables("gold"):
        assert (
            Lake.from_settings(far).table("gold", table).snapshot().num_rows()
            == near.table("gold", table).snapshot().num_rows()
        )
    healthy = run_cli("doctor", root=root, **there)  # type: ignore[arg-type]
    assert "one winner in every race of writers" in healthy.stdout
