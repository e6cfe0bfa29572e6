{{ config(
    materialized='features', key=['account_id', 'user_id'], recompute_with=['identity_links', 'user_accounts'],
    totals='account_features', indexes=['(user_id)']
) }}

-- depends_on: {{ ref('identity_links') }}
with events as not materialized (
    select * from {{ ref('user_events') }}
),

user_accounts as not materialized (
    select user_id, account_id from {{ ref('user_accounts') }}
)

-- An event that names no account counts for the one that its user belongs to.
select
    coalesce(events.account_id, user_accounts.account_id) as account_id,
    events.user_id,
    events.type,
    events.event,
    events.occurred_at,
    events.source,
    events.message_id,
    events.load_id,
    events.properties,
    events.is_derived
from events
left join user_accounts on events.user_id = user_accounts.user_id
where coalesce(events.account_id, user_accounts.account_id) is not null
