with flown as (
    select distinct carrier from {{ ref('stg_nyc__flights') }}
)

select
    coalesce(airlines.carrier, flown.carrier) as carrier,
    coalesce(airlines.airline_name, 'unknown') as airline_name,
    airlines.carrier is not null as is_known
from {{ ref('stg_nyc__airlines') }} as airlines
full join flown on airlines.carrier = flown.carrier
order by carrier
