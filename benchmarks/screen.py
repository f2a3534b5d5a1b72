"""Contract screening: compiled and splitting, against pandera's own lazy validation.

    python benchmarks/screen.py --quick
    python benchmarks/screen.py --json screen.json --docs docs/performance.md

10 million rows of 15 columns (1 million with --quick) in memory, 34 rules, 1 row of 250 broken in six ways. The key's
uniqueness is in nobody's rules: silver deduplicates on it anyway, and it would be two thirds of pandera's time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data, harness
from benchmarks.harness import Contestant, Target

Work = Callable[[], dict[str, Any]]
_PACKAGES = ["polars", "pandera"]
#: One row of so many is broken.
_EVERY = 250


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = harness.options(__doc__).parse_args(arguments)
    started = time.monotonic()
    rows, scale = (1_000_000, 0.17) if chosen.quick else (10_000_000, 1.67)
    rounds = chosen.rounds or 3
    work = data.DATA.parent / "runs"
    work.mkdir(parents=True, exist_ok=True)
    folder = data.lineitem(scale, "parquet")
    sections, texts = {}, []
    for title, spoilt in (("1 row of 250 broken", True), ("clean", False)):
        case = {"input": str(folder), "rows": rows, "spoilt": spoilt}
        here = "benchmarks.screen:"
        contestants = [
            Contestant("ours, split", here + "ours", case),
            Contestant("pandera", here + "pandera", case),
            Contestant("pandera, split", here + "pandera_split", case),
            Contestant("pandera, with the key's uniqueness", here + "pandera_unique", case),
        ]
        contestants = contestants if spoilt else contestants[:2]
        print(title, file=sys.stderr)
        sections[title] = harness.compare(contestants, rounds=rounds, folder=work)
        table = harness.table(
            sections[title], reference="pandera", columns=("wall_s", "cpu_s", "peak_rss_bytes")
        )
        texts.append(f"**{rows:,} rows, {title}**\n\n{table}")
    spoilt, clean = sections.values()
    ratio = clean[0].median("cpu_s") / spoilt[1].median("cpu_s")
    texts.append(f"Clean data through ours takes {ratio:.2f} of the CPU that pandera takes on broken data.")
    speed = spoilt[1].median("wall_s") / spoilt[0].median("wall_s")
    targets = [
        Target("split no slower than pandera that does not split", f"{speed:.2f} × its speed", speed >= 1),
        Target("clean data at half of it, CPU", f"{ratio:.2f}", ratio <= 0.5),
    ]
    harness.finish("screen", chosen, "\n\n".join(texts), sections, _PACKAGES, started, targets=targets)
    return 0


def _frame(case: Mapping[str, Any]) -> Any:
    """The rows as silver has them after typing, some of them broken."""
    import polars as pl

    from benchmarks.tables import LineItem

    schema = {
        name: dtype.type for name, dtype in ((n, c.dtype) for n, c in LineItem.to_schema().columns.items())
    }
    frame = (
        pl.scan_parquet(Path(case["input"], "*.parquet"))
        .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
        .head(case["rows"])
    )
    if case["spoilt"]:
        turn = pl.int_range(pl.len()) % (6 * _EVERY)

        def broken(column: str, number: int, value: Any) -> pl.Expr:
            return pl.when(turn == number * _EVERY).then(value).otherwise(pl.col(column)).alias(column)

        frame = frame.with_columns(
            broken("l_quantity", 0, pl.lit(-1.0)),
            broken("l_discount", 1, pl.lit(0.9)),
            broken("l_partkey", 2, pl.lit(None, pl.Int64)),
            broken("l_shipmode", 3, pl.lit("MULE")),
            broken("l_receiptdate", 4, pl.col("l_shipdate").dt.offset_by("-1d")),
            broken("l_linenumber", 5, pl.lit(9, pl.Int32)),
        )
    return frame.collect().rechunk()


def ours(case: Mapping[str, Any]) -> Work:
    """Count every rule's violations; where there are any, split."""
    import polars as pl

    from benchmarks.tables import LineItem
    from lakehouse.contracts import compile_contract

    contract, frame = compile_contract(LineItem), _frame(case)

    def work() -> dict[str, Any]:
        counts = contract.count(frame.lazy())
        accepted, rejected = contract.split(frame.lazy(), counts)
        parts = [accepted] if rejected is None else [accepted, rejected]
        heights = [part.height for part in pl.collect_all(parts, engine="streaming")]
        assert sum(heights) == frame.height
        return {"rejected": sum(heights[1:]), "rows": frame.height}

    return work


def pandera(case: Mapping[str, Any]) -> Work:
    """Lazy validation: all failures are reported, no row is set apart."""
    return _pandera(case, split=False)


def pandera_unique(case: Mapping[str, Any]) -> Work:
    """The contract as it is written, ``Config.unique`` included."""
    return _pandera(case, split=False, unique=True)


def pandera_split(case: Mapping[str, Any]) -> Work:
    """The same, and the rows that the report names are taken out."""
    return _pandera(case, split=True)


def _pandera(case: Mapping[str, Any], *, split: bool, unique: bool = False) -> Work:
    import polars as pl
    from pandera.errors import SchemaErrors

    from benchmarks.tables import LineItem

    schema, frame = LineItem.to_schema(), _frame(case)
    if not unique:
        schema.unique = None

    def work() -> dict[str, Any]:
        try:
            schema.validate(frame, lazy=True)
        except SchemaErrors as errors:
            facts = {"rows": frame.height, "failures": errors.failure_cases.height}
            if split:
                bad = errors.failure_cases["index"].drop_nulls().unique().cast(pl.UInt32)
                numbered = frame.lazy().with_row_index("row")
                is_bad = pl.col("row").is_in(bad.implode())
                parts = [numbered.filter(~is_bad).drop("row"), numbered.filter(is_bad).drop("row")]
                facts["rejected"] = pl.collect_all(parts)[1].height
            return facts
        return {"rows": frame.height}

    return work


if __name__ == "__main__":
    raise SystemExit(main())
