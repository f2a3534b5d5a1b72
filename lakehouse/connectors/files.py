"""Files in a folder or a bucket: listing, fingerprints, and the reader for each format."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lakehouse import validation
from lakehouse.connectors.base import FAST, Batch, Care, Extract, SourceFile
from lakehouse.connectors.csv import read_csv
from lakehouse.connectors.json import read_json
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.parquet import read_parquet
from lakehouse.connectors.rejects import earlier_file_hash, file_hash
from lakehouse.errors import SourceUnavailable, StorageError
from lakehouse.storage.objects import ObjectInfo, Objects

if TYPE_CHECKING:
    from lakehouse.pipelines.model import SourceSpec
    from lakehouse.settings import Settings

_GLOB = re.compile(r"[*?\[]")
#: Names that writers use while a file is not finished, and housekeeping of folders.
_UNFINISHED = re.compile(r"(^|/)[._][^/]*$|\.(tmp|part|partial|crdownload|swp|filepart)$|~$", re.IGNORECASE)

#: Larger files hold records; smaller ones are looked into.
_BARE_LIMIT_BYTES = 1 << 20


class FileConnector:
    """A glob over a local folder or an object store; both through the same code."""

    def __init__(self, spec: SourceSpec, settings: Settings) -> None:
        self.spec = spec
        self.pattern = spec.path
        if validation.is_remote(spec.path) or Path(spec.path).is_absolute():
            base, self._glob = split_glob(spec.path)
        else:  # what looks like a pattern in the landing folder's own path is none
            self.pattern = validation.join_url(settings.landing, spec.path)
            base, self._glob = split_glob(f"./{spec.path}")
            base = validation.join_url(settings.landing, base.removeprefix(".").lstrip("/"))
        self._objects = Objects(base, settings.storage_options)
        self._matches = re.compile(glob_regex(self._glob))
        self._settle = timedelta(seconds=settings.settle_seconds)
        self._fetched: dict[str, Path] = {}

    def list(self) -> list[SourceFile]:
        """Every finished file that matches, oldest first. Hidden and temporary names are passed over.

        A local name may be no UTF-8: it is listed (see ``legible``), so that somebody is told, and nothing can read it.
        """
        limit = datetime.now(UTC) - self._settle
        found = []
        try:
            for info in self._objects.list():
                if not self._matches.fullmatch(info.path) or is_unfinished(info.path):
                    continue
                if self._settle and info.modified_at_utc > limit:
                    continue
                url = self._objects.url(info.path)
                found.append(SourceFile(url, info.size_bytes, info.modified_at_utc, _fingerprint(info)))
        except StorageError as error:
            raise SourceUnavailable(
                f"cannot list {self.pattern}: {error.message}", hint=error.hint
            ) from error
        return sorted(found, key=lambda file: (file.modified_at_utc, file.path))

    def content_hash(self, file: SourceFile) -> str | None:
        """BLAKE3 of a local file's bytes; a remote store's etag is its own content hash."""
        if self._objects.is_remote:
            return file.fingerprint
        return f"blake3:{self._hashed(file, file_hash)}"

    def earlier_hash(self, file: SourceFile) -> str | None:
        """BLAKE2b of a local file's bytes, as ledgers have it of files that were taken before 2026-11-23."""
        return None if self._objects.is_remote else self._hashed(file, earlier_file_hash)

    @staticmethod
    def _hashed(file: SourceFile, hashed: Callable[[Path], str]) -> str:
        try:
            return hashed(Path(file.path))
        except OSError as error:
            raise SourceUnavailable(f"cannot read {file.path}: {error}") from error

    def has_records(self, file: SourceFile) -> bool:
        """False for an empty file, a bare header, ``[]`` or a Parquet file without rows; an unreadable file has some."""
        if file.size_bytes > _BARE_LIMIT_BYTES:
            return True
        spool = Path(tempfile.mkdtemp(prefix="lakehouse-"))
        try:
            extract = self.read(Batch("", 0, (file,), file.modified_at_utc), spool)
            return extract.rejects.height > 0 or not extract.frame.head(1).collect().is_empty()
        except (pl.exceptions.PolarsError, OSError):
            return True
        finally:
            shutil.rmtree(spool, ignore_errors=True)

    def read(self, batch: Batch, spool: Path, care: Care = FAST) -> Extract:
        """See ``Connector.read``. Remote files are fetched into ``spool`` first, so that one reader serves both."""
        try:
            local = [LocalFile(file.path, self._fetch(file, spool), file.size_bytes) for file in batch.files]
            if self.spec.format == "csv":
                return read_csv(local, self.spec.csv, spool, care)
            if self.spec.format == "parquet":
                return read_parquet(local, care)
            return read_json(local, spool, array=self.spec.format == "json", care=care)
        except FileNotFoundError as error:
            raise SourceUnavailable(f"{error.filename} vanished while {batch.source} was read") from error

    def _fetch(self, file: SourceFile, spool: Path) -> Path:
        path = file.path.removeprefix(self._objects.root).lstrip("/")
        if not self._objects.is_remote:
            return Path(file.path)
        known = self._fetched.get(file.path)
        if known is not None and known.exists():
            return known
        try:
            self._fetched[file.path] = self._objects.fetch(path, spool)
        except StorageError as error:
            raise SourceUnavailable(f"cannot read {file.path}: {error.message}") from error
        return self._fetched[file.path]

    def lost(self, batch: Batch) -> dict[str, str]:
        """Files of the batch that are gone, or that have changed since they were planned: path → which of both."""
        found = {}
        for file in batch.files:
            info = self._objects.info(file.path.removeprefix(self._objects.root).lstrip("/"))
            if info is None:
                found[file.path] = "vanished"
            elif _fingerprint(info) != file.fingerprint:
                found[file.path] = "changed"
        return found


