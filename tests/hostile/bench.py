"""A lake with one pipeline over files of any format, for files as nobody should send them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from lakehouse.bronze import ingest
from lakehouse.events import Event, recent
from lakehouse.ledger import Ledger
from lakehouse.pipelines import Pipeline, PipelineSpec
from lakehouse.results import StageResult
from lakehouse.settings import load_settings
from lakehouse.storage import Lake

#: A file in which nothing is wrong.
GOOD = "id,name\n1,ann\n2,bob\n"


class Inbox:
    """Bronze alone: what lands, what is refused, what is told."""

    def __init__(
        self,
        root: Path,
        file_format: str = "csv",
        *,
        settle_seconds: float = 0.0,
        name: str = "orders",
        **source: Any,
    ) -> None:
        self.settings = load_settings(root=str(root), settle_seconds=settle_seconds)
        self.lake = Lake.from_settings(self.settings)
        options = {"kind": "files", "path": f"in/*.{file_format}", "format": file_format, **source}
        spec = {"name": name, "description": "x", "source": options, "contract": "a.B"}
        self.pipeline = Pipeline(PipelineSpec.model_validate(spec), "defs.yaml")
        self.folder = Path(self.settings.landing, "in")
        self.folder.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def ingest(self) -> StageResult:
        return ingest(self.lake, self.settings, self.pipeline, run_id="test")

    def bronze(self) -> pl.DataFrame:
        frame = self.lake.table("bronze", "orders").snapshot().scan().collect()
        return frame.with_columns(file=pl.col("_source_file").str.split("/").list.last()).sort(
            "file", "_source_row"
        )

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        return self.bronze().select(columns).rows()

    def refused(self) -> list[dict[str, Any]]:
        snapshot = self.lake.table("quarantine", "orders").snapshot_or_none()
        if snapshot is None:
            return []
        frame = snapshot.scan().sort("_source_file", "_source_row").collect()
        return frame.with_columns(
            file=pl.col("_source_file").str.split("/").list.last(), rule=pl.col("_broken_rules").list.first()
        ).to_dicts()

    def kept_bytes(self, row: dict[str, Any]) -> bytes:
        """The copy of the file that a quarantine row names."""
        relative = row["_source_position"].split("kept as ")[1]
        return Path(self.settings.root, relative).read_bytes()

    def events(self) -> list[Event]:
        return recent(self.lake, limit=100)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.lake)
