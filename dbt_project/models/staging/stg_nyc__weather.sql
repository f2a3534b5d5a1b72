select
    strftime(observed_at_utc at time zone 'UTC', '%Y%m%dT%H') || '-' || origin as weather_id,
    origin,
    observed_at_utc at time zone 'UTC' as observed_at_utc,
    observed_date,
    observed_hour,
    temp_f,
    dewp_f as dew_point_f,
    humid_pct as humidity_pct,
    wind_dir_deg,
    wind_speed_mph,
    wind_gust_mph,
    precip_in,
    pressure_hpa,
    visib_mi as visibility_mi
from {{ source('silver', 'weather') }}
