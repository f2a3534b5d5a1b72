select
    faa as airport,
    name as airport_name,
    lat as latitude_deg,
    lon as longitude_deg,
    alt as altitude_ft,
    tz as utc_offset_hours,
    dst as dst_rule,
    tzone,
    valid_from_utc at time zone 'UTC' as valid_from_utc,
    valid_to_utc at time zone 'UTC' as valid_to_utc,
    is_current
from {{ source('silver', 'airports') }}
