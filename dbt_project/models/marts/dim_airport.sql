-- Every airport of the source, and a member for each that flights name and the source lacks: so each flight
-- finds its airports, and a join never loses a row.
with known as (
    select * from {{ ref('stg_nyc__airports') }} where is_current
),

served as (
    select dest as airport, max(dest_tzone) as tzone from {{ ref('stg_nyc__flights') }} group by dest
    union
    select distinct origin as airport, null as tzone from {{ ref('stg_nyc__flights') }}
),

destinations as (
    select airport, max(tzone) as tzone from served group by airport
)

select
    coalesce(known.airport, destinations.airport) as airport,
    coalesce(known.airport_name, 'unknown') as airport_name,
    known.latitude_deg,
    known.longitude_deg,
    known.altitude_ft,
    known.utc_offset_hours,
    known.dst_rule,
    -- the directory that flights' instants were worked out with is finer than the source's own zones
    coalesce(destinations.tzone, known.tzone) as tzone,
    known.airport is not null as is_known,
    destinations.airport is not null as is_served,
    known.valid_from_utc
from known
full join destinations on known.airport = destinations.airport
order by airport
