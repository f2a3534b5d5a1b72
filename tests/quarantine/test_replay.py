"""Replay on real tables: what today's contract accepts is released, once, whatever happens meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from lakehouse.errors import CommitConflict, TableNotFound
from lakehouse.ops.reconcile import reconcile
from lakehouse.quarantine import Selection
from lakehouse.settings import PROJECT_DIR
from lakehouse.silver.shape import fit_schema
from tests.quarantine.bench import Bench

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Three good rows, -5 and -50 refused, in two batches."""
    bench = Bench(tmp_path / "lake")
    bench.land("a.csv", (1, 10, "2024-01-01"), (2, -5, "2024-01-01"), (3, 30, "2024-01-01"))
    bench.take()
    bench.land("b.csv", (4, 40, "2024-01-02"), (5, -50, "2024-01-02"))
    bench.take()
    return bench


def test_a_corrected_contract_releases_exactly_the_rows_that_fit_it(bench: Bench) -> None:
    done = bench.use("Lenient").replay()
    assert (done.selected, done.released, done.accepted) == (2, 1, 1)
    assert done.still_broken == {"amount >= -10": 1}
    assert bench.table("id", "amount") == [(1, 10), (2, -5), (3, 30), (4, 40)]
    assert bench.counts() == (1, 0, 1, 0)


def test_a_released_row_keeps_its_batch_file_and_row(bench: Bench) -> None:
    bench.use("Lenient").replay()
    path = str(bench.folder / "a.csv")
    assert (2, 1, path, 2) in bench.table("id", "_batch_id", "_source_file", "_source_row")


def test_a_second_replay_finds_nothing_and_writes_nothing(bench: Bench) -> None:
    bench.use("Open").replay()
    before = bench.files()
    again = bench.replay()
    assert (again.selected, again.released, again.action_id) == (0, 0, None)
    assert bench.files() == before


def test_a_dry_run_says_what_would_be_released_and_writes_nothing(bench: Bench) -> None:
    before = bench.files()
    said = bench.use("Lenient").replay(dry_run=True)
    assert bench.files() == before
    assert said.release["_source_row"].to_list() == [2]
    assert said.held.select("_source_row", "_broken_rules").rows() == [(2, ["amount >= -10"])]
    assert bench.counts() == (2, 0, 0, 0)


def test_a_replay_under_the_same_contract_releases_nothing(bench: Bench) -> None:
    done = bench.replay()
    assert (done.released, done.still_broken) == (0, {"amount >= 0": 2})
    assert bench.counts() == (2, 0, 0, 0)


@pytest.mark.parametrize(
    ("selection", "released"),
    [
        (Selection(batch=2), [5]),
        (Selection(file="a.csv"), [2]),
        (Selection(file="*/b.*"), [5]),
        (Selection(rule="amount >= 0", limit=1), [2]),
        (Selection(rule="no such rule"), []),
        (Selection(stage="bronze"), []),
    ],
)
def test_only_the_selected_rows_are_released(bench: Bench, selection: Selection, released: list[int]) -> None:
    bench.use("Open").replay(selection)
    assert [row[0] for row in bench.table("id") if row[0] in (2, 5)] == released


def test_a_row_that_a_newer_one_has_overtaken_is_late(bench: Bench) -> None:
    bench.land("c.csv", (2, 7, "2024-02-01"))
    bench.take()
    done = bench.use("Open").replay()
    assert (done.released, done.accepted, done.late) == (2, 1, 1)
    assert (2, 7) in bench.table("id", "amount")
    assert bench.counts() == (0, 0, 2, 0)


