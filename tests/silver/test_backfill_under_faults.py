"""Backfill when it is killed between any two steps, and beside the stage, a replay and other backfills."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lakehouse.errors import CommitConflict
from lakehouse.settings import PROJECT_DIR
from tests.silver.sales import Bench, filled

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return filled(Bench(tmp_path / "lake"))


_KILLED = """
import os, signal, sys
from pathlib import Path
from lakehouse import quarantine
from lakehouse.silver import replay
from tests.silver.sales import Bench

module = sys.modules["lakehouse.silver.backfill"]
step, left = sys.argv[2], int(sys.argv[3])
whole = getattr(quarantine if step != "_commit" else module, step)

def dying(*arguments, **options):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return whole(*arguments, **options)

setattr(quarantine if step != "_commit" else module, step, dying)
Bench(Path(sys.argv[1])).use("Severe", "credits").backfill("2024-01")
"""


@pytest.mark.parametrize(("step", "left"), [("append", 0), ("record", 0), ("record", 1), ("_commit", 0)])
def test_killed_between_any_two_steps_and_run_again_the_result_is_the_same(
    tmp_path: Path, step: str, left: int
) -> None:
    def prepared(folder: Path) -> Bench:
        bench = filled(Bench(folder)).use("Lenient")
        bench.backfill("2024-01-03")  # 6 is released: Severe refuses it again
        return bench

    undisturbed = prepared(tmp_path / "calm").use("Severe", "credits")
    done = undisturbed.backfill("2024-01")
    assert min(done.newly_refused, done.reopened, done.released, done.keys_changed) > 0
    bench = prepared(tmp_path / "killed")
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, bench.settings.root, step, str(left)],
        cwd=PROJECT_DIR, env={"PYTHONPATH": str(PROJECT_DIR)}, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    bench.use("Severe", "credits").backfill("2024-01")
    assert bench.table() == undisturbed.table()
    assert bench.counts() == undisturbed.counts()
    assert bench.differences() == []
    assert bench.backfill("2024-01").changes_nothing


def test_a_batch_that_comes_at_the_same_time_is_neither_lost_nor_undone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["lakehouse.silver.backfill"]
    commit = module._commit
    arrivals = iter(["c.csv"])

    def overtaken(*arguments: Any, **options: Any) -> int:
        for name in arrivals:
            bench.land(name, "2,2024-01-02,500", "8,2024-01-02,80")
            bench.take()
        return commit(*arguments, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(module, "_commit", overtaken)
    done = bench.use(transform="plus_1000").backfill()
    assert done.version is not None
    assert bench.table("id", "amount") == [(1, 11), (2, 1500), (3, 995), (4, 40), (5, 1060), (8, 1080)]
    assert bench.counts() == (1, 0, 1, 0)
    assert bench.differences() == []


def test_two_backfills_and_a_replay_at_once_end_in_one_state(bench: Bench) -> None:
    bench.use("Lenient", "plus_1000")
    with ThreadPoolExecutor(3) as pool:
        tasks = [
            pool.submit(bench.backfill, "2024-01"),
            pool.submit(bench.backfill, "2024-01-02"),
            pool.submit(bench.replay),
        ]
        _ = [task.result() for task in tasks]
    assert bench.table("id", "amount") == [(1, 11), (2, 1020), (3, 995), (4, 40), (5, 1060), (6, -7)]
    assert bench.counts() == (0, 0, 2, 0)
    assert bench.backfill("2024-01").changes_nothing


def test_twenty_conflicts_are_reported_and_leave_the_table_as_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["lakehouse.silver.backfill"]

    def refused(*_: Any, **__: Any) -> int:
        raise CommitConflict("somebody was faster")

    monkeypatch.setattr(module, "_commit", refused)
    monkeypatch.setattr(module, "_ATTEMPTS", 2)
    before = bench.content()
    with pytest.raises(CommitConflict):
        bench.use("Severe").backfill()
    assert bench.content() == before
