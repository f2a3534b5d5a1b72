"""A store that drops, refuses, delays and cuts off: passing trouble is outlasted, lasting trouble ends at once."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import pytest

from lakehouse.errors import CommitConflict, StorageError, StorageUnavailable
from lakehouse.storage import Objects, retry
from lakehouse.storage.failures import translate
from tests.faults import inventory, lab
from tests.servers import Store, Weather, flaky_proxy


def test_passing_trouble_is_repeated_with_growing_random_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    calls = []

    @retry.patient
    def third_time_lucky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise StorageUnavailable("no answer")
        return "answer"

    assert third_time_lucky() == "answer"
    assert len(calls) == 3
    assert len(waits) == 2
    assert all(0 < wait <= retry.MAX_WAIT_S for wait in waits)


def test_lasting_trouble_gives_up_after_four_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    calls = []

    @retry.patient
    def never() -> None:
        calls.append(1)
        raise StorageUnavailable(f"no answer {len(calls)}")

    with pytest.raises(StorageUnavailable, match="no answer 4"):
        never()
    assert len(calls) == retry.MAX_ATTEMPTS


@pytest.mark.parametrize("error", [StorageError("no"), CommitConflict("taken")])
def test_permanent_errors_and_conflicts_are_raised_at_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited for nothing"))
    calls = []

    @retry.patient
    def refused() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        refused()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EBUSY, "Device or resource busy"), StorageUnavailable),
        (OSError(errno.ESTALE, "Stale file handle"), StorageUnavailable),
        (ConnectionResetError(), StorageUnavailable),
        (RuntimeError("HTTP 503 Slow Down"), StorageUnavailable),
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (PermissionError(errno.EACCES, "Permission denied"), StorageError),
        (RuntimeError("403 Forbidden"), StorageError),
    ],
)
def test_an_error_says_whether_it_will_pass(error: Exception, kind: type[Exception]) -> None:
    assert type(translate(error, "read x")) is kind


@pytest.mark.slow
def test_a_listing_that_breaks_off_goes_on_where_it_was(store: Store) -> None:
    objects = Objects(store.root("listing"), store.options)
    for number in range(40):
        objects.write(f"f/{number:03d}", b"x")
    weather = Weather(drop_share=0.3, error_share=0.2)
    with flaky_proxy(store.port, weather) as port:
        far = Objects(store.root("listing"), store.through(port))
        assert sorted(info.path for info in far.list("f/")) == [f"f/{number:03d}" for number in range(40)]
        assert all(far.read(f"f/{number:03d}") == b"x" for number in range(20))
    assert weather.refused > 0


def test_wrong_credentials_are_no_passing_trouble(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**store.options, "AWS_SECRET_ACCESS_KEY": "wrong"}
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited for nothing"))
    started = time.monotonic()
    with pytest.raises(StorageError, match="permissions"):
        Objects(store.root("listing"), wrong).write("x", b"x")
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_a_run_over_a_bad_line_gives_the_same_lake(tmp_path: Path, store: Store) -> None:
    """One request in eight is dropped, refused, or done without an answer: also commits, of which nobody hears."""
    good = lab.Lab(tmp_path, store.root("good-line"), store.options)
    good.write_project()
    for delivery in (1, 2):
        lab.arrive(good, delivery)
        lab.run(good, delivery)
    expected = inventory.take(good)
    weather = Weather(drop_share=0.04, error_share=0.04, cut_share=0.04, delay_s=0.002)
    for folder in [*good.local_state, good.landing]:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    with flaky_proxy(store.port, weather) as port:
        far = lab.Lab(tmp_path, store.root("bad-line"), store.through(port))
        for delivery in (1, 2):
            lab.arrive(far, delivery)
            _until_it_passes(far, delivery)
    assert weather.refused > 20
    near = lab.Lab(tmp_path, store.root("bad-line"), store.options)
    lab.run(near, 2)
    assert inventory.differences(expected, inventory.take(near)) == []


def _until_it_passes(far: lab.Lab, delivery: int) -> None:
    """As a sensor does: what says that it may be repeated is repeated, a few times."""
    from lakehouse.errors import PublishBlocked, TransientError

    for attempt in range(4):
        try:
            lab.run(far, delivery)
            return
        except (TransientError, PublishBlocked):
            if attempt == 3:
                raise
