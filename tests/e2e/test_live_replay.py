"""The live demo: hours arrive while the real daemon's sensors take them to published gold."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import duckdb
import pytest

from lakehouse.settings import load_settings
from tests.conftest import run_cli

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_replayed_hours_are_published_by_the_sensors_and_the_servers_end(tmp_path: Path) -> None:
    port = _free_port()
    done = run_cli(
        "demo", "--live", "--hours", "6", "--seconds-per-hour", "0.5", "--port", str(port), root=tmp_path / "lake", timeout_s=500
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    live = load_settings(root=str(tmp_path / "lake-live"))
    assert len(re.findall(r"arrived:", done.stdout)) == 6
    assert "The replay is over" in done.stdout
    with duckdb.connect(str(live.catalog_path), read_only=True) as catalog:
        rows = catalog.execute(
            "select (select count(*) from fct_flights), max(time_hour_utc) from silver.flights"
        ).fetchone()
    assert rows is not None
    # 308,641 flights of the days before, and the six of 10:00 UTC on the first of December.
    assert rows[0] == 308_647
    assert str(rows[1]) == "2013-12-01 10:00:00"
    assert not Path(live.state_dir, "servers.json").exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    # The lake beside it was never touched, and nothing is left to do.
    assert not (tmp_path / "lake").exists()
    again = run_cli("run", "--json", root=tmp_path / "lake-live")
    assert json.loads(again.stdout)["nothing_new"] is True
