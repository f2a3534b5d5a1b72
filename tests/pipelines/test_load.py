"""Declarations: what is right loads, what is wrong is found with file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakehouse.errors import DeclarationError, SettingsError
from lakehouse.pipelines import find_problems, load_pipelines
from lakehouse.settings import Settings, load_settings

GOOD = """\
type: lakehouse.defs.component.PipelineComponent
attributes:
  name: {name}
  description: Airlines.
  source:
    kind: files
    path: airlines/*.csv
    format: csv
  contract: lakehouse.contracts.airlines.Airlines
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(pipelines_dir=str(tmp_path))


def declare(settings: Settings, text: str, folder: str = "a") -> None:
    path = Path(settings.pipelines_dir, folder, "defs.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_a_folder_that_is_not_there_is_told_from_an_empty_one(settings: Settings, tmp_path: Path) -> None:
    assert (load_pipelines(settings), find_problems(settings)) == ({}, [])
    (tmp_path / "file").write_text("")
    for name in ("missing", "file"):
        folder = tmp_path / name
        elsewhere = load_settings(pipelines_dir=str(folder))
        for look in (load_pipelines, find_problems):
            with pytest.raises(SettingsError, match=f"LAKEHOUSE_PIPELINES_DIR: {folder} is not a folder"):
                look(elsewhere)


def test_the_projects_own_declarations_are_right() -> None:
    settings = load_settings()
    assert find_problems(settings) == []
    assert {"flights", "weather", "planes", "airports", "airlines"} <= set(load_pipelines(settings))


def test_several_documents_in_one_file_are_several_pipelines(settings: Settings) -> None:
    declare(settings, GOOD.format(name="one") + "---\n" + GOOD.format(name="two"))
    assert list(load_pipelines(settings)) == ["one", "two"]


def test_every_problem_is_found_not_only_the_first(settings: Settings) -> None:
    declare(settings, GOOD.format(name="bad-name").replace("format: csv", "format: xls"), "a")
    declare(settings, "type: [\n", "b")
    problems = [str(problem) for problem in find_problems(settings)]
    assert len(problems) == 3
    assert any("a/defs.yaml:3: name:" in problem for problem in problems)
    assert any("a/defs.yaml:8: source.format: is 'xls'" in problem for problem in problems)
    assert any("b/defs.yaml" in problem and "not valid YAML" in problem for problem in problems)


def test_a_misspelt_option_is_an_error_with_a_suggestion(settings: Settings) -> None:
    declare(settings, GOOD.format(name="ok").replace("format: csv", "format: csv\n    null_marker: [NA]"))
    (problem,) = find_problems(settings)
    assert problem.field == "source.null_marker"
    assert "did you mean null_markers?" in problem.message


def test_names_are_unique_whatever_their_case(settings: Settings) -> None:
    declare(settings, GOOD.format(name="orders"), "a")
    declare(settings, GOOD.format(name="Orders"), "b")
    with pytest.raises(DeclarationError, match="names are unique"):
        load_pipelines(settings)


def test_a_key_that_the_contract_lacks_is_found_before_any_run(settings: Settings, tmp_path: Path) -> None:
    declare(settings, GOOD.format(name="x") + "  checks:\n    references: [{columns: [carier], to: x}]\n")
    (problem,) = [p for p in find_problems(settings) if "carier" in p.message][:1]
    assert "did you mean carrier?" in problem.message


def test_a_history_is_ordered_by_a_date_or_an_instant(settings: Settings) -> None:
    flights = GOOD.format(name="x").replace("airlines.Airlines", "flights.Flights")
    for number, column in enumerate(("flight", "flight_date", "time_hour_utc")):
        silver = f"  silver: {{mode: history, sequence_by: [{column}]}}\n"
        declare(settings, flights.replace("name: x", f"name: x{number}") + silver, column)
    (problem,) = find_problems(settings)
    assert problem.field == "silver.sequence_by"
    assert "Date or Datetime" in problem.message


TAKEN = """
import pandera.polars as pa
import polars as pl

from lakehouse.contracts import Contract


class Prices(Contract):
    \"\"\"One row per product.\"\"\"

    id: pl.Int64 = pa.Field(description="Product.")
    since: pl.Date = pa.Field(description="When it changed.")
    one: pl.Int64 = pa.Field(alias={column!r}, description="A name.")

    class Config:
        name = "prices"
        unique = ["id"]
"""


@pytest.mark.parametrize(
    ("column", "silver", "is_taken"),
    [
        ("valid_from_utc", "mode: history, sequence_by: [since]", True),
        ("Is_Current", "mode: history, sequence_by: [since]", True),
        ("is_current", "mode: upsert, sequence_by: [since]", False),
        ("file_row_number", "mode: upsert, sequence_by: [since]", True),
        ("FILE_ROW_NUMBER", "mode: history, sequence_by: [since]", True),
        ("file_row_number", "mode: append", True),
        ("_is_deleted", "mode: upsert, sequence_by: [since], delete_when: {column: id, value: 0}", True),
        ("_is_deleted", "mode: append", True),
        ("_ingested_at_utc", "mode: upsert, sequence_by: [since]", False),
    ],
)
def test_a_column_that_silver_writes_itself_is_found_before_any_run(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    silver: str,
    *,
    is_taken: bool,
) -> None:
    module = f"taken_{column}_{len(silver)}".lower()
    (tmp_path / f"{module}.py").write_text(TAKEN.format(column=column))
    monkeypatch.syspath_prepend(tmp_path)
    declare(
        settings,
        GOOD.format(name="x").replace("lakehouse.contracts.airlines.Airlines", f"{module}.Prices")
        + f"  silver: {{{silver}}}\n",
    )
    problems = find_problems(settings)
    assert [problem.field for problem in problems] == (["contract"] if is_taken else [])
    if is_taken:
        assert f"cannot have {column}: " in problems[0].message
        with pytest.raises(
            DeclarationError, match=r"rename it in a transform .* give the pipeline a new name"
        ):
            _ = load_pipelines(settings)["x"].contract


def test_all_columns_of_a_history_together_make_one_in_any_mode(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second batch on the table would be taken for one."""
    more = "".join(
        f"    c{number}: pl.String = pa.Field(alias={name!r}, description='A name.')\n"
        for number, name in enumerate(("valid_to_utc", "is_current", "_observed_at_utc"))
    )
    text = TAKEN.format(column="valid_from_utc").replace("\n    class Config", f"{more}\n    class Config")
    (tmp_path / "taken_together.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    declare(
        settings,
        GOOD.format(name="x").replace("lakehouse.contracts.airlines.Airlines", "taken_together.Prices"),
    )
    (problem,) = find_problems(settings)
    assert "cannot have valid_from_utc, valid_to_utc, is_current, _observed_at_utc" in problem.message
