"""Transforms that a test puts in the place of the demo's own: today's rules, after yesterday's run."""

from __future__ import annotations

import polars as pl

from lakehouse.silver.transforms.flights import transform


def farther(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Every flight was a mile longer."""
    return transform(raw).with_columns(distance_mi=pl.col("distance_mi").cast(pl.Int32, strict=False) + 1)


def nameless(raw: pl.LazyFrame) -> pl.LazyFrame:
    """No flight has a carrier that the contract accepts."""
    return transform(raw).with_columns(carrier=pl.lit("??"))


def broken(raw: pl.LazyFrame) -> pl.LazyFrame:
    """A transform that cannot work."""
    raise ValueError("no")
