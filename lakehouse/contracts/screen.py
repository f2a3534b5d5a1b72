"""Screening in two phases: count what is broken, and look at single rows only if something is.

Clean data, which is nearly all data, pays for one select.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import polars as pl

from lakehouse.contracts.columns import DELETING, UNCASTABLE
from lakehouse.contracts.rules import ByPandera, Expression, NotNull, Rule, Unique
from lakehouse.errors import ContractError

#: Column of rejected rows: names of the rules that each row breaks.
BROKEN_RULES = "_broken_rules"

#: Boolean columns, one per broken rule, that live only inside one split.
_MASK = "__broken__"


@dataclass(frozen=True)
class ScreenCounts:
    """Rows of a frame, and per rule how many of them break it (every rule stands in it, zeros too)."""

    rows: int
    broken: Mapping[str, int]

    @property
    def violations(self) -> dict[str, int]:
        """Only the rules that some row breaks."""
        return {name: count for name, count in self.broken.items() if count}

    @property
    def clean(self) -> bool:
        """Whether no row breaks any rule, warnings included."""
        return not self.violations


def count(
    frame: pl.LazyFrame, rules: Sequence[Rule], contract: str, judging: Collection[str] = ()
) -> ScreenCounts:
    """Count every rule's violations in one streaming select (rules that pandera runs: one collect more).

    Rows that delete their key (``DELETING``) are judged by the rules of the columns ``judging`` alone.

    Raises ContractError when a rule cannot be computed on this data; it names the rule.
    """
    present = frame.collect_schema().names()
    selected = [pl.len().alias("rows")]
    counted: list[Rule] = []
    for rule in rules:
        expr = _count_expr(rule, present, judging)
        if expr is not None:
            selected.append(expr.cast(pl.UInt64).alias(f"r{len(counted)}"))
            counted.append(rule)
    try:
        row = frame.select(selected).collect(engine="streaming").row(0)
    except pl.exceptions.PolarsError as error:
        raise _blame(frame, counted, present, contract, judging) or error from error
    found = {rule.name: int(value or 0) for rule, value in zip(counted, row[1:], strict=True)}
    for rule in counted:
        if isinstance(rule.predicate, Unique) and found[rule.name]:
            judged = frame.filter(~pl.col(DELETING)) if _spares_deletions(rule, present, judging) else frame
            found[rule.name] = _duplicated_rows(judged, rule.predicate.column)
    by_pandera = [rule for rule in rules if isinstance(rule.predicate, ByPandera)]
    if by_pandera:
        collected = frame.collect(engine="streaming")
        for rule in by_pandera:
            found[rule.name] = int(_pandera_mask(rule, collected, contract, judging).sum())
    return ScreenCounts(rows=int(row[0]), broken={rule.name: found.get(rule.name, 0) for rule in rules})


def split(
    frame: pl.LazyFrame,
    counts: ScreenCounts,
    rules: Sequence[Rule],
    contract: str,
    judging: Collection[str] = (),
) -> tuple[pl.LazyFrame, pl.LazyFrame | None]:
    """Accepted rows, and rejected rows with the rules they break; None when no row is rejected.

    Heights add up to the frame's. Masks are built for broken rules alone. Raises ContractError when a rule
    whose ``on_failure`` is ``fail`` is broken.
    """
    broken = [rule for rule in rules if counts.broken.get(rule.name)]
    fatal = {rule.name: counts.broken[rule.name] for rule in broken if rule.on_failure == "fail"}
    if fatal:
        listed = "; ".join(f"{n} of {counts.rows} rows break {name}" for name, n in fatal.items())
        remedy = next(rule.remedy for rule in broken if rule.name in fatal)
        raise ContractError(f"contract {contract}: {listed}; the table is left unchanged", hint=remedy)
    rejecting = [rule for rule in broken if rule.on_failure == "quarantine"]
    names_present = frame.collect_schema().names()
    flags = [name for name in names_present if name.startswith(UNCASTABLE) or name == DELETING]
    if not rejecting:
        return frame.drop(flags), None

    if any(isinstance(rule.predicate, ByPandera) for rule in rejecting):
        # Masks by position need the rows to stay where they are.
        collected = frame.collect(engine="streaming")
        frame = collected.with_columns(
            _pandera_mask(rule, collected, contract, judging).alias(f"{_MASK}{number}")
            for number, rule in enumerate(rejecting)
            if isinstance(rule.predicate, ByPandera)
        ).lazy()
    present = frame.collect_schema().names()
    masks = [_mask(frame, rule, number, present, judging) for number, rule in enumerate(rejecting)]
    any_broken = reduce(or_, masks)
    temporary = [*flags, *(name for name in present if name.startswith(_MASK))]
    accepted = frame.filter(~any_broken).drop(temporary)
    columns = [f"{_MASK}{number}" for number in range(len(rejecting))]
    names = pl.concat_list(
        pl.when(column).then(pl.lit(rule.name)) for column, rule in zip(columns, rejecting, strict=True)
    )
    rejected = (
        frame.with_columns(mask.alias(column) for mask, column in zip(masks, columns, strict=True))
        .filter(pl.any_horizontal(columns))
        .with_columns(names.list.drop_nulls().alias(BROKEN_RULES))
        .drop(*flags, *columns)
    )
    return accepted, rejected


def _spares_deletions(rule: Rule, present: Collection[str], judging: Collection[str]) -> bool:
    """True where rows that delete their key are there and the rule is not one of the key."""
    return DELETING in present and not (rule.columns and set(rule.columns) <= set(judging))


def _count_expr(rule: Rule, present: Collection[str], judging: Collection[str]) -> pl.Expr | None:
    predicate = rule.predicate
    spares = _spares_deletions(rule, present, judging)
    if isinstance(predicate, ByPandera):
        return None
    if isinstance(predicate, Unique):
        # A gate: distinct values are cheaper to count than duplicated rows, and usually that is the end of it.
        values = pl.col(predicate.column)
        values = values.filter(~pl.col(DELETING)) if spares else values
        return values.len() - values.n_unique()
    fails = predicate.fails(present)
    if fails is None:
        return None
    if isinstance(predicate, Expression) and predicate.scalar:
        return fails.any().cast(pl.UInt64) * pl.len()
    if spares:
        return (fails & ~pl.col(DELETING)).sum()
    if (
        isinstance(predicate, NotNull)
        and not predicate.is_float
        and fails.meta.root_names() == [predicate.column]
    ):
        return pl.col(predicate.column).null_count()
    return fails.sum()


def _mask(
    frame: pl.LazyFrame, rule: Rule, number: int, present: Collection[str], judging: Collection[str]
) -> pl.Expr:
    predicate = rule.predicate
    spares = _spares_deletions(rule, present, judging)
    if isinstance(predicate, ByPandera):
        return pl.col(f"{_MASK}{number}")
    if isinstance(predicate, Unique):
        judged = frame.filter(~pl.col(DELETING)) if spares else frame
        fails = _duplicated(judged, predicate.column)
    else:
        found = predicate.fails(present)
        assert found is not None  # it was counted
        if isinstance(predicate, Expression) and predicate.scalar:
            return found
        fails = found
    return fails & ~pl.col(DELETING) if spares else fails


def _duplicates(frame: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """The values that more than one row has, with their rows."""
    return frame.group_by(column).agg(pl.len().alias(_MASK)).filter(pl.col(_MASK) > 1)


def _duplicated_rows(frame: pl.LazyFrame, column: str) -> int:
    return int(_duplicates(frame, column).select(pl.col(_MASK).sum()).collect(engine="streaming").item())


def _duplicated(frame: pl.LazyFrame, column: str) -> pl.Expr:
    dtype = frame.collect_schema()[column]
    if dtype.is_nested():
        return pl.col(column).is_duplicated()
    values = _duplicates(frame, column).select(column).collect(engine="streaming").to_series()
    return pl.col(column).is_in(values.implode(), nulls_equal=True)


def _pandera_mask(rule: Rule, collected: pl.DataFrame, contract: str, judging: Collection[str]) -> pl.Series:
    """Broken rows of a check that pandera runs itself, in the frame's order."""
    predicate = rule.predicate
    assert isinstance(predicate, ByPandera)
    frame = collected.lazy().select(predicate.columns)
    try:
        result = predicate.check(frame, predicate.key)
        output: pl.Series = result.check_output.collect().to_series()
    except Exception as error:
        raise _uncomputable(rule, contract, error) from error
    if len(output) == 1 and collected.height != 1:
        output = output.new_from_index(0, collected.height)
    if len(output) != collected.height:
        raise _uncomputable(rule, contract, f"it gives {len(output)} values for {collected.height} rows")
    if _spares_deletions(rule, collected.columns, judging):
        return ~output & ~collected[DELETING]
    return ~output


def _blame(
    frame: pl.LazyFrame,
    rules: Sequence[Rule],
    present: Collection[str],
    contract: str,
    judging: Collection[str],
) -> ContractError | None:
    """The rule that Polars cannot compute, found by running them one by one; None when it is the frame itself."""
    try:
        # Counting nulls computes every column; a bare row count would compute none.
        frame.select(pl.all().null_count()).collect(engine="streaming")
    except pl.exceptions.PolarsError:
        return None
    for rule in rules:
        expr = _count_expr(rule, present, judging)
        try:
            frame.select(expr).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            return _uncomputable(rule, contract, error)
    return None


def _uncomputable(rule: Rule, contract: str, why: object) -> ContractError:
    reason = str(why).partition("\n")[0]
    return ContractError(
        f"contract {contract}: rule {rule.name!r} cannot be computed on this data ({reason})",
        hint=f"change the check in the contract; no row was judged. {rule.remedy}",
    )
