"""Copies by rows: they give what reading Parquet gives, whatever the columns, and whatever happened to a copy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import polars as pl
import pytest

from lakehouse import names
from lakehouse.silver import row_copies
from lakehouse.silver.prepare import POSITION
from lakehouse.silver.row_copies import RowCopies
from lakehouse.silver.row_layout import RowLayout
from lakehouse.storage import Lake, Snapshot
from lakehouse.storage.table import ROW_GROUP_ROWS

ROWS = 5 * ROW_GROUP_ROWS + 7
ROOM = 1 << 40
INSTANT = datetime(2024, 2, 29, 23, 59, 59, 999_999, UTC)


def table(rows: int = ROWS) -> pl.DataFrame:
    number = pl.int_range(rows, eager=True).alias("id")
    return number.to_frame().with_columns(
        name=pl.when(pl.col("id") % 3 > 0).then(pl.format("n{} žluť", "id")),
        amount=pl.when(pl.col("id") % 5 > 0).then(pl.col("id") / 7),
        price=pl.when(pl.col("id") % 2 > 0).then(pl.col("id").cast(pl.Decimal(18, 2))),
        at=pl.from_epoch("id", time_unit="s").dt.replace_time_zone("UTC").dt.cast_time_unit("us"),
    )


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy has several; and the disk may be as full as it is."""
    monkeypatch.setattr(row_copies, "_LEFT_ON_DISK", 0.0)
    monkeypatch.setattr(row_copies, "_PIECE_BYTES", 1 << 20)


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    found = Lake(str(tmp_path / "lake")).table("silver", "orders")
    frame = table()
    return found.create(frame.schema, add=found.stage(frame.lazy()))


@pytest.fixture
def copies(tmp_path: Path) -> RowCopies:
    return RowCopies(tmp_path / "state" / "orders", ROOM, large_rows=ROWS)


def all_over(step: int = 997) -> list[int]:
    return [*range(0, ROWS, step), ROWS - 1]


def places(positions: Any) -> pl.DataFrame:
    return pl.DataFrame({"id": positions, POSITION: positions}, schema={"id": pl.Int64, POSITION: pl.UInt32})


def find(copies: RowCopies, snapshot: Snapshot, positions: Any) -> pl.DataFrame | None:
    (path,) = snapshot.files()["path"]
    return copies.find(snapshot, {path: places(positions)}).get(path)


def read(copies: RowCopies, snapshot: Snapshot, positions: Any) -> pl.DataFrame:
    found = find(copies, snapshot, positions)
    assert found is not None
    return found


def files(copies: RowCopies) -> list[Path]:
    return sorted(copies.folder.iterdir()) if copies.folder.exists() else []


VALUES: dict[str, tuple[pl.DataType, list[Any]]] = {
    "i8": (pl.Int8(), [-128, None, 127]),
    "u64": (pl.UInt64(), [0, None, 2**64 - 1]),
    "f64": (pl.Float64(), [float("nan"), None, -0.0]),
    "f32": (pl.Float32(), [float("inf"), None, 1.5]),
    "flag": (pl.Boolean(), [True, None, False]),
    "day": (pl.Date(), [date(1, 1, 1), None, date(9999, 12, 31)]),
    "instant": (pl.Datetime("us", "UTC"), [INSTANT, None, datetime(1, 1, 1, tzinfo=UTC)]),
    "local": (pl.Datetime("us"), [INSTANT.replace(tzinfo=None), None, INSTANT.replace(tzinfo=None, year=1968)]),
    "text": (pl.String(), ["", None, "a\x00ß\U0001f600,\n"]),
    "price": (pl.Decimal(38, 4), [Decimal("-1234567890123456789012345678901234.5678"), None, Decimal("0.0000")]),
    names.OBSERVED_AT: (pl.List(pl.Datetime("us", "UTC")), [[INSTANT], None, [INSTANT, datetime(1969, 1, 1, tzinfo=UTC), INSTANT]]),
}  # fmt: skip


