"""A wrong declaration is refused with the file, the line, the field, what was wrong and what would be right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse.cli.app import app
from lakehouse.errors import DeclarationError
from lakehouse.pipelines import load_pipelines
from lakehouse.settings import load_settings
from tests.conftest import run_cli

RIGHT = """\
type: lakehouse.defs.component.PipelineComponent

attributes:
  name: airlines
  description: One row per airline.
  owners: [team:data]
  group: shop
  source:
    kind: files
    path: airlines/*.csv
    format: csv
    csv: {delimiter: ",", quote: '"'}
    expected_every: 1 day
  contract: lakehouse.contracts.airlines.Airlines
  silver:
    mode: upsert
  checks:
    max_quarantined_share: 0.05
"""

# (name, text replaced, replacement, line, field, words of the message)
WRONG = [
    ("misspelt_option", "    format: csv", "    fromat: csv", 11, "source.fromat", ["did you mean format?"]),
    ("missing_option", "    format: csv\n", "", 8, "source.format", ["is required"]),
    ("bad_table_name", "name: airlines", "name: my-airlines", 4, "name", ["'my-airlines'", "letters, digits and underscores", "my_airlines"]),
    ("name_starts_with_digit", "name: airlines", "name: 2nd_table", 4, "name", ["not starting with a digit"]),
    ("unknown_kind", "kind: files", "kind: kafka", 9, "source.kind", ["'kafka'", "'files'"]),
    ("unknown_format", "format: csv", "format: excel", 11, "source.format", ["'excel'", "'csv'", "'parquet'"]),
    ("unknown_mode", "mode: upsert", "mode: merge", 16, "silver.mode", ["'merge'", "'append', 'upsert' or 'history'"]),
    ("history_without_sequence", "mode: upsert", "mode: history", 15, "silver", ["needs sequence_by"]),
    ("append_with_sequence", "mode: upsert", "mode: append\n    sequence_by: [name]", 15, "silver", ["append takes neither"]),
    ("path_climbs", "path: airlines/*.csv", "path: ../airlines/*.csv", 10, "source.path", ["climbs with '..'"]),
    ("unknown_scheme", "path: airlines/*.csv", "path: ftp://host/airlines.csv", 10, "source.path", ["'ftp'", "s3://, gs://, abfss://"]),
    ("credentials_in_url", "path: airlines/*.csv", "path: s3://key:secret@bucket/a.csv", 10, "source.path", ["must not carry credentials"]),
    ("delimiter_of_two", 'delimiter: ","', 'delimiter: "||"', 12, "source.csv.delimiter", ["not one ASCII character"]),
    ("unknown_encoding", "quote: '\"'", "encoding: utf-99", 12, "source.csv.encoding", ["'utf-99'", "utf-8"]),
    ("no_header_no_columns", "quote: '\"'", "header: false", 12, "source.csv", ["columns must list the column names"]),
    ("csv_options_for_json", "format: csv", "format: jsonl", 8, "source", ["csv options are given, but format is jsonl"]),
    ("bad_duration", "expected_every: 1 day", "expected_every: daily", 13, "source.expected_every", ["'daily'", "'1 day'"]),
    ("bad_owner", "team:data", "the data people", 6, "owners", ["not an owner", "team:name"]),
    ("contract_module_missing", "contracts.airlines.Airlines", "contracts.airline.Airlines", 14, "contract", ["cannot import lakehouse.contracts.airline"]),
    ("contract_class_missing", "airlines.Airlines", "airlines.Airline", 14, "contract", ["has no Airline", "did you mean Airlines?"]),
    ("unknown_sequence_column", "mode: upsert", "mode: upsert\n    sequence_by: [nmae]", 17, "silver.sequence_by", ["'nmae'", "did you mean name?"]),
    ("share_above_one", "max_quarantined_share: 0.05", "max_quarantined_share: 5", 18, "checks.max_quarantined_share", ["5", "less than or equal to 1"]),
    ("reference_to_nothing", "  checks:\n", "  checks:\n    references: [{columns: [carrier], to: carriers}]\n", 18, "checks.references.0", ["no pipeline is named 'carriers'"]),
    ("not_yaml", "attributes:", "attributes: [", None, "", ["is not valid YAML"]),
    ("wrong_type", "component.PipelineComponent", "component.Pipeline", 1, "type", ["write type: lakehouse.defs.component.PipelineComponent"]),
    ("two_regex_groups", "    expected_every: 1 day", "    path_columns: {day: '(a)(b)'}", 13, "source.path_columns", ["has 2 groups; put exactly one"]),
    ("reserved_column", "    expected_every: 1 day", "    path_columns: {_batch_id: '(a)'}", None, "", ["one that bronze adds itself"]),
    ("outdented_key", "  silver:\n    mode: upsert\n", "silver:\n  mode: upsert\n", 15, "silver", ["indent it under attributes"]),
]  # fmt: skip


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A right declaration in a folder of its own; returns its file."""
    file = tmp_path / "defs" / "shop" / "airlines" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(RIGHT)
    monkeypatch.setenv("LAKEHOUSE_PIPELINES_DIR", str(tmp_path / "defs"))
    return file


def test_the_declaration_that_all_cases_start_from_is_right(declared: Path) -> None:
    done = CliRunner().invoke(app, ["validate"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG]
)
def test_a_wrong_declaration_says_where_and_what_would_be_right(
    declared: Path, old: str, new: str, line: int | None, field: str, words: list[str]
) -> None:
    assert old in RIGHT
    declared.write_text(RIGHT.replace(old, new, 1))
    done = CliRunner().invoke(app, ["validate", "--json"])
    assert done.exit_code == 2
    problems = json.loads(done.stdout)["problems"]
    matching = [
        p for p in problems if p["field"].startswith(field) and all(word in p["message"] for word in words)
    ]
    assert matching, problems
    assert matching[0]["file"].endswith("shop/airlines/defs.yaml")
    if line is not None:
        assert matching[0]["line"] == line


def test_every_problem_of_every_file_is_printed_and_the_load_refuses_too(
    declared: Path, tmp_path: Path
) -> None:
    declared.write_text(RIGHT.replace("mode: upsert", "mode: merge").replace("format: csv", "format: excel"))
    other = tmp_path / "defs" / "other" / "defs.yaml"
    other.parent.mkdir()
    other.write_text(RIGHT.replace("name: airlines", "name: a b"))
    done = run_cli("validate", root=tmp_path / "lake", LAKEHOUSE_PIPELINES_DIR=str(tmp_path / "defs"))
    assert done.returncode == 2
    assert done.stdout == ""
    for part in (
        "other/defs.yaml:4: name:",
        "airlines/defs.yaml:16: silver.mode:",
        "airlines/defs.yaml:11: source.format:",
        "3 problems in 2",
    ):
        assert part in done.stderr
    with pytest.raises(DeclarationError, match=r"silver\.mode"):
        load_pipelines(load_settings())


def test_two_pipelines_of_one_name_are_refused(declared: Path, tmp_path: Path) -> None:
    other = tmp_path / "defs" / "other" / "defs.yaml"
    other.parent.mkdir()
    other.write_text(RIGHT.replace("name: airlines", "name: Airlines"))
    done = CliRunner().invoke(app, ["validate"])
    assert done.exit_code == 2
    assert "names are unique" in done.output


def test_a_run_with_a_wrong_declaration_stops_before_anything_is_written(
    declared: Path, tmp_path: Path
) -> None:
    declared.write_text(RIGHT.replace("mode: upsert", "mode: merge"))
    done = run_cli("run", root=tmp_path / "lake", LAKEHOUSE_PIPELINES_DIR=str(tmp_path / "defs"))
    assert done.returncode == 2
    assert "silver.mode" in done.stderr
    assert "next: lakehouse validate" in done.stderr
    assert not (tmp_path / "lake" / "ops").exists()
