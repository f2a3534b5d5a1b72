"""``lakehouse quarantine`` as a person uses it: a process, an exit code, words that name the next step."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_cli
from tests.quarantine.bench import Bench

pytestmark = pytest.mark.slow

DECLARATION = """
type: lakehouse.defs.component.PipelineComponent
attributes:
  name: orders
  description: x
  source: {{kind: files, path: "orders/**/*.csv", format: csv}}
  contract: tests.quarantine.bench.{contract}
  silver: {{mode: upsert, sequence_by: day}}
"""


class Shell:
    """One lake, and the declaration that is valid today."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder / "lake")
        self.root = Path(self.bench.settings.root)
        self.declarations = folder / "declarations"
        (self.declarations / "orders").mkdir(parents=True)
        self.use("Strict")

    def use(self, contract: str) -> None:
        (self.declarations / "orders" / "defs.yaml").write_text(DECLARATION.format(contract=contract))
        self.bench.use(contract)

    def run(self, *words: str, code: int = 0) -> str:
        done = run_cli("quarantine", *words, root=self.root, LAKEHOUSE_PIPELINES_DIR=str(self.declarations))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    (shell.bench.folder / "a.csv").write_text(
        "id,amount,day\n1,10,2024-01-01\n2,-5,2024-01-01\n3\n4,-70,2024-01-01\n"
    )
    shell.bench.take()
    return shell


def test_a_dry_run_names_the_rows_and_the_rules_that_hold_the_others(shell: Shell) -> None:
    shell.use("Lenient")
    said = shell.run("replay", "orders", "--dry-run")
    assert "1 of 2 open rows of orders would be released" in said
    assert f"batch 1, {shell.bench.folder}/a.csv, row 2" in said
    assert "amount >= -10" in said
    assert "lakehouse quarantine export orders --stage bronze" in said
    assert "Nothing was written" in said
    assert shell.bench.counts() == (3, 0, 0, 0)


def test_the_next_step_after_an_export_marks_what_was_exported_and_nothing_else(
    shell: Shell, tmp_path: Path
) -> None:
    to = tmp_path / "refused.csv"
    said = shell.run(
        "export", "orders", "--to", str(to), "--landable", "--rule", "amount >= 0", "--batch", "1"
    )
    assert (
        "lakehouse quarantine resolve orders --rule 'amount >= 0' --batch 1 --stage silver --until " in said
    )
    assert shell.json(*_printed(said, "resolve"))["rows"] == 2
    assert shell.bench.counts() == (3, 0, 0, 0)


def _printed(said: str, verb: str) -> list[str]:
    """The words of a command that was printed, behind ``lakehouse quarantine``."""
    return [
        verb,
        *shlex.split(said.split(f"lakehouse quarantine {verb} ")[1].splitlines()[0].split("   (")[0]),
    ]


def test_the_next_step_leaves_what_was_not_in_the_file_and_what_came_later(
    shell: Shell, tmp_path: Path
) -> None:
    to = tmp_path / "refused.csv"
    said = shell.run("export", "orders", "--to", str(to), "--landable")
    assert "1 could not be read into columns" in said
    shell.bench.land("b.csv", (2, 5, "2024-01-02"), (4, -70, "2024-01-02"))  # corrected, but for one row
    shell.bench.take()
    assert shell.json(*_printed(said, "resolve"), "--apply")["rows"] == 2
    left = shell.json("show", "orders")
    assert {(row["_stage"], Path(row["_source_file"]).name) for row in left} == {
        ("bronze", "a.csv"), ("silver", "b.csv"),
    }  # fmt: skip


def test_a_limit_counts_the_rows_that_are_in_the_file(shell: Shell, tmp_path: Path) -> None:
    (shell.bench.folder / "0.csv").write_text("id,amount,day\n7\n8\n9,-1,2024-01-01\n")
    shell.bench.take()
    to = tmp_path / "refused.csv"
    said = shell.run("export", "orders", "--to", str(to), "--landable", "--limit", "5")
    assert "3 rows of orders written" in said
    assert "3 could not be read into columns" in said
    assert shell.json(*_printed(said, "resolve"))["rows"] == 3
    first = shell.run("export", "orders", "--to", str(to), "--landable", "--limit", "1", "--overwrite")
    assert [p["_source_row"] for p in shell.json(*_printed(first, "resolve"))["places"]] == [2]


