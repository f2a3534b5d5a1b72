-- Each flight counts once for each of the four factors. Hours without an observation are a band of their own.
with flights as (
    select
        fct.origin,
        fct.is_cancelled,
        fct.dep_delay_min,
        coalesce(weather.temperature_band, 'not observed') as temperature,
        coalesce(weather.wind_band, 'not observed') as wind,
        coalesce(weather.precipitation_band, 'not observed') as precipitation,
        coalesce(weather.visibility_band, 'not observed') as visibility
    from {{ ref('fct_flights') }} as fct
    left join {{ ref('dim_weather_hour') }} as weather on fct.weather_id = weather.weather_id
),

by_factor as (
    unpivot flights on temperature, wind, precipitation, visibility into name factor value band
)

select
    origin,
    factor,
    band,
    count(*) as scheduled_flights,
    count(*) filter (where is_cancelled) as cancelled_flights,
    count(dep_delay_min) as departed_flights,
    count(*) filter (where dep_delay_min >= 15) as late_departures,
    round(100.0 * count(*) filter (where is_cancelled) / count(*), 2)::double as cancelled_pct,
    round(100.0 * count(*) filter (where dep_delay_min >= 15) / nullif(count(dep_delay_min), 0), 2)::double
        as late_departure_pct,
    avg(dep_delay_min) as avg_dep_delay_min,
    median(dep_delay_min) as median_dep_delay_min,
    quantile_cont(dep_delay_min, 0.9) as p90_dep_delay_min
from by_factor
group by origin, factor, band
order by origin, factor, band
