-- Whole years, so that a calendar has no holes where nothing was scheduled.
with bounds as (
    select
        date_trunc('year', min(flight_date)) as first_day,
        date_trunc('year', max(flight_date)) + interval 1 year - interval 1 day as last_day
    from {{ ref('stg_nyc__flights') }}
),

days as (
    select unnest(generate_series(first_day, last_day, interval 1 day))::date as date_day
    from bounds
    where first_day is not null
)

select
    date_day,
    year(date_day)::integer as year_number,
    quarter(date_day)::integer as quarter_number,
    month(date_day)::integer as month_number,
    monthname(date_day) as month_name,
    isodow(date_day)::integer as weekday_number,
    dayname(date_day) as weekday_name,
    isodow(date_day) >= 6 as is_weekend,
    (
        epoch((date_day + 1)::timestamp at time zone 'America/New_York')
        - epoch(date_day::timestamp at time zone 'America/New_York')
    )::integer // 3600 as local_hours
from days
order by date_day
