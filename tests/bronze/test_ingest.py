"""Bronze on real tables: exactly once, faithful, and no file stops the others."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lakehouse import ledger, planning
from lakehouse.bronze import ingest
from lakehouse.errors import SourceError
from lakehouse.pipelines import Pipeline, PipelineSpec
from lakehouse.settings import Settings, load_settings
from lakehouse.storage import Lake


class Bench:
    """A lake of its own with one pipeline of CSV files."""

    def __init__(self, root: Path, **source: Any) -> None:
        self.settings: Settings = load_settings(root=str(root))
        self.lake = Lake.from_settings(self.settings)
        options = {"kind": "files", "path": "orders/**/*.csv", "format": "csv", **source}
        spec = {"name": "orders", "description": "x", "source": options, "contract": "a.B"}
        self.pipeline = Pipeline(PipelineSpec.model_validate(spec), "defs.yaml")
        self.folder = Path(self.settings.landing, "orders")
        self.folder.mkdir(parents=True)

    def put(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def ingest(self) -> Any:
        return ingest(self.lake, self.settings, self.pipeline, run_id="test")

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        frame = self.lake.table("bronze", "orders").snapshot().scan().collect()
        return frame.select(columns).sort(columns).rows()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "lake")


def test_a_second_run_with_nothing_new_writes_nothing(bench: Bench) -> None:
    bench.put("a.csv", "id\n1\n")
    assert bench.ingest().accepted == 1
    before = sorted(str(path) for path in Path(bench.settings.root).rglob("*"))
    assert not bench.ingest().committed
    assert sorted(str(path) for path in Path(bench.settings.root).rglob("*")) == before


def test_lineage_leads_back_to_file_and_row(bench: Bench) -> None:
    path = bench.put("a.csv", "id\n7\n8\n")
    bench.ingest()
    assert bench.rows("id", "_batch_id", "_source_file", "_source_row") == [
        ("7", 1, str(path), 1),
        ("8", 1, str(path), 2),
    ]


def test_a_late_named_file_is_taken_whatever_its_name_and_time(bench: Bench) -> None:
    bench.put("b.csv", "id\n2\n")
    bench.ingest()
    late = bench.put("a.csv", "id\n1\n")
    os.utime(late, (1_000_000_000, 1_000_000_000))
    assert bench.ingest().batches == (2,)
    assert bench.rows("id") == [("1",), ("2",)]


def test_unfinished_files_are_left_alone(bench: Bench) -> None:
    for name in (".a.csv", "_b.csv", "c.csv.tmp", "d.csv.part"):
        bench.put(name, "id\n1\n")
    assert not bench.ingest().committed


def test_the_same_content_touched_again_is_not_read_twice(bench: Bench) -> None:
    path = bench.put("a.csv", "id\n1\n")
    bench.ingest()
    os.utime(path, (2_000_000_000, 2_000_000_000))
    assert not bench.ingest().committed
    assert ledger.news(bench.lake, bench.settings, {"orders": bench.pipeline}) == {}


def test_changed_content_under_an_old_name_waits_for_a_person(bench: Bench) -> None:
    bench.put("a.csv", "id\n1\n")
    bench.ingest()
    path = bench.put("a.csv", "id\n1\n2\n")
    assert not bench.ingest().committed
    assert [file.path for file in ledger.Ledger(bench.lake).held_files("orders")] == [str(path)]
    assert not bench.ingest().committed


def test_changed_content_is_a_new_version_where_the_source_says_append(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", on_change="append")
    bench.put("a.csv", "id\n1\n")
    bench.ingest()
    bench.put("a.csv", "id\n1\n2\n")
    assert bench.ingest().accepted == 2
    assert bench.rows("id", "_batch_id") == [("1", 1), ("1", 2), ("2", 2)]


def test_broken_lines_are_kept_and_the_other_files_land(bench: Bench) -> None:
    bench.put("a.csv", "id,name\n1,x\n2\n3,y\n")
    bench.put("b.csv", "id,name\n4,z\n")
    result = bench.ingest()
    assert (result.rows_in, result.accepted, result.quarantined) == (4, 3, 1)
    kept = bench.lake.table("quarantine", "orders").snapshot().scan().collect()
    assert kept.select("_raw", "_source_position", "_stage").rows() == [("2", "line 3", "bronze")]


def test_empty_last_fields_are_not_mistaken_for_short_lines(bench: Bench) -> None:
    bench.put("a.csv", "id,note\n1,\n2,\n")
    result = bench.ingest()
    assert (result.accepted, result.quarantined) == (2, 0)


def test_a_new_column_is_added_and_old_rows_have_none(bench: Bench) -> None:
    bench.put("a.csv", "id\n1\n")
    bench.ingest()
    bench.put("b.csv", "id,colour\n2,red\n")
    assert bench.ingest().schema_changes == ("new column colour (String)",)
    assert bench.rows("id", "colour") == [("1", None), ("2", "red")]


def test_a_new_column_is_rescued_where_the_source_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", new_columns="rescue")
    bench.put("a.csv", "id\n1\n")
    bench.ingest()
    bench.put("b.csv", "id,colour\n2,red\n")
    assert bench.ingest().rescued == 1
    assert bench.rows("id", "_rescued") == [("1", None), ("2", '{"colour":"red"}')]


def test_a_new_column_stops_the_batch_where_the_source_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", new_columns="fail")
    bench.put("a.csv", "id\n1\n")
    bench.ingest()
    bench.put("b.csv", "id,colour\n2,red\n")
    with pytest.raises(SourceError, match="new column colour"):
        bench.ingest()
    assert bench.rows("id") == [("1",)]


def test_a_file_that_changes_after_the_plan_is_planned_anew(bench: Bench) -> None:
    path = bench.put("a.csv", "id\n1\n")
    bench.put("b.csv", "id\n7\n")
    planning.plan(bench.lake, bench.settings, [bench.pipeline])
    path.write_text("id\n1\n2\n")
    assert bench.ingest().accepted == 3
    assert bench.rows("id", "_batch_id") == [("1", 2), ("2", 2), ("7", 1)]
    assert not bench.ingest().committed


def test_batches_are_cut_by_size_and_numbered(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake")
    settings = bench.settings.model_copy(update={"max_batch_size": "20B"})
    for name in "abc":
        bench.put(f"{name}.csv", textwrap.dedent(f"id\n123456789{name}\n"))
    assert ingest(bench.lake, settings, bench.pipeline).batches == (1, 2, 3)


def test_a_retyped_parquet_column_loses_no_value(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", path="orders/*.parquet", format="parquet")
    pl.DataFrame({"n": [1]}, schema={"n": pl.Int32}).write_parquet(bench.folder / "a.parquet")
    bench.ingest()
    pl.DataFrame({"n": [2, 5_000_000_000]}).write_parquet(bench.folder / "b.parquet")
    assert bench.ingest().rescued == 1
    frame = bench.lake.table("bronze", "orders").snapshot().scan().sort("_batch_id", "_source_row").collect()
    assert frame.select("n", "_rescued").rows() == [(1, None), (2, None), (None, '{"n":"5000000000"}')]


def test_what_the_stages_did_is_copied_into_the_ledger_once(bench: Bench) -> None:
    bench.put("a.csv", "id\n1\n2\n")
    bench.ingest()
    assert ledger.sync(bench.lake, [bench.pipeline]) == 1
    assert ledger.sync(bench.lake, [bench.pipeline]) == 0
    rows = bench.lake.table("ops", "batches").snapshot().scan().collect()
    assert sorted(rows.select("stage", "batch_id", "rows_in").rows(), key=str) == [
        ("bronze", 1, 2),
        ("planned", 1, None),
    ]
