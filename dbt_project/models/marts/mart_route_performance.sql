with routes as (
    select
        origin,
        dest,
        max(distance_mi) as distance_mi,
        count(distinct carrier) as airlines,
        count(*) as scheduled_flights,
        count(*) filter (where is_cancelled) as cancelled_flights,
        count(*) filter (where is_diverted) as diverted_flights,
        count(arr_delay_min) as arrived_flights,
        count(*) filter (where is_arr_on_time) as on_time_arrivals,
        median(air_time_min) as median_air_time_min,
        median(gate_to_gate_min) filter (where not is_diverted) as median_gate_to_gate_min,
        median(60.0 * distance_mi / air_time_min) as median_speed_mph,
        avg(dep_delay_min) as avg_dep_delay_min,
        avg(arr_delay_min) as avg_arr_delay_min,
        median(arr_delay_min) as median_arr_delay_min,
        quantile_cont(arr_delay_min, 0.9) as p90_arr_delay_min,
        min(flight_date) as first_flight_date,
        max(flight_date) as last_flight_date
    from {{ ref('fct_flights') }}
    group by origin, dest
)

select
    routes.origin,
    routes.dest,
    airports.airport_name as dest_name,
    routes.distance_mi,
    routes.airlines,
    routes.scheduled_flights,
    routes.cancelled_flights,
    routes.diverted_flights,
    routes.arrived_flights,
    routes.on_time_arrivals,
    round(100.0 * routes.on_time_arrivals / routes.scheduled_flights, 2)::double as arr_on_time_pct,
    round(100.0 * routes.cancelled_flights / routes.scheduled_flights, 2)::double as cancelled_pct,
    routes.median_air_time_min,
    routes.median_gate_to_gate_min,
    routes.median_speed_mph,
    routes.avg_dep_delay_min,
    routes.avg_arr_delay_min,
    routes.median_arr_delay_min,
    routes.p90_arr_delay_min,
    routes.first_flight_date,
    routes.last_flight_date
from routes
inner join {{ ref('dim_airport') }} as airports on routes.dest = airports.airport
order by routes.origin, routes.dest
