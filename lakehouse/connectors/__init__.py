"""Connectors: how a source is listed and read. One module a kind of source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.connectors.base import Batch, Care, Connector, Extract, SourceFile

if TYPE_CHECKING:
    from lakehouse.pipelines.model import SourceSpec
    from lakehouse.settings import Settings

__all__ = ["Batch", "Care", "Connector", "Extract", "SourceFile", "connector_for"]


def connector_for(spec: SourceSpec, settings: Settings) -> Connector:
    """The connector of this source's kind."""
    from lakehouse.connectors.files import FileConnector

    return FileConnector(spec, settings)
