"""A lake with one silver table and a dbt project of a test's own, built with the real macros."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from lakehouse import checks, names
from lakehouse.gold.build import build
from lakehouse.gold.publish import RestorePoint, publish
from lakehouse.gold.results import GoldResult
from lakehouse.settings import Settings, load_settings
from lakehouse.storage import Lake

REAL_PROJECT = Path(__file__).parents[2] / "dbt_project"
PROJECT_YML = """
name: shop
version: "1.0"
profile: lakehouse
models:
  shop:
    staging: {+materialized: view}
    marts: {+materialized: delta}
"""
SOURCES = """
sources:
  - name: silver
    tables: [{name: orders}, {name: customers}]
"""


@dataclass
class Workshop:
    """A lake and its dbt project, with short verbs for what the tests do to them."""

    settings: Settings
    lake: Lake
    project: Path
    batches: dict[str, int] = field(default_factory=dict)

    def land(self, rows: list[dict[str, Any]], *, table: str = "orders", replace: bool = False) -> int:
        """Commit rows to a silver table as its next batch, and record that it needs no checks; the new version."""
        version = self.land_unchecked(rows, table=table, replace=replace)
        self.vouch(version, table=table)
        return version

    def vouch(self, version: int, *, table: str = "orders") -> None:
        """Record of a silver version that it needs no checks: they are not what these tests are about."""
        checks.record(self.lake, [checks.declared("silver", table, version, [])])

    def land_unchecked(
        self, rows: list[dict[str, Any]], *, table: str = "orders", replace: bool = False
    ) -> int:
        """The same without the record: what a run leaves that is killed before it checks, or has not got there yet."""
        handle = self.lake.table("silver", table)
        batch = self.batches[table] = self.batches.get(table, 0) + 1
        frame = pl.DataFrame([{**row, names.BATCH_ID: batch} for row in rows])
        staged = handle.stage(frame.lazy())
        metadata = {
            "stage": "silver",
            "watermark_utc": f"2024-01-01T{batch:02d}:00:00+00:00",
            "contract_hash": "c1",
        }
        txns = {names.app_id("silver", table): batch}
        snapshot = handle.snapshot_or_none()
        if snapshot is None:
            return handle.create(frame.schema, add=staged, metadata=metadata, txns=txns).version
        if snapshot.schema() != dict(frame.schema):
            return snapshot.commit(add=staged, metadata=metadata, txns=txns, overwrite_schema=frame.schema)
        gone = snapshot.files()["path"].to_list() if replace else []
        return snapshot.commit(add=staged, remove=gone, metadata=metadata, txns=txns)

    def write(self, path: str, text: str) -> None:
        file = self.project / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def mart(self, name: str, sql: str, yml: str | None = None) -> None:
        self.write(f"models/marts/{name}.sql", sql)
        if yml is not None:
            self.write(f"models/marts/{name}.yml", yml)

    def build(self, **options: Any) -> GoldResult:
        return build(self.lake, self.settings, project_dir=self.project, run_id="run-1", **options)

    def build_well(self, **options: Any) -> GoldResult:
        result = self.build(**options)
        assert result.failures == []
        return result

    def publish(self, result: GoldResult | None = None) -> RestorePoint:
        return publish(self.lake, self.settings, gold=result or self.build_well(), run_id="run-1")

    def rows(self, model: str, version: int | None = None) -> list[dict[str, Any]]:
        """The rows of a gold table, sorted, as DuckDB reads the files that Delta names (not through our views)."""
        import deltalake

        table = deltalake.DeltaTable(self.lake.table("gold", model).uri, version=version)
        found = duckdb.from_arrow(table.to_pyarrow_table()).pl().to_dicts()
        return sorted(found, key=lambda row: [str(value) for value in row.values()])

    def files(self, model: str) -> set[str]:
        return set(self.lake.table("gold", model).snapshot().files()["path"])


def order(order_id: int, day: str, amount: int, at: datetime | None = None) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "day": day,
        "amount": amount,
        "placed_at_utc": at or datetime(2024, 1, 1, 12, tzinfo=UTC),
    }


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """A lake with ``silver.orders`` of three rows, and a project without marts."""
    settings = load_settings(
        root=str(tmp_path / "lake"), pipelines_dir=str(tmp_path / "pipelines"), threads=2
    )
    project = tmp_path / "project"
    shutil.copytree(REAL_PROJECT / "macros", project / "macros")
    workshop = Workshop(settings, Lake.from_settings(settings), project)
    workshop.write("dbt_project.yml", PROJECT_YML)
    workshop.write("models/staging/sources.yml", SOURCES)
    workshop.write("models/staging/stg_orders.sql", "select * from {{ source('silver', 'orders') }}")
    workshop.land([order(1, "a", 10), order(2, "a", 20), order(3, "b", 30)])
    return workshop


@pytest.fixture
def make_order() -> Callable[..., dict[str, Any]]:
    return order
