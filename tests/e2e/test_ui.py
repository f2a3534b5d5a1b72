"""The UI in a real browser: the graph shows the layers, the checks and freshness; materializing works."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakehouse.defs.execute import run_pipelines
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


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Web server and daemon on a lake with one day of data."""
    settings = Settings(root=str(tmp_path_factory.mktemp("lake")))
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
            page.wait_for_selector(f"text=/^{group}$/", state="attached", timeout=90_000)

        page.mouse.click(1200, 850)
        page.keyboard.press("Alt+E")  # expand every group
        for table in ("airports", "stg_nyc__flights", "fct_flights", "mart_route_performance"):
            page.wait_for_selector(f"text={table}", state="attached", timeout=60_000)
        page.screenshot(path=tmp_path / "graph.png")


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
            page.wait_for_selector(f"text={text}", timeout=90_000)

        page.goto(f"{servers.url}/assets/silver/flights?view=checks")
        for check in ("key_unique", "rows_conserved", "quarantined_share", "tailnum_in_planes"):
            page.wait_for_selector(f"text={check}", state="attached", timeout=60_000)
        page.click("text=tailnum_in_planes >> visible=true")
        page.wait_for_selector("text=/rows without a partner/", timeout=30_000)


def test_an_asset_is_materialized_from_the_ui(servers: Servers) -> None:
    with browser.page() as page:
        page.goto(f"{servers.url}/assets/silver/airlines")
        page.click("button:has-text('Materialize') >> nth=0", timeout=90_000)
        page.wait_for_selector("text=/Launched run|Launching/", timeout=60_000)

        page.goto(f"{servers.url}/runs")
        row = (
            page.locator("tr", has_text="Manually launched")
            .filter(has_text="airlines")
            .filter(has_text="Success")
        )
        row.first.wait_for(timeout=120_000)
