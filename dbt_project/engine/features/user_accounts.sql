{{ config(materialized='features', key=['user_id'], recompute_with=['identity_links']) }}

-- depends_on: {{ ref('identity_links') }}
with events as not materialized (
    select
        user_id,
        type,
        event,
        occurred_at,
        source,
        message_id,
        load_id,
        jsonb_build_object('account_id', account_id) as properties,
        context,
        is_derived
    from {{ ref('user_events') }}
    where type = 'group' and account_id is not null
        {%- if has_visitors() %} and not upnext.is_visitor(user_id) {%- endif %}
)

{{ features_of_events() }}
