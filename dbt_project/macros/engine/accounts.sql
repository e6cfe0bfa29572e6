{#
    Features of accounts take two steps. `account_users`, a table of features, keeps the summands of each account and
    user. `account_features` adds them up for the accounts that a tick changes.
#}

{# The features that are kept per user of an account, from which the features of the account are computed. #}
{% macro features_of_each_user(model_name) -%}
    {%- set features = {} -%}
    {%- for column in described_columns(model_name) if not of_kind(column.config.meta, 'generated') -%}
        {%- set meta = (of_kind(column.config.meta, 'of_each_user') or same)(column.config.meta) -%}
        {%- if meta -%} {%- do features.update({column.name: meta}) -%} {%- endif -%}
    {%- endfor -%}
    {{ return(features) }}
{%- endmacro %}

{% macro totals(model_name) -%}
    {%- for column in described_columns(model_name) if not of_kind(column.config.meta, 'generated') -%}
    {{ of_kind(column.config.meta, 'total')(column.name, column.config.meta) }} as {{ column.name }}
    {%- if not loop.last %},
    {% endif -%}
    {%- endfor -%}
{%- endmacro %}

{% materialization totals, adapter='postgres' %}
    {%- set target = this.incorporate(type='table') -%}
    {%- set key = config.require('key') -%}
    {%- set definition = local_md5(sql ~ tojson(generated_columns(model.name))) -%}

    {%- do begin_model() -%}

    {%- set progress = progress_of(model.name, target, definition, ['account_users', 'user_features']) -%}
    {% if progress.mode == 'rebuild' %}
        {%- do rebuild_table(target, model.name, key, sql, progress, definition) -%}
    {% elif progress.mode == 'advance' %}
        {%- do run_query(recomputed_totals(sql, progress)) -%}
        {%- set scope = 'live.account_id in (select account_id from changed_accounts)' -%}
        {%- do reconcile(target, model.name, key, types_of('pg_temp.fresh').keys() | list, scope, progress.tick_id) -%}
        {%- do run_query(save_state(model.name, progress, definition)) -%}
    {% endif %}
    {%- do evaluate_together(model.name, progress) -%}
    {{ return(committed(target)) }}
{% endmaterialization %}

{# `offset 0` forces an index look-up per account; otherwise all accounts are joined with the changed ones. #}
{% macro recomputed_totals(sql, progress) -%}
    create temporary table changed_accounts (account_id) on commit drop as
    {{ changed_keys(['account_users'], progress.last.tick_id, progress.tick_id) }}
    union
    select account_users.account_id
    from ({{ changed_keys(['user_features'], progress.last.tick_id, progress.tick_id) }}) as users
    inner join features.account_users on users.key = account_users.user_id;

    analyze changed_accounts;

    create temporary table fresh on commit drop as
    select totals.*
    from changed_accounts
    cross join lateral (
        select * from ({{ sql }}) as totals where totals.account_id = changed_accounts.account_id offset 0
    ) as totals
{%- endmacro %}
