"""Upserts of 100,000 changes into tables of 1, 10 and 50 million rows, against Delta's merge.

    python benchmarks/upsert.py --quick
    python benchmarks/upsert.py --json upsert.json --docs docs/performance.md

Every contestant takes the same batches one after the other into a copy of the same table; the first one is shown by itself,
and the means are of the five (two with --quick) that follow. Changes are full rows; one of a hundred is older than what the
table has and must not win. At the end the contents are compared: they are the same, or the benchmark fails.

Ours is the whole silver stage: typing, contract, quarantine, conservation, lineage, ledger. Merge gets what it is best with: the
rows as they are, no unions of columns, the range of their keys in the predicate, and the table kept open between batches.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import change_sizes
from benchmarks.change_lakes import digest, incoming, plain_table, read, step_name, zstd
from benchmarks.changes import KEY, SINCE, Case, case_of
from benchmarks.harness import Contestant, Steps

#: Merge with its defaults is measured at this size only, and one batch of it.
_DEFAULT_ROWS = 10_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    return change_sizes.compare("upsert", __doc__, _contestants, arguments)


def _contestants(case: Case) -> list[Contestant]:
    found = [
        case.contestant("ours", "benchmarks.change_lakes:ours"),
        case.contestant("merge, tuned", "benchmarks.upsert:merge"),
    ]
    if case.rows == _DEFAULT_ROWS:
        found.append(case.contestant("merge, defaults", "benchmarks.upsert:merge", batches=1, defaults=True))
    return found


def merge(raw: Mapping[str, Any]) -> Steps:
    """deltalake's merge. Tuned: not streamed, so that it skips files by the source's statistics (a third of the CPU, a
    fifth of the memory), the range of the keys spelled out, zstd. Defaults: what the first example of its manual does."""
    import deltalake
    import polars as pl

    case, is_tuned = case_of(raw), not raw.get("defaults")
    path = plain_table(case)
    table = deltalake.DeltaTable(path)
    for number, file in enumerate(case.files):

        def batch(number: int = number, file: Path = file) -> None:
            source = incoming(case, number, file)
            same = f"t.{KEY} = s.{KEY}"
            if is_tuned:
                low, high = source.select(
                    pl.col(KEY).min().alias("low"), pl.col(KEY).max().alias("high")
                ).row(0)
                same += f" AND t.{KEY} >= {low} AND t.{KEY} <= {high}"
            options = {"streamed_exec": False, "writer_properties": zstd()} if is_tuned else {}
            (
                table.merge(source, same, source_alias="s", target_alias="t", **options)
                .when_matched_update_all(predicate=f"s.{SINCE} > t.{SINCE}")
                .when_not_matched_insert_all()
                .execute()
            )

        yield step_name(number), batch
    yield from read(lambda: pl.scan_delta(path))
    return {"rows": digest(pl.scan_delta(path), case)} if is_tuned else {}


if __name__ == "__main__":
    raise SystemExit(main())
