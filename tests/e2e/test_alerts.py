"""With the daemon running and a failing gate, the three alerts reach a real receiver, once each."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lakehouse.defs.execute import run_pipelines
from lakehouse.demo.landing import land_before
from lakehouse.servers import running
from lakehouse.settings import PROJECT_DIR, Settings
from tests.ops.receivers import HttpReceiver

pytestmark = pytest.mark.slow

WARN_S, FAIL_S = 30.0, 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.5)
    return what()


def bad_snapshot(settings: Settings) -> None:
    """A hundred airports at an impossible longitude: more than the pipeline's YAML allows to be refused."""
    lines = ["faa,name,lat,lon,alt,tz,dst,tzone"]
    lines += [f'Q{i:02d},"Nowhere {i}",10,999,5,-5,A,America/New_York' for i in range(100)]
    target = Path(settings.landing, "airports", "airports_2013-02-01.csv")
    target.with_suffix(".new").write_text("\n".join(lines) + "\n")
    os.replace(target.with_suffix(".new"), target)


@pytest.mark.timeout(600)
def test_a_failing_gate_is_told_of_on_warning_on_breach_and_on_recovery(tmp_path: Path) -> None:
    pipelines = tmp_path / "pipelines"
    shutil.copytree(PROJECT_DIR / "lakehouse" / "defs" / "nyc", pipelines / "nyc")
    settings = Settings(root=str(tmp_path / "lake"), pipelines_dir=str(pipelines))
    land_before(settings, "2013-01-02T00:00:00Z")
    assert run_pipelines(settings).success
    with HttpReceiver() as receiver:
        variables = {
            "LAKEHOUSE_PIPELINES_DIR": str(pipelines),
            "LAKEHOUSE_SLA_WARN_MINUTES": str(WARN_S / 60),
            "LAKEHOUSE_SLA_FAIL_MINUTES": str(FAIL_S / 60),
            "LAKEHOUSE_SENSOR_INTERVAL_S": "5",
            "LAKEHOUSE_RUN_INTERVAL_S": "5",
            "LAKEHOUSE_SLA_INTERVAL_S": "5",
            "LAKEHOUSE_ALERT_WEBHOOK_URL": receiver.url,
        }

        def kinds() -> list[str]:
            return [str(body["kind"]) for body in receiver.bodies]

        with running(settings, free_port(), variables=variables):
            bad_snapshot(settings)
            assert wait_for(lambda: "warn" in kinds(), 180), kinds()

        # The daemon is restarted, and Dagster's own database is gone: nothing is said twice.
        shutil.rmtree(settings.dagster_home)
        with running(settings, free_port(), variables=variables):
            assert wait_for(lambda: "breach" in kinds(), 180), kinds()

            # Somebody decides that these rows may be refused, and runs what the alert says.
            declaration = pipelines / "nyc" / "airports" / "defs.yaml"
            text = declaration.read_text()
            assert "max_quarantined_share" in text or "  checks:" not in text
            if "max_quarantined_share" in text:
                lines = [
                    "    max_quarantined_share: 1.0" if "max_quarantined_share" in line else line
                    for line in text.splitlines()
                ]
                declaration.write_text("\n".join(lines) + "\n")
            else:
                declaration.write_text(text + "  checks:\n    max_quarantined_share: 1.0\n")
            outcome = run_pipelines(settings)
            assert outcome.success, outcome.failures
            assert wait_for(lambda: "recovery" in kinds(), 120), kinds()
            time.sleep(15)

    assert kinds() == ["warn", "breach", "recovery"]
    breach = receiver.bodies[1]
    assert breach["hop"] == "failed gate"
    assert "quarantined_share" in str(breach["reason"])
    assert "lakehouse quarantine show airports" in str(breach["text"])
    assert "gold.dim_airport" in breach["tables"]
    assert breach["sources"] == ["airports"]
