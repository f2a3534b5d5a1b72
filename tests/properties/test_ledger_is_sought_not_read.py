"""What the ledger says of some files is what it says of them among all: copies, changed files, and files given back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lakehouse import ledger_rows
from lakehouse.connectors import SourceFile
from lakehouse.ledger_rows import ASIDE, RETURNED, SCHEMA, SourceRows
from tests.lakes import OrdersLake

_START = datetime(2026, 1, 1, tzinfo=UTC)
_COLUMNS = {"batch_id": pl.Int64(), "stage": pl.String(), "recorded_at_utc": SCHEMA["recorded_at_utc"], "note": pl.String()}  # fmt: skip
#: Few of each, so that paths, sizes, fingerprints and contents meet.
_RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "stage": st.sampled_from(["planned", "planned", RETURNED, *ASIDE]),
            "path": st.sampled_from(["a", "b", "c", "d"]),
            "size_bytes": st.integers(1, 3),
            "fingerprint": st.sampled_from(["f1", "f2"]),
            "content_hash": st.sampled_from(["h1", "h2", None]),
        }
    ),
    max_size=12,
)


def _rows(records: list[dict[str, Any]]) -> SourceRows:
    rows = [
        {
            "batch_id": number,
            "stage": record["stage"],
            "recorded_at_utc": _START + timedelta(minutes=number),
            "note": None,
            "path": record["path"],
            "size_bytes": record["size_bytes"],
            "modified_at_utc": _START,
            "fingerprint": record["fingerprint"],
            "content_hash": record["content_hash"],
        }
        for number, record in enumerate(records, 1)
    ]
    file = {field.name: field.dtype for field in ledger_rows._FILE.fields}
    return SourceRows(pl.DataFrame(rows, schema={**_COLUMNS, **file}))


def _record(stage: str, path: str) -> dict[str, Any]:
    return {"stage": stage, "path": path, "size_bytes": 1, "fingerprint": "f1", "content_hash": "h1"}


# A copy of what was given back is news again; not so while another copy was taken.
@example([_record("planned", "a"), _record("duplicate", "b"), _record(RETURNED, "a")], {"b"})
@example([*map(_record, ["planned", "planned", "duplicate", RETURNED], ["a", "c", "b", "a"])], {"b"})
@given(_RECORDS, st.sets(st.sampled_from(["a", "b", "c", "d", "never seen"])))
def test_versions_of_some_paths(records: list[dict[str, Any]], paths: set[str]) -> None:
    rows = _rows(records)
    everything = rows.seen()
    assert rows.seen_of(paths) == {path: everything[path] for path in paths if path in everything}


@example([*map(_record, ["planned", "duplicate", RETURNED], ["a", "b", "a"])], {"a", "b"})
@given(_RECORDS, st.sets(st.sampled_from(["a", "b", "c", "d", "never seen"])))
def test_newest_fingerprints_of_some_paths(records: list[dict[str, Any]], paths: set[str]) -> None:
    rows = _rows(records)
    newest = {path: versions[-1][0].fingerprint for path, versions in rows.seen().items() if versions}
    assert rows.fingerprints(paths) == {path: newest[path] for path in paths if path in newest}


@given(_RECORDS, st.sets(st.integers(1, 3)))
def test_planned_files_of_some_sizes(records: list[dict[str, Any]], sizes: set[int]) -> None:
    def planned(seen: dict[str, list[ledger_rows.Seen]]) -> set[tuple[str, str | None, int]]:
        return {
            (path, file.content_hash, file.size_bytes)
            for path, versions in seen.items()
            for file, stage, _ in versions
            if stage == "planned" and file.size_bytes in sizes
        }

    rows = _rows(records)
    assert planned(rows.seen(pl.col("size_bytes").is_in(list(sizes)))) == planned(rows.seen())


@given(_RECORDS, st.integers(0, 12))
def test_rows_that_came_later_say_the_same(records: list[dict[str, Any]], cut: int) -> None:
    whole, later = _rows(records), _rows(records[:cut]).followed_by(_rows(records)._files[cut:])
    assert later.seen() == whole.seen()
    assert later.held == whole.held
    assert later.batches("x") == whole.batches("x")


@example(
    [_record("planned", name) for name in "ab"], 1, [2, 1] + 10 * [1]
)  # a later record of an earlier batch
@example([_record("planned", name) for name in "abc"], 1, [1, 1, 2] + 9 * [1])
@given(_RECORDS, st.integers(0, 12), st.lists(st.integers(1, 5), min_size=12, max_size=12))
def test_planned_batches_that_are_known_already_are_carried_on(
    records: list[dict[str, Any]], cut: int, numbers: list[int]
) -> None:
    ids = pl.Series("batch_id", numbers[: len(records)], pl.Int64)
    files = _rows(records)._files.with_columns(ids)
    earlier, whole = SourceRows(files[:cut]), SourceRows(files)
    earlier.batches("x")
    later = earlier.followed_by(files[cut:])
    assert later._planned.equals(whole._planned)
    assert later.batches("x", 2) == whole.batches("x", 2)
    assert sorted(later.batch_bytes(2, 4)) == sorted(whole.batch_bytes(2, 4))
    sizes = (
        whole._planned.filter(pl.col("batch_id").is_between(2, 4))
        .group_by("batch_id")
        .agg(pl.sum("size_bytes"))
    )
    assert sorted(later.batch_bytes(2, 4)) == sorted(sizes["size_bytes"])


@given(_RECORDS)
def test_held_files(records: list[dict[str, Any]]) -> None:
    rows = _rows(records)
    last = [versions[-1] for versions in rows.seen().values() if versions]
    assert rows.held == [(file, note or "") for file, stage, note in last if stage == "held"]


@given(_RECORDS, st.randoms())
def test_files_are_held_in_the_order_in_which_they_were_seen(
    records: list[dict[str, Any]], random: Any
) -> None:
    rows, files = _rows(records), _rows(records)._files
    order = list(range(len(files)))
    random.shuffle(order)  # as the ledger's data files are read, whose names are random
    assert SourceRows(files[order]).held == rows.held


def test_of_a_long_ledger_a_run_makes_objects_of_its_own_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = OrdersLake(tmp_path / "lake")
    for number in range(20):
        lake.land(f"{number},{'9' * number}.0,old,{number}")
    lake.run()
    made: list[str] = []

    def counted(path: str, *rest: Any) -> SourceFile:
        made.append(path)
        return SourceFile(path, *rest)

    monkeypatch.setattr(ledger_rows, "SourceFile", counted)
    news = lake.land("99,1.0,a text of another length than all before,99")
    lake.run()
    assert set(made) == {str(news)}
