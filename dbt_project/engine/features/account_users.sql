{{ config(
    materialized='features', key=['account_id', 'user_id'], recompute_with=['identity_links', 'user_accounts'],
    totals='account_features', indexes=['(user_id)']
) }}

-- depends_on: {{ ref('identity_links') }}
with user_events as not materialized (
    select * from {{ ref('user_events') }}
),

user_accounts as not materialized (
    select user_id, account_id from {{ ref('user_accounts') }}
),

events as not materialized (
    -- An event that names no account counts for the one that its user belongs to.
    select
        coalesce(user_events.account_id, user_accounts.account_id) as account_id,
        user_events.user_id,
        user_events.type,
        user_events.event,
        user_events.occurred_at,
        user_events.source,
        user_events.message_id,
        user_events.load_id,
        user_events.properties,
        user_events.context,
        user_events.is_derived
    from user_events
    left join user_accounts on user_events.user_id = user_accounts.user_id
    where
        coalesce(user_events.account_id, user_accounts.account_id) is not null
        {%- if has_visitors() %} and not upnext.is_visitor(user_events.user_id) {%- endif %}
)

{{ features_of_events() }}
