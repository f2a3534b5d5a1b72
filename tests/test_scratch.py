"""What a process keeps on the disk for a while goes with it, also when it is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse import scratch

_CODE = """
import sys
from lakehouse import scratch
folder = scratch.new_folder(sys.argv[1])
folder.mkdir()
(folder / "rows").write_bytes(b"x" * 1000)
print(folder.parent.name, flush=True)
sys.stdin.read()
"""


def _process(state: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", _CODE, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout
    return process, process.stdout.readline().strip()


def _folders(state: Path) -> set[str]:
    return {entry.name for entry in (state / "spool").iterdir()}


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()


def test_the_folder_of_a_process_that_ends_is_gone(tmp_path: Path) -> None:
    process, name = _process(tmp_path)
    assert _folders(tmp_path) == {name}
    _end(process)
    assert _folders(tmp_path) == set()


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    killed, left = _process(tmp_path)
    living, kept = _process(tmp_path)
    killed.kill()
    killed.wait()
    assert _folders(tmp_path) == {left, kept}
    following, own = _process(tmp_path)
    assert _folders(tmp_path) == {kept, own}
    assert len(list((tmp_path / "spool" / kept).rglob("rows"))) == 1
    for process in (living, following):
        _end(process)


def test_a_process_has_one_folder_and_makes_it_again_when_somebody_removed_it(tmp_path: Path) -> None:
    first, second = scratch.new_folder(tmp_path), scratch.new_folder(tmp_path)
    assert first != second
    assert first.parent == second.parent == scratch.process_folder(tmp_path)
    (first.parent / ".lock").unlink()
    first.parent.rmdir()
    assert scratch.new_folder(tmp_path).parent.is_dir()


def test_what_is_no_process_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "spool" / "somebody's").mkdir(parents=True)
    scratch.process_folder(tmp_path)
    assert "somebody's" in _folders(tmp_path)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_own", {})
