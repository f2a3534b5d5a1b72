"""Which steps of a run come first, of those that may go.

Pipelines whose silver gold reads, then gold, while the others are still at work on their threads; within a pipeline
silver comes right after bronze, so that what is done is told at once and not at the end of the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from lakehouse.gold.dbt_run import silver_read
from lakehouse.settings import Settings

#: Gold's place: as soon as everything that it reads is there.
GOLD = {"dagster/priority": "4"}


def tags(layer: Literal["bronze", "silver"], source: str, settings: Settings) -> dict[str, str]:
    """The step's priority, as Dagster reads it. Backfills and gold have theirs by themselves."""
    first = 2 if source in silver_read(settings) else 0
    return {"dagster/priority": str(first + (layer == "silver"))}


def sources(names: Iterable[str], settings: Settings) -> list[str]:
    """Pipelines in the order in which Dagster will ask for them."""
    read = silver_read(settings)
    return sorted(names, key=lambda name: (name not in read, name))
