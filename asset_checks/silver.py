"""Checks of a silver table: the key, the contract, the books, and how much was refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from asset_checks.base import Check, Finding, Subject
from lakehouse import names
from lakehouse.errors import TableNotFound
from lakehouse.pipelines import Pipeline
from lakehouse.quarantine import Book, is_of_backfill
from lakehouse.silver.merge import has_distinct, row_identity
from lakehouse.silver.refine import table_schema
from lakehouse.silver.write import files_of_ended
from lakehouse.storage import Snapshot

#: Of fewer rows than this a share says nothing: one bad row of the fifty of a quiet hour is no reason to stop.
SHARE_ROWS = 1_000


def silver_checks(pipeline: Pipeline) -> list[Check]:
    """The checks of this pipeline's silver table, except those that need a second table."""
    name = pipeline.name
    share = pipeline.spec.checks.max_quarantined_share
    again = f"then: lakehouse run --select {name}"
    checks = [
        Check(
            "silver",
            name,
            "schema_equals_contract",
            "Every column of the contract is there, in the contract's type; history columns where the mode adds them.",
            f"correct the contract or rebuild the table, {again}",
            _schema,
            blocking=True,
        ),
        Check(
            "silver",
            name,
            "rows_conserved",
            "Per commit: rows read from bronze = accepted + deduplicated + superseded + late + quarantined, with the "
            "rows of bronze and of quarantine counted again on disk.",
            f"keep the batches as they are and report it: lakehouse status --json, lakehouse quarantine show {name}",
            _conservation,
            blocking=True,
        ),
        Check(
            "silver",
            name,
            "contract_rules",
            "No row of the unpublished batches broke a rule of the contract. Rows that did are in quarantine.",
            f"lakehouse quarantine show {name}; fix the source or the contract, lakehouse quarantine replay {name}, {again}",
            _rules,
        ),
        Check(
            "silver",
            name,
            "quarantined_share",
            f"At most {share:.2%} of the rows of the unpublished batches were refused, and a backfill took at most that "
            "share of its rows out (checks.max_quarantined_share of the pipeline).",
            f"lakehouse quarantine show {name}; fix the source or the contract and lakehouse quarantine replay {name} "
            f"(after a backfill: lakehouse backfill {name} of the same days again), or raise max_quarantined_share in the pipeline's YAML if that many are right, {again}",
            _quarantined_share,
            blocking=True,
        ),
    ]
    if pipeline.contract.key:
        checks.append(
            Check(
                "silver",
                name,
                "key_unique",
                f"{', '.join(row_identity(pipeline.contract.key, pipeline.spec.silver.mode))} identifies one row"
                + ("; at most one row per key is current" if pipeline.spec.silver.mode == "history" else ""),
                f"lakehouse query 'select * from silver.{name}' shows the published rows; report it, {again}",
                _key_unique,
                blocking=True,
            )
        )
    return checks


def _schema(subject: Subject) -> Finding:
    found = subject.snapshot.schema()
    wanted = table_schema(subject.pipeline)
    wrong = [
        {"column": column, "contract": str(dtype), "table": str(found.get(column, "missing"))}
        for column, dtype in wanted.items()
        if not _same(found.get(column), dtype)
    ]
    facts = {"columns": len(found), "contract hash": subject.pipeline.contract.hash}
    if wrong:
        return Finding(False, f"{len(wrong)} columns differ from the contract", len(wrong), wrong, facts)
    return Finding(True, f"{len(wanted)} columns as the contract says", facts=facts)


def _same(found: pl.DataType | None, wanted: pl.DataType) -> bool:
    """Equal, apart from what Delta cannot say: it has no unsigned integers and no categories."""
    if found is None:
        return False
    if found == wanted:
        return True
    if wanted.is_unsigned_integer():
        return found.is_integer()
    return isinstance(wanted, (pl.Categorical, pl.Enum)) and found == pl.String


