"""``kill -9`` at commit boundaries and at random instants; the restarted lake equals the undisturbed one.

The short form. ``benchmarks/faults.py`` runs every boundary, and publishes its table in docs/faults.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.director import Director, campaign, spread
from tests.servers import Store

pytestmark = pytest.mark.slow


def _run(director: Director, boundaries: int, random_instants: int, whole_lives: int) -> list[str]:
    results = [
        director.at(delivery, boundary) for delivery, boundary in spread(director.boundaries, boundaries)
    ]
    results += [director.at_random(seed % 3 + 1, seed) for seed in range(random_instants)]
    results += [director.whole_life(seed) for seed in range(whole_lives)]
    return [f"{result['where']}: {line}" for result in results for line in result["differences"]]


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Director]:
    """A campaign on a local disk: each of its runs begins with the lake as it was kept."""
    with campaign(tmp_path_factory.mktemp("campaign")) as director:
        yield director


def test_a_run_killed_anywhere_leaves_a_lake_that_heals(on_disk: Director) -> None:
    kinds = {boundary.kind for found in on_disk.boundaries.values() for boundary in found}
    assert kinds >= {
        "plan commit", "bronze staging", "bronze quarantine commit", "bronze column-add commit",
        "bronze data commit", "silver staging", "silver quarantine commit", "silver column-add commit",
        "silver data commit", "gold staging", "gold model commit", "checks record", "restore point object",
        "CURRENT pointer", "catalog swap", "ledger sync",
    }  # fmt: skip
    assert _run(on_disk, 12, 2, 1) == []


def test_a_run_killed_after_a_gold_commit_publishes_what_it_built(on_disk: Director) -> None:
    """The old rows were published once: the library had given the crashed commit's metadata for the good one's."""
    crash = next(b for b in on_disk.boundaries[2] if b.label == "after gold model commit")
    assert on_disk.at(2, crash)["differences"] == []


def test_a_run_killed_anywhere_heals_on_an_object_store(
    tmp_path_factory: pytest.TempPathFactory, store: Store
) -> None:
    with campaign(tmp_path_factory.mktemp("campaign"), store.root("crash-matrix"), store.options) as director:
        assert _run(director, 4, 2, 1) == []
