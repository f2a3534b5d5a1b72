"""Files in a folder or a bucket: listing, fingerprints, and the reader for each format."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse import validation
from lakehouse.connectors.base import Batch, Extract, SourceFile
from lakehouse.connectors.csv import read_csv
from lakehouse.connectors.json import read_json
from lakehouse.connectors.local import LocalFile
from lakehouse.connectors.parquet import read_parquet
from lakehouse.errors import SourceUnavailable, StorageError
from lakehouse.storage.objects import Objects

if TYPE_CHECKING:
    from lakehouse.pipelines.model import SourceSpec
    from lakehouse.settings import Settings

_GLOB = re.compile(r"[*?\[]")
#: Names that writers use while a file is not finished, and housekeeping of folders.
_UNFINISHED = re.compile(r"(^|/)[._][^/]*$|\.(tmp|part|partial|crdownload|swp|filepart)$|~$", re.IGNORECASE)


class FileConnector:
    """A glob over a local folder or an object store; both through the same code."""

    def __init__(self, spec: SourceSpec, settings: Settings) -> None:
        self.spec = spec
        path = spec.path
        if not validation.is_remote(path) and not Path(path).is_absolute():
            path = validation.join_url(settings.landing, path)
        self.pattern = path
        base, self._glob = split_glob(path)
        self._objects = Objects(base, settings.storage_options)
        self._matches = re.compile(glob_regex(self._glob))
        self._settle = timedelta(seconds=settings.settle_seconds)

    def list(self) -> list[SourceFile]:
        """Every finished file that matches, oldest first. Hidden and temporary names are passed over."""
        limit = datetime.now(UTC) - self._settle
        found = []
        try:
            for info in self._objects.list():
                if not self._matches.fullmatch(info.path) or _UNFINISHED.search(info.path):
                    continue
                if self._settle and info.modified_at_utc > limit:
                    continue
                fingerprint = info.etag or f"{info.modified_at_utc.timestamp():.6f}-{info.size_bytes}"
                found.append(
                    SourceFile(
                        self._objects.url(info.path), info.size_bytes, info.modified_at_utc, fingerprint
                    )
                )
        except StorageError as error:
            raise SourceUnavailable(
                f"cannot list {self.pattern}: {error.message}", hint=error.hint
            ) from error
        return sorted(found, key=lambda file: (file.modified_at_utc, file.path))

    def content_hash(self, file: SourceFile) -> str | None:
        """BLAKE2b of a local file's bytes; a remote store's etag is its own content hash."""
        if self._objects.is_remote:
            return file.fingerprint
        try:
            with open(file.path, "rb") as reader:
                return hashlib.file_digest(reader, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        except OSError as error:
            raise SourceUnavailable(f"cannot read {file.path}: {error}") from error

    def read(self, batch: Batch, spool: Path, *, careful: bool = False) -> Extract:
        """See ``Connector.read``. Remote files are fetched into ``spool`` first, so that one reader serves both."""
        local = [LocalFile(file.path, self._fetch(file, spool), file.size_bytes) for file in batch.files]
        if self.spec.format == "csv":
            return read_csv(local, self.spec.csv, spool, careful=careful)
        if self.spec.format == "parquet":
            return read_parquet(local, careful=careful)
        return read_json(local, spool, array=self.spec.format == "json", careful=careful)

    def _fetch(self, file: SourceFile, spool: Path) -> Path:
        path = file.path.removeprefix(self._objects.root).lstrip("/")
        try:
            return self._objects.fetch(path, spool)
        except StorageError as error:
            raise SourceUnavailable(f"cannot read {file.path}: {error.message}") from error

    def verify(self, batch: Batch) -> None:
        """Raise ``SourceUnavailable`` when a local file grew, shrank or vanished since it was planned."""
        if self._objects.is_remote:
            return
        for file in batch.files:
            try:
                status = Path(file.path).stat()
            except OSError as error:
                raise SourceUnavailable(
                    f"{file.path} of {batch.source} batch {batch.batch_id} cannot be read: {error}",
                    hint=f"put the file back, then: lakehouse run --select {batch.source}",
                ) from error
            if file.fingerprint != f"{status.st_mtime_ns:x}-{status.st_size:x}":
                raise SourceUnavailable(
                    f"{file.path} changed after {batch.source} batch {batch.batch_id} was planned",
                    hint="let its writer finish (write under another name, then rename), then run again",
                )


def split_glob(path: str) -> tuple[str, str]:
    """(folder or URL without wildcards, rest): ``data/2024/*.csv`` → (``data/2024``, ``*.csv``)."""
    scheme, separator, rest = path.rpartition("://")
    parts = rest.split("/")
    fixed = next((i for i, part in enumerate(parts) if _GLOB.search(part)), len(parts) - 1)
    return scheme + separator + ("/".join(parts[:fixed]) or "/"), "/".join(parts[fixed:])


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
            out, index = out + pattern[index : end + 1].replace("[!", "[^"), end + 1
        else:
            out, index = out + re.escape(char), index + 1
    return out + r"(?:\.(?:gz|gzip|zst|zstd))?"
