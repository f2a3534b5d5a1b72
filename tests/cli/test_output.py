"""What is printed is what is there: brackets and colons in data are neither styles nor emoji."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from lakehouse import silver
from lakehouse.cli import quarantine_actions
from lakehouse.cli.app import app
from lakehouse.cli.output import print_table, report_error, say
from lakehouse.cli.progress import Display
from lakehouse.defs.execute import Progress
from lakehouse.errors import PermanentError
from lakehouse.ledger import Ledger
from lakehouse.ops import report
from lakehouse.quarantine import Selection
from lakehouse.silver import Backfilled, Period, Replayed
from tests.quarantine.bench import Bench

ODD = "code matches '^[a-z]{2}$' [/a-z] [red] :key:"


def test_lines_tables_checks_and_errors_show_data_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say(ODD)
    say(("styled", "bold"), f": {ODD}")
    print_table(("rule", ODD), [(ODD, 1)])
    report_error(PermanentError(ODD, hint=ODD))
    Display().event(Progress("check", ODD, passed=False, message=ODD))
    shown = capsys.readouterr()
    assert shown.out.count(ODD) == 6
    assert shown.out.startswith(f"{ODD}\nstyled: {ODD}\n")
    assert shown.err == f"error: {ODD}\n  next: {ODD}\n"


def _invoke(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def test_a_backfill_shows_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: dict[str, Any] = dict.fromkeys(Backfilled.__dataclass_fields__, 1)
    period = Period.parse("2013-01", "2013-01")
    done = SimpleNamespace(
        **figures | {"table": "orders", "period": period, "broken_rules": {ODD: 3}}, changes_nothing=False
    )
    monkeypatch.setattr(silver, "backfill", lambda *_, **__: done)
    assert f"  refused by {ODD}: 3\n" in _invoke("backfill", "flights", "--from", "2013-01")


@pytest.mark.slow
def test_accept_and_status_show_files_notes_and_problems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))
    held = SimpleNamespace(path=f"in/{ODD}.csv", size_bytes=3, note=ODD, pipeline="flights")
    monkeypatch.setattr(Ledger, "held", lambda *_: [(held, ODD)])
    assert f"in/{ODD}.csv (3 B): {ODD}\n" in _invoke("accept", "flights")
    whole = report.overview

    def troubled(*arguments: Any) -> Any:
        seen = whole(*arguments)
        for state in seen.pipelines:
            object.__setattr__(state, "problem", ODD)
        object.__setattr__(seen, "held", (held,))
        return seen

    monkeypatch.setattr(report, "overview", troubled)
    shown = _invoke("status")
    assert f"flights: {ODD}\n" in shown
    assert f"held: in/{ODD}.csv: {ODD}. Next: lakehouse accept flights\n" in shown


def test_new_pipeline_shows_the_files_name_and_its_yaml(tmp_path: Path) -> None:
    file = tmp_path / "orders [a-z] [red] :key:.csv"
    file.write_text("id,amount\n1,2\n2,3\n")
    shown = _invoke("new", "pipeline", "--from", str(file), "--name", "orders", "--dry-run")
    assert shown.startswith(f"{file.name}: csv")
    assert "\n  " in shown


@pytest.fixture
def odd_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A row refused by a rule and out of a file with odd names."""
    bench = Bench(tmp_path / "lake")
    bench.land("[a-z] [red] :key:.csv", (1, -5, ODD))
    bench.take()
    monkeypatch.setenv("LAKEHOUSE_ROOT", bench.settings.root)
    return bench


def test_the_verbs_of_quarantine_show_rows_files_and_commands(odd_bench: Bench, tmp_path: Path) -> None:
    shown = _invoke("quarantine", "show", "orders")
    assert ODD in shown
    assert "[a-z] [red] :key:.csv" in shown
    target = tmp_path / "[a-z] [red] :key:.csv"
    assert str(target) in _invoke("quarantine", "export", "orders", "--to", str(target))
    assert "[a-z] [red] :key:.csv" in _invoke("quarantine", "resolve", "orders", "--note", "x")


def test_a_replay_shows_its_rules_and_repeats_the_selection(capsys: pytest.CaptureFixture[str]) -> None:
    held = pl.DataFrame(
        {"_batch_id": [1], "_source_file": ["a"], "_source_row": [1], "_broken_rules": [[ODD]]}
    )
    done = Replayed("orders", dry_run=True, selected=1, released=1, unreadable=1, held=held)
    quarantine_actions._print(done, Selection(rule="[/a-z]"))
    shown = capsys.readouterr().out
    assert f"  {ODD}\n" in shown
    assert "resolve orders --rule '[/a-z]' --stage bronze" in shown
    assert "replay orders --rule '[/a-z]'\n" in shown
