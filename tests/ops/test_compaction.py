"""Which files are combined: few at any time, and no row written again too often."""

from __future__ import annotations

from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.ops.compaction import Layout, groups, layout_of

ROWS = {"id": pl.Int64(), "text": pl.String(), names.BATCH_ID: pl.Int64()}


def files(*sizes: int, spans: list[tuple[int, int]] | None = None) -> pl.DataFrame:
    spans = spans or [(number, number) for number in range(len(sizes))]
    return pl.DataFrame(
        {
            "path": [str(number) for number in range(len(sizes))],
            "size_bytes": sizes,
            "num_records": sizes,
            "num_deleted": [0] * len(sizes),
            "modification_time": range(len(sizes)),
            "min.b": [low for low, _ in spans],
            "max.b": [high for _, high in spans],
        }
    )


def chosen(frame: pl.DataFrame, **options: Any) -> list[str]:
    found = groups(frame, Layout("b"), **{"target_bytes": 100, "min_files": 3, **options})
    return ["".join(group) for group in found]


def test_a_large_file_parts_its_small_neighbours() -> None:
    assert chosen(files(1, 1, 1, 90, 1, 1, 1)) == ["012", "456"]


def test_small_files_that_overlap_are_taken_across_a_large_one() -> None:
    spans = [(0, 9), (0, 9), (1, 9), (2, 9), (3, 9)]
    assert chosen(files(1, 1, 90, 1, 1, spans=spans)) == ["0134"]


def test_no_combined_file_is_larger_than_the_target() -> None:
    assert chosen(files(*[20] * 12)) == ["01234", "56789"]
    assert chosen(files(*[20] * 12), max_rows=60) == ["012", "345", "678", "91011"]


def test_a_row_is_rewritten_about_log_n_times_and_files_stay_few() -> None:
    sizes, rewritten, unit = [], 0, 2 << 20
    for _ in range(2_000):
        sizes.append(unit)
        found = groups(files(*sizes), Layout("b"), target_bytes=100_000 * unit, min_files=8)
        for group in found:
            first, last = int(group[0]), int(group[-1])
            total = sum(sizes[first : last + 1])
            rewritten += total
            sizes[first : last + 1] = [total]
    assert sum(sizes) == 2_000 * unit
    assert len(sizes) <= 20
    assert rewritten / sum(sizes) < 12


def test_layouts_follow_what_the_stages_write() -> None:
    own = {**ROWS, names.VALID_FROM: pl.Datetime("us", "UTC")}
    history = {
        **own,
        names.VALID_TO: pl.Datetime("us", "UTC"),
        names.IS_CURRENT: pl.Boolean(),
        names.OBSERVED_AT: pl.List(pl.Int64),
    }
    assert layout_of("bronze", ROWS) == layout_of("quarantine", ROWS) == Layout(names.BATCH_ID)
    assert layout_of("silver", ROWS) == Layout(names.BATCH_ID)
    assert layout_of("silver", ROWS, ("id",)) == Layout("id", ("id",))
    assert layout_of("silver", own, ("id",)) == Layout("id", ("id",)), (
        "a column that the source has by itself"
    )
    by_key = Layout("id", ("id", names.VALID_FROM), apart_by=names.VALID_TO)
    assert layout_of("silver", history, ("id",)) == by_key
    assert layout_of("gold", ROWS) == layout_of("ops", ROWS) == Layout()


def test_files_that_shall_lie_apart_are_combined_apart() -> None:
    mixed = files(*[10] * 7).with_columns(pl.Series("null_count.ends", [0, 5, 0, None, 0, 5, 10]))
    found = groups(mixed, Layout("b", apart_by="ends"), target_bytes=100, min_files=3)
    assert found == [["0", "2", "4"], ["1", "3", "5", "6"]]
