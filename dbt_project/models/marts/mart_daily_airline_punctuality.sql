{{
    config(
        strategy='replace_where',
        replace_where='flight_date in (select flight_date from new_rows)',
    )
}}

with flights as (
    select fct.*, airlines.airline_name
    from {{ ref('fct_flights') }} as fct
    inner join {{ ref('dim_airline') }} as airlines on fct.carrier = airlines.carrier
),

{% if is_incremental() %}
-- Days on which an airline has another number of flights, another newest batch or another name than it has here.
touched as (
    select distinct flight_date
    from (
        select flight_date, carrier, airline_name, count(*) as scheduled_flights, max(source_batch_id) as source_batch_id
        from flights
        group by all
        except
        select flight_date, carrier, airline_name, scheduled_flights, source_batch_id
        from {{ this }}
    )
),
{% endif %}

daily as (
    select
        flight_date,
        carrier,
        any_value(airline_name) as airline_name,
        count(*) as scheduled_flights,
        count(*) filter (where is_cancelled) as cancelled_flights,
        count(*) filter (where is_diverted) as diverted_flights,
        count(arr_delay_min) as arrived_flights,
        count(*) filter (where is_dep_on_time) as on_time_departures,
        count(*) filter (where is_arr_on_time) as on_time_arrivals,
        avg(dep_delay_min) as avg_dep_delay_min,
        avg(arr_delay_min) as avg_arr_delay_min,
        median(arr_delay_min) as median_arr_delay_min,
        quantile_cont(arr_delay_min, 0.9) as p90_arr_delay_min,
        coalesce(sum(greatest(arr_delay_min, 0)), 0)::bigint as late_arrival_minutes,
        max(source_batch_id) as source_batch_id
    from flights
    {% if is_incremental() %}
    where flight_date in (select flight_date from touched)
    {% endif %}
    group by flight_date, carrier
)

select
    flight_date,
    carrier,
    airline_name,
    scheduled_flights,
    cancelled_flights,
    diverted_flights,
    arrived_flights,
    on_time_departures,
    on_time_arrivals,
    round(100.0 * on_time_departures / scheduled_flights, 2)::double as dep_on_time_pct,
    round(100.0 * on_time_arrivals / scheduled_flights, 2)::double as arr_on_time_pct,
    round(100.0 * cancelled_flights / scheduled_flights, 2)::double as cancelled_pct,
    avg_dep_delay_min,
    avg_arr_delay_min,
    median_arr_delay_min,
    p90_arr_delay_min,
    late_arrival_minutes,
    source_batch_id
from daily
order by flight_date, carrier
