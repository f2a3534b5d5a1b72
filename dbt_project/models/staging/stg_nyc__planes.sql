select
    tailnum,
    year as built_year,
    type as plane_type,
    manufacturer,
    model,
    engines as engine_count,
    engine as engine_type,
    seats as seat_count,
    speed as cruise_speed_mph,
    valid_from_utc at time zone 'UTC' as valid_from_utc,
    valid_to_utc at time zone 'UTC' as valid_to_utc,
    is_current
from {{ source('silver', 'planes') }}
