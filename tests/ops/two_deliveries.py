"""A lake of two published deliveries, and what the tests of rollback ask of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse.gold.publish import list_ids, load
from lakehouse.gold.restore_points import RestorePoint
from lakehouse.ops import rollback
from lakehouse.ops.reconcile import reconcile
from lakehouse.storage import Lake
from tests.faults import inventory, lab
from tests.faults.lab import Lab

#: Differ between two lakes that saw the same: the clock, who ran, and where the landing folder is.
_VOLATILE = inventory._VOLATILE | {"_source_file"}
TABLES = [(layer, name) for layer, names in {
    "silver": ("orders", "prices", "clicks"), "gold": ("customers", "order_facts", "price_now", "click_log"),
}.items() for name in names]  # fmt: skip


def fresh(made: tuple[Lab, Path]) -> Lab:
    """The lake as it was made: in its place, because the ledger knows files by where they are."""
    the_lab, copy = made
    shutil.rmtree(the_lab.folder)
    shutil.copytree(copy, the_lab.folder)
    return the_lab


def new_lab(folder: Path) -> Lab:
    the_lab = Lab(folder, str(folder / "lake"), {})
    the_lab.write_project()
    return the_lab


def lake_of(the_lab: Lab) -> Lake:
    return Lake.from_settings(the_lab.settings())


def points(the_lab: Lab) -> list[RestorePoint]:
    """Oldest first."""
    lake = lake_of(the_lab)
    return [load(lake, point_id) for point_id in reversed(list_ids(lake))]


def tables(the_lab: Lab, at: RestorePoint | None = None) -> dict[str, Any]:
    """Rows and columns of silver and gold, as the library reads them: of the newest versions, or of a point's."""
    lake, found = lake_of(the_lab), {}
    for layer, name in TABLES:
        version = None if at is None else at.tables[f"{layer}/{name}"]
        frame = pl.scan_delta(lake.table(layer, name).uri, version=version).collect()  # type: ignore[arg-type]
        kept = frame.select(pl.exclude(_VOLATILE))
        found[f"{layer}/{name}"] = (kept.columns, sorted(map(str, kept.rows())))
    return found


def shown(the_lab: Lab) -> dict[str, list[str]]:
    """What analysts see, through the catalog."""
    return inventory._published(the_lab.settings(), _VOLATILE)


def refused(the_lab: Lab) -> dict[str, list[str]]:
    lake = lake_of(the_lab)
    return {
        name: inventory._rows(lake.table("quarantine", name), _VOLATILE) for name in lake.tables("quarantine")
    }


def go_back(the_lab: Lab, point: RestorePoint, note: str = "") -> RestorePoint:
    """The whole of it, as the command does it."""
    settings, lake = the_lab.settings(), lake_of(the_lab)
    held = rollback.readers_first(lake, settings, point, by="ada", note=note)
    steps = list(rollback.restore_tables(lake, held, point))
    return rollback.finish(lake, settings, held, point, steps)


def assert_reconciled(the_lab: Lab, delivery: int = 2) -> None:
    declared = {pipeline.name: pipeline for pipeline in lab.pipelines(delivery)}
    wrong = [count for count in reconcile(lake_of(the_lab), the_lab.settings(), declared) if not count.ok]
    assert wrong == []
