"""What a process keeps on the disk for a while goes with it, also when it is killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from lakehouse import scratch
from lakehouse.settings import load_settings
from lakehouse.storage import connect_duckdb

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


def test_what_nobody_can_hold_is_removed_when_it_is_old(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    names = {age: [f"{mark}{uuid.uuid4().hex}" for mark in ("", ".")] for age in ("young", "old")}
    for age, folders in names.items():
        for name in folders:
            (spool / name / "of a batch").mkdir(parents=True)
            (spool / name / "of a batch" / "rows").write_bytes(b"x")
            if age == "old":
                os.utime(spool / name, times=(0, 0))
    own = scratch.process_folder(tmp_path).name
    assert _folders(tmp_path) == {own, *names["young"]}


def test_a_folder_is_used_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr("fcntl.flock", no_locks)
        own = scratch.process_folder(tmp_path).name
    process, other = _process(tmp_path)  # with locks: another machine's view of the same folder, say
    assert _folders(tmp_path) == {own, other}
    _end(process)


def test_a_removal_that_is_killed_leaves_the_lock_until_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, left = _process(tmp_path)
    killed.kill()
    killed.wait()

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            scratch.process_folder(tmp_path)
    assert (tmp_path / "spool" / left / ".lock").exists()
    assert _folders(tmp_path) == {left}
    scratch.process_folder(tmp_path)
    assert left not in _folders(tmp_path)


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_own", {})


_QUERY = """
import os, signal, sys
from pathlib import Path
from lakehouse.settings import load_settings
from lakehouse.storage import connect_duckdb

settings = load_settings(root=sys.argv[1], memory_limit="64MiB", threads=1)
connection = connect_duckdb(settings)
connection.execute("CREATE TABLE numbers AS SELECT hash(range) AS a, hash(range + 1) AS b FROM range(6_000_000)")
spilled = [file for file in Path(settings.state_dir).rglob("duckdb_temp*")]
assert spilled, "nothing was spilled"
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
others = connect_duckdb(settings)
others.execute("CREATE TABLE numbers AS SELECT hash(range) AS a, hash(range + 1) AS b FROM range(6_000_000)")
others.close()
assert connection.execute("SELECT count(DISTINCT a) FROM numbers").fetchone() == (6_000_000,)
"""


def _query(root: Path, how: str) -> int:
    return subprocess.run([sys.executable, "-c", _QUERY, str(root), how], check=False).returncode


@pytest.mark.slow
def test_what_a_killed_query_has_spilled_is_removed_by_the_next(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert _query(tmp_path, "killed") == -signal.SIGKILL
    assert sum(file.stat().st_size for file in state.rglob("duckdb_temp*")) > 1 << 20
    assert _query(tmp_path, "ends") == 0
    assert list(state.rglob("duckdb_temp*")) == []
    assert _folders(state) == set()


def test_a_query_works_where_its_state_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with connect_duckdb(load_settings(root=str(tmp_path))) as connection:
        assert connection.execute("SELECT 42").fetchone() == (42,)