def test_without_a_sequence_the_order_of_arrival_decides(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", mode="upsert")
    bench.land("a.csv", (1, 10, "x"), (2, -5, "x"), (2, 6, "x"), (3, 8, "x"), (3, -9, "x"))
    bench.take()
    bench.land("b.csv", (1, 11, "x"))
    bench.take()
    done = bench.use("Open").replay()
    assert (done.accepted, done.late) == (1, 1)
    assert bench.table("id", "amount") == [(1, 11), (2, 6), (3, -9)]


def test_history_gets_the_version_where_it_belongs_in_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", mode="history", sequence_by="day")
    bench.land("a.csv", (1, 10, "2024-01-01"), (1, -5, "2024-01-02"), (1, 30, "2024-01-03"))
    bench.take()
    assert len(bench.table("id")) == 2
    done = bench.use("Open").replay()
    assert (done.released, done.accepted) == (1, 1)
    rows = bench.table("valid_from_utc", "valid_to_utc", "amount", "is_current")
    assert [row[2:] for row in rows] == [(10, False), (-5, False), (30, True)]
    assert [row[1] for row in rows[:-1]] == [row[0] for row in rows[1:]]


def test_append_takes_a_released_row_once_with_and_without_a_key(tmp_path: Path) -> None:
    for contract, opened in (("Strict", "Open"), ("StrictLog", "OpenLog")):
        bench = Bench(tmp_path / contract, contract, mode="append")
        bench.land("a.csv", (1, 10, "x"), (2, -5, "x"))
        bench.take()
        bench.use(opened)
        assert bench.replay().accepted == 1
        assert bench.replay().released == 0
        assert bench.table("id", "amount") == [(1, 10), (2, -5)]


def test_a_rule_that_looks_at_other_rows_sees_their_whole_batch(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", "Distinct", mode="append")
    bench.land("a.csv", (1, 7, "x"), (2, 7, "x"), (3, 8, "x"))
    assert bench.take().quarantined == 2
    # One of the two alone would look unique.
    assert bench.replay(Selection(limit=1)).released == 0
    assert bench.use("DistinctOpen").replay(Selection(limit=1)).released == 1


def test_broken_lines_are_named_as_what_no_contract_can_release(bench: Bench) -> None:
    (bench.folder / "c.csv").write_text("id,amount,day\n6,60,2024-01-03\n7\n")
    bench.take()
    done = bench.use("Open").replay()
    assert (done.unreadable, done.released) == (1, 2)
    assert bench.counts() == (1, 0, 2, 0)


def test_a_table_without_refused_rows_says_so(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path / "other")
    with pytest.raises(TableNotFound, match="nothing of 'orders' is in quarantine"):
        other.replay()


_KILLED = """
import os, signal, sys
from pathlib import Path
from lakehouse.silver import replay as module
from tests.quarantine.bench import Bench

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

sys.modules["lakehouse.silver.replay"]._commit = die
Bench(Path(sys.argv[1])).use("Open").replay()
"""


def _kill_between_plan_and_merge(bench: Bench) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, bench.settings.root],
        cwd=PROJECT_DIR, env={"PYTHONPATH": str(PROJECT_DIR)}, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL


def test_a_replay_killed_between_plan_and_merge_is_carried_out_by_the_next(bench: Bench) -> None:
    _kill_between_plan_and_merge(bench)
    assert bench.counts() == (0, 2, 0, 0)
    assert len(bench.table("id")) == 3
    healed = bench.use("Open").replay()
    assert (healed.healed, healed.released) == (2, 0)
    assert bench.table("id") == [(1,), (2,), (3,), (4,), (5,)]
    assert bench.counts() == (0, 0, 2, 0)
    assert bench.replay().healed == 0


def test_a_dry_run_after_a_kill_says_what_is_pending(bench: Bench) -> None:
    _kill_between_plan_and_merge(bench)
    before = bench.files()
    assert bench.use("Open").replay(dry_run=True).pending == 2
    assert bench.files() == before


def test_a_planned_row_that_the_contract_refuses_again_is_reopened(bench: Bench) -> None:
    _kill_between_plan_and_merge(bench)
    healed = bench.use("Lenient").replay()
    assert (healed.healed, healed.reopened) == (1, 1)
    assert bench.table("id") == [(1,), (2,), (3,), (4,)]
    assert bench.counts() == (1, 0, 1, 0)
    assert bench.use("Open").replay().released == 1
    assert bench.counts() == (0, 0, 2, 0)


def test_two_replays_at_once_release_every_row_once(bench: Bench) -> None:
    bench.use("Open")
    with ThreadPoolExecutor(2) as pool:
        done = [task.result() for task in [pool.submit(bench.replay) for _ in range(2)]]
    assert sum(result.accepted for result in done) <= 2
    assert bench.table("id") == [(1,), (2,), (3,), (4,), (5,)]
    assert bench.counts() == (0, 0, 2, 0)


def test_two_replays_at_once_without_a_key_double_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", "StrictLog", mode="append")
    bench.land("a.csv", *((number, -number, "x") for number in range(1, 40)), (100, 1, "x"))
    bench.take()
    bench.use("OpenLog")
    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(bench.replay, Selection(limit=25)) for _ in range(3)]
        _ = [task.result() for task in tasks]
    bench.replay()
    assert bench.table("id") == [(number,) for number in (*range(1, 40), 100)]
    assert bench.counts() == (0, 0, 39, 0)


