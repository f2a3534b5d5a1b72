"""upsert and history: the same events give the same table under any order, duplication and batching.

Compared with a small, obvious reference in plain Python.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.names import IS_DELETED, OBSERVED_AT
from lakehouse.silver.merge import (
    Merged,
    merge_history,
    merge_upsert,
    row_identity,
    versions_concerned,
)
from lakehouse.silver.prepare import FILE, FILE_ORDER, POSITION, SEQUENCE

pytestmark = pytest.mark.slow

START = datetime(2024, 1, 1, tzinfo=UTC)
KEY = ["id"]
INSTANT = pl.Datetime("us", "UTC")
SCHEMA: dict[str, Any] = {
    "id": pl.Int64, "seq": pl.Int64, "value": pl.String, IS_DELETED: pl.Boolean,
    SEQUENCE: INSTANT, "_batch_id": pl.Int64, "_source_file": pl.String, "_source_row": pl.Int64, FILE_ORDER: pl.Int64,
}  # fmt: skip

Event = tuple[int, int, str | None, bool]  # id, sequence, value, deleted
events = st.lists(
    st.tuples(
        st.integers(1, 3), st.integers(0, 6), st.sampled_from(["a", "b", None]), st.sampled_from([False, False, False, True])
    ),
    min_size=1,
    max_size=14,
)  # fmt: skip


def frame(batch: list[Event], number: int) -> pl.DataFrame:
    rows = [
        (key, seq, value, deleted, START + timedelta(days=seq), number, "f", row, 0)
        for row, (key, seq, value, deleted) in enumerate(batch)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


Rank = tuple[bool, bool, str]


def content_rank(event: Event) -> Rank:
    """The order of content that settles a tie, as the merge has it: a deletion comes last, a value after none."""
    _, _, value, deleted = event
    return deleted, value is not None, value or ""


def reference_upsert(all_events: list[Event]) -> dict[int, Event]:
    """Latest event of each key by sequence, ties by content."""
    return {
        key: max((e for e in all_events if e[0] == key), key=lambda e: (e[1], content_rank(e)))
        for key in {e[0] for e in all_events}
    }


def reference_history(
    all_events: list[Event],
) -> list[tuple[int, datetime, datetime | None, str | None, bool]]:
    """Per key: the winner of each instant, then runs of equal states."""
    out = []
    for key in sorted({e[0] for e in all_events}):
        winners = {}
        for event in sorted((e for e in all_events if e[0] == key), key=lambda e: (e[1], content_rank(e))):
            winners[event[1]] = (event[2], event[3])
        runs: list[tuple[int, tuple[str | None, bool]]] = []
        for seq in sorted(winners):
            if not runs or runs[-1][1] != winners[seq]:
                runs.append((seq, winners[seq]))
        for index, (seq, state) in enumerate(runs):
            until = START + timedelta(days=runs[index + 1][0]) if index + 1 < len(runs) else None
            out.append((key, START + timedelta(days=seq), until, *state))
    return out


def batches_of(all_events: list[Event], seed: int) -> list[list[Event]]:
    """The events shuffled, some sent twice, cut into batches at random."""
    rng = random.Random(seed)
    sent = all_events + rng.choices(all_events, k=rng.randint(0, 4))
    rng.shuffle(sent)
    batches: list[list[Event]] = [[]]
    for event in sent:
        if rng.random() < 0.3:
            batches.append([])
        batches[-1].append(event)
    return [batch for batch in batches if batch]


def apply(table: pl.DataFrame, merged: Merged, identity: list[str]) -> pl.DataFrame:
    """Rows go by what tells them apart, or by the place where they stand: both must be the same rows."""
    kept = table.join(merged.replaced, on=identity, how="anti")
    places = merged.replaced[POSITION].to_list()
    assert kept.equals(table.with_row_index(POSITION).filter(~pl.col(POSITION).is_in(places)).drop(POSITION))
    return pl.concat([kept, merged.rows.select(table.columns)])


def existing(table: pl.DataFrame, changes: pl.DataFrame) -> pl.DataFrame:
    found = table.with_row_index(POSITION).join(changes.select(KEY).unique(), on=KEY, how="semi")
    return found.with_columns(pl.lit("file").alias(FILE))


def accounted(merged: Merged, changes: pl.DataFrame) -> bool:
    return merged.accepted + merged.deduplicated + merged.superseded + merged.late == changes.height


@settings(max_examples=1_000, deadline=None)
@given(events, st.integers(0, 10_000))
def test_upsert_gives_the_reference_table(all_events: list[Event], seed: int) -> None:
    columns = ["id", "seq", "value", IS_DELETED, "_batch_id", "_source_file", "_source_row"]
    table = pl.DataFrame(schema={name: SCHEMA[name] for name in columns})
    for number, batch in enumerate(batches_of(all_events, seed), start=1):
        changes = frame(batch, number).drop(SEQUENCE)
        merged = merge_upsert(changes, existing(table, changes), KEY, ["seq"], ["value", "seq", IS_DELETED])
        assert accounted(merged, changes)
        table = apply(table, merged, KEY)
    got = {row[0]: row for row in table.select("id", "seq", "value", IS_DELETED).rows()}
    assert got == reference_upsert(all_events)
    assert table.height == len(got)


@settings(max_examples=1_000, deadline=None)
@given(events, st.integers(0, 10_000))
def test_history_gives_the_reference_table(all_events: list[Event], seed: int) -> None:
    columns = ["id", "value", IS_DELETED, "_batch_id", "_source_file", "_source_row"]
    schema = {name: SCHEMA[name] for name in columns}
    history = {
        "valid_from_utc": INSTANT,
        "valid_to_utc": INSTANT,
        "is_current": pl.Boolean,
        OBSERVED_AT: pl.List(INSTANT),
    }
    table = pl.DataFrame(schema={**schema, **history})
    for number, batch in enumerate(batches_of(all_events, seed), start=1):
        changes = frame(batch, number).drop("seq")
        placed = table.with_row_index(POSITION).with_columns(pl.lit("file").alias(FILE)).lazy()
        concerned = versions_concerned(placed, changes, KEY).collect()
        merged = merge_history(changes, concerned, KEY, ["value", IS_DELETED])
        assert accounted(merged, changes)
        table = apply(table, merged, row_identity(KEY, "history"))
    got = (
        table.sort("id", "valid_from_utc")
        .select("id", "valid_from_utc", "valid_to_utc", "value", IS_DELETED)
        .rows()
    )
    assert got == reference_history(all_events)
    current = table.filter("is_current")
    assert current.select(pl.col("id").is_duplicated().any()).item() is not True
    assert current.filter(pl.col("valid_to_utc").is_not_null() | pl.col(IS_DELETED)).is_empty()
