"""The glob of a new pipeline takes the files like the one that was looked at, and no other."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from lakehouse.connectors.files import FileConnector
from lakehouse.pipelines.model import SourceSpec
from lakehouse.scaffold.new import plan_pipeline
from lakehouse.scaffold.pattern import base_name, find_pattern
from lakehouse.scaffold.sniff import Sniffed, sniff
from lakehouse.settings import Settings, load_settings

ORDERS, ITEMS = "id,amount\n1,2.5\n", "item_id,sku\n1,a\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(root=str(tmp_path / "lake"), pipelines_dir=str(tmp_path / "defs"), settle_seconds=0)


def taken(settings: Settings, path: str) -> list[str]:
    """Names of the files that a pipeline with this path takes."""
    spec = SourceSpec(kind="files", path=path, format="csv")
    return sorted(Path(file.path).name for file in FileConnector(spec, settings).list())


@pytest.mark.parametrize(
    ("name", "base", "glob"),
    [
        ("orders_2024-01-31.csv", "orders", "orders_[0-9]*.csv"),
        ("orders_2024-01-31T10-00-00Z.csv.gz", "orders", "orders_[0-9]*.csv"),
        ("orders20240131.csv", "orders", "orders[0-9]*.csv"),
        ("orders_20240131_2.csv", "orders", "orders_[0-9]*.csv"),
        ("orders-part-0001.csv", "orders", "orders-part-[0-9]*.csv"),
        ("orders.csv.2024-01-31", "orders.csv", "orders.csv.[0-9]*"),
        ("orders_7", "orders", "orders_[0-9]*"),
        ("2024-01-31.csv", "2024-01-31", "[0-9]*.csv"),
        ("2024.csv", "2024", "[0-9]*.csv"),
        ("film.csv", "film", "film.csv"),
        ("film2.csv", "film2", "film2.csv"),
        ("rep [final].csv", "rep [final]", "rep [[]final].csv"),
        ("what? [a]*_1.csv", "what? [a]*", "what[?] [[]a][*]_[0-9]*.csv"),
        ("orders.csv.GZ", "orders", "orders.csv.GZ"),
    ],
)
def test_a_wildcard_stands_only_where_the_name_changes(
    settings: Settings, tmp_path: Path, name: str, base: str, glob: str
) -> None:
    file = tmp_path / "in [1]" / name
    file.parent.mkdir()
    file.write_text(ORDERS)
    sniffed = Sniffed(file, "csv", None, sniff(file).dialect)
    path = find_pattern(settings.landing, sniffed).path
    assert (base_name(sniffed), path) == (base, f"{tmp_path}/in [[]1]/{glob}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert taken(settings, path) == [name]


def test_files_that_only_begin_alike_are_left_alone(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "film.csv").write_text("film_id,title\n1,a\n")
    (tmp_path / "film_actor.csv").write_text("film_id,actor_id\n1,7\n")
    new = plan_pipeline(settings, tmp_path / "film.csv")
    assert taken(settings, new.plan.path) == ["film.csv"]
    assert any("path: film.csv only" in note and "film_[0-9]*.csv" in note for note in new.assumptions)


def test_later_files_match_and_are_named(settings: Settings, tmp_path: Path) -> None:
    for name in ("orders_2024-01-31.csv", "orders_2024-02-01.csv", "orders_2024-02-02.csv.gz"):
        (tmp_path / name).write_text(ORDERS)
    (tmp_path / "orders_2024-02-03.csv").write_text("id,amount,discount\n1,2.5,1\n")  # a column came
    (tmp_path / "orders_items_2024-01-31.csv").write_text(ITEMS)
    (tmp_path / "orders_2024-02-04.csv.part").write_text(ORDERS)
    (tmp_path / "orders_2024-02-05.csv").mkdir()
    new = plan_pipeline(settings, tmp_path / "orders_2024-01-31.csv")
    others = ["orders_2024-02-01.csv", "orders_2024-02-02.csv.gz", "orders_2024-02-03.csv"]
    assert taken(settings, new.plan.path) == ["orders_2024-01-31.csv", *others]
    assert any(f"it matches {', '.join(others)} beside this file" in note for note in new.assumptions)


@pytest.mark.parametrize(
    ("other", "glob"),
    [
        ("orders_2024-01-31_items.csv", "orders_[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].csv"),
        ("orders_2024-02-01.csv", "orders_2024-01-31.csv"),
    ],
)
def test_the_pattern_is_narrowed_where_it_would_take_files_with_other_columns(
    settings: Settings, tmp_path: Path, other: str, glob: str
) -> None:
    file = tmp_path / "orders_2024-01-31.csv"
    file.write_text(ORDERS)
    (tmp_path / other).write_text(ITEMS)
    new = plan_pipeline(settings, file)
    assert new.plan.path == str(tmp_path / glob)
    assert taken(settings, new.plan.path) == [file.name]
    assert any(f"with other columns, too: {other}" in note for note in new.assumptions)


def test_files_without_a_header_are_told_apart_by_their_width(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a_1.csv").write_text("1,a\n2,b\n")
    (tmp_path / "a_2.csv").write_text("3,c\n")
    assert plan_pipeline(settings, tmp_path / "a_1.csv").plan.path == str(tmp_path / "a_[0-9]*.csv")
    (tmp_path / "a_3.csv").write_text("3,c,4\n")
    assert plan_pipeline(settings, tmp_path / "a_1.csv").plan.path == str(tmp_path / "a_1.csv")


def test_a_damaged_file_beside_it_stops_nothing(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "a_1.csv").write_text(ORDERS)
    (tmp_path / "a_2.csv.gz").write_bytes(b"\x1f\x8b\x08nonsense")
    (tmp_path / "a_3.csv.zst").write_bytes(b"\x28\xb5\x2f\xfdnonsense")
    (tmp_path / "a_4.csv").write_bytes(b"")
    assert plan_pipeline(settings, tmp_path / "a_1.csv").plan.path == str(tmp_path / "a_[0-9]*.csv")


def test_a_path_that_climbs_is_written_as_the_folder_it_leads_to(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "orders_1.csv").write_text(ORDERS)
    monkeypatch.chdir(tmp_path / "work")
    assert plan_pipeline(settings, Path("../orders_1.csv")).plan.path == str(tmp_path / "orders_[0-9]*.csv")
