"""What a check is: a name, a promise, a remedy, and a function from a table version to a finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

import polars as pl

from lakehouse import names
from lakehouse.checks import CheckOutcome
from lakehouse.errors import TransientError
from lakehouse.pipelines import Pipeline
from lakehouse.quarantine import is_of_backfill
from lakehouse.storage import Lake, Snapshot, standing_commits


@dataclass(frozen=True)
class Finding:
    """What a check saw. ``count`` is rows at fault; ``facts`` are numbers worth showing even when all is well."""

    passed: bool
    message: str
    count: int = 0
    sample: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """One version of one pipeline's table, and where published data stood.

    What is above ``published_batch`` is under examination until it is published, so that a bad batch is not
    forgotten because a good one came after it.
    """

    lake: Lake
    pipeline: Pipeline
    snapshot: Snapshot
    published_batch: int = 0
    published_version: int | None = None

    @property
    def name(self) -> str:
        return self.pipeline.name

    @cached_property
    def new_files(self) -> list[str]:
        """URIs of the files that the published version does not have; all files when nothing is published."""
        if self.published_version is None:
            return self.snapshot.uris()
        published = self.snapshot.table.snapshot_or_none(self.published_version)
        known = set() if published is None else set(published.uris())
        return [uri for uri in self.snapshot.uris() if uri not in known]

    @cached_property
    def commits(self) -> list[dict[str, Any]]:
        """What the stage says it did (the documents of its data commits), oldest first, unpublished batches only.

        Read back to a published batch, not to the published version: a point names the newest bronze version that there
        was, however far behind it silver had stayed.
        """
        stage = self.snapshot.table.layer
        documents = []
        for commit in standing_commits(self.snapshot):
            if commit.metadata.get("stage") != stage or not commit.metadata.get("batches"):
                continue
            if max(commit.metadata["batches"]) <= self.published_batch:
                break
            documents.append(commit.metadata)
        return documents[::-1]

    @cached_property
    def backfills(self) -> list[dict[str, Any]]:
        """The documents of the backfills that the published version does not have, oldest first."""
        last = -1 if self.published_version is None else self.published_version
        commits = takewhile(lambda commit: commit.version > last, standing_commits(self.snapshot))
        return [c.metadata for c in commits if c.metadata.get("action") == "backfill"][::-1]

    def rows_by_batch(self, snapshot: Snapshot) -> dict[int, int]:
        """Rows on disk per unpublished batch, counted in the files that may hold any."""
        return snapshot.count_from(names.BATCH_ID, self.published_batch + 1)

    def quarantined(self, stage: str) -> pl.DataFrame:
        """See ``_quarantined``; read once."""
        if stage not in self._refused:
            self._refused[stage] = self._quarantined(stage)
        return self._refused[stage]

    def refused_by_batch(self, stage: str) -> dict[int, int]:
        """Rows that the stage refused, per batch under examination; batches without any are not named."""
        rows = self.quarantined(stage)
        return dict(rows.group_by(names.BATCH_ID).len().iter_rows()) if len(rows) else {}

    @cached_property
    def _refused(self) -> dict[str, pl.DataFrame]:
        return {}

    def _quarantined(self, stage: str) -> pl.DataFrame:
        """Rows that the stage refused of the batches under examination: ``_batch_id``, ``_broken_rules``, ``_raw``.

        Without those that a backfill refused after the stage had taken their batch with them.
        """
        snapshot = self.lake.table("quarantine", self.name).snapshot_or_none()
        columns = ["_batch_id", "_broken_rules", "_source_file", "_source_row", "_raw"]
        first = self.published_batch + 1
        uris = snapshot.files_in_range(names.BATCH_ID, first, 2**62) if snapshot else []
        if snapshot is None or not uris:
            schema = dict.fromkeys(columns, pl.String()) | {
                "_batch_id": pl.Int64(),
                "_source_row": pl.Int64(),
                "_broken_rules": pl.List(pl.String()),
            }
            return pl.DataFrame(schema=schema)
        return (
            snapshot.scan(uris=uris)
            .filter(pl.col("_batch_id") > self.published_batch, pl.col("_stage") == stage, ~is_of_backfill())
            .select(columns)
            .collect()
        )


@dataclass(frozen=True)
class Check:
    """One check of one table. ``blocking``: what fails it does not travel on and is not published."""

    layer: names.Layer
    table: str
    name: str
    description: str
    recovery: str
    look: Callable[[Subject], Finding]
    blocking: bool = False


def evaluate(checks: Sequence[Check], subject: Subject) -> list[tuple[Check, CheckOutcome, Finding]]:
    """Every check's outcome. A check that cannot be carried out has failed: unknown is not good.

    Raises:
        TransientError: the store did not answer; the step is tried again.
    """
    results = []
    for check in checks:
        try:
            finding = check.look(subject)
        except TransientError:
            raise
        except Exception as error:  # noqa: BLE001  a broken check must say so, not take the step down
            finding = Finding(False, f"could not be carried out: {type(error).__name__}: {error}")
        outcome = CheckOutcome(
            layer=check.layer,
            table=check.table,
            version=subject.snapshot.version,
            check=check.name,
            passed=finding.passed,
            blocking=check.blocking,
            severity="error" if check.blocking else "warn",
            count=finding.count,
            sample=finding.sample,
            message=finding.message,
            recovery=check.recovery,
        )
        results.append((check, outcome, finding))
    return results
