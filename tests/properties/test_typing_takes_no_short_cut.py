"""Whatever the text and whatever its neighbours: the quick way of typing gives what trimming and trying everything gives."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.contracts.casting import conversion
from lakehouse.contracts.columns import ColumnSpec
from lakehouse.contracts.typed import type_columns

pytestmark = pytest.mark.slow

_SPACES = ["", " ", "  ", "\t", "\n", "\u00a0", "\u2003", "\u0085", "\x00"]
_CORES = [
    "", "7", "-999", "007", "3.0", "3.7", "1e3", "1e400", "NaN", "-inf", "true", "F", "no", "NA", "N", "null",
    "2013-01-01", "1900-01-01", "2013-01-01T05:00:00Z", "2013-01-01T05:00:00.123Z", "2013-01-01T05:00:00.123456Z",
    "2013-01-01 05:00:00", "2013-01-01 05:00", "2013-01-01T05:00:00+02:00", "2013-02-30", "10:05", "10:05:00",
    "10:05:00.5", "12.345", "x", "é", "\u00dfx",
]  # fmt: skip
_TEXTS = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(_SPACES), st.sampled_from(_CORES), st.sampled_from(_SPACES)).map("".join),
    st.text(max_size=6),
)
_MARKERS = st.sampled_from([(), ("NA",), ("-999", "1900-01-01", "N"), ("true", "2013-01-01T05:00:00Z")])
_TARGETS = [
    pl.Int64(), pl.UInt8(), pl.Float64(), pl.Float32(), pl.Decimal(10, 2), pl.Boolean(), pl.Date(), pl.Time(),
    pl.Datetime("us", "UTC"), pl.Datetime("ms"), pl.String(),
]  # fmt: skip


@pytest.mark.parametrize("target", _TARGETS, ids=str)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(_TEXTS, min_size=1, max_size=30), markers=_MARKERS, keep_empty=st.booleans())
def test_the_quick_way_gives_what_the_long_way_gives(
    target: pl.DataType, texts: list[str | None], markers: tuple[str, ...], keep_empty: bool
) -> None:
    raw = pl.LazyFrame({"a": pl.Series(texts, dtype=pl.String)})
    column = ColumnSpec("a", target, nullable=True, description="", sensitivity="public")
    found = type_columns(raw, [column], null_markers=markers, keep_empty_text=keep_empty).collect()
    trimmed = pl.col("a").str.strip_chars()
    if isinstance(target, pl.String):
        nothing = [*markers] if keep_empty else [*markers, ""]
        wanted = raw.select(pl.when(~trimmed.is_in(nothing)).then("a")).collect()
        assert found.equals(wanted)
        return
    convert = conversion(pl.String(), target)
    assert convert is not None
    meant = raw.select(pl.when(~trimmed.is_in([*markers, ""])).then(trimmed).alias("meant"))
    wanted = meant.select(
        convert(pl.col("meant")).alias("a"),
        (convert(pl.col("meant")).is_null() & pl.col("meant").is_not_null()).alias("__uncastable__a"),
    ).collect()
    assert found.equals(wanted)
