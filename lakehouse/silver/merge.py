"""The write modes as pure functions: (changes, existing rows of the same keys) → what to write and remove.

Each accounts for every change exactly once: ``changes = accepted + deduplicated + superseded + late``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from lakehouse import names
from lakehouse.connectors.columns import without_bytes
from lakehouse.errors import ContractError
from lakehouse.silver.prepare import ARRIVAL_ORDER, FILE_ORDER, PLACE_SCHEMA, SEQUENCE

_IS_NEW = "__is_new"
_CONTENT = "__content"
_AT = "__at"
_PLACE = "__place"
_THERE = "__there"
_FIRST = "__first"


@dataclass(frozen=True)
class Tally:
    """Rows per batch under each heading."""

    accepted: Counter[int] = field(default_factory=Counter)
    deduplicated: Counter[int] = field(default_factory=Counter)
    superseded: Counter[int] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)

    def plus(self, other: Tally) -> Tally:
        return Tally(
            self.accepted + other.accepted, self.deduplicated + other.deduplicated,
            self.superseded + other.superseded, self.late + other.late,
        )  # fmt: skip


def by_batch(rows: pl.DataFrame | pl.Series) -> Counter[int]:
    """Rows (or the batch numbers of rows) counted by batch."""
    numbers = rows if isinstance(rows, pl.Series) else rows[names.BATCH_ID]
    return Counter(dict(numbers.value_counts().iter_rows()))


@dataclass(frozen=True)
class Merged:
    """``rows`` are to be written; existing rows whose key is in ``replaced``, where they stand, are to be removed.

    So ``existing`` rows come with their places (``prepare.PLACE_SCHEMA``).
    """

    rows: pl.DataFrame
    replaced: pl.DataFrame
    tally: Tally = field(default_factory=Tally)

    @property
    def accepted(self) -> int:
        return self.tally.accepted.total()

    @property
    def deduplicated(self) -> int:
        return self.tally.deduplicated.total()

    @property
    def superseded(self) -> int:
        return self.tally.superseded.total()

    @property
    def late(self) -> int:
        return self.tally.late.total()

    @property
    def changes(self) -> int:
        """Rows that came in; each is counted under exactly one heading."""
        return self.accepted + self.deduplicated + self.superseded + self.late

    def plus(self, other: Merged) -> Merged:
        """Both counts and both sets of replaced keys, without the rows."""
        return Merged(
            pl.DataFrame(), pl.concat([self.replaced, other.replaced]), self.tally.plus(other.tally)
        )


def merge_append(changes: pl.DataFrame, existing_keys: pl.DataFrame, key: Sequence[str]) -> Merged:
    """First row of each key wins, in arrival order; a key that the table has is a duplicate."""
    first = changes
    if changes.select(_distinct_keys(key)).item() < changes.height:
        first = changes.sort(ARRIVAL_ORDER).unique(key, keep="first", maintain_order=True)
    fresh = first if existing_keys.is_empty() else first.join(existing_keys, on=key, how="anti")
    return Merged(
        rows=fresh.drop(FILE_ORDER),
        replaced=existing_keys.select(*key, *PLACE_SCHEMA).clear(),
        tally=Tally(accepted=by_batch(fresh), deduplicated=by_batch(changes) - by_batch(fresh)),
    )


def _distinct_keys(key: Sequence[str]) -> pl.Expr:
    return (pl.col(key[0]) if len(key) == 1 else pl.struct(key)).n_unique()


def is_all_new(changes: pl.LazyFrame, key: Sequence[str], rows: int) -> bool:
    """True when no two of the ``rows`` changes have one key."""
    if len(key) > 1:
        return bool(changes.select(_distinct_keys(key)).collect(engine="streaming").item() == rows)
    keys = changes.select(key).collect(engine="streaming").to_series()
    return has_distinct(keys) and len(keys) == rows


def has_distinct(keys: pl.Series) -> bool:
    """True when no two of ``keys`` are equal. Those in order, as numbers that grow are, are compared with their neighbours
    alone, in a hundredth of the time (measured, three million).
    """
    if keys.is_sorted():
        return not (keys == keys.shift(1)).any() and keys.null_count() < 2
    return keys.n_unique() == len(keys)


def merge_upsert(
    changes: pl.DataFrame,
    existing: pl.DataFrame,
    key: Sequence[str],
    sequence_by: Sequence[str],
    content: Sequence[str],
) -> Merged:
    """Latest row of each key wins: by ``sequence_by`` (ties: by content), else by arrival.

    Counted as: *deduplicated* a change equal to one taken or to what the table has; *superseded* an older
    change of a key beside a newer one in the same batch; *late* a change older than what the table has
    (by arrival only where ``existing`` says how its rows arrived).
    """
    existing = with_deletions_known(existing)
    # What is sorted by key and order has the newest row of a key last.
    distinct = _without_repetitions(changes, key, sequence_by, content)
    newest = distinct.filter(~_same_as_next(key))
    by_arrival = not sequence_by and set(ARRIVAL_ORDER) <= set(existing.columns)
    judged = _judged(newest, changes, existing, key, sequence_by, content, by_arrival=by_arrival)
    taken = judged.filter(~pl.col("__same") & ~pl.col("__late"))
    return Merged(
        rows=changes[taken[_AT]].drop(FILE_ORDER),
        replaced=taken.filter("__known").select(*key, *PLACE_SCHEMA),
        tally=Tally(
            accepted=by_batch(taken),
            deduplicated=by_batch(changes) - by_batch(distinct) + by_batch(judged.filter("__same")),
            superseded=by_batch(distinct) - by_batch(newest),
            late=by_batch(judged.filter("__late")),
        ),
    )


def with_deletions_known(existing: pl.DataFrame) -> pl.DataFrame:
    """Rows that the table had before it marked deletions: they were none."""
    if names.IS_DELETED not in existing.columns:
        return existing
    return existing.with_columns(pl.col(names.IS_DELETED).fill_null(False))


def _judged(
    newest: pl.DataFrame,
    changes: pl.DataFrame,
    existing: pl.DataFrame,
    key: Sequence[str],
    sequence_by: Sequence[str],
    content: Sequence[str],
    *,
    by_arrival: bool,
) -> pl.DataFrame:
    """``newest`` with what the table has of each key: its place, and ``__known``, ``__same`` and ``__late``.

    Where the sequences differ they decide alone, and nothing else of the rows is looked at: to carry whole rows
    through the comparison took twice as long (measured).
    """
    order = sequence_by or (ARRIVAL_ORDER if by_arrival else ())
    before = existing.select(*key, *PLACE_SCHEMA, *(pl.col(name).alias(f"__old_{name}") for name in order))
    before = before.rechunk().with_row_index(_THERE)
    pairs = newest.join(before, on=key, how="left", maintain_order="left")
    if pairs.height > newest.height:
        raise ContractError(
            f"the table has rows with one key ({', '.join(key)}) twice: another column was part of the key, or there was none, "
            "when they were written; nothing was committed",
            hint="keep the key, or give the pipeline a new name: its table is then built from all its files",
        )
    known = pl.col(_THERE).is_not_null()
    judged = pairs.with_columns(__known=known, __same=pl.lit(False), __late=known & _is_older(order))
    equal = pl.all_horizontal(
        pl.col("__known"), *(pl.col(name).eq_missing(pl.col(f"__old_{name}")) for name in sequence_by)
    )
    tied = judged.select(equal).to_series()
    if not tied.any():
        return judged
    doubtful = judged.filter(tied)
    mine, theirs = changes[doubtful[_AT]].select(content), existing[doubtful[_THERE]].select(content)
    both = pl.concat([mine, theirs.select(pl.all().name.prefix("__old_"))], how="horizontal")
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"__old_{name}")) for name in content)
    is_same = both.select(same).to_series()
    late = doubtful["__late"]
    if sequence_by:
        # Texts of the rows that differ alone are made: of all rows they took a sixth of the stage (measured).
        late = (
            both.select(
                pl.when(~is_same).then(
                    _content_text(both.schema, content) < _content_text(both.schema, content, "__old_")
                )
            )
            .to_series()
            .fill_null(False)
        )
    settled = doubtful.with_columns(__same=is_same, __late=late & ~is_same)
    return pl.concat([judged.filter(~tied), settled])


def _same_as_before(columns: Sequence[str]) -> pl.Expr:
    """True for a row that equals the one above it in these columns."""
    same = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in columns]
    return pl.all_horizontal(pl.lit(True), *same) & (pl.int_range(pl.len()) > 0)


def _same_as_next(columns: Sequence[str]) -> pl.Expr:
    """True for a row that the next one equals in these columns."""
    same = [pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in columns]
    return pl.all_horizontal(*same) & (pl.int_range(pl.len()) < pl.len() - 1)


def _without_repetitions(
    changes: pl.DataFrame, key: Sequence[str], sequence_by: Sequence[str], content: Sequence[str]
) -> pl.DataFrame:
    """Where the changes are (``__at``) that no other repeats; of equal ones the last to arrive stays.

    Beside ``__at`` there are the columns that order them: to sort whole rows, most of which lose, took a quarter of the
    stage (measured). What comes back is sorted by key and then by sequence, or by arrival where there is none; rows that
    differ in neither, by their content as text. Equal rows agree in key and sequence, so only rows that do are compared.
    """
    order = list(sequence_by or ARRIVAL_ORDER)
    alike = [*dict.fromkeys([*key, *sequence_by])]
    narrow = changes.select(*dict.fromkeys([*alike, *ARRIVAL_ORDER])).with_row_index(_AT)
    narrow = narrow.sort([*alike, *ARRIVAL_ORDER])
    same = narrow.select(_same_as_next(alike)).to_series()
    if not same.any():
        return narrow
    tied = same | same.shift(1, fill_value=False)
    at, place = narrow.filter(tied)[_AT], tied.arg_true().alias(_PLACE)
    doubtful = changes[at].with_columns(at, place)
    doubtful = doubtful.unique([*alike, *content], keep="last", maintain_order=True)
    if sequence_by:
        doubtful = _with_content(doubtful, key, sequence_by, content)
        order.append(_CONTENT)
    # Tied rows change places among themselves: to sort all rows once more took as long as everything else here (measured).
    doubtful = doubtful.sort([*key, *order])
    place = doubtful.select(pl.col(_PLACE).sort().over(alike)).to_series()
    source = pl.int_range(narrow.height, dtype=pl.UInt32, eager=True).scatter(place, doubtful[_PLACE])
    return narrow[source.filter((~tied).scatter(place, True))]


def _with_content(
    frame: pl.DataFrame, key: Sequence[str], sequence_by: Sequence[str], content: Sequence[str]
) -> pl.DataFrame:
    """Content as text, for rows that tie on key and sequence alone: it decides, whatever came first."""
    tied = pl.len().over([*key, *sequence_by]) > 1
    if not frame.select(tied.any()).item():
        return frame.with_columns(pl.lit(None, pl.String).alias(_CONTENT))
    return frame.with_columns(pl.when(tied).then(_content_text(frame.schema, content)).alias(_CONTENT))


def _content_text(schema: Mapping[str, pl.DataType], content: Sequence[str], prefix: str = "") -> pl.Expr:
    """What settles a tie, whatever came first: a deletion comes after every state, and of states the last as text, in which
    a value comes after none.

    A source that marks rows as deleted often leaves their time of change as it was; so does one that fills in a new column.
    """
    parts = []
    for name in content:
        dtype = schema[f"{prefix}{name}"]
        value = without_bytes(pl.col(f"{prefix}{name}"), dtype)
        # JSON has one null for all of NaN, infinities and nothing; as text they differ.
        of_value = (
            pl.struct(value.alias("v")).struct.json_encode() if dtype.is_nested() else value.cast(pl.String)
        )
        parts.append(pl.when(value.is_not_null()).then(pl.lit("1") + of_value).fill_null("").alias(name))
    text = pl.struct(parts).struct.json_encode()
    if names.IS_DELETED not in content:
        return text
    return pl.when(pl.col(f"{prefix}{names.IS_DELETED}")).then(pl.lit("1")).otherwise(pl.lit("0")) + text


def _is_older(order: Sequence[str]) -> pl.Expr:
    """True where the change comes before what the table has, in this order; nulls come first."""
    older = pl.lit(False)
    for column in reversed(order):
        mine, theirs = pl.col(column), pl.col(f"__old_{column}")
        less = (mine.is_null() & theirs.is_not_null()) | (mine < theirs).fill_null(False)
        older = less | (mine.eq_missing(theirs) & older)
    return older


def row_identity(key: Sequence[str], mode: str) -> list[str]:
    """The columns that tell one row of a table with a key: in a history a key has many."""
    return [*key, names.VALID_FROM] if mode == "history" else list(key)


def versions_concerned(versions: pl.LazyFrame, changes: pl.DataFrame, key: Sequence[str]) -> pl.LazyFrame:
    """Of a history's rows those that changes of their keys can touch, so that a batch costs the same however long a key's
    history is.

    A version that ended before the first change of its key stays as it is. One that ended just then may go on, when
    the change contradicts what began there and wins.
    """
    first = changes.lazy().group_by(key).agg(pl.col(SEQUENCE).min().alias(_FIRST))
    over = (pl.col(names.VALID_TO) < pl.col(_FIRST)).fill_null(False)
    return versions.join(first, on=key).filter(~over).drop(_FIRST)


def merge_history(
    changes: pl.DataFrame, existing: pl.DataFrame, key: Sequence[str], content: Sequence[str]
) -> Merged:
    """Every state of each key with the time it held: [valid_from_utc, valid_to_utc), no overlap, no gap.

    ``changes`` has ``__sequence``, the instant at which the row's state began. The versions of a touched key that
    ``existing`` has (``versions_concerned``) are rebuilt from all their observations, so the result does not depend on
    the order of arrival. Counted as:
    *accepted* a change that begins a version; *deduplicated* one that repeats a state already known at that
    time; *superseded* one that contradicts another at the same instant and loses (ties: by content).
    """
    existing = with_deletions_known(existing)
    past = existing.explode(names.OBSERVED_AT).rename({names.OBSERVED_AT: SEQUENCE})
    columns = [name for name in changes.columns if name != FILE_ORDER]
    known = past.select(pl.lit(False).alias(_IS_NEW), *columns)
    fresh = changes.sort(ARRIVAL_ORDER).select(pl.lit(True).alias(_IS_NEW), *columns)
    events = pl.concat([known, fresh]).sort([*key, SEQUENCE], maintain_order=True)
    winners, superseded = _one_per_instant(events, key, content)
    # Sorted by key and instant, a row is compared with the one above it: windows per key took four times as long.
    of_new_key = ~_same_as_before(key)
    begins = of_new_key | ~_same_as_before(content)
    runs = winners.with_columns(begins.alias("__begins"))
    accepted = by_batch(runs.filter(pl.col("__begins") & pl.col(_IS_NEW)))
    versions = runs.filter("__begins").with_columns(pl.col(SEQUENCE).alias(names.VALID_FROM))
    seen = runs.select(SEQUENCE, __run=pl.col("__begins").cum_sum().set_sorted())
    seen = seen.group_by("__run", maintain_order=True).agg(pl.col(SEQUENCE).alias(names.OBSERVED_AT))
    following = pl.when(_same_as_next(key)).then(pl.col(names.VALID_FROM).shift(-1))
    deleted = pl.col(names.IS_DELETED) if names.IS_DELETED in columns else pl.lit(False)
    versions = versions.with_columns(
        seen[names.OBSERVED_AT], following.cast(versions.schema[names.VALID_FROM]).alias(names.VALID_TO)
    ).with_columns((pl.col(names.VALID_TO).is_null() & ~deleted).alias(names.IS_CURRENT))
    return Merged(
        rows=versions.drop(_IS_NEW, SEQUENCE, "__begins"),
        replaced=existing.select(*row_identity(key, "history"), *PLACE_SCHEMA),
        tally=Tally(
            accepted=accepted,
            deduplicated=by_batch(changes) - accepted - superseded,
            superseded=superseded,
        ),
    )


def _one_per_instant(
    events: pl.DataFrame, key: Sequence[str], content: Sequence[str]
) -> tuple[pl.DataFrame, Counter[int]]:
    """Of the sorted events one for each key and instant, and how many new ones lost, by batch.

    Of equal ones the first stays; of others the one whose content comes last as text, whatever came first. A loser
    that an earlier batch had brought is not counted again. Only events that share key and instant are looked at.
    """
    order = [*key, SEQUENCE]
    tied = events.select(_same_as_next(order) | _same_as_before(order)).to_series()
    if not tied.any():
        return events, Counter()
    distinct = events.filter(tied).unique([*order, *content], keep="first", maintain_order=True)
    distinct = _with_content(distinct, key, [SEQUENCE], content)
    winners = distinct.sort([*order, _CONTENT], nulls_last=False, maintain_order=True)
    winners = winners.unique(order, keep="last", maintain_order=True).drop(_CONTENT)
    lost = by_batch(distinct.filter(_IS_NEW)) - by_batch(winners.filter(_IS_NEW))
    return pl.concat([events.filter(~tied), winners]).sort(order, maintain_order=True), lost
