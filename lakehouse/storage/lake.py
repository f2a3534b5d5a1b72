"""The lake: one root, its tables and its small objects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse import names, validation
from lakehouse.errors import LakehouseError
from lakehouse.storage.failures import translated
from lakehouse.storage.log import REQUESTS_AT_ONCE
from lakehouse.storage.objects import Objects
from lakehouse.storage.table import Table
from lakehouse.storage.version import RECENT

if TYPE_CHECKING:
    from lakehouse.settings import Settings


class Lake:
    """A root folder or URL with the layout ``<layer>/<table>/``, ``restore_points/`` …

    Creating a ``Lake`` touches nothing; a table's folder appears with its first commit.
    """

    def __init__(
        self,
        root: str,
        options: Mapping[str, str] | None = None,
        *,
        target_file_bytes: int = 32 << 20,
        compression_level: int = 1,
        deletion_vector_min_rows: int = 20_000,
    ) -> None:
        self.root = root
        self.options = dict(options or {})
        self.target_file_bytes = target_file_bytes
        self.compression_level = compression_level
        self.deletion_vector_min_rows = deletion_vector_min_rows
        self.objects = Objects(root, self.options)

    @classmethod
    def from_settings(cls, settings: Settings) -> Lake:
        return cls(
            settings.root,
            settings.storage_options,
            target_file_bytes=settings.target_file_bytes,
            compression_level=settings.compression_level,
            deletion_vector_min_rows=settings.deletion_vector_min_rows,
        )

    @property
    def is_remote(self) -> bool:
        return self.objects.is_remote

    def table(self, layer: names.Layer, name: str) -> Table:
        """The table of this name, whether it exists or not."""
        validation.check_identifier(name, "table name")
        return Table(
            validation.join_url(self.root, names.table_path(layer, name)),
            layer,
            name,
            self.options,
            target_file_bytes=self.target_file_bytes,
            compression_level=self.compression_level,
            deletion_vector_min_rows=self.deletion_vector_min_rows,
        )

    def open_ahead(self, tables: Iterable[tuple[names.Layer, str]]) -> None:
        """Open the newest versions of these tables beside each other, for who asks for one after the other next.

        To open a table takes some answers of the store, one after the other, and some milliseconds; a lake has hundreds. What
        this process knows already is left out. What cannot be opened is met again, and told, by who needs it.
        """
        wanted = [self.table(*table) for table in tables]
        unknown = [table for table in wanted if not RECENT.knows(table.objects)]
        if len(unknown) > 1:
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                list(pool.map(_open_or_pass, unknown))

    def tables(self, layer: names.Layer) -> list[str]:
        """Names of the tables of a layer that have at least one version, sorted."""
        if not self.is_remote:
            # Not a glob: that takes a folder which may not be read for an empty one.
            with translated(f"list {layer}"):
                try:
                    entries = list(os.scandir(Path(self.root, layer)))
                except FileNotFoundError:
                    return []
                return sorted(entry.name for entry in entries if Path(entry.path, "_delta_log").is_dir())
        found = {
            info.path.split("/")[1] for info in self.objects.list(f"{layer}/") if "/_delta_log/" in info.path
        }
        return sorted(found)


def _open_or_pass(table: Table) -> None:
    with suppress(LakehouseError):
        table.snapshot_or_none()
