"""The contract of silver.flights."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from lakehouse.contracts.model import Contract, TimestampUtc

PUBLIC = {"sensitivity": "public"}
# A tail number leads to an aircraft's owner in a public register: never a person in airline service, yet
# it is the one column here that points at somebody.
INTERNAL = {"sensitivity": "internal"}

HHMM = "clock reading as the source gives it, hours × 100 + minutes; 2400 is midnight"


class Flights(Contract):
    """One row per scheduled departure from Newark, Kennedy or LaGuardia, flown or cancelled.

    Instants are UTC; `*_hhmm` are local clock readings without a date, kept so that instants can be audited.
    """

    time_hour_utc: TimestampUtc = pa.Field(
        description="Scheduled departure, rounded down to the hour (UTC); joins to weather.observed_at_utc.",
        metadata=PUBLIC,
    )
    carrier: pl.String = pa.Field(
        str_matches=r"^[A-Z0-9]{2}$", description="Airline, two-character IATA code.", metadata=PUBLIC
    )
    flight: pl.Int16 = pa.Field(
        ge=1, le=9999, description="Flight number; unique per carrier and scheduled hour.", metadata=PUBLIC
    )
    flight_date: pl.Date = pa.Field(
        description="Scheduled departure's date where the flight leaves (local).", metadata=PUBLIC
    )
    tailnum: pl.String = pa.Field(
        nullable=True,
        str_matches=r"^N[0-9][0-9A-Z]{1,4}$",
        description="Aircraft's tail number (United States register). Null for some cancelled flights.",
        metadata=INTERNAL | {"on_failure": "warn"},
    )
    origin: pl.String = pa.Field(
        isin=["EWR", "JFK", "LGA"], description="Airport of departure, IATA code.", metadata=PUBLIC
    )
    dest: pl.String = pa.Field(
        str_matches=r"^[A-Z]{3}$", description="Airport of destination, IATA code.", metadata=PUBLIC
    )
    origin_tzone: pl.String = pa.Field(
        description="IANA time zone of the airport of departure; null where no directory knows the airport.",
        metadata=PUBLIC,
    )
    dest_tzone: pl.String = pa.Field(
        description="IANA time zone of the destination; null where no directory knows the airport.",
        metadata=PUBLIC,
    )
    sched_dep_hhmm: pl.Int16 = pa.Field(
        ge=0, le=2400, description=f"Scheduled departure, local {HHMM}.", metadata=PUBLIC
    )
    dep_hhmm: pl.Int16 = pa.Field(
        ge=0, le=2400, nullable=True, description=f"Actual departure, local {HHMM}.", metadata=PUBLIC
    )
    sched_arr_hhmm: pl.Int16 = pa.Field(
        ge=0, le=2400, description=f"Scheduled arrival, local {HHMM}.", metadata=PUBLIC
    )
    arr_hhmm: pl.Int16 = pa.Field(
        ge=0, le=2400, nullable=True, description=f"Actual arrival, local {HHMM}.", metadata=PUBLIC
    )
    sched_dep_at_utc: TimestampUtc = pa.Field(description="Scheduled departure (UTC).", metadata=PUBLIC)
    dep_at_utc: TimestampUtc = pa.Field(
        nullable=True, description="Actual departure (UTC); null when cancelled.", metadata=PUBLIC
    )
    sched_arr_at_utc: TimestampUtc = pa.Field(description="Scheduled arrival (UTC).", metadata=PUBLIC)
    arr_at_utc: TimestampUtc = pa.Field(
        nullable=True,
        description="Actual arrival (UTC); null when cancelled, or diverted without reaching its destination.",
        metadata=PUBLIC,
    )
    dep_delay_min: pl.Int32 = pa.Field(
        ge=-120,
        le=2880,
        nullable=True,
        description="Departure's delay, minutes; early is negative.",
        metadata=PUBLIC,
    )
    arr_delay_min: pl.Int32 = pa.Field(
        ge=-240,
        le=2880,
        nullable=True,
        description="Arrival's delay, minutes; early is negative; null when cancelled or diverted.",
        metadata=PUBLIC,
    )
    air_time_min: pl.Int32 = pa.Field(
        gt=0, le=1440, nullable=True, description="Time in the air, minutes.", metadata=PUBLIC
    )
    distance_mi: pl.Int32 = pa.Field(
        gt=0, le=12_000, description="Distance between the airports, statute miles.", metadata=PUBLIC
    )
    great_circle_mi: pl.Float64 = pa.Field(
        nullable=True,
        description="Distance between the airports by their coordinates, statute miles; checks distance_mi.",
        metadata=PUBLIC,
    )
    is_cancelled: pl.Boolean = pa.Field(description="True when the flight never departed.", metadata=PUBLIC)
    is_diverted: pl.Boolean = pa.Field(
        description="True when it departed but has no arrival delay: it did not reach its destination as planned.",
        metadata=PUBLIC,
    )

    @pa.check("sched_dep_hhmm", "dep_hhmm", "sched_arr_hhmm", "arr_hhmm", name="minutes of the reading < 60")
    def minutes_below_60(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """1275 is between 0 and 2400 and still no time of day."""
        return data.lazyframe.select(pl.col(data.key) % 100 < 60)

    @pa.dataframe_check(name="flight_date and sched_dep_hhmm agree with time_hour_utc")
    def schedule_agrees_with_hour(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """The local date and reading, in the origin's time zone (one for all three airports), give the UTC hour."""
        local = pl.col("time_hour_utc").dt.convert_time_zone("America/New_York")
        same_hour = local.dt.hour() == pl.col("sched_dep_hhmm") // 100 % 24
        return data.lazyframe.select(same_hour & (local.dt.date() == pl.col("flight_date")))

    @pa.dataframe_check(name="every reading became an instant")
    def readings_became_instants(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """A departure or arrival that has a clock reading has its UTC instant, and the other way round."""
        departure = pl.col("dep_hhmm").is_null() == pl.col("dep_at_utc").is_null()
        arrival = pl.col("arr_hhmm").is_null() == pl.col("arr_at_utc").is_null()
        return data.lazyframe.select(departure & arrival)

    @pa.dataframe_check(name="dep_at_utc - sched_dep_at_utc = dep_delay_min")
    def departure_delay_agrees(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """The clock reading and the delay are two witnesses of one departure."""
        delay = (pl.col("dep_at_utc") - pl.col("sched_dep_at_utc")).dt.total_minutes()
        return data.lazyframe.select(delay == pl.col("dep_delay_min"))

    @pa.dataframe_check(name="arr_at_utc - sched_arr_at_utc = arr_delay_min")
    def arrival_delay_agrees(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """The clock reading and the delay are two witnesses of one arrival."""
        delay = (pl.col("arr_at_utc") - pl.col("sched_arr_at_utc")).dt.total_minutes()
        return data.lazyframe.select(delay == pl.col("arr_delay_min"))

    @pa.dataframe_check(name="arr_at_utc - dep_at_utc >= air_time_min")
    def gate_to_gate_holds_air_time(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Nobody is in the air for longer than between the gates; a wrong day or time zone breaks this."""
        gate_to_gate = (pl.col("arr_at_utc") - pl.col("dep_at_utc")).dt.total_minutes()
        return data.lazyframe.select(gate_to_gate >= pl.col("air_time_min"))

    @pa.dataframe_check(name="a cancelled flight has no arrival")
    def cancelled_has_no_arrival(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Without a departure there is neither an arrival nor time in the air."""
        landed = pl.col("arr_hhmm").is_not_null() | pl.col("air_time_min").is_not_null()
        return data.lazyframe.select(pl.col("dep_hhmm").is_not_null() | ~landed)

    @pa.dataframe_check(name="air_time_min and arr_delay_min come together")
    def arrival_is_whole(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Both are known when the flight reached its destination, and neither is when it did not."""
        return data.lazyframe.select(pl.col("air_time_min").is_null() == pl.col("arr_delay_min").is_null())

    @pa.dataframe_check(name="dep_hhmm and dep_delay_min come together")
    def departure_is_whole(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """A flight that left did so at a time and with a delay (0 is one)."""
        return data.lazyframe.select(pl.col("dep_hhmm").is_null() == pl.col("dep_delay_min").is_null())

    @pa.dataframe_check(name="an arrival's delay has its reading")
    def arrival_delay_has_reading(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Who knows the delay knows when the flight came."""
        return data.lazyframe.select(pl.col("arr_delay_min").is_null() | pl.col("arr_hhmm").is_not_null())

    @pa.dataframe_check(name="distance_mi = great_circle_mi, within 5 miles and 0.2 %")
    def distance_agrees_with_map(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """A published distance, an airport's code and a map agree: 2013 leaves at most 2.3 miles and 0.2 %."""
        apart = (pl.col("distance_mi") - pl.col("great_circle_mi")).abs()
        return data.lazyframe.select(apart <= 5 + pl.col("great_circle_mi") * 0.002)

    @pa.dataframe_check(name="flown at 60 to 800 mph")
    def flown_at_a_possible_speed(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Hours given as minutes, or one digit too many, are no speed of an airliner (2013: 76.8 to 703.4 mph)."""
        miles_per_hour = pl.col("distance_mi") * 60 / pl.col("air_time_min")
        return data.lazyframe.select(miles_per_hour.is_between(60, 800))

    @pa.dataframe_check(name="on the ground for at most 5 hours")
    def not_on_the_ground_for_ever(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Between the gates, but not in the air: taxiing and waiting (2013: 5 to 235 minutes)."""
        gate_to_gate = (pl.col("arr_at_utc") - pl.col("dep_at_utc")).dt.total_minutes()
        return data.lazyframe.select(gate_to_gate - pl.col("air_time_min") <= 300)

    @pa.dataframe_check(name="the schedule fits the distance")
    def schedule_fits_distance(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """Scheduled length against 40 minutes plus 450 mph (2013: 74 minutes less to 107 minutes more)."""
        length = (pl.col("sched_arr_at_utc") - pl.col("sched_dep_at_utc")).dt.total_minutes()
        expected = pl.col("distance_mi") / 7.5 + 40
        return data.lazyframe.select((length - expected).is_between(-110, 160))

    @pa.dataframe_check(name="origin <> dest")
    def leaves_its_origin(cls, data: pa.PolarsData) -> pl.LazyFrame:
        """A flight that goes nowhere is a slip of the pen."""
        return data.lazyframe.select(pl.col("origin") != pl.col("dest"))

    class Config:
        name = "flights"
        unique = ["time_hour_utc", "carrier", "flight"]
