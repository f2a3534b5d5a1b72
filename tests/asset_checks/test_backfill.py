"""Checks after a backfill: the books of the stage still add up, and what a backfill took out is held against the bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from asset_checks.base import Finding, Subject, evaluate
from asset_checks.silver import silver_checks
from lakehouse import quarantine
from lakehouse.gold.restore_points import RestorePoint, save
from lakehouse.ops import backlog
from lakehouse.quarantine import Selection
from tests.silver.sales import Bench

DAY = "2024-01-02"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """One batch of 100 rows, half of them above what ``Severe`` believes."""
    bench = Bench(tmp_path / "lake")
    bench.land("a.csv", *(f"{number},{DAY},{number}" for number in range(1, 101)))
    bench.take()
    return bench


def found(bench: Bench, check: str, *, published: tuple[int, int] | None = None) -> Finding:
    """What a check of silver says; ``published`` are batch and version of the restore point."""
    batch, version = published or (0, None)
    snapshot = bench.lake.table("silver", "sales").snapshot()
    subject = Subject(bench.lake, bench.pipeline, snapshot, batch, version)
    chosen = [item for item in silver_checks(bench.pipeline) if item.name == check]
    [(_, _, finding)] = evaluate(chosen, subject)
    return finding


@pytest.mark.parametrize("check", ["rows_conserved", "key_unique", "schema_equals_contract"])
def test_the_books_of_an_unpublished_batch_add_up_after_a_backfill_refused_its_rows(
    bench: Bench, check: str
) -> None:
    assert bench.use("Severe").backfill(DAY).newly_refused == 50
    assert found(bench, check).passed


def test_rows_that_a_backfill_took_out_are_held_against_the_bound_until_they_are_back(bench: Bench) -> None:
    version = bench.version
    bench.use("Severe").backfill(DAY)
    assert found(bench, "quarantined_share", published=(1, version)).passed, "50 rows are 5 % of a thousand"
    bench.land("b.csv", f"200,{DAY},200", *(f"{number},{DAY},{number}" for number in range(201, 203)))
    bench.use().take()
    bench.use("Severe").backfill(DAY)
    late = found(bench, "quarantined_share", published=(2, version))
    assert not late.passed
    assert late.count == 53
    bench.use().backfill(DAY)
    assert found(bench, "quarantined_share", published=(2, version)).passed


def test_rows_that_a_person_resolved_after_a_backfill_are_not_counted_twice(bench: Bench) -> None:
    bench.use("Severe").backfill(DAY)
    quarantine.resolve(bench.lake, "sales", Selection(), note="x", actor="test", apply=True)
    finding = found(bench, "quarantined_share")
    assert finding.passed
    assert finding.count == 50


def test_a_backfill_is_news_for_gold_until_a_point_has_it_and_nothing_waits_for_the_sla(bench: Bench) -> None:
    def publish(point_id: str, backfills: int) -> None:
        txns = {"silver/sales": {"silver/sales": 1, "backfill/sales": backfills}}
        save(
            bench.lake,
            RestorePoint(
                id=point_id, created_at_utc="", tables={}, txns=txns, sources={"sales": {"batch_id": 1}}
            ),
        )

    def look() -> backlog.Backlog:
        return backlog.look(bench.lake, bench.settings, {"sales": bench.pipeline})

    publish("a", 0)
    assert look().unpublished == []
    bench.use("Severe").backfill(DAY)
    assert look().unpublished == ["sales"]
    assert look().waiting == {}
    publish("b", 1)
    assert look().unpublished == []
