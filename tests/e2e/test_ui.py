"""The UI in a real browser: the graph shows the layers, the checks and freshness; materializing works."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.defs.execute import run_pipelines
from lakehouse.defs.instance import open_instance
from lakehouse.demo.landing import land_before
from lakehouse.servers import Servers, running
from lakehouse.settings import Settings
from tests.e2e import browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        browser.executable() is None, reason="no chromium on this machine (apt-get install chromium)"
    ),
]


#: Generous: the machine may be busy, and a page that never comes is what the test is about.
WAIT_MS = 180_000
GROUPS = {
    "nyc_bronze": ("airlines", "airports", "flights", "planes", "weather"),
    "nyc_silver": ("airlines", "airports", "flights", "planes", "weather"),
    "gold": ("dim_airline", "dim_plane", "fct_flights", "mart_route_performance"),
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(root=str(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def servers(settings: Settings) -> Iterator[Servers]:
    """Web server and daemon on a lake with one day of data."""
    land_before(settings, "2013-01-02T00:00:00Z")
    assert run_pipelines(settings).success
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The sensors look once an hour here: what runs in this test is what the test clicked.
    with running(settings, port, variables={"LAKEHOUSE_SENSOR_INTERVAL_S": "3600"}) as found:
        yield found


def test_the_graph_shows_the_layers_and_every_table(servers: Servers, tmp_path: Path) -> None:
    with browser.page() as page:
        page.goto(f"{servers.url}/asset-groups/")
        for group in ("nyc_bronze", "nyc_silver", "gold_staging", "gold", "catalog"):
            page.wait_for_selector(f"text=/^{group}$/", state="attached", timeout=WAIT_MS)
        page.screenshot(path=tmp_path / "groups.png")

        for group, tables in GROUPS.items():
            page.goto(f"{servers.url}/locations/lakehouse/asset-groups/{group}/list")
            for table in tables:
                page.wait_for_selector(f"text={table}", state="attached", timeout=WAIT_MS)


def test_an_asset_shows_owner_columns_freshness_and_its_checks(servers: Servers) -> None:
    with browser.page() as page:
        page.goto(f"{servers.url}/assets/silver/flights")
        for text in (
            "aviation-data",
            "Freshness policy",
            "Passing",
            "time_hour_utc",
            "Delta Lake",
            "Row count",
        ):
            page.wait_for_selector(f"text={text}", timeout=WAIT_MS)

        page.goto(f"{servers.url}/assets/silver/flights?view=checks&checkDetail=tailnum_in_planes")
        for check in ("key_unique", "rows_conserved", "quarantined_share", "tailnum_in_planes"):
            page.wait_for_selector(f"text={check}", state="attached", timeout=WAIT_MS)
        page.wait_for_selector("text=/rows without a partner/", timeout=WAIT_MS)


def test_an_asset_is_materialized_from_the_ui(servers: Servers, settings: Settings) -> None:
    with browser.page() as page:
        page.goto(f"{servers.url}/assets/silver/airlines")
        page.click("button:has-text('Materialize') >> nth=0", timeout=WAIT_MS)

        deadline = time.monotonic() + WAIT_MS / 1000
        while not (runs := _runs_of(settings, "silver/airlines")) and time.monotonic() < deadline:
            time.sleep(1)
        page.goto(f"{servers.url}/runs/{next(iter(runs))}")
        page.wait_for_selector("text=/^Success$/", timeout=WAIT_MS)


def _runs_of(settings: Settings, asset: str) -> dict[str, str]:
    """Runs of exactly this asset: id → status."""
    with open_instance(settings) as instance:
        return {
            run.run_id: run.status.value
            for run in instance.get_runs()
            if {key.to_user_string() for key in run.asset_selection or ()} == {asset}
        }
