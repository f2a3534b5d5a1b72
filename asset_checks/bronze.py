"""Checks of a bronze table: nothing lost, nothing invented, and about as much as usual."""

from __future__ import annotations

from typing import Any

from asset_checks.base import Check, Finding, Subject
from lakehouse import names
from lakehouse.ledger import Ledger
from lakehouse.pipelines import Pipeline

#: A batch with less than a tenth or more than ten times the usual number of rows is worth a look.
UNUSUAL_FACTOR = 10.0
#: With fewer earlier batches there is no "usual".
MIN_HISTORY = 5
#: Of so many batches before, their median is what is usual.
USUAL_OF = 1_000


def bronze_checks(pipeline: Pipeline) -> list[Check]:
    """The checks of this pipeline's bronze table."""
    name = pipeline.name

    def check(check_name: str, description: str, recovery: str, look, *, blocking: bool = False) -> Check:  # type: ignore[no-untyped-def]
        return Check("bronze", name, check_name, description, recovery, look, blocking)

    return [
        check(
            "schema_as_declared",
            "The lineage columns are there with their types, and every column that the contract expects has arrived.",
            f"compare the source's columns with the contract of {name}; then: lakehouse run --select {name}",
            _schema,
        ),
        check(
            "rows_conserved",
            "Per batch: rows in the files = rows landed in bronze + rows in quarantine, counted again on disk.",
            f"do not publish; keep the files of the batch and run: lakehouse status --json, "
            f"lakehouse quarantine show {name}",
            _conservation,
            blocking=True,
        ),
        check(
            "volume_as_usual",
            "Each new batch is about as large as the median of the last thousand published ones, with at least min_rows_per_batch rows.",
            f"nothing is held back; ask the owner of {name} whether that is right, and look: lakehouse status",
            _volume,
        ),
        check(
            "columns_as_before",
            "The unpublished batches brought no new column, no lost one and none of another type.",
            f"nothing is held back; ask the owner of {name} what changed, then extend the contract or the source's "
            "new_columns and changed_types",
            _columns,
        ),
        check(
            "no_files_held",
            "No file came with new content under a known name and waits for somebody to look.",
            f"lakehouse accept {name} shows them; --apply takes them",
            _held,
        ),
    ]


def _schema(subject: Subject) -> Finding:
    schema = subject.snapshot.schema()
    missing = [column for column in names.LINEAGE if column not in schema]
    contract = subject.pipeline.contract
    derived = set(subject.pipeline.spec.source.path_columns)
    has_transform = subject.pipeline.spec.transform is not None
    # A transform may derive contract columns from others; without one every column has to come from the source.
    absent = [] if has_transform else [c for c in contract.schema if c not in schema and c not in derived]
    extra = [c for c in schema if c not in contract.schema and c not in (*names.LINEAGE, names.RESCUED)]
    facts = {"columns": len(schema), "columns the contract does not name": ", ".join(extra) or "none"}
    if missing or absent:
        message = f"missing lineage columns: {missing}; columns of the contract that never arrived: {absent}"
        return Finding(False, message, len(missing) + len(absent), facts=facts)
    return Finding(True, f"{len(schema)} columns, lineage complete", facts=facts)


def _columns(subject: Subject) -> Finding:
    changes = [
        {"batch": document["batches"][-1], "change": change}
        for document in subject.commits
        for change in document.get("schema_changes") or ()
    ]
    if changes:
        return Finding(False, f"{len(changes)} changes: {changes[0]['change']}", len(changes), changes[:20])
    return Finding(True, f"{len(subject.commits)} batches with the columns of the table")


def _held(subject: Subject) -> Finding:
    held = Ledger(subject.lake).held(subject.name)
    if held:
        sample = [{"file": file.path, "what": note} for file, note in held]
        return Finding(False, f"{len(held)} files wait for somebody to look", len(held), sample[:20])
    return Finding(True, "no file waits for somebody")


def _conservation(subject: Subject) -> Finding:
    landed = subject.rows_by_batch(subject.snapshot)
    refused = subject.refused_by_batch("bronze")
    wrong: list[dict[str, Any]] = []
    total = 0
    for document in subject.commits:
        batch = document["batches"][-1]
        found = landed.pop(batch, 0) + refused.pop(batch, 0)
        total += document["rows_in"]
        if found != document["rows_in"]:
            wrong.append({"batch": batch, "rows in": document["rows_in"], "landed + quarantined": found})
    # Rows of a batch that no commit speaks of: somebody else wrote into the table.
    wrong += [
        {"batch": batch, "rows in": 0, "landed + quarantined": found} for batch, found in landed.items()
    ]
    facts = {"batches checked": len(subject.commits), "rows checked": total}
    if wrong:
        return Finding(False, f"{len(wrong)} batches do not add up", len(wrong), wrong[:5], facts)
    return Finding(True, f"{total:,} rows of {len(subject.commits)} batches, all accounted for", facts=facts)


def _volume(subject: Subject) -> Finding:
    least = subject.pipeline.spec.checks.min_rows_per_batch
    usual = _usual_bytes(subject)
    wrong: list[dict[str, Any]] = []
    for document in subject.commits:
        batch, rows, size = document["batches"][-1], document["rows_in"], document["bytes_in"]
        if rows < least:
            wrong.append({"batch": batch, "rows": rows, "expected": f"at least {least} rows"})
        elif usual and not usual / UNUSUAL_FACTOR <= size <= usual * UNUSUAL_FACTOR:
            wrong.append(
                {"batch": batch, "rows": rows, "bytes": size, "expected": f"about {usual:,.0f} bytes"}
            )
    facts = {"batches checked": len(subject.commits), "usual bytes of a batch": round(usual)}
    if wrong:
        return Finding(False, f"{len(wrong)} batches of unusual size", len(wrong), wrong[:5], facts)
    return Finding(True, f"{len(subject.commits)} batches of the usual size", facts=facts)


def _usual_bytes(subject: Subject) -> float:
    """Median size of the last published batches of this source; 0 while there are too few to say."""
    last = subject.published_batch
    earlier = Ledger(subject.lake).batch_bytes(subject.name, last - USUAL_OF + 1, last)
    usual = earlier.median() if len(earlier) >= MIN_HISTORY else None
    return float(usual) if isinstance(usual, (int, float)) else 0.0
