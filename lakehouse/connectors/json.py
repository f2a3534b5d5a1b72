"""JSON Lines and JSON arrays, every field as text (nested values as JSON text).

Types that drift between records can then never lose a value: the contract types them in silver, where what
does not fit is quarantined. See docs/decisions.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from lakehouse import names
from lakehouse.connectors.base import REJECT_SCHEMA, Extract
from lakehouse.connectors.columns import clean_names
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.salvage import reject_file

_MAX_OBJECT_BYTES = 256 << 20


def read_json(files: Sequence[LocalFile], spool: Path, *, array: bool, careful: bool) -> Extract:
    """The objects of ``files``, one row each; see ``Extract``. A line that is no JSON object is a reject."""
    frames: list[pl.LazyFrame] = []
    rejects = [pl.DataFrame(schema=REJECT_SCHEMA)]
    for file in files:
        path = file.path
        if array:
            try:
                path = _array_to_lines(file, spool)
            except Exception as error:  # noqa: BLE001  whatever the parser raises, the file as a whole is unreadable
                rejects.append(reject_file(file, f"json: not an array of objects: {_first_line(error)}"))
                continue
        if careful:
            path, refused = _salvage(LocalFile(file.name, path, file.size_bytes), spool)
            rejects.append(refused)
        frame = _scan(path, file.name)
        if frame is not None:
            frames.append(frame)
    empty = pl.LazyFrame(schema={names.SOURCE_FILE: pl.String(), names.SOURCE_ROW: pl.Int64()})
    return Extract(pl.concat(frames, how="diagonal") if frames else empty, pl.concat(rejects))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _scan(path: Path, name: str) -> pl.LazyFrame | None:
    """A scan with every key of every object as a text column; None for a file without objects."""
    if path.stat().st_size == 0:
        return None
    keys = list(pl.scan_ndjson(path, infer_schema_length=None).collect_schema())
    if not keys:
        return None
    row = f"{names.SOURCE_ROW}_{uuid.uuid4().hex[:8]}"  # no source has this key
    frame = pl.scan_ndjson(
        path, schema=dict.fromkeys(keys, pl.String()), row_index_name=row, row_index_offset=1
    ).rename(dict(zip(keys, clean_names(keys), strict=True)))
    return frame.with_columns(
        pl.col(row).cast(pl.Int64).alias(names.SOURCE_ROW), pl.lit(name).alias(names.SOURCE_FILE)
    ).drop(row)


def _array_to_lines(file: LocalFile, spool: Path) -> Path:
    """Spool a JSON array as one object a line, streaming: memory does not grow with the file."""
    import duckdb

    spool.mkdir(parents=True, exist_ok=True)
    target = spool / f"{uuid.uuid4().hex}.jsonl"
    compression = {"gzip": "gzip", "zstd": "zstd", None: "uncompressed"}[file.compression()]
    with duckdb.connect(config={"threads": "1"}) as connection, open(target, "w", encoding="utf-8") as sink:
        reader = connection.execute(
            "SELECT CAST(json_extract(json, '$') AS VARCHAR) AS line FROM read_json_objects(?, format = 'array', "
            "compression = ?, maximum_object_size = ?)",
            [str(file.path), compression, _MAX_OBJECT_BYTES],
        ).to_arrow_reader(50_000)
        for batch in reader:
            sink.write("\n".join(batch.column(0).to_pylist()) + "\n")
    return target


def _salvage(file: LocalFile, spool: Path) -> tuple[Path, pl.DataFrame]:
    """(file with the lines that are JSON objects; rejects for the others). Blank lines keep their number."""
    import duckdb

    spool.mkdir(parents=True, exist_ok=True)
    clean = spool / f"{uuid.uuid4().hex}.jsonl"
    rejects = [pl.DataFrame(schema=REJECT_SCHEMA)]
    problems: list[str] = []
    first = 1
    with duckdb.connect() as connection, open(clean, "wb") as sink:
        for chunk in file.line_chunks(problems):
            raw = chunk.split(b"\n")
            if raw and raw[-1] == b"":
                raw.pop()
            text = chunk.decode("utf-8", errors="backslashreplace").split("\n")[: len(raw)]
            frame = pl.DataFrame({"row": range(first, first + len(raw)), "line": text})
            connection.register("lines", frame.to_arrow())
            judged = connection.execute(
                "SELECT row, line, json_valid(line) AND json_type(CASE WHEN json_valid(line) THEN line END) = 'OBJECT' AS ok "
                "FROM lines ORDER BY row"
            ).pl()
            good = judged.filter(pl.col("ok").fill_null(False))
            if good.height:
                sink.write(("\n".join(good["line"].to_list()) + "\n").encode())
            bad = judged.filter(~pl.col("ok").fill_null(False) & (pl.col("line").str.strip_chars() != ""))
            rejects.append(
                bad.select(
                    pl.lit(file.name).alias("_source_file"),
                    pl.col("row").alias("_source_row"),
                    pl.format("line {}", "row").alias("_source_position"),
                    pl.concat_list(pl.lit("json: not a JSON object")).alias("_broken_rules"),
                    pl.col("line").alias("_raw"),
                )
            )
            first += len(raw)
    if problems:
        rejects.append(reject_file(file, f"truncated: {problems[0]}"))
    return clean, pl.concat(rejects)
