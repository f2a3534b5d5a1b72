"""How a history's files lie: versions that have ended apart from open ones, and opened only by what concerns them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from asset_checks.base import Subject
from asset_checks.silver import silver_checks
from lakehouse.ops.maintenance import maintain
from lakehouse.silver import row_copies
from lakehouse.storage import Snapshot
from tests.lakes import OrdersLake

VERSION = ["id", "amount", "note", "valid_from_utc", "valid_to_utc", "is_current", "_is_deleted"]


def history(root: Path) -> OrdersLake:
    deletes = {"column": "note", "value": "D"}
    return OrdersLake(root, "history", sequence_by="seq", delete_when=deletes)


def silver(lake: OrdersLake) -> Snapshot:
    return lake.lake.table("silver", "orders").snapshot()


def maintained(lake: OrdersLake) -> None:
    done = list(maintain(lake.lake, lake.settings, lake.pipelines, select=["silver/orders"], min_files=2))
    assert [table.error for table in done if table.error] == []


def ended_and_others(snapshot: Snapshot) -> tuple[list[str], list[str]]:
    """URIs of the files that hold ended versions only, and of those that hold none; there is no third kind."""
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for uri in snapshot.uris():
        ended = pl.read_parquet(uri)["valid_to_utc"].is_not_null()
        assert ended.all() or not ended.any(), f"{uri} has both"
        kinds[bool(ended.all())].append(uri)
    return kinds[True], kinds[False]


def rows(number: int, keys: range) -> Iterator[str]:
    """Each key twice, in the second of this number: its first version has ended when they arrive."""
    for key in keys:
        yield f"{key},{number}.0,a,{number * 1_000_000}"
        yield f"{key},{number}.5,b,{number * 1_000_000 + 500_000}"


def test_ended_versions_have_files_of_their_own_also_after_maintenance(tmp_path: Path) -> None:
    lake = history(tmp_path / "lake")
    for number in range(1, 7):
        lake.arrive(*rows(number, range(10)))
        ended_and_others(silver(lake))
    before = lake.rows(*VERSION)
    maintained(lake)
    ended, others = ended_and_others(silver(lake))
    assert (len(ended), len(others)) == (1, 1)
    assert lake.rows(*VERSION) == before
    assert len(before) == 10 * 2 * 6
    # Nobody waits for them to be removed, and a writer leaves none that holds nothing.
    assert all(pl.read_parquet(path).height for path in Path(silver(lake).table.uri).glob("*.parquet"))


@pytest.mark.parametrize("combined", [False, True])
def test_files_of_versions_that_ended_before_a_batch_are_not_opened_by_it(
    tmp_path: Path, combined: bool
) -> None:
    lake = history(tmp_path / "lake")
    for number in range(1, 5):
        lake.arrive(*rows(number, range(10)))
    if combined:
        maintained(lake)
    published = silver(lake)
    ended, _ = ended_and_others(published)
    assert ended
    for uri in ended:
        Path(uri).rename(f"{uri}.away")
    lake.arrive(*rows(5, range(5, 15)))
    checks = {check.name: check for check in silver_checks(lake.pipeline)}
    subject = Subject(lake.lake, lake.pipeline, silver(lake), 4, published.version)
    assert checks["key_unique"].look(subject).passed
    # One late row, and they are read again.
    with pytest.raises(FileNotFoundError):
        lake.arrive("7,9,late,1200000")
    for uri in ended:
        Path(f"{uri}.away").rename(uri)
    lake.run()
    of_seven = sorted(row[1:] for row in lake.rows("id", "valid_from_utc", "valid_to_utc") if row[0] == 7)
    assert len(of_seven) == 2 * 5 + 1
    assert [end for _, end in of_seven[:-1]] == [begin for begin, _ in of_seven[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_any_batches_with_maintenance_between_them_give_what_one_batch_gives(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seed: int,
    is_large: bool,
) -> None:
    """Late rows, repetitions, deletions and returns; the instants of one batch reach far back.

    In a large table keys are found by the index, and rows in copies.
    """
    rng = random.Random(seed)
    events = [
        f"{rng.randrange(6)},{rng.randrange(3)},{rng.choice(['a', 'b', 'D'])},{rng.randrange(40) * 500_000 + 1}"
        for _ in range(60)
    ]
    events.sort(key=lambda event: int(event.split(",")[3]) + rng.randrange(8_000_000))
    at_once, piece_by_piece = history(tmp_path / "one"), history(tmp_path / "many")
    at_once.arrive(*events)
    if is_large:
        piece_by_piece.settings = piece_by_piece.settings.model_copy(update={"key_index_min_rows": 0})
        monkeypatch.setattr(row_copies, "_FEW", 1e9)
        monkeypatch.setattr(row_copies, "_LEFT_ON_DISK", 0.0)
    while events:
        taken = rng.randrange(1, 9)
        piece_by_piece.arrive(*events[:taken])
        events = events[taken:]
        if rng.random() < 0.3:
            maintained(piece_by_piece)
        ended_and_others(silver(piece_by_piece))
    assert piece_by_piece.rows(*VERSION) == at_once.rows(*VERSION)
    assert any(Path(piece_by_piece.settings.state_dir, "rows", "orders").glob("*.arrow")) == is_large
    assert caplog.text == ""


def test_a_version_begun_twice_is_found_in_an_old_file_of_ended_ones(tmp_path: Path) -> None:
    lake = history(tmp_path / "lake")
    for number in range(1, 4):
        lake.arrive(*rows(number, range(10)))
    maintained(lake)
    before = silver(lake)
    (ended,), _ = ended_and_others(before)
    twice = pl.read_parquet(ended).head(1)
    after = before.table.snapshot()
    after.commit(add=after.stage(twice.lazy()))
    subject = Subject(lake.lake, lake.pipeline, before.table.snapshot(), 3, before.version)
    checks = {check.name: check for check in silver_checks(lake.pipeline)}
    found = checks["key_unique"].look(subject)
    assert not found.passed
    assert found.count == 1
