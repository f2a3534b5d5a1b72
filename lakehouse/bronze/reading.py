"""Reading a batch so that one bad file costs only itself: fast first, then with care where it is needed.

A fast read of all files is tried. When it fails, the files at fault are found by halving, and only they are
read with care; what even that cannot read is refused whole. Nothing here depends on what a reader raises.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from lakehouse import names
from lakehouse.bronze.align import Aligned
from lakehouse.connectors import Batch, Care, Connector, Extract, SourceFile
from lakehouse.connectors.parquet import trouble
from lakehouse.connectors.rejects import first_line
from lakehouse.errors import SourceError, TransientError
from lakehouse.storage import StagedFile, Table

#: Brings an extract to the table's columns and writes its rows: data files that no commit names yet.
Write = Callable[[Extract], tuple[Aligned, list[StagedFile]]]


def read_and_write(
    connector: Connector, batch: Batch, table: Table, spool: Path, write: Write
) -> tuple[Extract, Aligned, list[StagedFile]]:
    """The batch in data files, with everything refused that could not be read.

    Raises:
        SourceUnavailable: a file vanished.
        SourceError: the source's schema policy forbids what came.
        LakehouseError: writing failed, and no file of the batch is at fault.
    """
    care = Care()
    while True:
        try:
            extract = connector.read(batch, spool, care)
            aligned, staged = write(extract)
        except (SourceError, TransientError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a decoder that panics raises outside Exception
            worse = care.worsened(files_at_fault(connector, batch, spool, care))
            if worse == care:
                raise  # every file can be read: the trouble is in writing
            care = worse
            continue
        short = _files_with_short_lines(table, extract, staged)
        if not short:
            return extract, aligned, staged
        for file in staged:
            table.objects.delete(file.path)
        care = care.worsened(dict.fromkeys(short, "csv: short lines"))


def files_at_fault(connector: Connector, batch: Batch, spool: Path, care: Care) -> dict[str, str]:
    """Path → what goes wrong, for every file that cannot be read with this care."""

    def search(files: Sequence[SourceFile]) -> dict[str, str]:
        files = [file for file in files if file.path not in care.refused]
        if not files:
            return {}
        why = _trouble_with(connector, replace(batch, files=tuple(files)), spool, care)
        if why is None:
            return {}
        if len(files) == 1:
            return {files[0].path: why}
        middle = len(files) // 2
        # Files that clash only with each other are no one's fault: then nothing is found, and the error stands.
        return {**search(files[:middle]), **search(files[middle:])}

    return search(batch.files)


def _trouble_with(connector: Connector, batch: Batch, spool: Path, care: Care) -> str | None:
    try:
        frame = connector.read(batch, spool, care).frame
    except (SourceError, TransientError):
        raise
    except Exception as error:  # noqa: BLE001  whatever a reader raises is what we look for
        return first_line(error)
    return trouble(frame)


def _files_with_short_lines(table: Table, extract: Extract, staged: Sequence[StagedFile]) -> list[str]:
    """Files whose last column has empty values, and whose delimiters do not add up to whole lines."""
    if not extract.doubts or not staged:
        return []
    rows = pl.scan_parquet(
        [f"{table.uri}/{file.path}" for file in staged], glob=False, storage_options=table.options or None
    )
    # Only text can be empty: what does not fit a column of another type is rescued.
    there = {name.lower(): name for name, dtype in rows.collect_schema().items() if dtype == pl.String}
    wanted = {doubt.column: there.get(doubt.column.lower()) for doubt in extract.doubts}
    if all(name is not None and _has_no_empty_text(name, staged) for name in wanted.values()):
        return []
    counted = (
        rows.group_by(names.SOURCE_FILE)
        .agg(
            pl.len().alias("records"),
            # A column that the table rescues, or has as no text, or not at all, cannot speak for its file: its file is counted.
            *(
                (pl.lit(True) if name is None else (pl.col(name) == "").any()).alias(f"empty {column}")
                for column, name in wanted.items()
            ),
        )
        .collect(engine="streaming")
    )
    found = {row[names.SOURCE_FILE]: row for row in counted.iter_rows(named=True)}
    short = []
    for doubt in extract.doubts:
        row = found.get(doubt.path)
        if row is not None and row[f"empty {doubt.column}"] and doubt.is_short(row["records"]):
            short.append(doubt.path)
    return short


def _has_no_empty_text(column: str, staged: Sequence[StagedFile]) -> bool:
    """True when the files' statistics say so: nothing is less than an empty text."""
    least = [json.loads(file.stats_json)["minValues"].get(column) for file in staged]
    return all(isinstance(text, str) and text > "" for text in least)