@pytest.mark.parametrize("chosen", [[name] for name in VALUES] + [list(VALUES)], ids=[*VALUES, "all"])
def test_a_row_is_unpacked_as_it_was_packed(chosen: list[str]) -> None:
    frame = pl.DataFrame([pl.Series(name, VALUES[name][1], VALUES[name][0]) for name in chosen])
    for rows in (frame, frame[:2], frame[1:2], frame[::-1]):
        layout = RowLayout.of(rows.schema)
        assert layout is not None
        found = layout.unpacked(layout.packed(rows))
        assert found.schema == rows.schema
        assert found.equals(rows), found
        assert [str(value) for value in found.rows()] == [str(value) for value in rows.rows()]  # -0.0, too


def test_there_is_no_layout_for_a_column_that_is_no_single_value() -> None:
    for dtype in (pl.List(pl.Int64), pl.Struct({"a": pl.Int64}), pl.Binary()):
        assert RowLayout.of({"id": pl.Int64(), "other": dtype}) is None


@pytest.mark.parametrize("instants", [[], [None], [INSTANT, None]])
def test_a_list_that_would_be_another_is_not_packed(instants: list[Any]) -> None:
    frame = pl.DataFrame(
        {names.OBSERVED_AT: [instants]}, schema={names.OBSERVED_AT: VALUES[names.OBSERVED_AT][0]}
    )
    layout = RowLayout.of(frame.schema)
    assert layout is not None
    with pytest.raises(ValueError, match="is missing"):
        layout.packed(frame)


def test_rows_come_from_the_copy_which_is_made_once(snapshot: Snapshot, copies: RowCopies) -> None:
    frame = table()
    assert read(copies, snapshot, all_over()).equals(frame[all_over()])
    (made,) = files(copies)
    Path(snapshot.uris()[0]).unlink()  # nothing is left to be read but the copy
    assert read(copies, snapshot, all_over(1_009)).equals(frame[all_over(1_009)])
    assert files(copies) == [made]


@pytest.mark.parametrize(
    "positions",
    [range(500), range(0, ROWS, 9), [3]],
    ids=["one row group", "every ninth row", "one row"],
)
def test_what_is_had_sooner_by_decoding_is_not_copied(
    snapshot: Snapshot, copies: RowCopies, positions: Any
) -> None:
    assert find(copies, snapshot, positions) is None
    assert files(copies) == []


def test_a_smaller_file_is_not_copied(snapshot: Snapshot, tmp_path: Path) -> None:
    copies = RowCopies(tmp_path / "state" / "orders", ROOM, large_rows=ROWS + 1)
    assert find(copies, snapshot, all_over()) is None
    assert files(copies) == []


def test_no_copy_is_made_beyond_the_limit_of_all_tables(snapshot: Snapshot, copies: RowCopies) -> None:
    read(copies, snapshot, all_over())
    (made,) = files(copies)
    room = made.stat().st_size
    beside = RowCopies(copies.folder.parent / "others", int(room * 1.5), large_rows=ROWS)
    assert find(beside, snapshot, all_over()) is None
    assert files(beside) == []
    alone = RowCopies(copies.folder.parent.parent / "elsewhere" / "others", int(room * 1.5), large_rows=ROWS)
    read(alone, snapshot, all_over())
    assert len(files(alone)) == 1


def test_copies_that_nobody_reads_make_room_for_others(snapshot: Snapshot, copies: RowCopies) -> None:
    read(copies, snapshot, all_over())
    (made,) = files(copies)
    beside = RowCopies(copies.folder.parent / "others", int(made.stat().st_size * 1.5), large_rows=ROWS)
    long_ago = time.time() - 8 * 86_400
    os.utime(made, (long_ago, long_ago))
    read(copies, snapshot, all_over())  # somebody has read it
    assert find(beside, snapshot, all_over()) is None
    os.utime(made, (long_ago, long_ago))
    read(beside, snapshot, all_over())
    assert (files(copies), len(files(beside))) == ([], 1)


def test_a_cache_that_is_fuller_than_its_limit_is_emptied_of_what_nobody_reads(
    snapshot: Snapshot, copies: RowCopies
) -> None:
    read(copies, snapshot, all_over())
    (made,) = files(copies)
    size = made.stat().st_size
    removed = copies.folder.parent / "a pipeline that was removed"
    removed.mkdir()
    for number in range(3):
        (removed / f"{number}.arrow").write_bytes(bytes(size))
        os.utime(removed / f"{number}.arrow", (number, number))
    made.unlink()
    lowered = RowCopies(copies.folder, int(size * 2.2), large_rows=ROWS)
    read(lowered, snapshot, all_over())
    assert sorted(file.name for file in removed.iterdir()) == ["2.arrow"]


