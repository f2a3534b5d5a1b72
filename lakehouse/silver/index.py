"""Where each key of a large silver table stands: a local cache beside the table, so that a batch of changes costs what it
has and not what the table has.

Data files never change, so what is noted of one is true for ever: its keys, sorted, with position and sequence. Notes
of several files are kept together in *segments*, merged as they grow (a log-structured merge tree); notes of files that
the table does not have any more are passed over. So nothing has to be kept in step: whatever another process, a
compaction or a restored version does to the table, files that no segment covers are read, and the folder may be deleted
at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from lakehouse.silver.prepare import FILE, PLACE_SCHEMA, POSITION
from lakehouse.storage import Snapshot, sync_file

#: A segment is merged with the next larger one when it has at least this share of its entries.
_ALIKE = 0.25
#: Bytes that an entry takes while segments are merged.
_ENTRY_BYTES = 64
#: Share of the memory limit that merging may take.
_MERGE_SHARE = 0.5
_ROWS_AT_ONCE = 4_000_000
_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Date, pl.Datetime)
_COLUMNS = ("keys", "checks", "places", "sequences")
_LIST = "segments.json"
#: Of what is noted; another one is not read.
_FORMAT = 2
#: No batch takes so long from noting a file to naming the note.
_STALE_S = 3_600
_NO_SEQUENCE = -(2**63)


@dataclass
class _Segment:
    """Sorted entries of some data files. ``files`` are their names by number; a name is empty when it was dropped."""

    name: str
    files: list[str]
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        return len(self.columns["keys"])


class KeyIndex:
    """The keys of one table.

    Args:
        folder: where the cache lies; made when first needed.
        key: columns of the table's key; rows in which one is null are not noted.
        sequence: the column that orders changes of a key, of an integer, date or timestamp type; None where nothing does.
        memory_bytes: limit of the process; merging stays within a share of it.
    """

    def __init__(self, folder: Path, key: Sequence[str], sequence: str | None, memory_bytes: int) -> None:
        self.folder = folder
        self.key = list(key)
        self.sequence = sequence
        self._columns = [*dict.fromkeys([*self.key, *([sequence] if sequence else ())])]
        self._merged_away: list[str] = []
        self._max_entries = max(1_000_000, int(memory_bytes * _MERGE_SHARE / _ENTRY_BYTES))

    @staticmethod
    def fits(schema: dict[str, pl.DataType], sequence_by: Sequence[str]) -> bool:
        """True when one column orders the changes, by a number."""
        return len(sequence_by) == 1 and isinstance(schema[sequence_by[0]], _INTEGERS)

    def find(
        self, snapshot: Snapshot, keys: pl.DataFrame, files: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """The table's rows of these distinct keys: key, sequence (if there is one), and where the row stands.

        Rows that are gone are left out. Files that nothing is known of are read first, their keys and sequences only.

        Args:
            files: paths of the files that may have the keys; default is all of the version's.
        """
        import numpy

        files = snapshot.files()["path"].to_list() if files is None else files
        segments = self._covering(snapshot, files)
        sought = keys.select(self.key)
        codes, checks = _coded(sought, self.key)
        order = numpy.argsort(codes)
        codes, checks = codes[order], None if checks is None else checks[order]
        live = set(files)
        rows, paths, positions, sequences = [], [], [], []
        for segment in segments:
            which, places, found = _look_up(segment, codes, checks)
            numbers = (places >> numpy.uint64(32)).astype(numpy.int64)
            spots = (places & numpy.uint64(0xFFFFFFFF)).astype(numpy.uint32)
            there = numpy.array([name in live for name in segment.files], dtype=bool)[numbers]
            for number in numpy.unique(numbers[there]):
                gone = snapshot.deleted_rows(segment.files[number])
                if len(gone):
                    here = numpy.flatnonzero(there & (numbers == number))
                    there[here] = ~gone.contains(spots[here])
            rows.append(order[which[there]])
            paths.append(pl.Series(segment.files, dtype=pl.String).gather(pl.Series(numbers[there])))
            positions.append(spots[there])
            sequences.append(found[there] if self.sequence else found)
        return self._frame(snapshot, sought, rows, paths, positions, sequences)

    def _frame(
        self, snapshot: Snapshot, sought: pl.DataFrame, rows: list[Any], paths: list[pl.Series],
        positions: list[Any], sequences: list[Any],
    ) -> pl.DataFrame:  # fmt: skip
        import numpy

        schema = snapshot.schema()
        if not rows:
            return pl.DataFrame(schema={**{name: schema[name] for name in self._columns}, **PLACE_SCHEMA})
        found = sought[numpy.concatenate(rows)].with_columns(
            pl.concat(paths).alias(FILE), pl.Series(POSITION, numpy.concatenate(positions), dtype=pl.UInt32)
        )
        if self.sequence is None:
            return found
        number = pl.col(self.sequence)
        value = (
            pl.when(number != _NO_SEQUENCE)
            .then(number)
            .cast(_physical(schema[self.sequence]))
            .cast(schema[self.sequence])
        )
        return found.with_columns(
            pl.Series(self.sequence, numpy.concatenate(sequences), dtype=pl.Int64)
        ).with_columns(value)

    # -- segments ---------------------------------------------------------------------------------

    def _covering(self, snapshot: Snapshot, files: Sequence[str]) -> list[_Segment]:
        """Segments that cover all of the files; what is new is read, noted and kept."""
        present = set(snapshot.files()["path"])
        segments = [s for s in self._load(snapshot) if not present.isdisjoint(s.files)]
        known = {name for segment in segments for name in segment.files}
        if not (missing := [path for path in files if path not in known]):
            return segments
        for part in _parts(snapshot, missing):
            segments.append(self._write(*self._read(snapshot, part)))
            segments = self._merged(segments, present)
        self._save(snapshot, segments)
        return segments

    def _read(self, snapshot: Snapshot, paths: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """The entries of some data files, sorted; deleted rows too, for a restored version may have them again."""
        import numpy

        known = dict(snapshot.files().select("path", "uri").iter_rows())
        parts: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        for number, path in enumerate(paths):
            scan = snapshot.scan_places(self._columns, uris=[known[path]], place=POSITION)
            # No change has an empty key; a table may have, from before its contract had one, and it has no code.
            rows = scan.drop_nulls(self.key).collect(engine="streaming")
            codes, checks = _coded(rows, self.key)
            parts["keys"].append(codes)
            parts["checks"].append(codes[:0] if checks is None else checks)
            parts["places"].append((numpy.uint64(number) << numpy.uint64(32)) | rows[POSITION].to_numpy().astype(numpy.uint64))  # fmt: skip
            if self.sequence is not None:
                sequence = rows[self.sequence].to_physical().cast(pl.Int64).fill_null(_NO_SEQUENCE)
                parts["sequences"].append(sequence.to_numpy())
        parts["sequences"] = parts["sequences"] or [numpy.empty(0, numpy.int64)]
        whole = {name: numpy.concatenate(arrays) for name, arrays in parts.items()}
        order = numpy.argsort(whole["keys"], kind="stable")
        return list(paths), {name: array[order] if len(array) else array for name, array in whole.items()}

    def _merged(self, segments: list[_Segment], live: set[str]) -> list[_Segment]:
        """The smallest two made one for as long as they are alike and fit; what is left of dead files is dropped."""
        segments = sorted(segments, key=lambda segment: segment.entries)
        while len(segments) > 1:
            pair = next(
                (
                    index
                    for index, (one, two) in enumerate(pairwise(segments))
                    if one.entries >= _ALIKE * two.entries and one.entries + two.entries <= self._max_entries
                ),
                None,
            )
            if pair is None:
                break
            one, two = segments[pair], segments[pair + 1]
            combined = self._write(*_combined(one, two, live))
            self._merged_away += [one.name, two.name]
            segments = sorted([*segments[:pair], *segments[pair + 2 :], combined], key=lambda s: s.entries)
        return segments

    def _write(self, files: list[str], columns: dict[str, Any]) -> _Segment:
        segment = _Segment(uuid.uuid4().hex, files)
        target = self.folder / segment.name
        target.mkdir(parents=True)
        for name, array in columns.items():
            array.tofile(target / name)
        sizes = {name: len(array) for name, array in columns.items()}
        (target / "files.json").write_text(json.dumps({"files": files, "sizes": sizes}))
        # A segment counts when the list names it; until then it must be whole, even if the power goes.
        for entry in target.iterdir():
            sync_file(entry)
        segment.columns = _opened(target, sizes)
        return segment

    def _identity(self, snapshot: Snapshot) -> dict[str, Any]:
        """What the entries mean. Hashes may differ between releases of the engine."""
        schema = snapshot.schema()
        types = {name: str(schema[name]) for name in self._columns}
        return {
            "format": _FORMAT,
            "engine": pl.__version__,
            "key": self.key,
            "sequence": self.sequence,
            "types": types,
        }

    def _load(self, snapshot: Snapshot) -> Iterator[_Segment]:
        """The segments of the list, as far as they are there: another process may have merged some away."""
        try:
            listed = json.loads((self.folder / _LIST).read_text())
        except (OSError, ValueError):
            return
        if listed.get("identity") != self._identity(snapshot):
            return
        for name in listed["segments"]:
            with suppress(OSError, ValueError):
                about = json.loads((self.folder / name / "files.json").read_text())
                yield _Segment(name, about["files"], _opened(self.folder / name, about["sizes"]))

    def _save(self, snapshot: Snapshot, segments: Sequence[_Segment]) -> None:
        """Name the segments that count, and remove the others. Two processes: one list wins, and both are right."""
        document = {"identity": self._identity(snapshot), "segments": [segment.name for segment in segments]}
        beside = self.folder / f"segments-{uuid.uuid4().hex}.tmp"
        beside.write_text(json.dumps(document))
        os.replace(beside, self.folder / _LIST)
        for name in self._merged_away:  # whoever has them open can go on reading
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._merged_away.clear()
        kept = {segment.name for segment in segments}
        for entry in self.folder.iterdir():
            # What is young may be another process's, which is about to name it.
            with suppress(FileNotFoundError):
                if (
                    entry.name not in kept
                    and entry.name != _LIST
                    and time.time() - entry.stat().st_mtime > _STALE_S
                ):
                    if entry.is_dir():
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        entry.unlink()


def _physical(dtype: pl.DataType) -> pl.DataType:
    """The integers in which a type is kept."""
    return pl.Series(dtype=dtype).to_physical().dtype


def _opened(folder: Path, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The arrays of a segment, as pages of its files. Raises ``ValueError`` or ``OSError`` when one is not whole."""
    import numpy

    def array(name: str) -> Any:
        kind = numpy.int64 if name == "sequences" else numpy.uint64
        if sizes[name] == 0:
            return numpy.empty(0, kind)
        return numpy.memmap(folder / name, kind, mode="r", shape=(sizes[name],))

    return {name: array(name) for name in _COLUMNS}


