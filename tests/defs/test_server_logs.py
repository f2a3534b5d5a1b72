"""What the servers print is appended to their logs, and a log that has grown large makes room at the next start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lakehouse import servers


def _start(logs: Path) -> None:
    assert servers._spawn("this", [], os.environ, logs).wait(60) == 0


def test_a_large_log_is_put_aside_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _start(tmp_path)
    _start(tmp_path)
    log, aside = tmp_path / "this.log", tmp_path / "this.log.1"
    before = log.read_text()
    assert before.count("The Zen of Python") == 2
    assert not aside.exists()
    monkeypatch.setattr(servers, "_LOG_BYTES", len(before) - 1)
    _start(tmp_path)
    assert aside.read_text() == before
    assert log.read_text().count("The Zen of Python") == 1
