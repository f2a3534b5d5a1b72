"""The UI's partition backfill, asked for as the page asks for it: the daemon runs it, gold follows, readers see it."""

from __future__ import annotations

import json
import shutil
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lakehouse.defs.backfill import backfill_key
from lakehouse.defs.execute import run_pipelines
from lakehouse.defs.instance import open_instance
from lakehouse.demo.landing import land_before
from lakehouse.gold.query import query
from lakehouse.servers import Servers, running
from lakehouse.settings import PROJECT_DIR, Settings

pytestmark = pytest.mark.slow

DAYS = ("2013-01-01", "2013-01-02")
WAIT_S = 600.0
_LAUNCH = """
mutation Launch($days: [String!]!) {
  launchPartitionBackfill(backfillParams: {
    assetSelection: [{path: ["backfill", "flights"]}], partitionNames: $days, title: "test"
  }) { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } }
}"""
_STATUS = """
query Status($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename ... on PartitionBackfill { status numPartitions runs: unfinishedRuns { id } }
  }
}"""


def ask(servers: Servers, text: str, **variables: Any) -> Any:
    body = json.dumps({"query": text, "variables": variables}).encode()
    request = urllib.request.Request(
        f"{servers.url}/graphql", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        document = json.load(answer)
    assert "errors" not in document, document
    return next(iter(document["data"].values()))


def miles(settings: Settings) -> dict[tuple[str, str], int]:
    """Published distance of every flight, with its day."""
    rows = query(settings, "select flight_id, flight_date::text, distance_mi from fct_flights").rows()
    return {(flight, day): distance for flight, day, distance in rows}


def test_a_backfill_of_two_days_from_the_ui_reaches_the_analysts(tmp_path: Path) -> None:
    declared = tmp_path / "pipelines"
    shutil.copytree(PROJECT_DIR / "lakehouse" / "defs" / "nyc", declared / "nyc")
    settings = Settings(root=str(tmp_path / "lake"), pipelines_dir=str(declared))
    land_before(settings, "2013-01-03T12:00:00Z")
    assert run_pipelines(settings).success
    before = miles(settings)
    file = declared / "nyc" / "flights" / "defs.yaml"
    old, new = "lakehouse.silver.transforms.flights.transform", "tests.defs.corrections.farther"
    file.write_text(file.read_text().replace(old, new))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "LAKEHOUSE_SENSOR_INTERVAL_S": "5",
        "LAKEHOUSE_RUN_INTERVAL_S": "5",
        "LAKEHOUSE_PIPELINES_DIR": str(declared),
        "PYTHONPATH": str(PROJECT_DIR),
    }

    with running(settings, port, variables=variables) as servers:
        launched = ask(servers, _LAUNCH, days=list(DAYS))
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        deadline = time.monotonic() + WAIT_S
        status = ""
        while status != "COMPLETED_SUCCESS" and time.monotonic() < deadline:
            time.sleep(2)
            found = ask(servers, _STATUS, id=launched["backfillId"])
            status = found["status"]
            assert "FAILED" not in status
        assert status == "COMPLETED_SUCCESS"
        assert found["numPartitions"] == len(DAYS)
        with open_instance(settings) as instance:
            assert instance.get_materialized_partitions(backfill_key("flights")) == set(DAYS)
        # Nobody asks for gold: the sensor sees that silver has changed.
        while miles(settings) == before and time.monotonic() < deadline:
            time.sleep(2)

    assert {day for _, day in before} > set(DAYS)
    assert miles(settings) == {key: distance + (key[1] in DAYS) for key, distance in before.items()}
