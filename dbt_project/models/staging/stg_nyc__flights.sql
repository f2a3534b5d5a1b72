select
    -- the key as one readable, sortable text: hour of scheduled departure (UTC), airline, flight number
    strftime(time_hour_utc at time zone 'UTC', '%Y%m%dT%H') || '-' || carrier || '-' || flight as flight_id,
    strftime(time_hour_utc at time zone 'UTC', '%Y%m%dT%H') || '-' || origin as weather_id,
    flight_date,
    carrier,
    flight as flight_number,
    tailnum,
    origin,
    dest,
    dest_tzone,
    -- `at time zone` and not a plain cast, which would follow the session's time zone
    sched_dep_at_utc at time zone 'UTC' as sched_dep_at_utc,
    dep_at_utc at time zone 'UTC' as dep_at_utc,
    sched_arr_at_utc at time zone 'UTC' as sched_arr_at_utc,
    arr_at_utc at time zone 'UTC' as arr_at_utc,
    dep_delay_min,
    arr_delay_min,
    air_time_min,
    distance_mi,
    is_cancelled,
    is_diverted,
    _batch_id::bigint as source_batch_id
from {{ source('silver', 'flights') }}
