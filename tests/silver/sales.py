"""A lake of its own with one pipeline of dated rows, whose contract and transform a test may change in between."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl

from lakehouse import ledger
from lakehouse.bronze import ingest
from lakehouse.contracts import Contract
from lakehouse.contracts.model import TimestampUtc
from lakehouse.ops.reconcile import reconcile
from lakehouse.pipelines import Pipeline, PipelineSpec
from lakehouse.quarantine import Book
from lakehouse.results import StageResult
from lakehouse.settings import Settings, load_settings
from lakehouse.silver import Backfilled, Period, backfill, refine, replay
from lakehouse.storage import Lake


class Sales(Contract):
    """One row per sale; no amount below zero."""

    id: int = pa.Field(description="x")
    day: pl.Date = pa.Field(description="x")
    amount: int = pa.Field(description="x", ge=0)

    class Config:
        unique = ["id"]


class Lenient(Sales):
    """Credits are right."""

    amount: int = pa.Field(description="x")


class Severe(Sales):
    """Nothing above 50 is believed."""

    amount: int = pa.Field(description="x", ge=0, le=50)


class Wider(Sales):
    """A column more."""

    doubled: int = pa.Field(description="x", nullable=True)


class Log(Contract):
    """Rows without a key."""

    id: int = pa.Field(description="x")
    day: pl.Date = pa.Field(description="x")
    amount: int = pa.Field(description="x", ge=0)


class Distinct(Log):
    """A rule that looks at other rows: no amount twice within a batch."""

    amount: int = pa.Field(description="x", unique=True)


class Instants(Contract):
    """Rows with an instant."""

    id: int = pa.Field(description="x")
    at: TimestampUtc = pa.Field(description="x")
    amount: int = pa.Field(description="x")

    class Config:
        unique = ["id"]


SECOND = pl.col("day") == date(2024, 1, 2)


def plus_1000(typed: pl.LazyFrame) -> pl.LazyFrame:
    """Amounts of the second day, corrected."""
    return typed.with_columns(amount=pl.when(SECOND).then(pl.col("amount") + 1000).otherwise("amount"))


def credits(typed: pl.LazyFrame) -> pl.LazyFrame:
    """Credits of the second day are sales, and 20 was 21."""
    amount = pl.col("amount")
    right = pl.when(amount == 20).then(21).when(amount < 0).then(amount.abs()).otherwise(amount)
    return typed.with_columns(amount=pl.when(SECOND).then(right).otherwise(amount))


def next_day(typed: pl.LazyFrame) -> pl.LazyFrame:
    """Everything of the second day happened a day later."""
    return typed.with_columns(day=pl.when(SECOND).then(date(2024, 1, 3)).otherwise("day"))


def other_keys(typed: pl.LazyFrame) -> pl.LazyFrame:
    """Everything of the second day has another key, and happened in February."""
    return typed.with_columns(
        id=pl.when(SECOND).then(pl.col("id") + 100).otherwise("id"),
        day=pl.when(SECOND).then(date(2024, 2, 20)).otherwise("day"),
    )


def without_day(typed: pl.LazyFrame) -> pl.LazyFrame:
    """When the rows of the second day happened is not known any more."""
    return typed.with_columns(day=pl.when(~SECOND).then("day"))


def twice(typed: pl.LazyFrame) -> pl.LazyFrame:
    """A column more, from one that is there."""
    return typed.with_columns(doubled=pl.col("amount") * 2)


class Bench:
    """``sales`` from CSV files with id, day and amount."""

    def __init__(
        self, root: Path, contract: str = "Sales", transform: str | None = None, **silver: Any
    ) -> None:
        self.settings: Settings = load_settings(root=str(root))
        self.lake = Lake.from_settings(self.settings)
        self.silver = {"partition_by": {"column": "day"}, "mode": "upsert", **silver}
        self.use(contract, transform)
        self.folder = Path(self.settings.landing, "sales")
        self.folder.mkdir(parents=True, exist_ok=True)

    def use(self, contract: str = "Sales", transform: str | None = None) -> Bench:
        """From here on, these are today's rules."""
        spec: dict[str, Any] = {
            "name": "sales",
            "description": "x",
            "source": {"kind": "files", "path": "sales/*.csv", "format": "csv"},
            "contract": f"{__name__}.{contract}",
            "silver": self.silver,
        }
        if transform:
            spec["transform"] = f"{__name__}.{transform}"
        self.pipeline = Pipeline(PipelineSpec.model_validate(spec), "defs.yaml")
        return self

    def land(self, name: str, *rows: str, header: str = "id,day,amount") -> None:
        (self.folder / name).write_text("\n".join([header, *rows]) + "\n")

    def take(self) -> StageResult:
        """What has landed, through bronze and silver."""
        ingest(self.lake, self.settings, self.pipeline, run_id="test")
        result = refine(self.lake, self.settings, self.pipeline, run_id="test")
        ledger.sync(self.lake, [self.pipeline])
        return result

    def backfill(self, first: str = "2024-01-02", last: str = "", *, apply: bool = True) -> Backfilled:
        period = Period.parse(first, last or first)
        return backfill(
            self.lake, self.settings, self.pipeline, period, apply=apply, actor="test", run_id="b"
        )

    def replay(self) -> None:
        replay(self.lake, self.settings, self.pipeline, actor="test")

    def table(self, *columns: str) -> list[tuple[Any, ...]]:
        columns = columns or ("id", "day", "amount")
        frame = self.lake.table("silver", "sales").snapshot().scan().select(columns).collect()
        plain = [
            tuple(v.isoformat()[:10] if isinstance(v, date | datetime) else v for v in r)
            for r in frame.rows()
        ]
        return sorted(plain, key=str)

    def content(self) -> list[tuple[Any, ...]]:
        """Every column of every row, lineage included."""
        return sorted(self.lake.table("silver", "sales").snapshot().scan().collect().rows(), key=str)

    @property
    def version(self) -> int:
        return self.lake.table("silver", "sales").snapshot().version

    def counts(self) -> tuple[int, int, int, int]:
        """Refused rows open, releasing, released, resolved."""
        if not self.lake.table("quarantine", "sales").exists():
            return 0, 0, 0, 0
        counts = Book(self.lake, "sales").counts()
        return counts.open, counts.releasing, counts.released, counts.resolved

    def differences(self) -> list[str]:
        """What a recount of the whole lake finds wrong."""
        return [
            f"{c.what}: {c.found}"
            for c in reconcile(self.lake, self.settings, {"sales": self.pipeline})
            if not c.ok
        ]

    def files(self) -> list[str]:
        """Every file below the lake's root, to prove that nothing was written."""
        return sorted(str(path) for path in Path(self.settings.root).rglob("*") if path.is_file())


ROWS_A = ("1,2024-01-01,10", "2,2024-01-02,20", "3,2024-01-02,-5", "4,2024-01-03,40")
ROWS_B = ("5,2024-01-02,60", "1,2024-01-01,11", "6,2024-01-03,-7")


def filled(bench: Bench) -> Bench:
    """Two batches over three days, one row refused on the second day and one on the third."""
    bench.land("a.csv", *ROWS_A)
    bench.take()
    bench.land("b.csv", *ROWS_B)
    bench.take()
    return bench
