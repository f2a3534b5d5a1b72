"""Landable exports are files of their source: its format, its dialect, its encoding."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import pytest

from lakehouse.contracts.model import Contract, TimestampUtc
from lakehouse.errors import PermanentError
from lakehouse.ops import refused
from lakehouse.pipelines.model import SourceSpec
from lakehouse.quarantine import export
from tests.quarantine import bench as bench_module
from tests.quarantine.bench import Bench

DAY = "février; 'a', \"b\""
COLUMNS = ["id", "amount", "day"]


def _refused(raw: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame({"_stage": ["silver"], "_raw": [json.dumps(raw)]})


def _source(**options: Any) -> SourceSpec:
    return SourceSpec.model_validate({"kind": "files", "path": "orders/**", "format": "csv", **options})


@pytest.mark.parametrize(
    ("options", "landed"),
    [
        ({"encoding": "cp1252"}, 'id,amount,day\n1,-5,"février; \'a\', ""b"""\n'),
        ({"delimiter": ";", "quote": "'"}, "id;amount;day\n1;-5;'février; ''a'', \"b\"'\n"),
        ({"delimiter": "|", "quote": None}, "id|amount|day\n1|-5|février; 'a', \"b\"\n"),
        ({"header": False, "columns": COLUMNS}, '1,-5,"février; \'a\', ""b"""\n'),
        ({"delimiter": "\t", "encoding": "utf-16"}, 'id\tamount\tday\n1\t-5\t"février; \'a\', ""b"""\n'),
    ],
    ids=["encoding", "delimiter and quote", "no quotes", "no header", "wide"],
)
def test_a_landable_file_is_written_and_read_as_its_source_writes(
    tmp_path: Path, options: dict[str, Any], landed: str
) -> None:
    bench = Bench(tmp_path / "lake", source={"csv": options})
    encoding = str(options.get("encoding", "utf-8"))
    (bench.folder / "a.csv").write_bytes(landed.encode(encoding))
    bench.take()
    target = bench.folder / "b.csv"
    assert export(refused.rows(bench.lake, "orders"), target, source=bench.pipeline.spec.source) == 1
    assert target.read_bytes().decode(encoding) == landed
    target.write_bytes(landed.replace("-5", "5").encode(encoding))
    assert bench.take().accepted == 1
    assert bench.table("id", "amount", "day") == [(1, 5, DAY)]


def test_a_json_source_gets_its_array_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "lake", source={"path": "orders/*.json", "format": "json"})
    (bench.folder / "a.json").write_text(
        json.dumps([{"id": n, "amount": -n, "day": DAY} for n in (1, 2)]), encoding="utf-8"
    )
    bench.take()
    target = bench.folder / "b.json"
    export(refused.rows(bench.lake, "orders"), target, source=bench.pipeline.spec.source)
    corrected = [record | {"amount": 7} for record in json.loads(target.read_text(encoding="utf-8"))]
    target.write_text(json.dumps(corrected))
    assert bench.take().accepted == 2
    assert bench.table("id", "amount", "day") == [(1, 7, DAY), (2, 7, DAY)]


class Typed(Contract):
    """What Parquet has types for."""

    id: int = pa.Field(description="x")
    amount: int = pa.Field(description="x", ge=0)
    day: pl.Date = pa.Field(description="x", nullable=True)
    at_utc: TimestampUtc = pa.Field(description="x", nullable=True)
    price: Annotated[pl.Decimal, 20, 2] = pa.Field(description="x", nullable=True)

    class Config:
        unique = ["id"]


def test_a_parquet_source_gets_its_types_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "Typed", Typed, raising=False)
    bench = Bench(
        tmp_path / "lake", "Typed", source={"path": "orders/*.parquet", "format": "parquet"}, mode="upsert"
    )
    values = (date(2024, 1, 1), datetime(2024, 1, 1, 12, 0, 0, 5, tzinfo=UTC), Decimal("123456789012345.25"))
    names = ("day", "at_utc", "price")
    frame = pl.DataFrame([dict(zip(names, values, strict=True)), {}]).with_columns(raw=pl.lit(b"\x00x"))
    frame.insert_column(0, pl.Series("id", [1, 2])).insert_column(1, pl.Series("amount", [-1, -2]))
    frame.write_parquet(bench.folder / "a.parquet")
    bench.take()
    target = bench.folder / "b.parquet"
    rows, types = refused.rows(bench.lake, "orders"), bench.lake.table("bronze", "orders").snapshot().schema()
    export(rows, target, source=bench.pipeline.spec.source, types=types)
    back = pl.read_parquet(target)
    assert back.sort("id").equals(frame)
    back.with_columns(pl.lit(7).alias("amount")).write_parquet(target)
    assert bench.take().accepted == 2
    assert bench.table("id", "amount", *names) == [(1, 7, *values), (2, 7, None, None, None)]


def test_a_rescued_value_lands_as_what_it_is(tmp_path: Path) -> None:
    rows = _refused({"id": 1, "day": None, "_rescued": '{"day": "soon"}'})
    types = {"id": pl.Int64(), "day": pl.Date()}
    export(rows, tmp_path / "x.parquet", source=_source(format="parquet"), types=types)
    assert pl.read_parquet(tmp_path / "x.parquet").rows() == [(1, "soon")]


@pytest.mark.parametrize(
    ("format_", "path", "name", "right"),
    [
        ("csv", "orders/**", "x.jsonl", "x.csv"),
        ("csv", "orders/*.txt", "x.parquet", "x.txt"),
        ("jsonl", "orders/*.jsonl.gz", "x.csv", "x.jsonl"),
        ("json", "orders/*.json", "x.jsonl", "x.json"),
        ("parquet", "orders/*.parquet", "x.csv", "x.parquet"),
    ],
)
def test_an_ending_that_is_not_the_sources_is_refused_with_the_right_one(
    tmp_path: Path, format_: str, path: str, name: str, right: str
) -> None:
    source = _source(format=format_, path=path)
    with pytest.raises(PermanentError, match=f"the source's files are {format_}") as caught:
        export(_refused({"id": "1"}), tmp_path / name, source=source)
    assert f"--to {right}" in str(caught.value)
    export(_refused({"id": "1"}), tmp_path / right, source=source)
    assert [file.name for file in tmp_path.iterdir()] == [right]


@pytest.mark.parametrize(
    ("csv", "raw", "says"),
    [
        ({"encoding": "cp1252"}, {"id": "1", "day": "Łódź"}, r"day of row 1 is 'Łódź', and cp1252 .* has no 'Ł'"),
        ({"quote": None}, {"id": "1", "day": "a,b"}, "day of row 1 is 'a,b', which needs quotes"),
        ({"header": False, "columns": ["id"]}, {"id": "1", "day": "x"}, "csv.columns has no such column"),
    ],
)  # fmt: skip
def test_what_the_source_cannot_write_is_said_and_nothing_is_written(
    tmp_path: Path, csv: dict[str, Any], raw: dict[str, str], says: str
) -> None:
    with pytest.raises(PermanentError, match=says):
        export(_refused(raw), tmp_path / "x.csv", source=_source(csv=csv))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_value_alone_in_its_row_is_still_a_row(tmp_path: Path) -> None:
    export(_refused({"id": None}), tmp_path / "x.csv", source=_source())
    assert (tmp_path / "x.csv").read_text() == 'id\n""\n'
