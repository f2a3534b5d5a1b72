-- Every aircraft of the register, and a member for each tail number that flights name and the register lacks.
with registered as (
    select * from {{ ref('stg_nyc__planes') }} where is_current
),

flown as (
    select distinct tailnum from {{ ref('stg_nyc__flights') }} where tailnum is not null
)

select
    coalesce(registered.tailnum, flown.tailnum) as tailnum,
    registered.built_year,
    registered.plane_type,
    registered.manufacturer,
    registered.model,
    registered.engine_count,
    registered.engine_type,
    registered.seat_count,
    registered.cruise_speed_mph,
    registered.tailnum is not null as is_known,
    registered.valid_from_utc
from registered
full join flown on registered.tailnum = flown.tailnum
order by tailnum
