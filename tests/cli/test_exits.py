"""Exit codes and messages: what a script, and a person in a hurry, can rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse import errors
from lakehouse.cli.app import app
from lakehouse.cli.exits import FAILED, NOTHING, OK, TRANSIENT, USAGE, exit_code
from tests.conftest import loaded_by, run_cli

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.StorageUnavailable("x"), TRANSIENT),
        (errors.CommitConflict("x"), TRANSIENT),
        (errors.SourceUnavailable("x"), TRANSIENT),
        (errors.DeclarationError("x"), USAGE),
        (errors.SettingsError("x"), USAGE),
        (errors.WrongUsage("x"), USAGE),
        (errors.TableNotFound("x"), NOTHING),
        (errors.NothingPublished("x"), NOTHING),
        (errors.QueryError("x"), FAILED),
        (errors.PublishBlocked("x"), FAILED),
        (errors.StorageError("x"), FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: errors.LakehouseError, code: int) -> None:
    assert exit_code(error) == code


def test_help_answers_at_once(tmp_path: Path) -> None:
    """Nothing that takes its time to import is: by a clock, a busy machine could not be told from that."""
    assert loaded_by(["--help"], tmp_path).isdisjoint(
        {"dagster", "dbt", "deltalake", "duckdb", "pandas", "pandera", "polars", "pyarrow"}
    )


def test_every_verb_has_help_with_an_example() -> None:
    for verb in (["demo"], ["run"], ["status"], ["query"], ["sql"], ["quarantine", "list"], ["quarantine", "show"],
                 ["new", "pipeline"], ["validate"], ["doctor"], ["up"]):  # fmt: skip
        shown = CliRunner().invoke(app, [*verb, "--help"])
        assert shown.exit_code == 0
        assert "Example: lakehouse " + " ".join(verb) in shown.output, verb


def test_a_wrong_option_is_wrong_usage(tmp_path: Path) -> None:
    assert run_cli("run", "--sellect", "x", root=tmp_path).returncode == USAGE
    assert run_cli("nothing", root=tmp_path).returncode == USAGE


def test_a_query_before_the_first_publish_says_what_to_do(tmp_path: Path) -> None:
    done = run_cli("query", "select 1", root=tmp_path)
    assert done.returncode == NOTHING
    assert "nothing is published yet" in done.stderr
    assert "next: lakehouse demo" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_names_the_variable(tmp_path: Path) -> None:
    done = run_cli("status", root=tmp_path, LAKEHOUSE_MEMORY_LIMIT="lots")
    assert done.returncode == USAGE
    assert "LAKEHOUSE_MEMORY_LIMIT" in done.stderr
    assert "512MiB" in done.stderr


def test_a_missing_folder_of_declarations_is_a_wrong_setting(tmp_path: Path) -> None:
    done = run_cli("validate", root=tmp_path, LAKEHOUSE_PIPELINES_DIR=str(tmp_path / "missing"))
    assert done.returncode == USAGE
    assert f"LAKEHOUSE_PIPELINES_DIR: {tmp_path / 'missing'}" in done.stderr
    (tmp_path / "missing").mkdir()
    assert (
        run_cli("validate", root=tmp_path, LAKEHOUSE_PIPELINES_DIR=str(tmp_path / "missing")).returncode == OK
    )


def test_a_file_that_is_not_held_is_wrong_usage(tmp_path: Path) -> None:
    done = run_cli("accept", "flights", "no-such-file.csv", root=tmp_path)
    assert (done.returncode, "no held file of flights ends in no-such-file.csv" in done.stderr) == (
        USAGE,
        True,
    )


def test_debug_shows_the_traceback_and_nothing_else_does(tmp_path: Path) -> None:
    assert "Traceback" in run_cli("--debug", "query", "select 1", root=tmp_path).stderr
    assert "Traceback" not in run_cli("query", "select 1", root=tmp_path).stderr


def test_an_empty_quarantine_is_no_error(tmp_path: Path) -> None:
    done = run_cli("quarantine", "list", root=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (
        OK,
        "Quarantine is empty: every row that came was accepted.",
    )
    assert run_cli("quarantine", "show", "flights", root=tmp_path).returncode == NOTHING


def test_a_run_before_anything_arrived_says_so_and_writes_no_table(tmp_path: Path) -> None:
    done = run_cli("run", root=tmp_path / "lake")
    assert done.returncode == NOTHING
    assert "Nothing has arrived yet" in done.stdout
    assert not list((tmp_path / "lake").glob("*/*/_delta_log"))


def test_a_misspelt_selection_suggests_the_right_one(tmp_path: Path) -> None:
    done = run_cli("run", "--select", "flihgts", root=tmp_path / "lake")
    assert done.returncode == USAGE
    assert "did you mean flights?" in done.stderr
    assert run_cli("run", "--select", "zz*", root=tmp_path / "lake").returncode == USAGE


def test_the_doctor_finds_a_sound_installation_sound(tmp_path: Path) -> None:
    done = run_cli("doctor", "--json", root=tmp_path / "lake")
    findings = {item["what"]: item for item in json.loads(done.stdout)}
    assert done.returncode == OK, findings
    assert findings["storage"]["state"] == "ok"
    assert findings["declarations"]["state"] == "ok"
    assert {"python", "packages", "disk", "memory", "dbt project", "catalog", "browser", "daemon"} <= set(
        findings
    )


def test_the_doctor_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_cli(
        "doctor", "--json", root=tmp_path / "file" / "lake", LAKEHOUSE_STATE_DIR=str(tmp_path / "state")
    )
    assert done.returncode == FAILED
    storage = next(item for item in json.loads(done.stdout) if item["what"] == "storage")
    assert storage["state"] == "fail"
    assert storage["next_step"]
