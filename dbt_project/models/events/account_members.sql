with grouped as (
    select *
    from {{ ref('identified_events') }}
    where type = 'group' and account_id is not null and occurred_at <= {{ as_of() }}
),

latest as (
    select distinct on (user_id) user_id, account_id
    from grouped
    order by user_id, occurred_at desc, source collate "C" desc, message_id collate "C" desc
)

select
    grouped.user_id,
    grouped.account_id,
    min(grouped.occurred_at) as joined_at,
    grouped.account_id = latest.account_id as is_current
from grouped
inner join latest on grouped.user_id = latest.user_id
group by grouped.user_id, grouped.account_id, latest.account_id
