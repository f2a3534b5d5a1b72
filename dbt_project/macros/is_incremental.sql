{#
  True when a `delta` model of strategy append, merge or replace_where adds to the rows that its table has: then the
  model may select only what is new, and `this` is the table as the build starts from it. False in the first
  build, in a full refresh and after any change of the model's code or of what it reads (all rows are then needed).
#}
{% macro is_incremental() %}
  {%- if not execute -%}
    {{ return(false) }}
  {%- endif -%}
  {%- if model.resource_type != 'model' or model.config.materialized != 'delta' -%}
    {{ return(false) }}
  {%- endif -%}
  {%- set found = run_query("select incremental from lakehouse_build.models where model = '" ~ this.identifier ~ "'") -%}
  {{ return(found is not none and found.rows | length > 0 and found.rows[0][0]) }}
{% endmacro %}
