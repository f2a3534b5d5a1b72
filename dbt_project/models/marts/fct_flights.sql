{{
    config(
        strategy='merge',
        unique_key='flight_id',
    )
}}

with flights as (
    select *
    from {{ ref('stg_nyc__flights') }} as flights
    {% if is_incremental() %}
    -- new flights, and flights that a later batch corrected
    where not exists (
        select 1
        from {{ this }} as done
        where done.flight_id = flights.flight_id and done.source_batch_id = flights.source_batch_id
    )
    {% endif %}
)

select
    flight_id,
    flight_date,
    carrier,
    flight_number,
    tailnum,
    origin,
    dest,
    weather_id,
    sched_dep_at_utc,
    dep_at_utc,
    sched_arr_at_utc,
    arr_at_utc,
    dep_delay_min,
    arr_delay_min,
    date_diff('minute', sched_dep_at_utc, sched_arr_at_utc)::integer as sched_gate_to_gate_min,
    date_diff('minute', dep_at_utc, arr_at_utc)::integer as gate_to_gate_min,
    air_time_min,
    (date_diff('minute', dep_at_utc, arr_at_utc) - air_time_min)::integer as taxi_min,
    distance_mi,
    is_cancelled,
    is_diverted,
    -- the Department of Transportation's measure: less than 15 minutes late; cancelled and diverted are not
    coalesce(dep_delay_min < 15, false) as is_dep_on_time,
    coalesce(arr_delay_min < 15, false) as is_arr_on_time,
    case
        when is_cancelled then 'cancelled'
        when is_diverted then 'diverted'
        when arr_delay_min < 0 then 'early'
        when arr_delay_min < 15 then 'on time'
        when arr_delay_min < 60 then 'late: 15 to 59 min'
        when arr_delay_min < 180 then 'late: 60 to 179 min'
        else 'late: 180 min and more'
    end as arrival_outcome,
    source_batch_id
from flights
order by sched_dep_at_utc
