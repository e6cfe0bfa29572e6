{#
    latest_trait: <trait>. Its value in the latest identify call that has it; `as` as with `latest`. Of accounts: in the
    latest group call that has it.
#}
{% macro latest_trait__value(meta, of, as_of) -%}
    {{ value_by_order(path_of('events.properties', meta.latest_trait), meta, of, latest_first()) }}
{%- endmacro %}

{% macro latest_trait__empty(meta) -%} {{ latest__empty(meta) }} {%- endmacro %}

{% macro latest_trait__about(meta) -%} {{ return({'type': 'identify'}) }} {%- endmacro %}

{% macro latest_trait__of_each_user(meta) -%} {{ return({'latest_group_trait': meta.latest_trait}) }} {%- endmacro %}

{% macro latest_trait__total(name, meta) -%}
    {{ as_type('cast((max(account_users.' ~ name ~ ' collate "C"))[4] as jsonb)', meta.as) }}
{%- endmacro %}

{# Kept of each user of an account: time, source and id of the latest group call with the trait, and its value. #}
{% macro latest_group_trait__value(meta, of, as_of) -%}
    {%- set value = path_of('events.properties', meta.latest_group_trait) -%}
    max(array[
        to_char(events.occurred_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
        events.source,
        events.message_id,
        cast({{ value }} as text)
    ] collate "C") filter (where {{ of }} and {{ value }} #>> '{}' is not null)
{%- endmacro %}

{% macro latest_group_trait__empty(meta) -%} cast(null as text []) {%- endmacro %}

{% macro latest_group_trait__about(meta) -%} {{ return({'type': 'group'}) }} {%- endmacro %}
