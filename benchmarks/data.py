"""The benchmarks' data, made once and kept below .make/: TPC-H lineitem of any size, and the flights' daily files."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".make" / "bench" / "data"


def lineitem(scale: float, kind: str, parts: int = 4) -> Path:
    """A folder with TPC-H's lineitem (6 M rows x 16 columns per unit of ``scale``) as csv, csv.gz, jsonl or parquet.

    CSV and Parquet come from ``tpchgen-cli``; gzip (level 6) and JSON Lines are made of them.
    """
    folder = DATA / f"lineitem-{scale:g}-{parts}" / kind
    if (folder / ".done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if kind in ("csv", "parquet"):
        _generate("lineitem", kind, scale, parts, folder)
    elif kind == "csv.gz":
        for file in sorted(lineitem(scale, "csv", parts).glob("*.csv")):
            with (
                open(file, "rb") as source,
                gzip.open(folder / f"{file.name}.gz", "wb", compresslevel=6) as sink,
            ):
                shutil.copyfileobj(source, sink, 1 << 20)
    else:
        import polars as pl

        for file in sorted(lineitem(scale, "csv", parts).glob("*.csv")):
            pl.scan_csv(file).sink_ndjson(folder / f"{file.stem}.jsonl")
    (folder / ".done").touch()
    return folder


def orders(scale: float, parts: int = 4) -> Path:
    """A folder with TPC-H's orders (1.5 M rows x 9 columns per unit of ``scale``) as Parquet, in the order of their keys."""
    folder = DATA / f"orders-{scale:g}-{parts}"
    if not (folder / ".done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _generate("orders", "parquet", scale, parts, folder)
        (folder / ".done").touch()
    return folder


def _generate(table: str, kind: str, scale: float, parts: int, folder: Path) -> None:
    tool = Path(sys.executable).parent / "tpchgen-cli"
    made = folder / "made"
    command = [str(tool), kind, "-s", str(scale), "--tables", table, "--parts", str(parts), "--output-dir", str(made)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    for file in sorted(made.rglob(f"*.{kind}")):
        os.replace(file, folder / file.name)
    shutil.rmtree(made)


def flights(copies: int = 1) -> Path:
    """The published flights of 2013 as 365 daily CSV files; ``copies`` is how many years of them there are."""
    from lakehouse.demo import source

    folder = DATA / f"flights-{copies}"
    if (folder / ".done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in source.daily_files("flights").items():
        for copy in range(copies):
            target = folder / str(2013 + copy) / Path(path).name.replace("2013", str(2013 + copy))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.replace(b"\n2013,", f"\n{2013 + copy},".encode()))
    (folder / ".done").touch()
    return folder


def files_of(folder: Path) -> list[Path]:
    """Its data files, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def size_mb(folder: Path) -> float:
    """Megabytes (10^6) of its data files."""
    return sum(file.stat().st_size for file in files_of(folder)) / 1e6