def _conservation(subject: Subject) -> Finding:
    bronze = subject.lake.table("bronze", subject.name).snapshot()
    landed = subject.rows_by_batch(bronze)
    refused = subject.refused_by_batch("silver")
    wrong: list[dict[str, Any]] = []
    total = 0
    for document in subject.commits:
        first, last = min(document["batches"]), max(document["batches"])
        batches = range(max(first, subject.published_batch + 1), last + 1)
        on_disk = sum(landed.get(batch, 0) for batch in batches)
        kept_out = sum(refused.get(batch, 0) for batch in batches)
        parts = {
            part: document[part] for part in ("accepted", "deduplicated", "superseded", "late", "quarantined")
        }
        total += document["rows_in"]
        if not (document["rows_in"] == sum(parts.values()) == on_disk and parts["quarantined"] == kept_out):
            wrong.append(
                {"batches": f"{first}-{last}", "rows in": document["rows_in"], "bronze": on_disk}
                | parts
                | {"in quarantine": kept_out}
            )
    facts = {
        "commits checked": len(subject.commits),
        "rows checked": total,
        "rows in the table": subject.snapshot.num_rows(),
    }
    if wrong:
        return Finding(False, f"{len(wrong)} commits do not add up", len(wrong), wrong[:5], facts)
    return Finding(True, f"{total:,} rows of {len(subject.commits)} commits, all accounted for", facts=facts)


def _totals(subject: Subject) -> tuple[int, dict[str, int], dict[str, int]]:
    """Rows in, and rows per rule that quarantined or only warned, over the unpublished commits."""
    rows = 0
    broken: dict[str, int] = {}
    warned: dict[str, int] = {}
    for document in subject.commits:
        rows += document["rows_in"]
        for target, source in ((broken, "broken_rules"), (warned, "warned_rules")):
            for rule, count in (document.get(source) or {}).items():
                target[rule] = target.get(rule, 0) + count
    return rows, broken, warned


def _rules(subject: Subject) -> Finding:
    rows, broken, warned = _totals(subject)
    declared = {rule.name: rule.on_failure for rule in subject.pipeline.contract.rules}
    facts: dict[str, Any] = {"rows checked": rows, "rules": len(declared)}
    facts |= {f"broken: {rule}": count for rule, count in sorted(broken.items(), key=lambda item: -item[1])}
    facts |= {f"warned: {rule}": count for rule, count in sorted(warned.items(), key=lambda item: -item[1])}
    if not broken and not warned:
        return Finding(True, f"{len(declared)} rules hold for {rows:,} rows", facts=facts)
    sample = [
        {
            "rules": row["_broken_rules"],
            "file": row["_source_file"],
            "row": row["_source_row"],
            "raw": row["_raw"],
        }
        for row in subject.quarantined("silver").head(5).iter_rows(named=True)
    ]
    listed = ", ".join(f"{rule} ({count})" for rule, count in {**broken, **warned}.items())
    count = subject.quarantined("silver").height
    return Finding(False, f"rows break rules: {listed}", count, sample, facts)


def _quarantined_share(subject: Subject) -> Finding:
    rows = sum(document["rows_in"] for document in subject.commits)
    ever = sum(document["quarantined"] for document in subject.commits)
    settled = _settled(subject) if ever else {}
    refused = ever - sum(settled.values())
    share = refused / rows if rows else 0.0
    bound = subject.pipeline.spec.checks.max_quarantined_share
    allowed = bound * max(rows, SHARE_ROWS)
    facts = {"share": round(share, 6), "bound": bound, "rows checked": rows, "rows allowed": int(allowed)}
    facts |= {"refused": ever, "open": refused, **settled}
    text = f"{refused:,} of {rows:,} rows quarantined ({share:.2%}, at most {bound:.2%})"
    if settled:
        text += "; " + ", ".join(f"{count:,} more {state}" for state, count in settled.items())
    again, taken_out = _taken_out(subject)
    if taken_out:
        facts |= {"rows backfilled": again, "taken out by backfills": taken_out}
        text += f"; backfills took out {taken_out:,} of {again:,} rows that today's rules refuse"
    allowed_again = bound * max(again, SHARE_ROWS)
    return Finding(refused <= allowed and taken_out <= allowed_again, text, refused + taken_out, facts=facts)