def _parts(snapshot: Snapshot, paths: Sequence[str]) -> Iterator[list[str]]:
    """Files in parts that are read at once."""
    files = snapshot.files().select("path", pl.col("num_records") + pl.col("num_deleted"))
    sizes = dict(files.iter_rows())
    part: list[str] = []
    rows = 0
    for path in paths:
        if part and rows + sizes[path] > _ROWS_AT_ONCE:
            yield part
            part, rows = [], 0
        part.append(path)
        rows += sizes[path]
    if part:
        yield part


def _coded(rows: pl.DataFrame, key: Sequence[str]) -> tuple[Any, Any]:
    """(a number per key, a second one where the first does not tell keys apart for certain).

    One integer column is its own number. Other keys are told apart by 128 bits of hash: the chance that any two of
    10^9 keys are taken for one is 10^-21.
    """
    import numpy

    if len(key) == 1 and isinstance(rows.schema[key[0]], _INTEGERS):
        return rows[key[0]].to_physical().cast(pl.Int64).to_numpy().view(numpy.uint64), None
    columns = pl.struct(key) if len(key) > 1 else pl.col(key[0])
    hashes = rows.select(columns.hash(seed=1).alias("one"), columns.hash(seed=2).alias("two"))
    return hashes["one"].to_numpy(), hashes["two"].to_numpy()


