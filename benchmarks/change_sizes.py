"""The course of `upsert` and `history`: every size, hot and uniform, and the tables of what came out."""

from __future__ import annotations

import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks import data, harness
from benchmarks.changes import DEEP, WHERE, Case
from benchmarks.harness import Contestant, Result, Target

#: TPC-H orders per unit of scale.
_ROWS_PER_SCALE = 1_500_000
_PACKAGES = ["polars", "deltalake", "duckdb"]
_OURS, _MERGE, _UNIFORM = "ours", "merge, tuned", "uniform"
#: The size of table for which the first target is set, and the largest that is measured three times.
_ASKED_ROWS, _REPEATED_ROWS = 10_000_000, 10_000_000
_MEANS = (("cpu_s", 1.0, 2), ("wall_s", 1.0, 2), ("written_bytes", 1e6, 1))


def compare(
    name: str,
    description: str | None,
    contestants: Callable[[Case], list[Contestant]],
    arguments: Sequence[str] | None,
    packages: Sequence[str] = (),
) -> int:
    """Run the benchmark called ``name``, which is the write mode, too.

    Raises:
        RuntimeError: two contestants ended with different rows.
    """
    parser = harness.options(description)
    parser.add_argument("--rows", type=int, nargs="+", help="sizes of the table")
    tables = [WHERE, (DEEP,)] if name == "history" else [WHERE]
    parser.add_argument("--where", choices=[*itertools.chain(*tables)], help="one kind of batch")
    parser.add_argument("--alone", action="store_true", help="ours only: nothing is compared")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    sizes = [200_000, 2_000_000] if chosen.quick else [1_000_000, 10_000_000, 50_000_000]
    sizes = chosen.rows or sizes
    changes, batches, tile = (20_000, 2, 1_000_000) if chosen.quick else (100_000, 5, 10_000_000)
    work = data.DATA.parent / "runs"
    sections: dict[str, list[Result]] = {}
    texts, found = [], {}
    for rows, kinds in itertools.product(sizes, tables):
        kinds = tuple(where for where in kinds if chosen.where in (None, where))
        if not kinds:
            continue
        state = work / name / str(rows)
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        print(f"{rows:,} rows: preparing", file=sys.stderr)
        case = Case(name, rows, changes, batches, tile / _ROWS_PER_SCALE, str(state), kinds[0])
        table = harness.run(case.contestant("prepare", "benchmarks.change_lakes:prepare"), work).facts
        title = (
            f"{rows:,} rows ({table['bytes'] / 1e6:.0f} MB, {table['files']} files), batches of {changes:,}"
        )
        for where in kinds:
            case = replace(case, where=where)
            takes_part = contestants(case)[: 1 if chosen.alone else None]
            print(f"{rows:,} rows, {where}", file=sys.stderr)
            # The largest takes a quarter of an hour for a round, most of it the others'.
            once = chosen.quick or rows > _REPEATED_ROWS
            results = harness.compare(takes_part, rounds=chosen.rounds or (1 if once else 3), folder=work)
            found[where, rows] = sections[f"{where}, {rows}"] = results
            texts.append(f"**{title}, {where}**\n\n{_table(results)}")
        shutil.rmtree(state)
    if len(sizes) > 1:
        texts.append(f"**CPU seconds of a batch as the table grows**\n\n{_growth(found, sizes)}")
    harness.finish(
        name, chosen, "\n\n".join(texts), sections, [*_PACKAGES, *packages], started,
        targets=list(_targets(found, sizes)),
    )  # fmt: skip
    return 0


def _targets(found: Mapping[tuple[str, int], Sequence[Result]], sizes: Sequence[int]) -> Iterator[Target]:
    """A uniform batch five times cheaper than tuned merge (asked of 10 million rows), and flat as the table grows."""
    uniform = {
        rows: {result.name: _cpu(result) for result in found.get((_UNIFORM, rows), ())} for rows in sizes
    }
    for rows, cpu in uniform.items():
        ours, merge = cpu.get(_OURS), cpu.get(_MERGE)
        if ours and merge and rows == min(sizes, key=lambda size: abs(size - _ASKED_ROWS)):
            asked = f"uniform, {rows:,} rows: 5 × cheaper than tuned merge, CPU"
            yield Target(asked, f"{merge / ours:.1f}", merge / ours >= 5)
    first, last = (uniform[rows].get(_OURS) for rows in (sizes[0], sizes[-1]))
    if first and last and len(sizes) > 1:
        asked = f"uniform, {sizes[0]:,} to {sizes[-1]:,} rows: within 1.5 ×, CPU"
        yield Target(asked, f"{last / first:.1f}", last / first <= 1.5)


def _table(results: Sequence[Result]) -> str:
    """Means of the measured batches; the last column is how much cheaper ours is, by CPU."""
    lines = [
        "| | CPU s per batch | wall s per batch | written MB per batch | peak MiB | first batch, CPU s | reading a column, CPU s | ours is cheaper, × |",
        "|---|" + "--:|" * 7,
    ]
    for result in results:
        if not result.runs:
            continue
        cells = [_number(result.mean("batch", what), scale, digits) for what, scale, digits in _MEANS]
        cells.append(_number(result.median("peak_rss_bytes"), 2**20, 0))
        cells += [_number(result.mean(step, "cpu_s"), 1.0, 2) for step in ("first", "read")]
        cells.append("" if result is results[0] else _ratio(_cpu(result), _cpu(results[0])))
        lines.append(f"| {result.name} | {' | '.join(cells)} |")
    for result in results:
        fixed = result.mean("fixed", "cpu_s") if result.runs else None
        if fixed is not None:
            lines += ["", f"Of each batch, {fixed:.2f} CPU s are the fixed start of {result.name}."]
        upkeep = result.mean("upkeep", "cpu_s") if result.runs else None
        if upkeep is not None:
            lines += [
                "",
                f"Maintenance after all batches: {upkeep:.2f} CPU s, {result.facts['combined']} files combined.",
            ]
        if result.absent:
            lines += ["", f"Not measured: {result.name} ({result.absent})."]
    return "\n".join(lines)


def _growth(found: Mapping[tuple[str, int], Sequence[Result]], sizes: Sequence[int]) -> str:
    heads = [f"{rows:,} rows" for rows in sizes] + [f"× from {sizes[0]:,} to {rows:,}" for rows in sizes[1:]]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "--:|" * len(heads)]
    for where in (*WHERE, DEEP):
        names = dict.fromkeys(result.name for rows in sizes for result in found.get((where, rows), ()))
        for name in names:
            cpu = [
                next((_cpu(result) for result in found[where, rows] if result.name == name), None)
                for rows in sizes
            ]
            if cpu[0] is None:
                continue
            cells = [_number(one, 1.0, 2) for one in cpu]
            cells += [_ratio(one, cpu[0]) for one in cpu[1:]]
            lines.append(f"| {name}, {where} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cpu(result: Result) -> float | None:
    return result.mean("batch", "cpu_s") if result.runs else None


def _number(value: float | None, scale: float, digits: int) -> str:
    return "" if value is None else f"{value / scale:.{digits}f}"


def _ratio(one: float | None, other: float | None) -> str:
    return "" if one is None or other is None else f"{one / other:.1f}"