def test_a_stage_commit_and_a_replay_never_both_follow_one_version(bench: Bench) -> None:
    """Both only add rows, which Delta would let pass; a key that both bring must not be there twice."""
    table = bench.lake.table("silver", "orders")
    stale = fit_schema(table.snapshot(), bench.pipeline)
    bench.use("Open").replay()
    with pytest.raises(CommitConflict):
        stale.commit(txns={"silver/orders": 3})
    stale = table.snapshot()
    bench.land("c.csv", (9, 90, "2024-03-01"))
    bench.take()
    with pytest.raises(CommitConflict):
        stale.commit(txns={"silver/orders": 2, "replay/orders": 9})


def test_a_stage_that_meets_a_replay_reads_again_and_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse.silver import refine as _  # noqa: F401  the module, not the function, is patched below

    module = sys.modules["lakehouse.silver.refine"]
    merge_batch = module.merge_batch
    met = []

    def meeting(*arguments: object) -> object:
        merged = merge_batch(*arguments)
        if not met:
            met.append(Bench(Path(bench.settings.root)).use("Open").replay())
        return merged

    monkeypatch.setattr(module, "merge_batch", meeting)
    bench.land("c.csv", (2, 7, "2024-02-01"), (9, 90, "2024-03-01"))
    assert bench.use("Open").take().accepted == 2
    assert met[0].released == 2
    assert bench.table("id", "amount") == [(1, 10), (2, 7), (3, 30), (4, 40), (5, -50), (9, 90)]


def test_rows_of_one_commit_over_several_batches_are_found_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake")
    from lakehouse.bronze import ingest

    for number, name in enumerate(("a.csv", "b.csv", "c.csv"), start=1):
        bench.land(name, (number, -1, "2024-01-01"), (number + 10, 1, "2024-01-01"))
        ingest(bench.lake, bench.settings, bench.pipeline)
    assert bench.refine().batches == (1, 2, 3)
    assert bench.quarantined()["_batch_id"].sort().to_list() == [1, 2, 3]
    assert bench.use("Open").replay().accepted == 3


def test_rows_refused_before_a_crash_stay_refused_when_the_contract_has_changed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path / "lake", "StrictLog", mode="append")
    bench.land("a.csv", (1, 10, "x"), (2, -5, "x"))
    module = sys.modules["lakehouse.silver.refine"]
    with monkeypatch.context() as patched:
        patched.setattr(module, "merge_batch", lambda *_: (_ for _ in ()).throw(OSError("crash")))
        with pytest.raises(OSError, match="crash"):
            bench.take()
    result = bench.use("OpenLog").refine()
    assert (result.accepted, result.quarantined) == (1, 1)
    assert bench.table("id") == [(1,)]
    assert bench.replay().accepted == 1
    assert bench.table("id") == [(1,), (2,)]


def test_the_commit_of_a_replay_says_what_it_was(bench: Bench) -> None:
    done = bench.use("Open").replay(note="credits are right")
    document = bench.lake.table("silver", "orders").snapshot().history(1)[0].metadata
    assert (document["stage"], document["action"], document["action_id"]) == (
        "silver",
        "replay",
        done.action_id,
    )
    assert (document["rows_in"], document["accepted"], document["batches"]) == (2, 2, [])
    assert document["watermark_utc"] is not None


@pytest.mark.parametrize(
    ("contract", "opened", "mode"),
    [("StrictLog", "OpenLog", "append"), ("Strict", "Open", "append"), ("Strict", "Open", "upsert")],
)
def test_the_lake_still_adds_up_after_a_replay_and_a_lost_release_is_seen(
    tmp_path: Path, contract: str, opened: str, mode: str
) -> None:
    bench = Bench(tmp_path / "lake", contract, mode=mode)
    bench.land("a.csv", (1, 10, "x"), (2, -5, "x"), (3, -6, "x"))
    bench.take()
    bench.use(opened).replay(Selection(limit=1))

    def differences() -> list[str]:
        found = reconcile(bench.lake, bench.settings, {"orders": bench.pipeline}, sources=False)
        return [count.what for count in found if not count.ok]

    assert differences() == []
    silver = bench.lake.table("silver", "orders").snapshot()
    released = silver.scan().filter(pl.col("amount") != -5)
    silver.commit(add=silver.stage(released), remove=silver.files()["path"].to_list())
    assert len(differences()) == 1
