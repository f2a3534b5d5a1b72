"""What checks found, kept beside the data: ``ops.checks``, one row per check of one table version.

Publishing reads this table and nothing else, so a check counts wherever it ran: in a Dagster run, in a dbt
test, from the command line. The newest row of a check of a version is the one that holds.

A version counts as checked when ``declared`` says which checks it has to have, and each of them has a row. Without
Dagster, ``asset_checks.tables.carry_out`` records both for a pipeline's tables; of a table that no pipeline makes,
``record(lake, [declared("silver", "flights", 12, [])])`` says that nothing has to be asked of this version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl

from lakehouse import names
from lakehouse.errors import CommitConflict
from lakehouse.storage import Lake, Snapshot

TABLE = "checks"
MAX_SAMPLE_ROWS = 5
SCHEMA: dict[str, pl.DataType] = {
    "run_id": pl.String(),
    "checked_at_utc": pl.Datetime("us", "UTC"),
    "layer": pl.String(),
    "table": pl.String(),
    "version": pl.Int64(),
    "check": pl.String(),
    "blocking": pl.Boolean(),
    "passed": pl.Boolean(),
    "severity": pl.String(),
    "count": pl.Int64(),
    "sample": pl.String(),
    "message": pl.String(),
    "recovery": pl.String(),
}
#: The check whose row names, in its sample, the checks that a version has to have.
DECLARED = "declared_checks"
#: What Delta's own tools call a commit that changes no row.
_UPKEEP = frozenset({"OPTIMIZE", "VACUUM START", "VACUUM END"})
_CREATE_ATTEMPTS = 5


@dataclass(frozen=True)
class CheckOutcome:
    """One check of one version of one table.

    ``count`` is the number of rows at fault; ``sample`` holds a few of them; ``recovery`` is what to run next.
    Only a failed outcome that is ``blocking`` keeps a version from being published.
    """

    layer: names.Layer
    table: str
    version: int
    check: str
    passed: bool
    blocking: bool = True
    severity: Literal["error", "warn"] = "error"
    count: int = 0
    sample: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    message: str = ""
    recovery: str = ""
    run_id: str = ""
    checked_at_utc: datetime | None = None

    @property
    def subject(self) -> str:
        """``silver/flights``, the name of the table in restore points."""
        return names.table_path(self.layer, self.table)


def record(lake: Lake, outcomes: Iterable[CheckOutcome], *, run_id: str = "") -> int:
    """Append the outcomes to ``ops.checks`` in one commit; how many there were.

    A concurrent writer is no conflict: rows are only ever added.
    """
    table = lake.table("ops", TABLE)
    now = _after_the_newest(table.snapshot_or_none(), datetime.now(UTC))
    rows = [
        {
            "run_id": outcome.run_id or run_id,
            "checked_at_utc": outcome.checked_at_utc or now,
            "layer": outcome.layer,
            "table": outcome.table,
            "version": outcome.version,
            "check": outcome.check,
            "blocking": outcome.blocking,
            "passed": outcome.passed,
            "severity": outcome.severity,
            "count": outcome.count,
            "sample": json.dumps(list(outcome.sample)[:MAX_SAMPLE_ROWS], default=str),
            "message": outcome.message,
            "recovery": outcome.recovery,
        }
        for outcome in outcomes
    ]
    if not rows:
        return 0
    staged = table.stage(pl.LazyFrame(rows, schema=SCHEMA))
    metadata = {"stage": "checks", "run_id": run_id, "rows": len(rows)}
    for attempt in range(_CREATE_ATTEMPTS):
        snapshot = table.snapshot_or_none()
        try:
            if snapshot is None:
                table.create(
                    SCHEMA, add=staged, metadata=metadata, description=(__doc__ or "").splitlines()[0]
                )
            else:
                snapshot.commit(add=staged, metadata=metadata)
            return len(rows)
        except CommitConflict:
            if attempt == _CREATE_ATTEMPTS - 1:
                raise
    return len(rows)


def _after_the_newest(snapshot: Snapshot | None, now: datetime) -> datetime:
    """``now``, or just after the newest row where a clock was set back: the newest row is the one that holds."""
    if snapshot is None:
        return now
    files = snapshot.files()
    newest = files["max.checked_at_utc"].max() if "max.checked_at_utc" in files.columns else None
    if not isinstance(newest, datetime):
        return now
    # Statistics may be cut to milliseconds.
    return max(now, newest.replace(tzinfo=newest.tzinfo or UTC) + timedelta(milliseconds=1))


def declared(layer: names.Layer, table: str, version: int, checks: Iterable[str]) -> CheckOutcome:
    """The row that names the checks that this version has to have.

    Names that an earlier such row of the version had, and the newest has not, are of checks that were renamed or
    removed: what they found counts no more. Other names, of checks that somebody else recorded, are left alone.
    """
    listed = sorted(set(checks))
    return CheckOutcome(
        layer, table, version, DECLARED,
        passed=True, blocking=False, sample=[{"checks": listed}], message=f"{len(listed)} checks are declared",
    )  # fmt: skip


def outcomes(lake: Lake, versions: Mapping[str, int]) -> list[CheckOutcome]:
    """The newest outcome of every check of the named versions (``{"silver/flights": 12}``), in no order.

    What was found of a version holds for the versions that maintenance made of it: they have the same rows. Without
    that, compacting a table that failed a check would make it pass.
    """
    return _read(lake, versions)[0]


def _read(lake: Lake, versions: Mapping[str, int]) -> tuple[list[CheckOutcome], dict[str, set[str]]]:
    """The outcomes that hold, and per subject the names of the declared checks, where any were ever declared."""
    snapshot = lake.table("ops", TABLE).snapshot_or_none()
    if snapshot is None or not versions:
        return [], {}
    wanted = pl.DataFrame(
        [
            {"subject": subject, "version": same, "asked": version}
            for subject, version in versions.items()
            for same in with_the_same_rows(lake, subject, version)
        ],
        schema={"subject": pl.String(), "version": pl.Int64(), "asked": pl.Int64()},
    )
    # As a condition on two narrow columns, which are read first: of the others only what a wanted row has is decoded. A busy lake
    # records a million outcomes a day, and a join alone would hold them all.
    numbers, subjects = wanted["version"].unique().implode(), [name.partition("/")[2] for name in versions]
    rows = (
        snapshot.scan()
        .filter(pl.col("version").is_in(numbers), pl.col("table").is_in(subjects))
        .with_columns(subject=pl.concat_str(pl.col("layer"), pl.lit("/"), pl.col("table")))
        .join(wanted.lazy(), on=["subject", "version"], how="inner", maintain_order="left")
        .with_columns(version=pl.col("asked"))
        .drop("asked")
        .sort("checked_at_utc", maintain_order=True)
        .collect(engine="streaming")
    )
    in_force: dict[str, set[str]] = {}
    ever: dict[str, set[str]] = {}
    for row in rows.filter(pl.col("check") == DECLARED).iter_rows(named=True):
        in_force[row["subject"]] = {name for item in _sample(row) for name in item["checks"]}
        ever.setdefault(row["subject"], set()).update(in_force[row["subject"]])
    newest = rows.filter(pl.col("check") != DECLARED).group_by("subject", "version", "check").last()
    found = [
        CheckOutcome(
            **{key: value for key, value in row.items() if key != "subject"} | {"sample": _sample(row)}
        )
        for row in newest.iter_rows(named=True)
    ]
    retired = {subject: known - in_force[subject] for subject, known in ever.items()}
    return [outcome for outcome in found if outcome.check not in retired.get(outcome.subject, ())], in_force


def unchecked(lake: Lake, versions: Mapping[str, int], published: Mapping[str, int]) -> set[str]:
    """Those of the named versions that were not checked, or not by every check that is declared of them.

    What is published counts as checked, and so does what maintenance made of it.

    Args:
        published: the versions of the current restore point.
    """
    asked = {
        subject: version
        for subject, version in versions.items()
        if subject not in published or published[subject] not in with_the_same_rows(lake, subject, version)
    }
    found, in_force = _read(lake, asked)
    done: dict[str, set[str]] = {}
    for outcome in found:
        done.setdefault(outcome.subject, set()).add(outcome.check)
    return {
        subject
        for subject in asked
        if subject not in in_force or in_force[subject] - done.get(subject, set())
    }


def with_the_same_rows(lake: Lake, subject: str, version: int) -> Iterator[int]:
    """The version, and those below it from which it differs by nothing but maintenance."""
    layer, _, name = subject.partition("/")
    table = lake.table(layer, name)  # type: ignore[arg-type]
    yield version
    while version > 0:
        commit = table.commit_info(version)
        if commit is None:
            return
        if commit.metadata.get("stage") != names.MAINTENANCE and commit.operation not in _UPKEEP:
            return
        version -= 1
        yield version


def failed_blocking(lake: Lake, versions: Mapping[str, int]) -> list[CheckOutcome]:
    """The blocking checks that the named versions fail; empty when nothing stands against publishing them."""
    return sorted(
        (outcome for outcome in outcomes(lake, versions) if outcome.blocking and not outcome.passed),
        key=lambda outcome: (outcome.subject, outcome.check),
    )


def _sample(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(json.loads(row["sample"] or "[]"))
