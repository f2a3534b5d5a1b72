"""Bronze: sources, faithfully, as append-only Delta."""

from lakehouse.bronze.ingest import ingest

__all__ = ["ingest"]