def test_what_a_dry_run_prints_is_about_the_rows_that_it_showed(shell: Shell) -> None:
    shell.bench.land("b.csv", (5, -3, "2024-01-02"), ("6",))
    shell.bench.take()
    shell.use("Open")
    said = shell.run("replay", "orders", "--dry-run", "--file", "a.csv", "--limit", "3")
    assert "To do it: lakehouse quarantine replay orders --file a.csv --limit 3\n" in said
    (shell.bench.folder / "later").mkdir()
    shell.bench.land("later/a.csv", ("8",))  # another file of that name: its line is refused as well
    shell.run("resolve", "orders", "--stage", "silver", "--note", "x", "--apply")
    export, resolve = _printed(said, "export"), _printed(said, "resolve")
    assert "--apply" not in resolve
    shell.bench.take()
    target = str(shell.root / "broken.jsonl")
    assert shell.json(*export[: export.index("--to")], "--to", target)["rows"] == 1
    (place,) = shell.json(*resolve)["places"]
    assert (place["_stage"], place["_batch_id"]) == ("bronze", 1)


def test_until_is_an_instant(shell: Shell) -> None:
    assert shell.json("list", "--until", "2013-03-09") == []
    assert len(shell.json("show", "orders", "--until", "2999-01-01T00:00:00+02:00")) == 3
    assert "2013-03-09T12:00:00Z" in shell.run("show", "orders", "--until", "noon", code=2)


def test_a_replay_says_what_it_did_and_that_a_run_publishes_it(shell: Shell) -> None:
    shell.use("Lenient")
    said = shell.run("replay", "orders")
    assert "1 of 2 open rows of orders released" in said
    assert "lakehouse run --select orders" in said
    assert shell.bench.counts() == (2, 0, 1, 0)
    again = shell.json("replay", "orders")
    assert (again["selected"], again["released"], again["still_broken"]) == (1, 0, {"amount >= -10": 1})


def test_every_verb_takes_the_same_selection(shell: Shell) -> None:
    chosen = ("--rule", "amount >= 0", "--batch", "1", "--file", "a.csv", "--stage", "silver")
    assert [row["rows"] for row in shell.json("list", *chosen)] == [2]
    assert len(shell.json("show", "orders", *chosen, "--limit", "1")) == 1
    assert (
        shell.json("export", "orders", "--to", str(shell.root / "x.csv"), *chosen, "--limit", "1")["rows"]
        == 1
    )
    assert shell.json("replay", "orders", *chosen, "--limit", "1", "--dry-run")["selected"] == 1
    meant = shell.json("resolve", "orders", "--note", "x", *chosen, "--limit", "1")
    assert (meant["rows"], meant["applied"]) == (1, False)


def test_a_resolved_row_disappears_from_what_is_open_and_stays_in_what_was_refused(shell: Shell) -> None:
    shell.run("resolve", "orders", "--stage", "bronze", "--note", "landed again", "--actor", "ann", "--apply")
    assert len(shell.json("show", "orders")) == 2
    (row,) = shell.json("show", "orders", "--state", "resolved")
    assert (row["_note"], row["_actor"]) == ("landed again", "ann")
    assert "resolved by ann: landed again" in shell.run("show", "orders", "--state", "all")
    assert {(row["stage"], row["open"], row["resolved"]) for row in shell.json("list")} == {
        ("bronze", 0, 1), ("silver", 2, 0),
    }  # fmt: skip


def test_wrong_usage_is_told_from_nothing_there(shell: Shell, tmp_path: Path) -> None:
    shell.run("resolve", "orders", "--apply", code=2)
    assert "a note is needed" in shell.run("resolve", "orders", "--note", " ", code=2)
    (tmp_path / "there.csv").write_text("mine")
    assert "exists already" in shell.run("export", "orders", "--to", str(tmp_path / "there.csv"), code=2)
    landable = shell.run("export", "orders", "--to", str(tmp_path / "x.jsonl"), "--landable", code=2)
    assert "ends in .csv" in landable
    shell.run("show", "orders", "--state", "lost", code=2)
    shell.run("list", "--stage", "gold", code=2)
    assert "known: orders" in shell.run("replay", "order", code=2)
    assert "nothing of 'planes' is in quarantine" in shell.run("show", "planes", code=3)


def test_status_counts_what_waits_for_somebody(shell: Shell) -> None:
    shell.use("Lenient")
    shell.run("replay", "orders")
    shell.run("resolve", "orders", "--stage", "bronze", "--note", "x", "--apply")
    done = run_cli("status", "--json", root=shell.root, LAKEHOUSE_PIPELINES_DIR=str(shell.declarations))
    (orders,) = json.loads(done.stdout)["pipelines"]
    assert (orders["quarantined_rows"], orders["open_rows"]) == (3, 1)
    assert (orders["released_rows"], orders["resolved_rows"]) == (1, 1)
