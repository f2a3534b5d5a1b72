"""A lake of its own with one pipeline, whose contract a test may change from one step to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl

from lakehouse import quarantine
from lakehouse.bronze import ingest
from lakehouse.contracts import Contract
from lakehouse.pipelines import Pipeline, PipelineSpec
from lakehouse.quarantine import Book, Selection
from lakehouse.results import StageResult
from lakehouse.settings import Settings, load_settings
from lakehouse.silver import Replayed, refine, replay
from lakehouse.storage import Lake


class Strict(Contract):
    """Amounts are never negative."""

    id: int = pa.Field(description="x")
    amount: int = pa.Field(description="x", ge=0)
    day: str = pa.Field(description="x")

    class Config:
        unique = ["id"]


class Lenient(Strict):
    """Credits down to -10 are right."""

    amount: int = pa.Field(description="x", ge=-10)


class Open(Strict):
    """Any amount."""

    amount: int = pa.Field(description="x")


class StrictLog(Contract):
    """Rows without a key."""

    id: int = pa.Field(description="x")
    amount: int = pa.Field(description="x", ge=0)


class OpenLog(StrictLog):
    """Rows without a key, any amount."""

    amount: int = pa.Field(description="x")


class Distinct(Contract):
    """A rule that looks at other rows: no reference twice within a batch."""

    id: int = pa.Field(description="x")
    amount: int = pa.Field(description="x", unique=True)


class DistinctOpen(Distinct):
    """References may repeat."""

    amount: int = pa.Field(description="x")


class Bench:
    """``orders`` from CSV files with id, amount and day."""

    def __init__(
        self, root: Path, contract: str = "Strict", source: dict[str, Any] | None = None, **silver: Any
    ) -> None:
        self.settings: Settings = load_settings(root=str(root))
        self.lake = Lake.from_settings(self.settings)
        self.source = {"kind": "files", "path": "orders/**/*.csv", "format": "csv", **(source or {})}
        self.silver = silver or {"mode": "upsert", "sequence_by": "day"}
        self.use(contract)
        self.folder = Path(self.settings.landing, "orders")
        self.folder.mkdir(parents=True, exist_ok=True)

    def use(self, contract: str) -> Bench:
        """From here on, this is today's contract."""
        spec = {
            "name": "orders",
            "description": "x",
            "source": self.source,
            "contract": f"{__name__}.{contract}",
            "silver": self.silver,
        }
        self.pipeline = Pipeline(PipelineSpec.model_validate(spec), "defs.yaml")
        return self

    def land(self, name: str, *rows: tuple[Any, ...], header: str = "id,amount,day") -> None:
        lines = [header, *(",".join(map(str, row)) for row in rows)]
        (self.folder / name).write_text("\n".join(lines) + "\n")

    def take(self) -> StageResult:
        """What has landed, through bronze and silver."""
        ingest(self.lake, self.settings, self.pipeline, run_id="test")
        return self.refine()

    def refine(self) -> StageResult:
        return refine(self.lake, self.settings, self.pipeline, run_id="test")

    def replay(self, selection: Selection | None = None, **options: Any) -> Replayed:
        return replay(self.lake, self.settings, self.pipeline, selection, **{"actor": "test", **options})

    def table(self, *columns: str) -> list[tuple[Any, ...]]:
        frame = self.lake.table("silver", "orders").snapshot().scan().select(columns).collect()
        return frame.sort(columns).rows()

    def counts(self) -> tuple[int, int, int, int]:
        """Rows open, releasing, released, resolved."""
        counts = Book(self.lake, "orders").counts()
        return counts.open, counts.releasing, counts.released, counts.resolved

    def files(self) -> list[str]:
        """Every file below the lake's root, to prove that nothing was written."""
        return sorted(str(path) for path in Path(self.settings.root).rglob("*"))

    def quarantined(self) -> pl.DataFrame:
        return Book(self.lake, "orders").rows().collect()

    def resolve(self, selection: Selection | None = None, **options: Any) -> quarantine.Resolved:
        settled = {"note": "corrected by hand", "actor": "test", "apply": True, **options}
        return quarantine.resolve(self.lake, "orders", selection or Selection(), **settled)
