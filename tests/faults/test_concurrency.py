"""Several processes at once on one lake: one wins each batch, the others do nothing harmful and say so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import inventory, lab
from tests.faults.worker import Report, at_once
from tests.servers import Store

pytestmark = pytest.mark.slow

#: How a process may end that met another one: it says that somebody else was faster, and that it may be repeated.
_BEATEN = {"", "CommitConflict", "PublishBlocked"}


@pytest.fixture(params=["local", "seaweedfs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> lab.Lab:
    """A lab on each kind of store."""
    if request.param == "local":
        return lab.Lab(tmp_path, str(tmp_path / "lake"), {})
    store: Store = request.getfixturevalue("store")
    return lab.Lab(tmp_path, store.root(tmp_path.name), store.options)


def _undisturbed(place: lab.Lab, *, same_batches: bool = True) -> dict[str, Any]:
    """What the lake must hold in the end, from one process on a local disk; the landing folder stays as it is."""
    alone = lab.Lab(place.folder, str(place.folder / "undisturbed"), {})
    alone.write_project()
    for delivery in lab.DELIVERIES:
        lab.arrive(alone, delivery)
        lab.run(alone, delivery)
    found = inventory.take(alone, same_batches=same_batches)
    for folder in [*alone.local_state, alone.landing]:
        shutil.rmtree(folder)
    return found


def _all_deliveries(place: lab.Lab, orders: Callable[[int], list[dict[str, Any]]]) -> list[Report]:
    reports = []
    for delivery in lab.DELIVERIES:
        lab.arrive(place, delivery)
        reports += at_once(place, orders(delivery))
    lab.run(place, lab.DELIVERIES[-1])
    return reports


def _committed(reports: list[Report], table: str) -> list[int]:
    return sorted(batch for report in reports for batch in report.committed.get(table, []))


def test_of_four_processes_on_the_same_pipelines_one_wins_each_batch(place: lab.Lab) -> None:
    expected = _undisturbed(place)
    reports = _all_deliveries(place, lambda delivery: [{"delivery": delivery}] * 4)
    assert [(report.error, report.message) for report in reports if report.error] == []
    for source in ("orders", "prices", "clicks"):
        for stage in ("bronze", "silver"):
            assert _committed(reports, f"{stage}/{source}") == [1, 2, 3]
    assert inventory.differences(expected, inventory.take(place)) == []


def test_whole_runs_at_once_publish_one_consistent_point(place: lab.Lab) -> None:
    expected = _undisturbed(place, same_batches=False)
    reports = _all_deliveries(place, lambda delivery: [{"delivery": delivery, "gold": True}] * 3)
    assert {report.error for report in reports} <= _BEATEN, reports
    # A run that was beaten may leave its batch to the next one, whose commit then takes two: same rows, other cuts.
    assert inventory.differences(expected, inventory.take(place, same_batches=False)) == []


def test_different_pipelines_at_once_share_the_ledger(place: lab.Lab) -> None:
    expected = _undisturbed(place)
    names = ("orders", "prices", "clicks")
    reports = _all_deliveries(
        place, lambda delivery: [{"delivery": delivery, "pipelines": [n]} for n in names]
    )
    assert [(report.error, report.message) for report in reports if report.error] == []
    assert inventory.differences(expected, inventory.take(place)) == []


def test_writers_beside_maintenance_lose_nothing(place: lab.Lab) -> None:
    expected = _undisturbed(place)

    def beside(delivery: int) -> list[dict[str, Any]]:
        return [{"delivery": delivery}, {"delivery": delivery}, {"delivery": delivery, "maintain": 6}]

    reports = _all_deliveries(place, beside)
    assert [(report.error, report.message) for report in reports if report.error] == []
    maintenance = reports[-1]
    assert maintenance.committed, "nothing was ever compacted: the test shows nothing"
    assert inventory.differences(expected, inventory.take(place)) == []
