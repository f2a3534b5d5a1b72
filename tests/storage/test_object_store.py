"""Objects and commits on a real object store; and a store on which commits would be lost, which is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from lakehouse.doctor import examine
from lakehouse.errors import CommitConflict, StorageError
from lakehouse.settings import Settings, load_settings
from lakehouse.storage import Lake, Objects, Table
from lakehouse.storage.probe import broken_promises
from tests.conftest import run_cli
from tests.servers import Store

pytestmark = pytest.mark.slow

FRAME = pl.DataFrame({"id": [1, 2, 3]})


def _settings(store: Store, folder: Path) -> Settings:
    return load_settings(
        root=store.root("doctor"),
        storage_options=store.options,
        catalog_dir=str(folder / "catalog"),
        state_dir=str(folder / "state"),
    )


def test_an_object_is_read_listed_and_removed(store: Store) -> None:
    objects = Objects(store.root("objects"), store.options)
    assert objects.read("a/b") is None
    objects.write("a/b", b"one")
    objects.write("a/b", b"two")
    assert objects.read("a/b") == b"two"
    assert [(info.path, info.size_bytes) for info in objects.list("a/")] == [("a/b", 3)]
    objects.delete("a/b")
    objects.delete("a/b")
    assert list(objects.list("a/")) == []


def test_a_good_store_has_one_winner_in_every_race(store: Store, tmp_path: Path) -> None:
    assert broken_promises(Objects(store.root("probe"), store.options), "p/", rounds=10) == []
    assert list(Objects(store.root("probe"), store.options).list()) == []
    found = next(finding for finding in examine(_settings(store, tmp_path)) if finding.what == "storage")
    assert found.state == "ok"


def test_a_local_disk_has_one_winner_in_every_race(tmp_path: Path) -> None:
    assert broken_promises(Objects(str(tmp_path)), "p/", rounds=10) == []


def test_a_store_that_ignores_conditions_is_refused(careless_store: Store, tmp_path: Path) -> None:
    done = run_cli(
        "doctor",
        root=careless_store.root("doctor"),  # type: ignore[arg-type]
        LAKEHOUSE_STORAGE_OPTIONS=json.dumps(careless_store.options),
        LAKEHOUSE_CATALOG_DIR=str(tmp_path / "catalog"),
        LAKEHOUSE_STATE_DIR=str(tmp_path / "state"),
    )
    assert done.returncode == 1
    assert "must not hold a lake, commits would be lost" in " ".join(done.stdout.split())
    assert "use a store with conditional writes" in done.stdout


def _add_rows(table: Table, writer: int, commits: int) -> int:
    """Commit one row at a time, in turn with all others; how many conflicts there were."""
    conflicts = 0
    for number in range(commits):
        staged = table.stage(pl.LazyFrame({"id": [writer * 1000 + number]}))
        while True:
            try:
                snapshot = table.snapshot_or_none()
                if snapshot is None:
                    table.create(FRAME.schema, add=staged)
                else:
                    snapshot.commit(add=staged)
                break
            except CommitConflict:
                conflicts += 1
    return conflicts


def test_six_writers_at_once_lose_no_row(store: Store) -> None:
    lake = Lake(store.root("writers"), store.options)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda writer: _add_rows(lake.table("silver", "things"), writer, 8), range(6)))
    ids = lake.table("silver", "things").snapshot().scan().collect()["id"].sort().to_list()
    assert ids == sorted(writer * 1000 + number for writer in range(6) for number in range(8))


def test_a_careless_store_does_lose_rows(careless_store: Store) -> None:
    """The negative control: were this ever to hold there, the tests above would show nothing."""
    lake = Lake(careless_store.root("writers"), careless_store.options)
    lake.table("silver", "things").create(FRAME.schema)

    def write(writer: int) -> bool:
        """False when the log could not be read any more: two wrote the same commit at once."""
        try:
            _add_rows(lake.table("silver", "things"), writer, 8)
            return lake.table("silver", "things").snapshot().num_rows() > 0
        except StorageError:
            return False

    with ThreadPoolExecutor(6) as pool:
        can_be_read = all(pool.map(write, range(6)))
    assert not can_be_read or lake.table("silver", "things").snapshot().num_rows() < 48
