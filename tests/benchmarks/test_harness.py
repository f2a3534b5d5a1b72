"""The benchmarks' harness measures the work and nothing else, and writes what it found where it should."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness
from benchmarks.harness import Contestant

pytestmark = pytest.mark.slow

HERE = "tests.benchmarks.test_harness:"


def writes(case: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    """Prepares for a moment, then writes a file and spins in a process of its own."""
    time.sleep(0.3)

    def work() -> dict[str, Any]:
        Path(case["folder"], "file").write_bytes(b"x" * 1_000_000)
        os.system(f"{sys.executable} -S -c 'for _ in range(3_000_000): pass'")
        return {"rows": case["rows"]}

    return work


def in_steps(case: Mapping[str, Any]) -> harness.Steps:
    """Two small works and a large one, each prepared by writing more than it writes itself."""
    sizes = {"small": [1_000, 3_000], "large": [2_000_000]}
    for name, wanted in sizes.items():
        for size in wanted:
            Path(case["folder"], "prepared").write_bytes(b"x" * 1_000_000)
            yield name, lambda size=size: Path(case["folder"], "work").write_bytes(b"x" * size)
    return {"rows": 3}


def fails(case: Mapping[str, Any]) -> Callable[[], None]:
    raise ValueError("no such engine")


def test_a_run_counts_the_work_of_its_children_and_not_its_preparation(tmp_path: Path) -> None:
    run = harness.run(Contestant("writes", HERE + "writes", {"rows": 1}), tmp_path)
    assert run.facts == {"rows": 1}
    assert 1_000_000 <= run.written_bytes < 1_100_000
    assert run.cpu_s > 0.01
    assert run.peak_rss_bytes > 1 << 20
    assert list(tmp_path.iterdir()) == [], "each run's folder is removed"


def test_steps_are_measured_one_by_one_and_what_lies_between_them_is_not(tmp_path: Path) -> None:
    result = harness.Result("steps", [harness.run(Contestant("steps", HERE + "in_steps"), tmp_path)])
    assert [step.name for step in result.runs[0].steps] == ["small", "small", "large"]
    assert result.mean("small", "written_bytes") == pytest.approx(2_000, abs=500)
    assert result.mean("none", "cpu_s") is None
    assert result.median("written_bytes") == pytest.approx(2_004_000, abs=2_000), (
        "a run is its steps together"
    )
    assert result.facts == {"rows": 3}


def test_contestants_that_did_other_work_are_no_comparison(tmp_path: Path) -> None:
    both = [Contestant(str(rows), HERE + "writes", {"rows": rows}) for rows in (1, 2)]
    with pytest.raises(RuntimeError, match="not the same work"):
        harness.compare(both, rounds=1, folder=tmp_path)


def test_a_contestant_that_cannot_run_is_named_and_one_of_ours_that_fails_stops_everything(
    tmp_path: Path,
) -> None:
    absent = Contestant("engine", HERE + "fails", absent="there is no engine")
    results = harness.compare([Contestant("writes", HERE + "writes", {"rows": 1}), absent], rounds=1, folder=tmp_path)  # fmt: skip
    assert "Not measured: engine (there is no engine)." in harness.table(results, reference="writes")
    with pytest.raises(RuntimeError, match="no such engine"):
        harness.compare([Contestant("fails", HERE + "fails")], rounds=1, folder=tmp_path)


def test_publishing_replaces_what_is_between_the_marks_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench x -->\nold\n<!-- /bench x -->\nafter\n")
    harness.publish(page, "x", "new \\1")
    assert page.read_text() == "before\n<!-- bench x -->\nnew \\1\n<!-- /bench x -->\nafter\n"
    with pytest.raises(SystemExit):
        harness.publish(page, "y", "new")
