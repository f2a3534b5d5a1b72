"""What the fleet is judged by, from ticks made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import fleet_figures
from benchmarks.fleet_figures import Start, Tick
from benchmarks.fleet_worker import Done

DONE = Done(wall_s=10.0, cpu_s=16.0, ended_at=0.0, peak_rss_bytes=1 << 30, written_bytes=1_000_000_000)


def ticks(walls: list[float]) -> list[Tick]:
    return [
        Tick(
            number,
            4_000_000_000 if number == 0 else 1_000_000_000,
            wall + 1,
            False,
            replace(DONE, wall_s=wall),
        )
        for number, wall in enumerate(walls)
    ]


def judged(walls: list[float], bare: dict[int, float]) -> dict[str, object]:
    found = fleet_figures.figures(
        ticks(walls), None, None, (DONE, DONE), Start(1.0, 1.0), [],
        {number: replace(DONE, wall_s=wall) for number, wall in bare.items()}, 0.5,
    )  # fmt: skip
    return {**found, "peak_rss_together_gib": 1.0}


def test_the_first_load_counts_for_no_time() -> None:
    found = judged([1_000.0, *[10.0] * 60], {1: 5.0, 60: 5.0})
    assert found["sustained_mb_s"] == pytest.approx(1000 / 11, abs=0.1)
    assert (found["first_load_gb"], found["tick_mb"], found["landed_gb"]) == (4.0, 1000, 64.0)
    assert found["last_to_first"] == "1.000 ± 0.000"


def test_the_last_ten_are_set_against_the_first_ten_after_it() -> None:
    """12 seconds instead of 10, while bare Polars takes 6 instead of 5: the machine has become slower."""
    walls = [1_000.0, *[10.0] * 10, *[500.0] * 30, *[12.0] * 10]
    found = judged(walls, {1: 5.0, 3: 5.0, 48: 6.0, 50: 6.0})
    assert found["last_to_first"] == "1.200 ± 0.000"
    assert found["bare_last_to_first"] == "1.200 ± 0.000"
    assert found["last_to_first_by_bare"] == "1.000 ± 0.000"
    (flat,) = (target for target in fleet_figures.targets(found) if "within 10 %" in target.asked)
    assert not flat.is_met, "what is asked is asked of the clock"


def test_the_error_is_that_of_the_means() -> None:
    found = judged([1.0, *[9.0, 11.0] * 5, *[10.0] * 20, *[9.0, 11.0] * 5], {1: 5.0, 40: 5.0})
    assert found["last_to_first"] == "1.000 ± 0.047"  # of 1.054 among ten values of 10 on average, twice


def test_few_ticks_are_compared_where_there_are_few() -> None:
    assert fleet_figures.compared(range(4)) == (range(1, 2), range(3, 4))
    assert fleet_figures.compared(range(100)) == (range(1, 11), range(90, 100))
