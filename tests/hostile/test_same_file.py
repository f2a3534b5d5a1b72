"""The same file again: touched, renamed, copied, grown, truncated, rewritten, late. Told by content, never by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse import planning
from lakehouse.bronze.compare import describe
from lakehouse.cli.app import app
from lakehouse.connectors.files import FileConnector
from lakehouse.events import recent
from lakehouse.pipelines import PipelineSpec
from lakehouse.silver import refine
from tests.hostile.bench import Inbox
from tests.lakes import OrdersLake

ROWS = "id,name\n1,ann\n2,bob\n3,cid\n"


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "lake")


def test_a_touched_file_is_nothing_new_and_no_event(inbox: Inbox) -> None:
    path = inbox.put("a.csv", ROWS)
    inbox.ingest()
    os.utime(path, (2_000_000_000, 2_000_000_000))
    assert not inbox.ingest().committed
    assert inbox.events() == []


def test_a_renamed_or_copied_file_is_recognised_and_told(inbox: Inbox) -> None:
    path = inbox.put("a.csv", ROWS)
    inbox.ingest()
    inbox.put("copy.csv", ROWS)
    path.rename(inbox.folder / "renamed.csv")
    assert not inbox.ingest().committed
    assert inbox.bronze().height == 3
    assert {Path(file.path).name: (stage, note) for file, stage, note in inbox.ledger.newest("orders")} == {
        "a.csv": ("planned", ""),
        "copy.csv": ("duplicate", f"the same content as {path}"),
        "renamed.csv": ("duplicate", f"the same content as {path}"),
    }
    assert [event.kind for event in inbox.events()] == ["duplicate", "duplicate"]
    assert not inbox.ingest().committed
    assert len(inbox.events()) == 2


def test_a_ledger_whose_hashes_were_made_another_way_knows_its_files(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(FileConnector, "content_hash", FileConnector.earlier_hash)
        path = inbox.put("a.csv", ROWS)
        changed = inbox.put("b.csv", "id,name\n7,gil\n")
        inbox.ingest()
    os.utime(path, (2_000_000_000, 2_000_000_000))
    changed.write_text("id,name\n8,hal\n")  # of the same size
    inbox.put("copy.csv", ROWS)
    inbox.put("of the same size.csv", ROWS.replace("cid", "dan"))
    assert inbox.ingest().accepted == 3
    assert {Path(file.path).name: stage for file, stage, _ in inbox.ledger.newest("orders")} == {
        "a.csv": "unchanged",
        "b.csv": "held",
        "copy.csv": "duplicate",
        "of the same size.csv": "planned",
    }


def test_two_equal_files_that_arrive_together_land_once(inbox: Inbox) -> None:
    inbox.put("a.csv", ROWS)
    inbox.put("b.csv", ROWS)
    assert inbox.ingest().accepted == 3


def test_empty_files_and_bare_headers_are_alike_without_being_duplicates(inbox: Inbox) -> None:
    for name in "abcd":
        inbox.put(f"{name}.csv", "id,name\n" if name in "ab" else "")
    inbox.ingest()
    assert {stage for _, stage, _ in inbox.ledger.newest("orders")} == {"planned"}


def test_equal_content_lands_where_the_source_says_so_or_where_the_path_means_something(
    tmp_path: Path,
) -> None:
    for number, options in enumerate(({"same_content": "land"}, {"path_columns": {"day": r"(\w)\.csv"}})):
        inbox = Inbox(tmp_path / f"lake{number}", **options)
        inbox.put("a.csv", ROWS)
        inbox.put("b.csv", ROWS)
        assert inbox.ingest().accepted == 6


#: What becomes of a file that is planned and not landed when the process dies: its rows afterwards, and its names.
UNTIL_THE_RESTART: dict[str, tuple[Callable[[Path], object], list[str], set[str]]] = {
    "renamed": (lambda path: path.rename(path.with_name("b.csv")), ["ann", "bob", "cid"], {"b.csv"}),
    "copied and removed": (
        lambda path: (shutil.copy(path, path.with_name("b.csv")), shutil.move(path, path.with_name("c.csv"))),
        ["ann", "bob", "cid"],
        {"c.csv"},
    ),
    "sent again": (lambda path: os.utime(path, (2e9, 2e9)), ["ann", "bob", "cid"], {"a.csv"}),
    "rewritten": (lambda path: path.write_text("id,name\n9,zoe\n"), ["zoe"], {"a.csv"}),
    "removed": (lambda path: path.unlink(), [], set()),
}


@pytest.mark.parametrize("what", UNTIL_THE_RESTART)
@pytest.mark.parametrize(
    ("on_change", "judged_before"), [("alert", True), ("ignore", True), ("append", True), ("alert", False)]
)
def test_what_is_given_back_takes_along_what_was_set_aside_because_of_it(
    tmp_path: Path, what: str, on_change: str, *, judged_before: bool
) -> None:
    """``judged_before``: another process plans between the change and the restart, as a joint plan once did."""
    change, landed, files = UNTIL_THE_RESTART[what]
    inbox = Inbox(tmp_path / "lake", on_change=on_change)
    path = inbox.put("a.csv", ROWS)
    inbox.put("z.csv", "id,name\n0,zed\n")
    planning.plan(inbox.lake, inbox.settings, [inbox.pipeline])
    change(path)
    if judged_before:
        planning.plan(inbox.lake, inbox.settings, [inbox.pipeline])
    inbox.ingest()
    assert inbox.bronze()["name"].to_list() == [*landed, "zed"]
    assert set(inbox.bronze()["file"]) == {*files, "z.csv"}
    assert not inbox.ingest().committed
    assert inbox.ledger.held("orders") == []


def test_of_two_equal_files_the_other_one_lands_when_the_first_vanishes_between_plan_and_read(
    inbox: Inbox,
) -> None:
    path = inbox.put("a.csv", ROWS)
    inbox.put("b.csv", ROWS)
    planning.plan(inbox.lake, inbox.settings, [inbox.pipeline])
    path.write_text("id,name\n9,zoe\n")
    inbox.ingest()
    assert [(row["file"], row["name"]) for row in inbox.bronze().to_dicts()] == [
        ("a.csv", "zoe"),
        ("b.csv", "ann"),
        ("b.csv", "bob"),
        ("b.csv", "cid"),
    ]


def test_a_duplicate_of_what_has_landed_stays_one_when_something_else_of_its_size_is_given_back(
    inbox: Inbox,
) -> None:
    inbox.put("a.csv", ROWS)
    inbox.ingest()
    inbox.put("copy.csv", ROWS)
    other = inbox.put("other.csv", ROWS.replace("cid", "dan"))
    planning.plan(inbox.lake, inbox.settings, [inbox.pipeline])
    other.unlink()
    inbox.ingest()
    assert inbox.bronze().height == 3
    assert [event.kind for event in inbox.events() if event.kind != "schema"] == ["returned", "duplicate"]


def test_sources_are_planned_together_only_where_nothing_can_be_given_back(tmp_path: Path) -> None:
    inboxes = [Inbox(tmp_path / "lake", path=f"in/{name}-*.csv", name=name) for name in ("x", "y", "z")]
    pipelines = [inbox.pipeline for inbox in inboxes]
    lake, settings = inboxes[0].lake, inboxes[0].settings
    path = inboxes[0].put("x-a.csv", ROWS)
    planning.plan(lake, settings, pipelines)
    path.rename(path.with_name("x-b.csv"))
    inboxes[0].put("y-a.csv", ROWS)
    inboxes[0].put("z-a.csv", ROWS)
    planning.plan_ahead(lake, settings, pipelines, run_id="", describe=describe)
    known = inboxes[0].ledger
    assert [len(known.batches(name)) for name in "xyz"] == [1, 1, 1]
    assert inboxes[0].events() == []
    assert [inbox.ingest().accepted for inbox in inboxes] == [3, 3, 3]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,name\n1,ann\n2,bob\n", "truncated: its 2 whole records are the first of the 3 that were taken"),
        ("id,name\n1,ann\n2,bo", "rewritten: 1 of 2 records are as before, where 3 were taken"),
        ("id,name\n1,ann\n2", "truncated: its 1 whole records are the first of the 3 that were taken"),
        (ROWS + "4,dan\n", "grown: 1 records behind the 3 that were taken"),
        (ROWS.replace("bob", "eve"), "rewritten: 2 of 3 records are as before, where 3 were taken"),
        (ROWS.replace("\n", "\r\n"), "the same 3 records in other bytes"),
    ],
)
def test_new_content_is_held_and_the_alert_says_what_became_of_it(
    inbox: Inbox, content: str, told: str
) -> None:
    inbox.put("a.csv", ROWS)
    inbox.ingest()
    path = inbox.put("a.csv", content)
    assert not inbox.ingest().committed
    ((file, note),) = inbox.ledger.held("orders")
    assert (file.path, note.split(";")[0]) == (str(path), told)
    (event,) = inbox.events()
    assert event.kind == "held"
    assert "lakehouse accept orders --apply" in event.message
    assert not inbox.ingest().committed
    assert len(inbox.events()) == 1


def test_an_accepted_file_lands_once(inbox: Inbox) -> None:
    inbox.put("a.csv", ROWS)
    inbox.ingest()
    inbox.put("a.csv", ROWS + "4,dan\n")
    inbox.ingest()
    held = inbox.ledger.held_files("orders")
    assert [b.batch_id for b in planning.accept(inbox.lake, inbox.settings, inbox.pipeline, held)] == [2]
    assert planning.accept(inbox.lake, inbox.settings, inbox.pipeline, held) == []
    assert inbox.ingest().accepted == 4
    assert inbox.ledger.held("orders") == []
    assert not inbox.ingest().committed


def test_a_held_file_put_back_as_it_was_waits_no_longer(inbox: Inbox) -> None:
    inbox.put("a.csv", ROWS)
    inbox.ingest()
    inbox.put("a.csv", "id,name\n")
    inbox.ingest()
    inbox.put("a.csv", ROWS)
    assert not inbox.ingest().committed
    assert inbox.ledger.held("orders") == []


def test_a_late_old_file_is_taken(inbox: Inbox) -> None:
    inbox.put("b.csv", ROWS)
    inbox.ingest()
    late = inbox.put("a.csv", "id,name\n0,zoe\n")
    os.utime(late, (1_000_000_000, 1_000_000_000))
    assert inbox.ingest().accepted == 1


def test_the_new_version_wins_in_silver_once_it_is_appended(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path / "lake", "upsert", source={"on_change": "append"})
    path = lake.land("1,10,a,1", "2,20,b,1")
    lake.run()
    path.write_text("id,amount,note,seq\n1,11,a,2\n2,20,b,1\n")
    lake.run()
    assert lake.rows("id", "amount") == [(1, 11.0), (2, 20.0)]
    assert refine(lake.lake, lake.settings, lake.pipeline).committed is False


def test_a_source_that_goes_back_to_earlier_content_is_told_how_to_have_it_read(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path / "lake", "upsert")
    for amount in (10, 11, 10):
        lake.arrive(f"1,{amount},a,1")
    assert lake.rows("amount") == [(11.0,)]
    (told,) = [event.message for event in recent(lake.lake) if event.kind == "duplicate"]
    assert "and other content came in between" in told
    assert "set source.same_content: land and send the file once more under another name" in told
    source = lake.pipeline.spec.source.model_copy(update={"same_content": "land"})
    lake.pipeline = replace(lake.pipeline, spec=lake.pipeline.spec.model_copy(update={"source": source}))
    lake.arrive("1,10,a,1")
    assert lake.rows("amount") == [(10.0,)]


def test_a_copy_of_what_was_only_appended_gives_no_advice(tmp_path: Path) -> None:
    lake = OrdersLake(tmp_path / "lake")
    for number in (1, 2, 1):
        lake.arrive(f"{number},10,a,1")
    (told,) = [event.message for event in recent(lake.lake) if event.kind == "duplicate"]
    assert told.endswith("001.csv")


def test_replace_is_refused_with_the_way_out() -> None:
    source = {"kind": "files", "path": "x/*.csv", "format": "csv", "on_change": "replace"}
    spec = {"name": "orders", "description": "x", "source": source, "contract": "a.B"}
    with pytest.raises(ValueError, match=r"'replace' is not offered: .* Use append .* lakehouse accept"):
        PipelineSpec.model_validate(spec)


def test_accept_shows_first_and_takes_with_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = OrdersLake(tmp_path / "lake")
    path = lake.land("1,10,a,1")
    lake.run()
    path.write_text("id,amount,note,seq\n1,10,a,1\n2,20,b,1\n")
    lake.run()
    monkeypatch.setattr("lakehouse.pipelines.load_pipelines", lambda settings: lake.pipelines)
    run = CliRunner().invoke
    shown = run(app, ["accept", "orders"])
    assert "grown: 1 records behind the 1 that were taken" in shown.output
    assert "Nothing was written" in shown.output
    assert lake.run().committed is False
    assert run(app, ["accept", "orders", "nothing.csv"]).exit_code == 2
    assert "Planned as batch 2" in run(app, ["accept", "orders", path.name, "--apply"]).output
    lake.run()
    assert lake.rows("id") == [(1,), (2,)]
    assert "No file of orders is held" in run(app, ["accept", "orders"]).output
