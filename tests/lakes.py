"""A small real lake for a test: one pipeline of CSV files under a contract, driven stage by stage."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandera.polars as pa
import polars as pl

from lakehouse import ledger
from lakehouse.bronze import ingest
from lakehouse.contracts import Contract
from lakehouse.pipelines import Pipeline, PipelineSpec
from lakehouse.results import StageResult
from lakehouse.settings import load_settings
from lakehouse.silver import refine
from lakehouse.storage import Lake


class Orders(Contract):
    """One row per order."""

    id: pl.Int64 = pa.Field(description="Number.")
    amount: pl.Float64 = pa.Field(ge=0, description="Euros.")
    note: pl.String = pa.Field(nullable=True, description="Free text.")
    seq: pl.Int64 = pa.Field(nullable=True, description="Version.")

    class Config:
        unique = ["id"]


class OrdersLake:
    """A lake of its own. ``arrive`` lands one file and runs bronze, silver and the ledger's copy."""

    def __init__(
        self,
        root: Path,
        mode: str = "append",
        *,
        contract: type[Contract] = Orders,
        transform: Any = None,
        source: dict[str, Any] | None = None,
        **silver: Any,
    ) -> None:
        module = ModuleType("orders_of_test")
        module.Orders, module.transform = contract, transform  # type: ignore[attr-defined]
        sys.modules["orders_of_test"] = module
        self.settings = load_settings(root=str(root))
        self.lake = Lake.from_settings(self.settings)
        options = {
            "kind": "files",
            "path": "orders/*.csv",
            "format": "csv",
            "null_markers": ["NA"],
            **(source or {}),
        }
        spec: dict[str, Any] = {
            "name": "orders",
            "description": "Orders.",
            "source": options,
            "contract": "orders_of_test.Orders",
            "silver": {"mode": mode, **silver},
        }
        if transform:
            spec["transform"] = "orders_of_test.transform"
        self.pipeline = Pipeline(PipelineSpec.model_validate(spec), "defs.yaml")
        self.files = 0

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        return {"orders": self.pipeline}

    def land(self, *rows: str, header: str = "id,amount,note,seq") -> Path:
        self.files += 1
        path = Path(self.settings.landing, "orders", f"{self.files:03d}.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    def ingest(self) -> None:
        ingest(self.lake, self.settings, self.pipeline)

    def run(self) -> StageResult:
        self.ingest()
        result = refine(self.lake, self.settings, self.pipeline)
        ledger.sync(self.lake, [self.pipeline])
        return result

    def arrive(self, *rows: str, header: str = "id,amount,note,seq") -> StageResult:
        self.land(*rows, header=header)
        return self.run()

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        return (
            self.lake.table("silver", "orders")
            .snapshot()
            .scan()
            .select(columns)
            .sort(columns)
            .collect()
            .rows()
        )

    def refused(self) -> list[tuple[Any, ...]]:
        frame = self.lake.table("quarantine", "orders").snapshot().scan().collect()
        return frame.select("_broken_rules", "_raw", "_source_row").sort("_source_row").rows()
