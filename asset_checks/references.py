"""Referential integrity: the true share of rows whose partner is missing, against the bound that is declared.

These checks need two tables, so they are steps of their own, after both tables are refined.
"""

from __future__ import annotations

import polars as pl

from asset_checks.base import Check, Finding, Subject
from lakehouse import names
from lakehouse.errors import TableNotFound
from lakehouse.pipelines import Pipeline
from lakehouse.pipelines.model import ReferenceSpec


def reference_checks(pipeline: Pipeline) -> list[Check]:
    """One check per declared reference of this pipeline."""
    return [_check(pipeline, reference) for reference in pipeline.spec.checks.references]


def check_name(reference: ReferenceSpec) -> str:
    """``tailnum_in_planes``: unique per table, and readable in the graph."""
    return f"{'_'.join(reference.columns)}_in_{reference.to}"


#: A share is told of this many rows at least, if the table has them: one odd hour must not stop publishing.
#: It is also about what bounds the cost on a table that grows for years.
SHARE_ROWS = 1_000_000


def _enough(subject: Subject, new: list[str]) -> list[str]:
    files = subject.snapshot.files()
    rows = dict(files.select("uri", "num_records").iter_rows())
    chosen, total = list(new), sum(rows[uri] for uri in new)
    for uri in files["uri"]:
        if total >= SHARE_ROWS:
            break
        if uri not in new:
            chosen.append(uri)
            total += rows[uri]
    return chosen


def _check(pipeline: Pipeline, reference: ReferenceSpec) -> Check:
    columns, target = ", ".join(reference.columns), f"{reference.to} ({', '.join(reference.target_columns)})"
    return Check(
        "silver",
        pipeline.name,
        check_name(reference),
        f"At most {reference.max_orphan_share:.2%} of the rows have a {columns} that is not in {target}; "
        "a null refers to nothing and is no orphan.",
        f"lakehouse run --select {reference.to}; if the missing partners are a fact of the data, raise "
        f"max_orphan_share in the YAML of {pipeline.name}, then: lakehouse run --select {pipeline.name}",
        lambda subject: _orphans(subject, reference),
        blocking=True,
    )


def _orphans(subject: Subject, reference: ReferenceSpec) -> Finding:
    """Looks at the files since the published version, filled up with others to ``SHARE_ROWS`` rows."""
    try:
        partner = subject.lake.table("silver", reference.to).snapshot()
    except TableNotFound:
        return Finding(False, f"silver.{reference.to} has no version yet")
    new = subject.new_files
    if not new:
        return Finding(True, "nothing new since the published version", facts={"rows checked": 0})
    uris = _enough(subject, new)
    left, right = list(reference.columns), list(reference.target_columns)
    rows = subject.snapshot.scan(left, uris=uris).drop_nulls(left)
    known = partner.scan(right).unique()
    orphans = rows.join(known, left_on=left, right_on=right, how="anti")
    total = int(rows.select(pl.len()).collect(engine="streaming").item())
    by_value = orphans.group_by(left).len().sort("len", descending=True).collect(engine="streaming")
    count = int(by_value["len"].sum() or 0)
    share = count / total if total else 0.0
    facts = {
        "orphan share": round(share, 6),
        "bound": reference.max_orphan_share,
        "rows checked": total,
        "distinct missing values": by_value.height,
        "partner version": partner.version,
    }
    text = f"{count:,} of {total:,} rows without a partner ({share:.2%}, at most {reference.max_orphan_share:.2%})"
    passed = share <= reference.max_orphan_share
    return Finding(
        passed, text, count, by_value.head(5).rename({"len": "rows"}).to_dicts() if count else (), facts
    )


def partners(pipeline: Pipeline) -> list[list[str]]:
    """Asset keys of the tables that this pipeline's references point to."""
    targets = dict.fromkeys(reference.to for reference in pipeline.spec.checks.references)
    return [names.asset_key("silver", target) for target in targets if target != pipeline.name]
