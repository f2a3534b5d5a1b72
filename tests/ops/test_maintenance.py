"""Maintenance: fewer and larger files, no file that nobody needs, and not a row or a reader the worse for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest

from lakehouse import checks, ledger, names
from lakehouse.checks import CheckOutcome
from lakehouse.errors import CommitConflict, DeclarationError, StorageError
from lakehouse.ops import maintenance
from lakehouse.ops.maintenance import maintain
from lakehouse.ops.reconcile import reconcile
from lakehouse.settings import PROJECT_DIR, load_settings
from lakehouse.silver import refine
from lakehouse.silver.write import rewrite
from lakehouse.storage import Lake, Table, upkeep
from lakehouse.storage.commits import CHECKPOINT_INTERVAL
from tests.lakes import OrdersLake
from tests.ops.maintained import add, frame, ids, publish, run

NOW = timedelta(0)


def on_disk(table: Table) -> set[str]:
    return {path.name for path in Path(table.uri).glob("*.parquet")}


@pytest.fixture
def table(lake: Lake) -> Table:
    """Twelve batches of three rows, a file each."""
    table = lake.table("bronze", "things")
    add(table, *(frame(10 * batch, batch=batch) for batch in range(1, 13)))
    return table


def test_small_files_become_one_with_the_same_rows_in_batch_order(lake: Lake, table: Table) -> None:
    before = table.snapshot()
    done = run(lake)["bronze/things"]
    after = table.snapshot()
    assert (done.combined, done.into, done.files_before, done.files_after) == (12, 1, 12, 1)
    assert ids(after) == ids(before)
    assert after.scan([names.BATCH_ID]).collect()[names.BATCH_ID].is_sorted()
    files = after.files().row(0, named=True)
    assert (files[f"min.{names.BATCH_ID}"], files[f"max.{names.BATCH_ID}"]) == (1, 12)
    assert files["num_records"] == 36
    assert deltalake.DeltaTable(table.uri).to_pyarrow_table().num_rows == 36


def test_the_commit_says_that_no_data_has_changed(lake: Lake, table: Table) -> None:
    run(lake)
    text = Path(table.uri, "_delta_log", f"{table.snapshot().version:020d}.json").read_text()
    assert text.count('"dataChange":false') == 13
    assert '"dataChange":true' not in text
    newest = table.snapshot().history(1)[0]
    assert newest.metadata["stage"] == names.MAINTENANCE


def test_a_second_time_there_is_nothing_to_do(lake: Lake, table: Table) -> None:
    run(lake, retention=NOW)
    version, files = table.snapshot().version, on_disk(table)
    again = run(lake, retention=NOW)["bronze/things"]
    assert not again.did_something
    assert (table.snapshot().version, on_disk(table)) == (version, files)


def test_a_dry_run_says_the_same_and_does_nothing(lake: Lake, table: Table) -> None:
    version, files = table.snapshot().version, on_disk(table)
    told = run(lake, dry_run=True)["bronze/things"]
    assert (table.snapshot().version, on_disk(table)) == (version, files)
    done = run(lake)["bronze/things"]
    assert (told.combined, told.into, told.files_after) == (done.combined, done.into, done.files_after)


def test_a_few_small_files_are_left_alone(lake: Lake) -> None:
    table = lake.table("bronze", "few")
    add(table, *(frame(10 * batch, batch=batch) for batch in range(1, 8)))
    assert not run(lake)["bronze/few"].did_something


def test_silver_is_sorted_by_its_key_so_that_readers_skip_files(lake: Lake, tmp_path: Path) -> None:
    pipelines = OrdersLake(tmp_path / "declared").pipelines
    table = lake.table("silver", "orders")
    before = add(table, *(frame(first, 2) for first in range(90, 0, -10)))
    done = run(lake, pipelines=pipelines)["silver/orders"]
    assert (done.combined, done.into) == (9, 1)
    assert ids(table.snapshot()) == ids(before)
    assert pl.read_parquet(table.snapshot().uris()[0])["id"].is_sorted()


def test_stages_go_on_after_maintenance_as_if_it_had_not_been(tmp_path: Path) -> None:
    orders = OrdersLake(tmp_path / "lake", "upsert", sequence_by="seq")
    alone = OrdersLake(tmp_path / "alone", "upsert", sequence_by="seq")
    for batch in range(5):
        rows = [f"{batch % 2},{batch},n,{batch}", f"{100 + batch},1,n,{batch}", "x,y,z,0"]
        orders.arrive(*rows)
        alone.arrive(*rows)
        run(orders.lake, pipelines=orders.pipelines, retention=NOW, min_files=2)
    assert orders.rows("id", "amount", "seq", "_batch_id") == alone.rows("id", "amount", "seq", "_batch_id")
    assert orders.refused() == alone.refused()
    assert ledger.sync(orders.lake, [orders.pipeline]) == 0
    assert refine(orders.lake, orders.settings, orders.pipeline).batches == ()
    counts = list(reconcile(orders.lake, orders.settings, orders.pipelines))
    assert [count for count in counts if not count.ok] == []
    assert orders.lake.table("bronze", "orders").snapshot().uris() != []


def test_readers_of_published_versions_still_have_their_files(lake: Lake, table: Table) -> None:
    pinned = table.snapshot(4)
    publish(lake, bronze_things=4)
    publish(lake, bronze_things=11)
    expected = ids(pinned)
    done = run(lake, retention=NOW)["bronze/things"]
    assert done.removed == 0  # version 11 names all twelve
    assert ids(pinned) == ids(table.snapshot(4)) == expected
    assert deltalake.DeltaTable(table.uri, version=11).to_pyarrow_table().num_rows == 36


def test_files_that_only_unpublished_versions_have_are_removed(lake: Lake) -> None:
    table = lake.table("silver", "things")
    add(table, frame(1))
    for number in range(2, 6):  # each version replaces the one before
        snapshot = table.snapshot()
        rows = frame(number)
        snapshot.commit(add=table.stage(rows.lazy()), remove=snapshot.files()["path"].to_list())
    publish(lake, silver_things=2)
    kept = {*table.snapshot(2).files()["path"], *table.snapshot().files()["path"]}
    done = run(lake, retention=NOW)["silver/things"]
    assert done.removed == 3
    assert on_disk(table) == kept
    assert ids(table.snapshot(2)) == [3, 4, 5]


def test_a_version_that_got_an_old_file_back_keeps_it(lake: Lake) -> None:
    table = lake.table("gold", "things")
    first = add(table, frame(1))
    path = first.files()["path"][0]
    first.commit(add=table.stage(frame(50).lazy()), remove=[path])
    table.snapshot().commit(add=table.adopt([path]))  # version 2, as gold does after a failed build
    table.snapshot().commit(remove=[path])
    publish(lake, gold_things=2)
    run(lake, retention=NOW)
    assert ids(table.snapshot(2)) == [1, 2, 3, 50, 51, 52]


def test_without_publishing_only_the_newest_version_is_kept(lake: Lake, table: Table) -> None:
    done = run(lake, retention=NOW)["bronze/things"]
    assert done.removed == 12
    assert len(on_disk(table)) == 1
    assert len(ids(table.snapshot())) == 36


def test_what_was_taken_out_lately_is_spared(lake: Lake, table: Table) -> None:
    for path in Path(table.uri).glob("*.parquet"):  # old files, but in use until a moment ago
        os.utime(path, (1_600_000_000, 1_600_000_000))
    pinned = table.snapshot()
    done = run(lake)["bronze/things"]
    assert (done.combined, done.removed) == (12, 0)
    assert len(ids(pinned)) == 36


def test_a_file_that_a_killed_run_left_goes_when_it_is_old(lake: Lake, table: Table) -> None:
    fresh, old = (table.stage(frame(900).lazy())[0].path for _ in range(2))
    os.utime(Path(table.uri, old), (1_600_000_000, 1_600_000_000))
    done = run(lake)["bronze/things"]
    assert done.removed == 1
    assert fresh in on_disk(table)
    assert old not in on_disk(table)


def test_files_are_kept_by_versions_beyond_a_cut_log(lake: Lake, table: Table) -> None:
    """Where the log does not reach back to a kept version any more, what that version may have is kept."""
    publish(lake, bronze_things=3)
    upkeep.write_checkpoint(table.snapshot(5))
    for version in range(6):
        Path(table.uri, "_delta_log", f"{version:020d}.json").unlink()
    before = set(table.snapshot().files()["path"])
    run(lake, retention=NOW)
    assert before - on_disk(table) == set(table.snapshot(11).files()["path"]) - set(
        table.snapshot(5).files()["path"]
    )


def test_nothing_is_removed_while_a_restore_point_cannot_be_read(lake: Lake, table: Table) -> None:
    publish(lake, bronze_things=3)
    lake.objects.write("restore_points/20990101T000000000Z-abcdef.json", b"torn")
    files = on_disk(table)
    with pytest.raises(StorageError, match="cannot be read"):
        run(lake, retention=NOW)
    assert files <= on_disk(table)


def test_a_writer_that_was_faster_wins(lake: Lake, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    real = upkeep._write

    def slow(*write: Any) -> Any:
        staged = real(*write)
        other = table.snapshot()
        rewritten = other.stage(other.scan(uris=other.uris()[:1]).with_columns(text=pl.lit("changed")))
        other.commit(add=rewritten, remove=other.files()["path"].to_list()[:1])
        return staged

    monkeypatch.setattr(upkeep, "_write", slow)
    done = run(lake)["bronze/things"]
    assert (done.combined, done.skipped) == (0, "writers were faster; its small files are taken up next time")
    rows = table.snapshot().scan().collect()
    assert rows.height == 36
    assert rows.filter(text="changed").height == 3
    versions = range(11, table.snapshot().version + 1)
    assert on_disk(table) == {path for v in versions for path in table.snapshot(v).files()["path"]}


def test_a_writer_that_appends_meanwhile_is_no_conflict(
    lake: Lake, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = upkeep._write

    def slow(*write: Any) -> Any:
        staged = real(*write)
        add(table, frame(500, batch=13))
        return staged

    monkeypatch.setattr(upkeep, "_write", slow)
    assert run(lake)["bronze/things"].combined == 12
    assert len(ids(table.snapshot())) == 39


def test_a_writer_that_began_before_a_compaction_must_read_again(lake: Lake, table: Table) -> None:
    stale = table.snapshot()
    run(lake)
    changed = rewrite(table, stale, [frame(10, 1, batch=20)], frame(10, 1).select("id"), ["id"])
    assert changed.remove
    with pytest.raises(CommitConflict):
        stale.commit(add=changed.add, remove=changed.remove)
    assert len(ids(table.snapshot())) == 36


def test_a_version_that_failed_a_check_fails_it_after_maintenance_too(lake: Lake, table: Table) -> None:
    version = table.snapshot().version
    outcome = CheckOutcome("bronze", "things", version, "key_unique", passed=False)
    checks.record(lake, [outcome, replace(outcome, check="other", passed=True)])
    run(lake)
    compacted = table.snapshot().version
    assert compacted > version
    found = checks.failed_blocking(lake, {"bronze/things": compacted})
    assert [(o.check, o.version) for o in found] == [("key_unique", compacted)]
    add(table, frame(700, batch=14))
    assert checks.outcomes(lake, {"bronze/things": table.snapshot().version}) == []


def test_a_checkpoint_that_was_not_written_is_made_up_for(lake: Lake) -> None:
    table = lake.table("ops", "things")
    add(table, frame(1))
    for _ in range(CHECKPOINT_INTERVAL + 5):
        table.snapshot().commit()
    written = Path(table.uri, "_delta_log", "_last_checkpoint")
    assert written.exists(), "commits write one every 50 versions"
    assert not run(lake)["ops/things"].checkpoint
    written.unlink()
    assert run(lake)["ops/things"].checkpoint
    assert written.exists()
    assert not run(lake)["ops/things"].checkpoint


def test_one_broken_table_does_not_stop_the_others(lake: Lake, table: Table) -> None:
    broken = lake.table("bronze", "broken")
    add(broken, *(frame(n, batch=n) for n in range(1, 10)))
    Path(broken.snapshot().uris()[0]).write_bytes(b"torn")
    found = {d.name: d for d in maintain(lake, load_settings(root=lake.root), {}, select=["bronze"])}
    assert found["bronze/broken"].error
    assert found["bronze/things"].combined == 12


def test_a_selection_takes_tables_layers_and_paths(lake: Lake, table: Table) -> None:
    add(lake.table("silver", "things"), frame(1))
    add(lake.table("silver", "others"), frame(1))
    assert list(run(lake, select=["things"])) == ["bronze/things", "silver/things"]
    assert list(run(lake, select=["silver"])) == ["silver/others", "silver/things"]
    assert list(run(lake, select=["silver/others"])) == ["silver/others"]
    with pytest.raises(DeclarationError, match="thigns"):
        run(lake, select=["thigns"])


_KILLED = """
import os, signal, sys
from lakehouse.ops.maintenance import maintain
from lakehouse.settings import load_settings
from lakehouse.storage import Lake, Snapshot
real = Snapshot.commit
def commit(self, **options):
    if sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, **options)
    os.kill(os.getpid(), signal.SIGKILL)
Snapshot.commit = commit
settings = load_settings(root=sys.argv[1])
list(maintain(Lake.from_settings(settings), settings, {}))
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_the_commit_leaves_the_table_right(lake: Lake, table: Table, when: str) -> None:
    expected = ids(table.snapshot())
    died = subprocess.run(
        [sys.executable, "-c", _KILLED, lake.root, when], cwd=PROJECT_DIR, check=False, timeout=60
    )
    assert died.returncode == -signal.SIGKILL
    assert len(on_disk(table)) == 13
    assert ids(table.snapshot()) == expected
    run(lake, retention=NOW)
    assert ids(table.snapshot()) == expected
    assert len(on_disk(table)) == 1


def test_rows_that_would_not_fit_into_memory_are_not_sorted_at_once(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = lake.table("silver", "orders")
    add(table, *(frame(first) for first in range(9)))
    monkeypatch.setattr(maintenance, "_max_rows", lambda *_: 9)
    done = run(lake, pipelines=OrdersLake(tmp_path / "declared").pipelines, min_files=3)
    assert (done["silver/orders"].combined, done["silver/orders"].into) == (9, 3)
    assert table.snapshot().num_rows() == 27