def test_with_no_room_at_all_there_are_none_and_none_is_read(snapshot: Snapshot, copies: RowCopies) -> None:
    read(copies, snapshot, all_over())
    assert find(RowCopies(copies.folder, 1, large_rows=ROWS), snapshot, all_over()) is None


def test_copies_that_are_there_are_read_before_others_are_made(tmp_path: Path, copies: RowCopies) -> None:
    """The oldest copy, unread for long, is of the file that comes last."""
    found = Lake(str(tmp_path / "lake")).table("silver", "orders")
    frame = table()
    two = [*found.stage(frame.lazy()), *found.stage(frame.lazy())]
    snapshot = found.create(frame.schema, add=two)
    first, last = snapshot.files()["path"]
    assert copies.find(snapshot, {last: places(all_over())}).keys() == {last}
    (made,) = files(copies)
    os.utime(made, (0, 0))
    copies.limit_bytes = int(made.stat().st_size * 1.5)
    assert copies.find(snapshot, {first: places(all_over()), last: places(all_over())}).keys() == {last}


def test_a_copy_that_becomes_larger_than_its_first_rows_told_is_given_up(
    tmp_path: Path, copies: RowCopies
) -> None:
    found = Lake(str(tmp_path / "lake")).table("silver", "orders")
    long = pl.when(pl.col("id") > 2_000).then(pl.lit("x" * 200)).otherwise(pl.lit(""))
    frame = table().with_columns(name=long)
    snapshot = found.create(frame.schema, add=found.stage(frame.lazy()))
    assert find(copies, snapshot, all_over()) is None
    (refused,) = files(copies)
    assert refused.stat().st_size == 0  # the next batch does not try it again
    before = refused.stat().st_mtime_ns
    assert find(copies, snapshot, all_over()) is None
    assert [file.stat().st_mtime_ns for file in files(copies)] == [before]


def test_no_copy_is_made_on_a_disk_that_is_nearly_full(
    snapshot: Snapshot, copies: RowCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_copies, "_LEFT_ON_DISK", 1.0)
    assert find(copies, snapshot, all_over()) is None
    assert files(copies) == []