def _fingerprint(info: ObjectInfo) -> str:
    return info.etag or f"{info.modified_at_utc.timestamp():.6f}-{info.size_bytes}"


def legible(path: str) -> str:
    """The path as text that can be written down: bytes of a name that are no UTF-8 are shown as ``\\xe9``."""
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_unfinished(path: str) -> bool:
    """True for a name that is passed over: hidden, or one that writers use while a file is not finished."""
    return _UNFINISHED.search(path) is not None


def split_glob(path: str) -> tuple[str, str]:
    """(folder or URL without wildcards, rest): ``data/2024/*.csv`` → (``data/2024``, ``*.csv``)."""
    scheme, separator, rest = path.rpartition("://")
    parts = rest.split("/")
    fixed = next((i for i, part in enumerate(parts) if _GLOB.search(part)), len(parts) - 1)
    return scheme + separator + ("/".join(parts[:fixed]) or "/"), "/".join(parts[fixed:])


def escape_glob(text: str) -> str:
    """A glob that matches this text and nothing else: ``rep [final]`` → ``rep [[]final]``."""
    return _GLOB.sub(r"[\g<0>]", text)


def glob_regex(pattern: str) -> str:
    """The regular expression of a glob: ``**`` crosses folders, ``*`` and ``?`` do not; compressed names match too."""
    out = ""
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if pattern.startswith("**/", index):
            out, index = out + "(?:[^/]+/)*", index + 3
        elif pattern.startswith("**", index):
            out, index = out + ".*", index + 2
        elif char == "*":
            out, index = out + "[^/]*", index + 1
        elif char == "?":
            out, index = out + "[^/]", index + 1
        elif char == "[" and "]" in pattern[index:]:
            end = pattern.index("]", index)
            inside = pattern[index + 1 : end].replace("[", r"\[")
            out, index = f"{out}[{'^' if inside[:1] == '!' else ''}{inside.removeprefix('!')}]", end + 1
        else:
            out, index = out + re.escape(char), index + 1
    return out + r"(?:\.(?:gz|gzip|zst|zstd))?"
