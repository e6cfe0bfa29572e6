{#
    Features of accounts, in two steps: `account_users` keeps for each account and user what can be added up, by the
    engine of features; `account_features` adds it up for the accounts that a tick touched.
#}

{# What is kept of each user of an account, so that these features of accounts can be added up from it. #}
{% macro features_of_each_user(model_name) -%}
    {%- set features = {} -%}
    {%- for column in described_columns(model_name) if 'members_where' not in column.config.meta -%}
        {%- set meta = dict(column.config.meta) -%}
        {%- if meta.pop('distinct_users', none) -%} {%- do meta.update({'count_of': 'any'}) -%} {%- endif -%}
        {%- do features.update({column.name: meta}) -%}
    {%- endfor -%}
    {{ return(features) }}
{%- endmacro %}

{% macro totals(model_name) -%}
    {%- set totals = [] -%}
    {%- for column in described_columns(model_name) -%}
        {%- set meta = column.config.meta -%}
        {%- set each = 'account_users.' ~ column.name -%}
        {%- set total -%}
            {%- if 'distinct_users' in meta -%} count(*) filter (where {{ each }} > 0)
            {%- elif 'members_where' in meta -%} count(*) filter (
                where account_users.joined_at is not null
                {%- if meta.members_where != 'any' %} and user_features.{{ meta.members_where }}{% endif %})
            {%- elif 'count_of' in meta -%} sum({{ each }})::bigint
            {%- elif 'sum_of' in meta -%} sum({{ each }})
            {%- elif 'ever' in meta -%} bool_or({{ each }})
            {%- elif 'first_at' in meta -%} min({{ each }})
            {%- elif 'last_at' in meta -%} max({{ each }})
            {%- else -%} {{ exceptions.raise_compiler_error("feature '" ~ column.name ~ "' of accounts cannot be added up from their users") }}
            {%- endif -%}
        {%- endset -%}
        {%- do totals.append(total ~ ' as ' ~ column.name) -%}
    {%- endfor -%}
    {{ totals | join(',\n    ') }}
{%- endmacro %}

{% materialization totals, adapter='postgres' %}
    {%- set target = this.incorporate(type='table') -%}
    {%- set key = config.require('key') -%}
    {%- set definition = local_md5(sql) -%}

    {%- do run_pre_hooks() -%}

    {%- set progress = progress_of(model.name, target, definition) -%}
    {% if progress.mode == 'rebuild' or (progress.mode == 'advance' and are_all_touched(['account_users', 'user_features'], progress.last.tick_id)) %}
        {%- do rebuild_table(target, model.name, key, sql, progress, definition) -%}
    {% elif progress.mode == 'advance' %}
        {%- do run_query("create temporary table touched_accounts (account_id) on commit drop as " ~ touched_accounts(progress)) -%}
        {%- do run_query("analyze touched_accounts") -%}
        {#- `offset 0`: account by account, by an index, not all of them to be joined with some. -#}
        {%- do run_query("
            create temporary table fresh on commit drop as
            select totals.* from touched_accounts cross join lateral (
                select * from (" ~ sql ~ ") as totals where totals.account_id = touched_accounts.account_id offset 0
            ) as totals
        ") -%}
        {%- set scope = 'live.account_id in (select account_id from touched_accounts)' -%}
        {%- do reconcile(target, model.name, key, types_of('pg_temp.fresh').keys() | list, scope, progress.tick_id) -%}
        {%- do run_query(save_state(model.name, progress, definition)) -%}
    {% endif %}
    {{ return(committed(target)) }}
{% endmaterialization %}

{# Accounts of which a user's part, or a user, has changed. #}
{% macro touched_accounts(progress) -%}
    {{ touched_since(['account_users'], progress.last.tick_id, progress.tick_id) }}
    union
    select account_users.account_id
    from ({{ touched_since(['user_features'], progress.last.tick_id, progress.tick_id) }}) as touched
    inner join features.account_users on touched.key = account_users.user_id
{%- endmacro %}
