"""One version of a Delta table as the library read it, and the versions that this process has read last.

Opening a table costs milliseconds, and a run looks at every table dozens of times (measured: 2,495 openings for 47
pipelines, a sixth of the run). Whether a version is still the newest costs two looks at file names.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from typing import Any

import polars as pl

from lakehouse.storage.objects import Objects

_KEPT = 1024


class Version:
    """What a log says at one version. Shared between readers: nobody commits through its handle."""

    def __init__(self, handle: Any, uri: str) -> None:
        self.handle = handle
        self.number: int = handle.version()
        self._uri = uri
        self._txns: dict[str, int] = {}

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        return dict(pl.scan_delta(self.handle).collect_schema())

    @cached_property
    def files(self) -> pl.DataFrame:
        frame = pl.DataFrame(self.handle.get_add_actions(flatten=True))
        return frame.with_columns(uri=pl.concat_str(pl.lit(self._uri.rstrip("/") + "/"), pl.col("path")))

    def txn(self, app_id: str) -> int:
        if app_id not in self._txns:
            self._txns[app_id] = self.handle.transaction_version(app_id) or 0
        return self._txns[app_id]


class Recent:
    """The newest known version of each table, with the mark of its commit file: a log that was removed and begun
    again has another."""

    def __init__(self) -> None:
        self._versions: OrderedDict[str, tuple[str, Version]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, objects: Objects) -> Version | None:
        """The table's newest version, if it is one that this process knows."""
        with self._lock:
            known = self._versions.get(objects.root)
        if known is None:
            return None
        mark, version = known
        if objects.info(_commit_file(version.number + 1)) is not None:
            return None
        return version if _mark(objects, version.number) == mark else None

    def put(self, objects: Objects, version: Version) -> None:
        """Remember a version that was the newest a moment ago."""
        mark = _mark(objects, version.number)
        if mark is None:  # the log does not reach back to its commit: it must be opened each time
            return
        with self._lock:
            self._versions[objects.root] = (mark, version)
            self._versions.move_to_end(objects.root)
            while len(self._versions) > _KEPT:
                self._versions.popitem(last=False)


#: Shared by the whole process. It holds nothing that a table's log does not say.
RECENT = Recent()


def _commit_file(version: int) -> str:
    return f"_delta_log/{version:020d}.json"


def _mark(objects: Objects, version: int) -> str | None:
    info = objects.info(_commit_file(version))
    return None if info is None else f"{info.etag} {info.modified_at_utc}"
