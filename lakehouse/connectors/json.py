"""JSON Lines and JSON arrays, every field as text (nested values as JSON text).

Types that drift between records can then never lose a value: the contract types them in silver, where what
does not fit is quarantined. Every line is judged before it is read (valid, an object, no key twice), because
the fast reader would take one of two values of a key without a word.
"""

from __future__ import annotations

import glob
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from lakehouse import names
from lakehouse.connectors.base import FAST, Care, Extract, KeptFile
from lakehouse.connectors.columns import clean_names, one_spelling
from lakehouse.connectors.encoding import as_utf8
from lakehouse.connectors.json_cut import Form
from lakehouse.connectors.json_lines import judge, salvage_json, uniform
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.rejects import empty, first_line, keep, reject_file
from lakehouse.errors import SourceError
from lakehouse.storage.failures import is_out_of_space

_MAX_OBJECT_BYTES = 256 << 20


def read_json(files: Sequence[LocalFile], spool: Path, *, array: bool, care: Care = FAST) -> Extract:
    """The objects of ``files``, one row each; see ``Extract``. A line that is no JSON object is a reject."""
    frames: list[pl.LazyFrame] = []
    rejects = [empty()]
    kept: list[KeptFile] = []
    for file in files:
        try:
            if file.name in care.refused:
                raise SourceError(care.refused[file.name])
            text = as_utf8(file, "utf-8", spool, keep_bom=False).unpacked(spool)
            if array:
                if text.problem:
                    raise SourceError(text.problem)
                text = replace(text, path=_array_to_lines(text, spool), original=text.source_path)
        except Exception as error:
            if is_out_of_space(error):  # for the copy: no fault of the file
                raise
            kept.append(keep(file))
            is_broken = array and not isinstance(error, SourceError)
            kind = "not an array of objects" if is_broken else "unreadable"
            rejects.append(reject_file(file, f"json: {kind}: {first_line(error)}", kept[-1]))
            continue
        keys = None
        if not (file.name in care.careful or text.has_marks or text.problem):
            form = uniform(text)
            if form is not None:
                frames += _scan(text.path, file.name, form.keys, (), form)
                continue
            keys = judge(text)
        if keys is None:
            salvaged = salvage_json(text, spool)
            rejects.append(salvaged.rejects)
            kept += [keep(file)] if salvaged.is_partial else []
            frames += _scan(salvaged.clean, file.name, salvaged.keys, salvaged.broken_rows)
        else:
            frames += _scan(text.path, file.name, keys, ())
    none = pl.LazyFrame(schema={names.SOURCE_FILE: pl.String(), names.SOURCE_ROW: pl.Int64()})
    frame = pl.concat(one_spelling(frames), how="diagonal") if frames else none
    return Extract(frame, pl.concat(rejects), kept=tuple(kept))


def _scan(
    path: Path, name: str, keys: Sequence[str], broken_rows: Iterable[int], form: Form | None = None
) -> list[pl.LazyFrame]:
    """A scan with every key of every object as a text column; nothing for a file without lines.

    Args:
        form: what every line has; without it the lines are parsed.
    """
    if path.stat().st_size == 0:
        return []
    row = f"{names.SOURCE_ROW}_{uuid.uuid4().hex[:8]}"  # no source has this key
    if form is not None:
        frame = form.scan(path, row)
    else:
        nothing = f"{row}_nothing"  # the reader asks for one key at least: objects without any are rows, too
        schema = dict.fromkeys([*keys, nothing], pl.String())
        # This reader takes every path for a pattern.
        pattern = glob.escape(str(path))
        frame = pl.scan_ndjson(pattern, schema=schema, row_index_name=row, row_index_offset=1).drop(nothing)
    # Keys come in no order that a second reading would repeat. Which of two becomes ``id_2`` must not hang on it.
    ordered = sorted(keys, key=lambda key: (clean_names([key]) != [key], key.swapcase()))
    frame = frame.rename(dict(zip(ordered, clean_names(ordered), strict=True)))
    broken = list(broken_rows)
    if broken:
        frame = frame.filter(~pl.col(row).is_in(broken))
    return [
        frame.with_columns(
            pl.col(row).cast(pl.Int64).alias(names.SOURCE_ROW), pl.lit(name).alias(names.SOURCE_FILE)
        ).drop(row)
    ]


def _array_to_lines(file: LocalFile, spool: Path) -> Path:
    """Spool a JSON array as one object a line, streaming: memory does not grow with the file.

    Each object stays as it is written, with spaces for line ends (within a text JSON has none): read and written again,
    long numbers would be rounded before anybody judges them.
    """
    import duckdb

    spool.mkdir(parents=True, exist_ok=True)
    target = spool / f"{uuid.uuid4().hex}.jsonl"
    compression = {"gzip": "gzip", "zstd": "zstd", None: "uncompressed"}[file.compression()]
    with duckdb.connect(config={"threads": "1"}) as connection, open(target, "w", encoding="utf-8") as sink:
        connection.execute("SET enable_progress_bar = false")
        reader = connection.execute(
            "SELECT translate(json::VARCHAR, chr(10) || chr(13), '  ') AS line FROM read_json_objects(?, format = 'array', "
            "compression = ?, maximum_object_size = ?)",
            [str(file.path), compression, _MAX_OBJECT_BYTES],
        ).to_arrow_reader(50_000)
        for batch in reader:
            sink.write("\n".join(batch.column(0).to_pylist()) + "\n")
    return target
