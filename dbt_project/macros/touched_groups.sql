{#
  For models of strategy `replace_groups`. Which groups a build has to compute again is found before the model runs, from
  the files that differ between what its table was built from and what is read now (lakehouse/gold/changes.py).

  touched_groups()   the relation of those groups: one row each, the columns of group_key
  is_touched([...])  a condition: the row's group is one of them. Expressions for group_key's columns, in its order; they
                     are the columns themselves when left out, and have the types of touched_by's (cast them where they do not). Literal
                     bounds let DuckDB pass over files and row groups. A term of WHERE, beside others under AND; not under NOT.
  may_be_touched(c, utc_part=none)
                     a condition that every row of a touched group satisfies, and most others do not: column `c`, from which
                     group_key's first column is cut (`date_trunc('hour', at_utc) as hour`), is not before the least of them.
                     DuckDB passes over files by the bounds of plain columns alone, so `is_touched` by itself reads all.
                     The bound leaves room for clocks: the local day or hour of an instant may be later than the instant
                     reads in UTC, by less than a day (zones are up to 14 hours ahead, 16 in history). An instant cut by a
                     local clock and turned back is later only in hours that the clock goes through twice, up to three.
                     `utc_part`: the group's first column is `utc_trunc(utc_part, c)`, and so says touched_by. Then the bounds are exact, on
                     both sides: nothing but the files of the touched parts is opened.
#}
{% macro touched_groups() %}
  {{- return('lakehouse_build."touched ' ~ this.identifier ~ '"') -}}
{% endmacro %}

{% macro may_be_touched(column, utc_part=none) %}
  {%- if not execute -%}{{ return('true') }}{%- endif -%}
  {%- if utc_part -%}
    {%- set cut = utc_trunc(utc_part, column) | trim -%}
    {%- set told = [] -%}
    {%- for groups in model.config.touched_by.values() if groups is not string and groups[0] | trim == cut -%}{%- do told.append(cut) -%}{%- endfor -%}
    {%- if not told -%}
      {{ exceptions.raise_compiler_error(
        "may_be_touched('" ~ column ~ "', '" ~ utc_part ~ "'): touched_by has no table whose first expression is utc_trunc('" ~ utc_part ~ "', '" ~ column ~ "')"
      ) }}
    {%- endif -%}
  {%- endif -%}
  {%- set key = model.config.group_key -%}
  {%- set first = '"' ~ (key if key is string else key[0]) ~ '"' -%}
  {%- set least = 'min(' ~ first ~ ')' -%}
  {%- set found = run_query(
    'select typeof(any_value(' ~ first ~ ')), count(*) - count(' ~ first ~ ') from ' ~ touched_groups()
  ).rows[0] -%}
  {%- if found[0] not in ('DATE', 'TIMESTAMP', 'TIMESTAMP WITH TIME ZONE') -%}
    {{ exceptions.raise_compiler_error('may_be_touched(): the first column of group_key is ' ~ found[0] ~ ', not a date or an instant') }}
  {%- endif -%}
  {%- if utc_part -%}
    {%- set bounds = run_query(
      'select isfinite(' ~ least ~ ') and isfinite(max(' ~ first ~ ')), ' ~ least ~ '::varchar, '
      ~ '(max(' ~ first ~ ') + interval 1 ' ~ utc_part ~ ')::varchar from ' ~ touched_groups()
    ).rows[0] -%}
    {%- if found[1] or not bounds[0] -%}{{ return('true') }}{%- endif -%}
    {{ return(
      '(' ~ column ~ " >= '" ~ bounds[1] ~ "'::TIMESTAMP WITH TIME ZONE and " ~ column ~ " < '" ~ bounds[2] ~ "'::TIMESTAMP WITH TIME ZONE)"
    ) }}
  {%- endif -%}
  {%- set bounds = run_query(
    'select isfinite(' ~ least ~ '), (' ~ least ~ ' - interval 1 day)::' ~ found[0] ~ '::varchar, '
    ~ '(' ~ least ~ ' - interval 3 hours)::varchar from ' ~ touched_groups()
  ).rows[0] -%}
  {#- a null has no bounds, and its rows belong to a group, too; nor has infinity -#}
  {%- if found[1] or not bounds[0] -%}{{ return('true') }}{%- endif -%}
  {%- set a_day = "'" ~ bounds[1] ~ "'::" ~ found[0] -%}
  {%- if found[0] != 'TIMESTAMP WITH TIME ZONE' -%}{{ return('(' ~ column ~ ' >= ' ~ a_day ~ ')') }}{%- endif -%}
  {#- only of an instant is an instant cut by a clock that it is turned back by; DuckDB settles this case before it reads -#}
  {{ return(
    '(' ~ column ~ ' >= case typeof(' ~ column ~ ") when 'TIMESTAMP WITH TIME ZONE' then '" ~ bounds[2] ~ "'::" ~ found[0]
    ~ ' else ' ~ a_day ~ ' end)'
  ) }}
{% endmacro %}

{% macro is_touched(expressions=none) %}
  {%- if not execute -%}{{ return('true') }}{%- endif -%}
  {%- set key = model.config.group_key -%}
  {%- set key = [key] if key is string else key -%}
  {%- set expressions = expressions or key -%}
  {#- names of their own: within the subquery `day` would be the group's, not the row's -#}
  {%- set pairs = [] -%}
  {%- set names = [] -%}
  {%- set renamed = [] -%}
  {%- for column in key -%}
    {%- do names.append('__touched_' ~ loop.index) -%}
    {%- do renamed.append('"' ~ column ~ '" as __touched_' ~ loop.index) -%}
    {%- do pairs.append('__touched_' ~ loop.index ~ ' is not distinct from (' ~ expressions[loop.index0] ~ ')') -%}
  {%- endfor -%}
  {%- set groups = '(select ' ~ renamed | join(', ') ~ ' from ' ~ touched_groups() ~ ')' -%}
  {%- set condition = 'exists (select 1 from ' ~ groups ~ ' where ' ~ pairs | join(' and ') ~ ')' -%}
  {%- set first = '"' ~ key[0] ~ '"' -%}
  {%- set found = run_query(
    'select typeof(any_value(' ~ first ~ ')), count(distinct ' ~ first ~ '), count(*) - count(' ~ first ~ '), '
    ~ 'min(' ~ first ~ ')::varchar, max(' ~ first ~ ')::varchar from ' ~ touched_groups()
  ).rows[0] -%}
  {#- a null, a text (its order is the collation's) or a fraction has no literal bounds -#}
  {%- if found[2] or not found[1] or found[0] not in ('DATE', 'TIMESTAMP', 'TIMESTAMP WITH TIME ZONE', 'INTEGER', 'BIGINT', 'SMALLINT') -%}
    {{ return(condition) }}
  {%- endif -%}
  {%- if found[1] > 400 -%}
    {%- set bounds = ["'" ~ found[3] ~ "'::" ~ found[0], "'" ~ found[4] ~ "'::" ~ found[0]] -%}
    {{ return('((' ~ expressions[0] ~ ') between ' ~ bounds | join(' and ') ~ ' and ' ~ condition ~ ')') }}
  {%- endif -%}
  {%- set literals = [] -%}
  {%- for row in run_query('select distinct ' ~ first ~ '::varchar from ' ~ touched_groups() ~ ' order by 1').rows -%}
    {%- do literals.append("'" ~ row[0] ~ "'::" ~ found[0]) -%}
  {%- endfor -%}
  {%- set among = '(' ~ expressions[0] ~ ') in (' ~ literals | join(', ') ~ ')' -%}
  {#- DuckDB passes over files and row groups by what IN says of a column, but applies it to whole rows. list_contains it applies as it
      decodes: the other columns are read only where a row is wanted (a quarter less, 110 days of 10,900). It goes through its list for
      each value, or for each entry of the column's dictionary, which a column of dates has. -#}
  {%- if found[0] == 'DATE' and modules.re.fullmatch('[\\w."]+', expressions[0] | trim) -%}
    {%- set among = among ~ ' and list_contains([' ~ literals | join(', ') ~ '], ' ~ expressions[0] ~ ')' -%}
  {%- endif -%}
  {#- Where the literals are the whole key they say it all: to ask for the groups once more took as long again. Else by whole rows, in
      which nulls are equal: a quarter of what the subquery takes. -#}
  {%- set whole = 'row(' ~ expressions | join(', ') ~ ') in (select row(' ~ names | join(', ') ~ ') from ' ~ groups ~ ')' -%}
  {{ return('(' ~ among ~ ')' if key | length == 1 else '(' ~ among ~ ' and ' ~ whole ~ ')') }}
{% endmacro %}