def _cut_short(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _turned_to_zeros(file: Path) -> None:
    with open(file, "r+b") as opened:
        opened.seek(file.stat().st_size // 3)
        opened.write(bytes(file.stat().st_size // 3))


def _rewritten(file: Path, change: Any) -> None:
    """A whole file, whose batches are others."""
    import pyarrow as pa

    with pa.OSFile(str(file)) as opened:
        before = pa.ipc.open_file(opened).read_all()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, before.schema) as writer:
        for batch in before.to_batches():
            writer.write_batch(change(batch))


def _of_other_rows(file: Path) -> None:
    import pyarrow as pa

    _rewritten(file, lambda batch: batch.take(pa.array(range(len(batch)))[::-1]))


def _without_its_last_rows(file: Path) -> None:
    _rewritten(file, lambda batch: batch.slice(0, len(batch) - 1))


def _with_another_letter(file: Path) -> None:
    """In a text of one row that is read: keys and lengths are as they were."""
    content = file.read_bytes()
    assert content.count(b"n9970 ") == 1
    file.write_bytes(content.replace(b"n9970 ", b"n9971 "))


def _with_places_outside(file: Path) -> None:
    """Where the value of a row that is read begins."""
    import pyarrow as pa

    with pa.OSFile(str(file)) as opened:
        first = pa.ipc.open_file(opened).get_batch(0)
    start = numpy.frombuffer(first.column(0).buffers()[1], numpy.int64)[9_970]
    content = file.read_bytes()
    place = content.index(numpy.array([start], numpy.int64).tobytes())
    file.write_bytes(content[:place] + numpy.array([1 << 50], numpy.int64).tobytes() + content[place + 8 :])


HARMS = [_cut_short, _emptied, _turned_to_zeros, _of_other_rows, _without_its_last_rows, _with_another_letter, _with_places_outside]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_copy_is_told_of_and_made_again(
    snapshot: Snapshot, copies: RowCopies, harm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    read(copies, snapshot, all_over())
    (made,) = files(copies)
    harm(made)
    assert find(copies, snapshot, all_over()) is None
    assert "is of no use" in caplog.text
    assert files(copies) == []
    assert read(copies, snapshot, all_over()).equals(table()[all_over()])
    assert files(copies) == [made]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_copy_does_not_take_the_others_with_it(
    tmp_path: Path, copies: RowCopies, harm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """All are unpacked at once: the damaged one is told of by its own name, and the rows of the others are theirs."""
    found = Lake(str(tmp_path / "lake")).table("silver", "orders")
    frame = table()
    three = [*found.stage(frame.lazy()), *found.stage(frame.lazy()), *found.stage(frame.lazy())]
    snapshot = found.create(frame.schema, add=three)
    first, second, third = snapshot.files()["path"]
    assert copies.find(snapshot, {second: places(all_over())}).keys() == {second}
    (made,) = files(copies)
    wanted = {first: places(all_over()), second: places(all_over()), third: places(all_over(1_009))}
    assert copies.find(snapshot, wanted).keys() == wanted.keys()
    harm(made)
    rows = copies.find(snapshot, wanted)
    assert rows.keys() == {first, third}
    assert rows[first].equals(frame[all_over()])
    assert rows[third].equals(frame[all_over(1_009)])
    assert second in caplog.text
    assert first not in caplog.text
    assert third not in caplog.text
    assert made not in files(copies)
    assert len(files(copies)) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
import polars as pl
from lakehouse.silver import row_copies
from lakehouse.silver.prepare import POSITION
from lakehouse.storage import Lake

root, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
row_copies._LEFT_ON_DISK = 0.0
row_copies.sync_file = lambda _: os.kill(os.getpid(), signal.SIGKILL)
snapshot = Lake(root).table("silver", "orders").snapshot()
(path,) = snapshot.files()["path"]
places = pl.DataFrame({POSITION: range(0, rows, 997)}, schema={POSITION: pl.UInt32})
row_copies.RowCopies(folder, 1 << 40, large_rows=rows).find(snapshot, {path: places})
"""


def test_a_process_that_is_killed_while_it_copies_leaves_nothing_that_is_read(
    snapshot: Snapshot, copies: RowCopies, tmp_path: Path
) -> None:
    arguments = [str(tmp_path / "lake"), str(copies.folder), str(ROWS)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = files(copies)
    assert left.suffix == ".tmp"
    assert read(copies, snapshot, all_over()).equals(table()[all_over()])


def test_a_folder_that_cannot_be_written_costs_time_alone(
    snapshot: Snapshot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    copies = RowCopies(tmp_path / "state" / "orders", ROOM, large_rows=ROWS)
    assert find(copies, snapshot, all_over()) is None
    assert "are not copied" in caplog.text


def test_deleted_rows_keep_their_places(snapshot: Snapshot, copies: RowCopies) -> None:
    (path,) = snapshot.files()["path"]
    snapshot.commit(delete={path: numpy.array([0, 5, 1_000])})
    shrunk = snapshot.table.snapshot()
    assert read(copies, shrunk, all_over()).equals(table()[all_over()])


def test_a_column_that_came_later_is_empty_and_old_copies_go_after_an_hour(
    snapshot: Snapshot, copies: RowCopies
) -> None:
    read(copies, snapshot, all_over())
    (old,) = files(copies)
    wider = snapshot.add_columns({"colour": pl.String()})
    expected = table()[all_over()].with_columns(colour=pl.lit(None, pl.String))
    assert read(copies, wider, all_over()).equals(expected)
    assert len(files(copies)) == 2
    left = copies.folder / "killed.tmp"
    left.write_bytes(b"half a copy")
    for file in (old, left):
        os.utime(file, (time.time() - 3_700,) * 2)
    read(copies, wider, all_over())
    assert len(files(copies)) == 1
    assert old not in files(copies)
