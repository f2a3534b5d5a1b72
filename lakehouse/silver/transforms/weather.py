"""Weather: names with units, and the local hour as a date and an hour."""

from __future__ import annotations

import polars as pl

from lakehouse.silver.transforms.flights import local_date

RENAMED = {
    "time_hour": "observed_at_utc",
    "hour": "observed_hour",
    "temp": "temp_f",
    "dewp": "dewp_f",
    "humid": "humid_pct",
    "wind_dir": "wind_dir_deg",
    "wind_speed": "wind_speed_mph",
    "wind_gust": "wind_gust_mph",
    "precip": "precip_in",
    "pressure": "pressure_hpa",
    "visib": "visib_mi",
}


def transform(raw: pl.LazyFrame) -> pl.LazyFrame:
    """One row in, one row out. Values stay as they came; the contract types and judges them."""
    year, month, day = (pl.col(part).cast(pl.Int32, strict=False) for part in ("year", "month", "day"))
    return (
        raw.rename(RENAMED)
        .with_columns(observed_date=local_date(year, month, day))
        .drop("year", "month", "day")
    )
