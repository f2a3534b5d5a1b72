select
    weather_id,
    origin,
    observed_at_utc,
    observed_date,
    observed_hour,
    temp_f,
    dew_point_f,
    humidity_pct,
    wind_dir_deg,
    wind_speed_mph,
    wind_gust_mph,
    precip_in,
    pressure_hpa,
    visibility_mi,
    case
        when temp_f is null then 'not observed'
        when temp_f <= 32 then 'freezing: up to 32 F'
        when temp_f < 60 then 'cool: 32 to 60 F'
        when temp_f < 85 then 'warm: 60 to 85 F'
        else 'hot: 85 F and more'
    end as temperature_band,
    case
        when wind_speed_mph is null then 'not observed'
        when wind_speed_mph < 5 then 'calm: below 5 mph'
        when wind_speed_mph < 15 then 'breeze: 5 to 15 mph'
        when wind_speed_mph < 25 then 'windy: 15 to 25 mph'
        else 'strong: 25 mph and more'
    end as wind_band,
    -- the weather service's words for rain per hour: light up to 0.10 in, moderate up to 0.30 in
    case
        when precip_in is null then 'not observed'
        when precip_in = 0 then 'dry'
        when precip_in <= 0.10 then 'light: up to 0.10 in/h'
        when precip_in <= 0.30 then 'moderate: up to 0.30 in/h'
        else 'heavy: over 0.30 in/h'
    end as precipitation_band,
    case
        when visibility_mi is null then 'not observed'
        when visibility_mi < 1 then 'very poor: below 1 mi'
        when visibility_mi < 3 then 'poor: 1 to 3 mi'
        when visibility_mi < 10 then 'fair: 3 to 10 mi'
        else 'clear: 10 mi'
    end as visibility_band
from {{ ref('stg_nyc__weather') }}
order by observed_at_utc, origin
