"""Rollback: a lake of thirty tables back to an earlier restore point, against restoring each table otherwise.

    python benchmarks/rollback.py --quick
    python benchmarks/rollback.py --json rollback.json --docs docs/performance.md

Twenty-four tables of silver and six of gold with TPC-H's line items (250,000 and 2 million rows each; an eighth of that with --quick), each in
twenty commits, and a restore point after the tenth. Ours takes readers, tables, transactions and positions back and publishes a point. The others
take the tables back and nothing else: by deltalake's restore, or by writing the old version's rows again. At the end all three have the same rows.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import data, harness
from benchmarks.harness import Contestant, Result, Steps, Target

_PACKAGES = ["deltalake", "duckdb", "polars"]
_TABLES = {"silver": 24, "gold": 6}
_COMMITS, _POINT_AFTER = 20, 10
_NAMES = {"ours": "ours", "library": "deltalake's restore", "again": "written again"}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = harness.options(__doc__).parse_args(arguments)
    started = time.monotonic()
    sizes = (31_250, 250_000) if chosen.quick else (250_000, 2_000_000)
    work = data.DATA.parent / "runs"
    work.mkdir(parents=True, exist_ok=True)
    source = data.lineitem(0.5, "parquet")
    sections: dict[str, list[Result]] = {}
    texts = []
    for rows in sizes:
        title = f"{sum(_TABLES.values())} tables of {rows:,} rows"
        print(f"{title}: preparing", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="rollback-", dir=work) as folder:
            _prepare(Path(folder), source, rows)
            case = {"lake": folder}
            contestants = [Contestant(_NAMES[key], f"benchmarks.rollback:{key}", case) for key in _NAMES]
            print(title, file=sys.stderr)
            sections[title] = harness.compare(contestants, rounds=chosen.rounds or 3, folder=work)
        texts.append(f"**{title}, {_COMMITS - _POINT_AFTER} commits each back**\n\n{_table(sections[title])}")
    small, large = sections.values()
    growth = large[0].median("cpu_s") / small[0].median("cpu_s")
    faster = large[2].median("wall_s") / large[0].median("wall_s")
    targets = [
        Target(
            f"tables of {sizes[1] // sizes[0]} times the rows: within 1.5 ×, CPU",
            f"{growth:.2f}", growth <= 1.5,
        ),
        Target("5 × as fast as writing the rows again", f"{faster:.1f}", faster >= 5),
    ]  # fmt: skip
    harness.finish("rollback", chosen, "\n\n".join(texts), sections, _PACKAGES, started, targets=targets)
    return 0


def _table(results: Sequence[Result]) -> str:
    ours = results[0]
    text = harness.table(results, reference=_NAMES["library"])
    parts = {step: ours.mean(step, "wall_s") for step in ("readers", "tables", "point")}
    told = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in parts.items() if seconds is not None)
    return f"{text}\n\nOf ours: {told}."


def _settings(folder: Path) -> Any:
    from lakehouse.settings import load_settings

    return load_settings(root=str(folder / "lake"), threads=2)


def _prepare(folder: Path, source: Path, rows: int) -> None:
    """A lake whose tables grew by a twentieth in each commit, and the point in the middle."""
    import polars as pl

    from lakehouse import names
    from lakehouse.gold.publish import positions
    from lakehouse.gold.restore_points import RestorePoint, new_id, save
    from lakehouse.storage import Lake

    lake = Lake.from_settings(_settings(folder))
    part = pl.scan_parquet(source / "*.parquet").head(rows // _COMMITS).collect().lazy()
    versions: dict[str, int] = {}
    for layer, count in _TABLES.items():
        for number in range(count):
            table = lake.table(layer, f"t{number:02d}")  # type: ignore[arg-type]
            table.create(part.collect_schema())
            for batch in range(1, _COMMITS + 1):
                snapshot = table.snapshot()
                snapshot.commit(
                    add=table.stage(part), txns={names.app_id(layer, table.name): batch}, metadata={"stage": layer}
                )  # fmt: skip
                if batch == _POINT_AFTER:
                    versions[names.table_path(table.layer, table.name)] = snapshot.version
    point = RestorePoint(
        id=new_id(), created_at_utc="2999-01-01T00:00:00+00:00", **positions(lake, versions)
    )  # fmt: skip
    save(lake, point)


def _copied(case: Mapping[str, Any]) -> Any:
    from lakehouse.gold.restore_points import current_point
    from lakehouse.storage import Lake

    folder = Path(case["folder"])
    shutil.copytree(Path(case["lake"], "lake"), folder / "lake")
    harness.settle()
    settings = _settings(folder)
    lake = Lake.from_settings(settings)
    return settings, lake, current_point(lake)


def _rows(lake: Any, point: Any) -> dict[str, int]:
    """Of all tables, as the library reads them."""
    import deltalake

    return {
        "rows": sum(deltalake.DeltaTable(lake.table(*path.split("/")).uri).count() for path in point.tables)
    }


def ours(case: Mapping[str, Any]) -> Steps:
    """All that the command does."""
    from lakehouse.ops import rollback

    settings, lake, point = _copied(case)
    kept: dict[str, Any] = {}

    def readers() -> None:
        rollback.plan(lake, point)
        kept["held"] = rollback.readers_first(lake, settings, point, by="benchmark")

    def tables() -> None:
        kept["steps"] = list(rollback.restore_tables(lake, kept["held"], point))

    yield "readers", readers
    yield "tables", tables
    yield "point", lambda: rollback.finish(lake, settings, kept["held"], point, kept["steps"])
    return _rows(lake, point)


def library(case: Mapping[str, Any]) -> Steps:
    """Each table by deltalake. Readers, transactions and positions stay where they are."""
    import deltalake

    _, lake, point = _copied(case)

    def work() -> None:
        for path, version in point.tables.items():
            deltalake.DeltaTable(lake.table(*path.split("/")).uri).restore(version)

    yield "tables", work
    return _rows(lake, point)


def again(case: Mapping[str, Any]) -> Steps:
    """Each table's old rows are read and written over the new ones."""
    import polars as pl

    _, lake, point = _copied(case)

    def work() -> None:
        for path, version in point.tables.items():
            uri = lake.table(*path.split("/")).uri
            pl.scan_delta(uri, version=version).sink_delta(uri, mode="overwrite")

    yield "tables", work
    return _rows(lake, point)


if __name__ == "__main__":
    raise SystemExit(main())
