with user_events as (
    select * from {{ ref('user_events') }} where occurred_at <= {{ as_of() }}
),

account_members as (
    select * from {{ ref('account_members') }}
),

user_features as (
    select * from {{ ref('user_features') }}
),

{# An event that names no account counts for the one that its user belongs to. #}
events as (
    select
        coalesce(user_events.account_id, account_members.account_id) as account_id,
        user_events.user_id,
        user_events.event,
        user_events.occurred_at,
        user_events.source,
        user_events.message_id,
        user_events.is_derived
    from user_events
    left join account_members on user_events.user_id = account_members.user_id and account_members.is_current
),

members as (
    select
        account_members.account_id,
        {{ member_columns('account_features') }}
    from account_members
    inner join user_features on account_members.user_id = user_features.user_id
    group by account_members.account_id
)

select
    events.account_id,
    {{ feature_columns('account_features') }}
from events
left join members on events.account_id = members.account_id
where events.account_id is not null
group by events.account_id
