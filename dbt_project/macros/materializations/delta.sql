{#
  delta: a model as a Delta table of the lake.

  config:
    strategy       overwrite (default) | append | merge | replace_where
    unique_key     merge: column or list of columns that identify a row
    replace_where  replace_where: SQL predicate over the model's columns; `new_rows` names the rows just computed

  The rows are written once, as Parquet files in the table's folder, and adopted by one commit. The relation that
  later models and tests read is a view over exactly the committed version. What is allowed in `config` is checked
  when the project is loaded, in lakehouse/gold/project.py.
#}
{% materialization delta, adapter='duckdb', supported_languages=['sql'] %}
  {%- set target_relation = this.incorporate(type='view') -%}
  {%- set sql = compiled_code -%}

  {{ run_hooks(pre_hooks) }}

  {%- set contract = config.get('contract') -%}
  {%- if contract and contract.enforced -%}
    {#- dbt's own comparison and message: names and types, before anything is written -#}
    {{ get_assert_columns_equivalent(sql) }}
    {%- set sql = get_select_subquery(sql) -%}
  {%- endif -%}

  {%- set request = {'model': this.identifier, 'sql': sql} -%}
  {%- do adapter.store_relation('lakehouse_delta', target_relation, [], '', 'delta', request) -%}
  {%- do store_raw_result('main', message=request['message'], code='DELTA', rows_affected=request['rows']) -%}

  {{ run_hooks(post_hooks) }}

  {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}
