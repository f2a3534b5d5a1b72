"""``kill -9`` at commit boundaries and at random instants; the restarted lake equals the undisturbed one.

The short form. ``benchmarks/faults.py`` runs every boundary, and publishes its table in docs/faults.md.
"""

from __future__ import annotations

from pathlib import Path

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


def test_a_run_killed_anywhere_leaves_a_lake_that_heals(tmp_path: Path) -> None:
    with campaign(tmp_path) as director:
        kinds = {boundary.kind for found in director.boundaries.values() for boundary in found}
        assert kinds >= {
            "plan commit", "bronze staging", "bronze quarantine commit", "bronze column-add commit",
            "bronze data commit", "silver staging", "silver quarantine commit", "silver column-add commit",
            "silver data commit", "gold staging", "gold model commit", "checks record", "restore point object",
            "CURRENT pointer", "catalog swap", "ledger sync",
        }  # fmt: skip
        assert _run(director, 12, 2, 1) == []


def test_a_run_killed_after_a_gold_commit_publishes_what_it_built(tmp_path: Path) -> None:
    """The old rows were published once: the library had given the crashed commit's metadata for the good one's."""
    with campaign(tmp_path) as director:
        crash = next(b for b in director.boundaries[2] if b.label == "after gold model commit")
        assert director.at(2, crash)["differences"] == []


def test_a_run_killed_anywhere_heals_on_an_object_store(tmp_path: Path, store: Store) -> None:
    with campaign(tmp_path, store.root("crash-matrix"), store.options) as director:
        assert _run(director, 4, 2, 1) == []
