"""Weather gets names with units; its rows and values stay as they came."""

from __future__ import annotations

from datetime import date

import polars as pl

from lakehouse.silver.transforms.weather import transform

HOUR = {
    "origin": "EWR", "year": "2013", "month": "11", "day": "3", "hour": "1", "temp": "51.98", "dewp": "39.02",
    "humid": "61.15", "wind_dir": "NA", "wind_speed": "10.357019999999999", "wind_gust": "NA", "precip": "0",
    "pressure": "1012", "visib": "10", "time_hour": "2013-11-03T05:00:00Z",
}  # fmt: skip


def test_values_stay_as_they_came_under_names_with_units() -> None:
    row = transform(pl.LazyFrame([HOUR])).collect().row(0, named=True)
    assert row == {
        "origin": "EWR", "observed_date": date(2013, 11, 3), "observed_hour": "1", "temp_f": "51.98",
        "dewp_f": "39.02", "humid_pct": "61.15", "wind_dir_deg": "NA", "wind_speed_mph": "10.357019999999999",
        "wind_gust_mph": "NA", "precip_in": "0", "pressure_hpa": "1012", "visib_mi": "10",
        "observed_at_utc": "2013-11-03T05:00:00Z",
    }  # fmt: skip


def test_the_two_hours_of_the_autumn_change_stay_two_rows() -> None:
    twice = pl.LazyFrame([HOUR, HOUR | {"time_hour": "2013-11-03T06:00:00Z"}])
    result = transform(twice).collect()
    assert result["observed_hour"].to_list() == ["1", "1"]
    assert result["observed_at_utc"].n_unique() == 2
