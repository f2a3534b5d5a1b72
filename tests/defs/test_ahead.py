"""Stages on worker threads, ahead of the steps that tell of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from lakehouse.defs.ahead import Ahead, left_at_work
from lakehouse.memory import SharedMemory
from lakehouse.settings import Settings, load_settings

LAYERS = ("bronze", "silver")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(root=str(tmp_path), threads=2, memory_limit="1GiB")


def test_every_stage_runs_once_and_bronze_before_silver(settings: Settings) -> None:
    seen: list[tuple[str, str]] = []

    def act(layer: str, source: str, _: SharedMemory) -> tuple[str, bool]:
        seen.append((layer, source))
        return f"{layer} {source}", True

    ahead = Ahead("run", ["a", "b", "c"], LAYERS, settings, act)
    assert [ahead.take("bronze", name) for name in "abc"] == ["bronze a", "bronze b", "bronze c"]
    assert [ahead.take("silver", name) for name in "cba"] == ["silver c", "silver b", "silver a"]
    assert sorted(seen) == [(layer, name) for layer in LAYERS for name in "abc"]
    assert all(seen.index(("bronze", name)) < seen.index(("silver", name)) for name in "abc")


def test_two_pipelines_are_at_work_at_once_and_keep_to_the_limit_together(settings: Settings) -> None:
    both = threading.Barrier(2, timeout=20)
    taken: list[int] = []

    def act(layer: str, source: str, memory: SharedMemory) -> tuple[str, bool]:
        taken.append(memory.take(700 << 20))
        both.wait()
        return source, True

    ahead = Ahead("run", ["a", "b"], ["bronze"], settings, act)
    assert (ahead.take("bronze", "a"), ahead.take("bronze", "b")) == ("a", "b")
    itself = ahead.memory.take(
        0
    )  # a step that takes up a stage itself, after a failure, has its part beside them
    assert max(taken) > 600 << 20
    assert itself == min(taken)
    assert sum(taken) + itself == 1 << 30


def test_an_error_reaches_its_own_step_and_nothing_follows_it(settings: Settings) -> None:
    def act(layer: str, source: str, _: SharedMemory) -> tuple[str, bool]:
        if source == "a":
            raise RuntimeError("the disk is gone")
        return layer, True

    ahead = Ahead("run", ["a", "b"], LAYERS, settings, act)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        ahead.take("bronze", "a")
    assert ahead.take("silver", "b") == "silver"
    assert ahead.take("bronze", "a") is None  # tried again: the step works itself
    assert ahead.take("silver", "a") is None


def test_a_closed_gate_leaves_what_follows_to_its_step(settings: Settings) -> None:
    seen: list[str] = []

    def act(layer: str, source: str, _: SharedMemory) -> tuple[Any, bool]:
        seen.append(layer)
        return "refused", False

    ahead = Ahead("run", ["a"], LAYERS, settings, act)
    assert ahead.take("bronze", "a") == "refused"
    assert ahead.take("silver", "a") is None
    assert seen == ["bronze"]


def test_what_is_not_of_the_run_is_left_to_its_step(settings: Settings) -> None:
    assert Ahead("run", [], LAYERS, settings, lambda *_: ("", True)).take("bronze", "a") is None


def test_a_killed_process_leaves_word_of_the_stages_that_it_was_in(settings: Settings) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def act(layer: str, source: str, _: SharedMemory) -> tuple[str, bool]:
        if source == "b":
            begun.set()
            go_on.wait(20)
        return source, True

    ahead = Ahead("run", ["a", "b"], ["bronze"], settings, act)
    assert begun.wait(20)
    assert ahead.take("bronze", "a") == "a"
    assert left_at_work(settings, "run") == [("bronze", "b")]
    go_on.set()
    assert ahead.take("bronze", "b") == "b"
    assert left_at_work(settings, "run") is None