def _taken_out(subject: Subject) -> tuple[int, int]:
    """Rows that unpublished backfills processed, and rows they took out of the table that none has brought back."""
    rows = taken_out = 0
    for document in subject.backfills:
        rows += document["rows_in"]
        taken_out = max(0, taken_out - document["released"]) + document["taken_out"]
    return rows, taken_out


def _settled(subject: Subject) -> dict[str, int]:
    """Rows of the unpublished batches that the contract had refused and that were released or resolved since."""
    try:
        book = Book(subject.lake, subject.name)
    except TableNotFound:
        return {}
    last = max((max(document["batches"]) for document in subject.commits), default=0)
    judged = pl.col("_batch_id").is_between(subject.published_batch + 1, last) & (
        pl.col("_stage") == "silver"
    )
    judged = judged & ~is_of_backfill()
    if book.latest.is_empty():
        return {}
    settled = book.rows().filter(judged, pl.col("_state").is_in(["released", "resolved"]))
    return dict(settled.group_by("_state").len().sort("_state").collect().iter_rows())


def _key_unique(subject: Subject) -> Finding:
    """Compares the rows of the files since the published version with each other and with all that have their keys."""
    new = subject.new_files
    if not new:
        return Finding(True, "nothing new since the published version", facts={"files read": 0})
    mode = subject.pipeline.spec.silver.mode
    key, is_history = row_identity(subject.pipeline.contract.key, mode), mode == "history"
    columns = [*key, names.IS_CURRENT] if is_history else key
    old = _overlapping(subject, new, key[0])
    rows = subject.snapshot.scan(columns, uris=new)
    if old:
        # To count the keys of a whole table takes three times as long as to pick out those of a batch (measured with 10 million).
        fresh, identity = rows.collect(engine="streaming"), subject.pipeline.contract.key
        same_keys = subject.snapshot.scan(columns, uris=old).join(fresh.lazy(), on=identity, how="semi")
        rows = pl.concat([fresh.lazy(), same_keys.collect(engine="streaming").lazy()])
    found = _repeated(rows, key)
    count = int((found["len"] - 1).sum() or 0)
    if is_history:
        current = _repeated(rows.filter(names.IS_CURRENT), subject.pipeline.contract.key)
        count += current.height
        found = pl.concat([found, current], how="diagonal")
    facts = {"files read": len(new) + len(old), "rows in the table": subject.snapshot.num_rows()}
    if count:
        return Finding(
            False, f"{count} rows share their key with another", count, found.head(5).to_dicts(), facts
        )
    return Finding(True, "every key identifies one row", facts=facts)


def _repeated(rows: pl.LazyFrame, key: Sequence[str]) -> pl.DataFrame:
    """Keys that more than one row has, with how many (``len``)."""
    if len(key) == 1:
        keys = rows.select(key).collect(engine="streaming")
        if has_distinct(keys.to_series()):
            return keys.clear().with_columns(pl.lit(0, pl.UInt32).alias("len"))
        rows = keys.lazy()
    return rows.group_by(key).len().filter(pl.col("len") > 1).collect(engine="streaming")


def _overlapping(subject: Subject, new: list[str], column: str) -> list[str]:
    """Other files that may have rows of the keys in the new ones."""
    files = subject.snapshot.files()
    low, high = f"min.{column}", f"max.{column}"
    mine = files.filter(pl.col("uri").is_in(new))
    reach = files["uri"].to_list()
    if low in files.columns and not (mine[low].null_count() or mine[high].null_count()):
        reach = subject.snapshot.files_in_range(column, mine[low].min(), mine[high].max())
    passed_over = {*new, *_ended_before(subject.snapshot, mine)}
    return [uri for uri in reach if uri not in passed_over]


def _ended_before(snapshot: Snapshot, new: pl.DataFrame) -> list[str]:
    """Files of a history in which every version had ended when the first of the new files' began: none begins when one of
    these does, and none is current."""
    begins = f"min.{names.VALID_FROM}"
    first = None if begins not in new.columns or new[begins].null_count() else new[begins].min()
    if not isinstance(first, datetime):
        return []
    return files_of_ended(snapshot, before=first + timedelta(microseconds=1))