def _look_up(segment: _Segment, codes: Any, checks: Any) -> tuple[Any, Any, Any]:
    """(which of the ascending codes, place, sequence) of every entry that has one of them."""
    import numpy

    keys = segment.columns["keys"]
    at = numpy.searchsorted(keys, codes)
    which = numpy.arange(len(codes))
    found: list[tuple[Any, Any]] = []
    # A key that was changed before has more than one entry, one behind the other.
    while len(which):
        inside = at < len(keys)
        which, at = which[inside], at[inside]
        same = keys[at] == codes[which]
        which, at = which[same], at[same]
        found.append((which, at))
        at = at + 1
    which = numpy.concatenate([pair[0] for pair in found]) if found else which
    at = numpy.concatenate([pair[1] for pair in found]) if found else which
    if checks is not None:
        same = segment.columns["checks"][at] == checks[which]
        which, at = which[same], at[same]
    sequences = segment.columns["sequences"]
    return which, segment.columns["places"][at], sequences[at] if len(sequences) else sequences


def _combined(one: _Segment, two: _Segment, live: set[str]) -> tuple[list[str], dict[str, Any]]:
    """The entries of both, without those of files that the table does not have any more."""
    import numpy

    shift = numpy.uint64(len(one.files)) << numpy.uint64(32)
    files = [name if name in live else "" for name in (*one.files, *two.files)]
    places = numpy.concatenate([one.columns["places"], two.columns["places"] + shift])
    keys = numpy.concatenate([one.columns["keys"], two.columns["keys"]])
    order = numpy.argsort(keys, kind="stable")
    if "" in files:
        alive = numpy.array([bool(name) for name in files])
        order = order[alive[(places >> numpy.uint64(32)).astype(numpy.int64)][order]]
    columns = {"keys": keys[order], "places": places[order]}
    for name in ("checks", "sequences"):
        both = numpy.concatenate([one.columns[name], two.columns[name]])
        columns[name] = both[order] if len(both) else both
    return files, columns
