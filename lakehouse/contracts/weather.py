"""The contract of silver.weather."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts.model import Contract, TimestampUtc

PUBLIC = {"sensitivity": "public"}


class Weather(Contract):
    """One row per airport of departure and hour: what the station at the airport observed.

    Bounds are what nature has ever done near the ground, with room: a value beyond them is an instrument's.
    """

    origin: pl.String = pa.Field(
        isin=["EWR", "JFK", "LGA"], description="Airport of the station, IATA code.", metadata=PUBLIC
    )
    observed_at_utc: TimestampUtc = pa.Field(
        description="Hour of the observation (UTC). Tells apart the two hours from 1 am of the autumn clock change.",
        metadata=PUBLIC,
    )
    observed_date: pl.Date = pa.Field(
        description="The observation's date at the airport (local).", metadata=PUBLIC
    )
    observed_hour: pl.Int16 = pa.Field(
        ge=0, le=23, description="The observation's hour on the airport's clocks (local).", metadata=PUBLIC
    )
    temp_f: pl.Float64 = pa.Field(
        ge=-80, le=135, nullable=True, description="Air temperature, degrees Fahrenheit.", metadata=PUBLIC
    )
    dewp_f: pl.Float64 = pa.Field(
        ge=-100, le=95, nullable=True, description="Dew point, degrees Fahrenheit.", metadata=PUBLIC
    )
    humid_pct: pl.Float64 = pa.Field(
        gt=1,
        le=100,
        nullable=True,
        description="Relative humidity, percent (1 or less is a share, not a percentage).",
        metadata=PUBLIC,
    )
    wind_dir_deg: pl.Int16 = pa.Field(
        ge=0,
        le=360,
        nullable=True,
        description="Where the wind comes from, degrees clockwise from north; 0 in calm, null when variable.",
        metadata=PUBLIC,
    )
    # 253 mph is the strongest gust ever measured outside a tornado (Barrow Island, 1996).
    wind_speed_mph: pl.Float64 = pa.Field(
        ge=0, le=253, nullable=True, description="Wind's speed, miles per hour.", metadata=PUBLIC
    )
    wind_gust_mph: pl.Float64 = pa.Field(
        ge=0,
        le=253,
        nullable=True,
        description="Gusts' speed, miles per hour; null without gusts.",
        metadata=PUBLIC,
    )
    precip_in: pl.Float64 = pa.Field(
        ge=0, le=12, description="Precipitation in the hour, inches.", metadata=PUBLIC
    )
    pressure_hpa: pl.Float64 = pa.Field(
        ge=870,
        le=1085,
        nullable=True,
        description="Air pressure at sea level, hectopascals (the same as millibars).",
        metadata=PUBLIC,
    )
    visib_mi: pl.Float64 = pa.Field(
        ge=0, le=10, description="Visibility, statute miles; stations report at most 10.", metadata=PUBLIC
    )

    @pa.dataframe_check(name="dewp_f <= temp_f")
    def dew_point_below_temperature(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Air cannot hold more water than saturates it; 1 degree is left for rounding."""
        return data.lazyframe.select(pl.col("dewp_f") <= pl.col("temp_f") + 1)

    @pa.dataframe_check(name="wind_gust_mph >= wind_speed_mph")
    def gust_above_wind(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """A gust is a peak of the wind, so it is never below it."""
        return data.lazyframe.select(pl.col("wind_gust_mph") >= pl.col("wind_speed_mph"))

    @pa.dataframe_check(name="observed_date and observed_hour agree with observed_at_utc")
    def local_time_agrees(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """The local date and hour, in the stations' time zone (one for all three), give the UTC instant."""
        local = pl.col("observed_at_utc").dt.convert_time_zone("America/New_York")
        same_hour = local.dt.hour() == pl.col("observed_hour")
        return data.lazyframe.select(same_hour & (local.dt.date() == pl.col("observed_date")))

    @pa.dataframe_check(name="observed on the hour")
    def on_the_hour(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """One observation an hour: minutes and seconds are zero."""
        return data.lazyframe.select(pl.col("observed_at_utc") == pl.col("observed_at_utc").dt.truncate("1h"))

    @pa.dataframe_check(name="humid_pct agrees with temp_f and dewp_f within 30")
    def humidity_agrees(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Temperature and dew point give the humidity (Magnus). Stations round, and 2013 is up to 28 points off."""
        temperature, dew_point = (pl.col("temp_f") - 32) / 1.8, (pl.col("dewp_f") - 32) / 1.8
        exponent = dew_point * 17.625 / (dew_point + 243.04) - temperature * 17.625 / (temperature + 243.04)
        return data.lazyframe.select((exponent.exp() * 100 - pl.col("humid_pct")).abs() <= 30)

    @pa.dataframe_check(name="wind_dir_deg is a ten of degrees, 0 in calm alone")
    def direction_is_as_reported(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Stations report tens of degrees; 360 is north, and 0 says that there is no wind."""
        calm = (pl.col("wind_dir_deg") == 0) == (pl.col("wind_speed_mph") == 0)
        return data.lazyframe.select((pl.col("wind_dir_deg") % 10 == 0) & calm)

    @pa.check("wind_speed_mph", "wind_gust_mph", name="whole knots")
    def whole_knots(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Stations measure whole knots (1.15078 mph): what lies between was converted twice, or not at all."""
        knots = pl.col(data.key) / 1.15078
        return data.lazyframe.select((knots - knots.round()).abs() < 0.005)

    @pa.check("precip_in", name="whole hundredths of an inch")
    def whole_hundredths(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """A gauge tips at every hundredth of an inch."""
        hundredths = pl.col(data.key) * 100
        return data.lazyframe.select((hundredths - hundredths.round()).abs() < 0.001)

    class Config:
        name = "weather"
        unique = ["origin", "observed_at_utc"]
