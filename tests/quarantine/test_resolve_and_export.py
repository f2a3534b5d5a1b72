"""Rows that a person deals with: resolved with a reason, exported whole, landed again."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from lakehouse import quarantine
from lakehouse.errors import PermanentError
from lakehouse.ops import refused
from lakehouse.pipelines.model import SourceSpec
from lakehouse.quarantine import Selection, export
from tests.quarantine.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Two rows refused by the contract and one line that could not be read."""
    bench = Bench(tmp_path / "lake")
    (bench.folder / "a.csv").write_text(
        "id,amount,day\n1,10,2024-01-01\n2,-5,2024-01-01\n3\n4,-7,2024-01-04\n"
    )
    bench.take()
    return bench


def test_resolve_is_dry_until_it_is_applied(bench: Bench) -> None:
    before = bench.files()
    said = bench.resolve(apply=False)
    assert (said.rows.height, said.action_id) == (3, None)
    assert bench.files() == before


def test_resolved_rows_keep_their_reason_and_are_not_replayed(bench: Bench) -> None:
    bench.resolve(Selection(stage="bronze"), note="landed again as b.csv", actor="ann")
    bench.resolve(Selection(rule="amount >= 0", limit=1))
    assert bench.counts() == (1, 0, 0, 2)
    acted = bench.quarantined().filter(_stage="bronze")
    assert acted.select("_state", "_note", "_actor").row(0) == ("resolved", "landed again as b.csv", "ann")
    assert bench.use("Open").replay().released == 1
    assert bench.counts() == (0, 0, 1, 2)


def test_resolve_needs_a_reason(bench: Bench) -> None:
    with pytest.raises(PermanentError, match="a note is needed"):
        bench.resolve(note="  ")


def test_a_row_is_resolved_once_when_two_people_do_it_at_once(bench: Bench) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = [task.result() for task in [pool.submit(bench.resolve) for _ in range(2)]]
    assert sorted(result.rows.height for result in done) == [0, 3]
    assert bench.counts() == (0, 0, 0, 3)


def test_a_mistake_can_be_undone(bench: Bench) -> None:
    bench.resolve()
    assert bench.resolve(undo=True, note="wrong table").rows.height == 3
    assert bench.counts() == (3, 0, 0, 0)
    assert bench.use("Open").replay().released == 2


def test_a_row_that_was_opened_again_counts_from_then(bench: Bench) -> None:
    before = Selection(until=bench.quarantined()["_quarantined_at_utc"].max())
    assert bench.resolve(before, apply=False).rows.height == 3
    bench.resolve(Selection(stage="bronze"))
    assert bench.resolve(before, undo=True, note="wrong row").rows.height == 1
    assert bench.resolve(before, apply=False).rows.height == 2
    since = bench.quarantined().select(quarantine.there_since().max()).item()
    assert bench.resolve(Selection(until=since)).rows.height == 3


def test_a_released_row_cannot_be_resolved(bench: Bench) -> None:
    bench.use("Open").replay()
    assert bench.resolve(Selection(stage="silver")).rows.is_empty()


def test_the_counts_of_every_state_add_up_to_the_refused_rows(bench: Bench) -> None:
    bench.resolve(Selection(stage="bronze"))
    bench.use("Lenient").replay(Selection(limit=1))
    counts = quarantine.state_counts(bench.lake)["orders"]
    assert (counts.refused, counts.open, counts.released, counts.resolved) == (3, 1, 1, 1)
    assert quarantine.open_counts(bench.lake) == {"orders": 1}
    by_rule = refused.summary(bench.lake).select("rule", "rows", "open", "released", "resolved").rows()
    assert ("amount >= 0", 2, 1, 1, 0) in by_rule
    assert sum(row[1] for row in by_rule) == 3


def test_a_table_that_nobody_acted_on_is_counted_without_reading_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse.storage import Snapshot

    monkeypatch.setattr(Snapshot, "scan", lambda *_, **__: pytest.fail("data was read"))
    assert quarantine.open_counts(bench.lake) == {"orders": 3}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_export_has_every_row_with_its_rules_its_place_and_its_raw_text(
    bench: Bench, tmp_path: Path, ending: str
) -> None:
    target = tmp_path / f"out.{ending}"
    rows = refused.rows(bench.lake, "orders", newest_first=False)
    assert export(rows, target) == 3
    read = {"csv": pl.read_csv, "jsonl": pl.read_ndjson, "parquet": pl.read_parquet}[ending](target)
    assert read["_raw"].to_list() == rows["_raw"].to_list()
    assert read["_source_row"].to_list() == rows["_source_row"].to_list()
    rules = rows["_broken_rules"].list.join("; ") if ending == "csv" else rows["_broken_rules"]
    assert read["_broken_rules"].to_list() == rules.to_list()


def test_exported_rows_corrected_and_landed_again_come_into_silver(bench: Bench) -> None:
    target = bench.folder / "b.csv"
    written = export(
        refused.rows(bench.lake, "orders", newest_first=False), target, source=bench.pipeline.spec.source
    )
    assert written == 2
    text = target.read_text()
    assert text == "id,amount,day\n2,-5,2024-01-01\n4,-7,2024-01-04\n"
    target.write_text(text.replace(",-", ","))
    assert bench.take().accepted == 2
    assert bench.table("id", "amount") == [(1, 10), (2, 5), (4, 7)]
    assert bench.resolve(Selection(file="a.csv"), note="landed again as b.csv").rows.height == 3
    assert bench.counts() == (0, 0, 0, 3)


def test_landable_json_keeps_the_types_of_the_source(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    rows = bench.quarantined().filter(_stage="silver")
    rows = rows.with_columns(_raw=pl.lit('{"id": 2, "tags": ["x"], "_rescued": "{\\"new\\": true}"}'))
    source = SourceSpec(kind="files", path="orders/**", format="jsonl")
    export(rows.head(1), target, source=source)
    assert json.loads(target.read_text()) == {"id": 2, "tags": ["x"], "new": True}


def test_an_export_replaces_nothing_unasked(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("mine")
    rows = refused.rows(bench.lake, "orders")
    with pytest.raises(PermanentError, match="exists already"):
        export(rows, target)
    assert target.read_text() == "mine"
    export(rows, target, overwrite=True)
    assert target.read_text() != "mine"
    with pytest.raises(PermanentError, match="ending says the format"):
        export(rows, tmp_path / "out.xlsx")
