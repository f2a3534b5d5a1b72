"""The rows of ``ops.batches``: their columns, and what they say of each source, read once and kept."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import cast

import polars as pl

from lakehouse.connectors import Batch, SourceFile
from lakehouse.storage import Snapshot
from lakehouse.storage.folded import Folded

_UTC = pl.Datetime("us", "UTC")
_FILE = pl.Struct(
    {
        "path": pl.String(),
        "size_bytes": pl.Int64(),
        "modified_at_utc": _UTC,
        "fingerprint": pl.String(),
        "content_hash": pl.String(),
    }
)
COUNTS = (
    "rows_in",
    "accepted",
    "deduplicated",
    "superseded",
    "late",
    "quarantined",
    "rescued",
    "bytes_in",
    "bytes_written",
)
#: One row per source x batch x stage; another of silver where a batch is taken again after a rollback. Stages: planned | bronze | silver | returned (planned, but vanished or
#: changed before it was read: as if never planned), and without a batch id: held (changed content, waits for a
#: person), ignored, unchanged (same content, new fingerprint), duplicate (same content as another file).
SCHEMA: dict[str, pl.DataType] = {
    "source": pl.String(),
    "batch_id": pl.Int64(),
    "stage": pl.String(),
    "recorded_at_utc": _UTC,
    "run_id": pl.String(),
    "files": pl.List(_FILE),
    "oldest_arrival_utc": _UTC,
    "newest_arrival_utc": _UTC,
    **{name: pl.Int64() for name in COUNTS},
    "seconds": pl.Float64(),
    "table_version": pl.Int64(),
    "note": pl.String(),
}
#: Stage of files that a batch did not take after all; also the transaction under which bronze says so.
RETURNED = "returned"
ASIDE = ("held", "ignored", "unchanged", "duplicate")


#: One version of a file as the ledger has it: the file, its stage, and a note.
Seen = tuple[SourceFile, str, str | None]
_FILE_COLUMNS = tuple(field.name for field in _FILE.fields)
#: Columns of a source's files: what the record says of all of its files, then the file.
_FLAT = ("batch_id", "stage", "recorded_at_utc", "note", *_FILE_COLUMNS)
#: More pieces than these are made one.
_CHUNKS = 32


class SourceRows:
    """What the ledger says of one source's files and batches; immutable.

    Files are sought in columns, and only those that somebody asks for become objects: a source with ten thousand files a year
    behind it took a second and a hundred megabytes of every look otherwise.

    Args:
        files: one row per file of a record, with the columns ``_FLAT``.
        stages: those that occur.
    """

    def __init__(self, files: pl.DataFrame, stages: frozenset[str] | None = None) -> None:
        self._files = files
        self._stages = frozenset(files["stage"].to_list()) if stages is None else stages

    def followed_by(self, files: pl.DataFrame) -> SourceRows:
        """With the rows of later commits."""
        whole = pl.concat([self._files, files], rechunk=self._files.n_chunks() >= _CHUNKS)
        following = SourceRows(whole, self._stages.union(files["stage"].to_list()))
        if "_planned" in self.__dict__:
            following._carry_on(self._planned, files)
        return following

    def _carry_on(self, planned: pl.DataFrame, files: pl.DataFrame) -> None:
        """Take over what is known of planned batches, where those that came later have higher numbers, as they do."""
        if "planned" in files["stage"].to_list():
            more = SourceRows(files)._planned
            if len(planned) and planned["batch_id"][-1] > more["batch_id"][0]:
                return
            planned = pl.concat([planned, more], rechunk=planned.n_chunks() >= _CHUNKS)
        self.__dict__["_planned"] = planned

    def seen(self, of: pl.Expr | None = None) -> dict[str, list[Seen]]:
        """Per path every version that was seen, the oldest first.

        Without those given back, and without what was set aside because of them: a later version of the same file,
        or a copy of it under another name, was never compared with anything that has landed, so it is news again.

        Args:
            of: the rows that are asked for, by path or size; what is said of other files is then not all that there is.
                Default is all.
        """
        files = self._files
        if of is not None:
            files = files.filter(of | self._near_returned if RETURNED in self._stages else of)
        seen: dict[str, list[Seen]] = {}
        taken: Counter[tuple[str | None, int]] = Counter()  # contents of planned files
        copies: dict[int, set[str]] = {}  # size → files set aside as duplicates
        if len(files) > 1:  # a query over a row takes as long as one over a thousand
            files = files.sort("recorded_at_utc", maintain_order=True)
        for _, stage, _, note, *item in files.iter_rows():
            file = SourceFile(*item)
            if stage == RETURNED:
                _give_back(file, seen, taken, copies)
                continue
            seen.setdefault(file.path, []).append((file, stage, note))
            if stage == "planned":
                taken[_content(file)] += 1
            elif stage == "duplicate":
                copies.setdefault(file.size_bytes, set()).add(file.path)
        return seen

    def seen_of(self, paths: Collection[str]) -> dict[str, list[Seen]]:
        """``seen`` of these paths."""
        found = self.seen(pl.col("path").is_in(list(paths)))
        return {path: found[path] for path in paths if path in found}

    def fingerprints(self, paths: Collection[str]) -> dict[str, str]:
        """Path → fingerprint of the newest version, of those of these files that were seen.

        A source may keep all that it ever sent, and every look asks for all of it: no objects are made, but of files that
        something given back bears on.
        """
        named = self._files.lazy().filter(pl.col("path").is_in(list(paths)))
        rows = named.select("recorded_at_utc", "path", "size_bytes", "fingerprint").collect()
        if len(rows) > 1:
            rows = rows.sort("recorded_at_utc", maintain_order=True)
        found: dict[str, str] = dict(zip(rows["path"].to_list(), rows["fingerprint"].to_list(), strict=True))
        if RETURNED in self._stages:
            doubtful = set(rows.filter(self._near_returned)["path"].to_list())
            for path in doubtful:
                del found[path]
            seen = self.seen_of(doubtful)
            found |= {path: versions[-1][0].fingerprint for path, versions in seen.items() if versions}
        return found

    @property
    def _near_returned(self) -> pl.Expr:
        """True for rows that files given back bear on: of the same path, or copies, which are as large."""
        back = self._files.filter(pl.col("stage") == RETURNED)
        same_path = pl.col("path").is_in(back["path"].implode())
        return same_path | pl.col("size_bytes").is_in(back["size_bytes"].implode())

    @cached_property
    def held(self) -> list[tuple[SourceFile, str]]:
        """Files that wait for a person, with what is known of the change; the one that was seen first is the first."""
        if "held" not in self._stages:
            return []
        paths = set(self._files.filter(pl.col("stage") == "held")["path"].to_list())
        seen = self.seen(pl.col("path").is_in(list(paths)))
        last = [versions[-1] for path, versions in seen.items() if path in paths and versions]
        return [(file, note or "") for file, stage, note in last if stage == "held"]

    def batches(self, source: str, above: int = 0) -> list[Batch]:
        """Planned batches with a number above ``above``, in order."""
        rows = self._planned[self._planned_to(above) :].iter_rows()
        return [
            Batch(source, number, tuple(SourceFile(*row[4:]) for row in group), at)
            for (number, at), group in groupby(rows, key=itemgetter(0, 2))
        ]

    def batch_bytes(self, first: int, last: int) -> pl.Series:
        """Size of each planned batch from the one number to the other."""
        planned = self._planned[self._planned_to(first - 1) : self._planned_to(last)]
        sizes: Counter[int] = Counter()  # a query over a handful of rows takes longer
        for number, size in planned.select("batch_id", "size_bytes").iter_rows():
            sizes[number] += size
        return pl.Series("size_bytes", sizes.values(), pl.Int64)

    def _planned_to(self, number: int) -> int:
        """How many planned files are of batches up to this one."""
        return bisect_right(self._planned["batch_id"], number)

    @cached_property
    def _planned(self) -> pl.DataFrame:
        return self._files.filter(pl.col("stage") == "planned").sort("batch_id", maintain_order=True)

    @cached_property
    def newest_arrival_utc(self) -> datetime | None:
        return cast("datetime | None", self._planned["modified_at_utc"].max())

    @cached_property
    def newest_record_utc(self) -> datetime:
        return cast(datetime, self._files["recorded_at_utc"].max())  # no row is without it


def _give_back(
    file: SourceFile,
    seen: dict[str, list[Seen]],
    taken: Counter[tuple[str | None, int]],
    copies: Mapping[int, set[str]],
) -> None:
    """Take one version out, and what was set aside because of it."""
    versions = seen.get(file.path, [])
    taken.subtract(
        _content(known)
        for known, stage, _ in versions
        if stage == "planned" and known.fingerprint == file.fingerprint
    )
    _take_out(versions, lambda known, _: known.fingerprint == file.fingerprint)
    # By size, and not by hash: an earlier release may have hashed the file that is given back in another way.
    for path in copies.get(file.size_bytes, ()):
        _take_out(
            seen[path],
            lambda known, stage: (
                stage == "duplicate" and known.size_bytes == file.size_bytes and taken[_content(known)] <= 0
            ),
        )


def _take_out(versions: list[Seen], is_gone: Callable[[SourceFile, str], bool]) -> None:
    """Remove versions of a file, and those behind the first of them that no batch took."""
    first = next((n for n, (file, stage, _) in enumerate(versions) if is_gone(file, stage)), len(versions))
    versions[first:] = [
        (file, stage, note)
        for file, stage, note in versions[first:]
        if stage not in ASIDE and not is_gone(file, stage)
    ]


def _content(file: SourceFile) -> tuple[str | None, int]:
    return file.content_hash, file.size_bytes


def _rows(snapshot: Snapshot, uris: Sequence[str]) -> pl.DataFrame:
    """One row per file of a record: source, batch_id, stage, recorded_at_utc, note, and the file's columns."""
    wanted = ("source", "batch_id", "stage", "recorded_at_utc", "note", "files")
    there = snapshot.schema()
    missing = [pl.lit(None, SCHEMA[name]).alias(name) for name in wanted if name not in there]
    stages = ["planned", RETURNED, *ASIDE]
    rows = snapshot.scan(uris=uris).filter(pl.col("stage").is_in(stages)).with_columns(missing)
    files = rows.select(wanted).explode("files").unnest("files").select("source", *_FLAT)
    return files.filter(pl.col("path").is_not_null()).collect()


def _with_rows(
    sources: dict[str, SourceRows], snapshot: Snapshot, uris: Sequence[str]
) -> dict[str, SourceRows]:
    parts = _rows(snapshot, uris).partition_by("source", as_dict=True, include_key=False)
    fresh = {
        name: sources[name].followed_by(part) if name in sources else SourceRows(part)
        for (name,), part in parts.items()
    }
    return {**sources, **fresh}


#: Every source of a ledger. Shared by the whole process.
SOURCES: Folded[dict[str, SourceRows]] = Folded({}, _with_rows)
