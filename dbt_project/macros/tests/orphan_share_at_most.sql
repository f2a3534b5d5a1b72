{#
  References that lead nowhere are a fact of some data; their share growing is news. Returns the orphans, one row
  per value with the number of rows that name it, when their rows are more than `share` (0 to 1) of all rows that
  have a value; returns nothing otherwise.
#}
{% test orphan_share_at_most(model, column_name, to, field, share) %}
with orphans as (
    select child.{{ column_name }} as orphan, count(*) as row_count
    from {{ model }} as child
    where child.{{ column_name }} is not null
        and not exists (select 1 from {{ to }} as parent where parent.{{ field }} = child.{{ column_name }})
    group by child.{{ column_name }}
)

select orphan, row_count
from orphans
where (select sum(row_count) from orphans) > {{ share }} * (select count({{ column_name }}) from {{ model }})
order by row_count desc, orphan
{% endtest %}
