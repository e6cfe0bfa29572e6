with events as (
    select * from {{ ref('user_events') }} where occurred_at <= {{ analysed_as_of() }}
),

entries as (
    select * from {{ source('journeys', 'entries') }}
),

messages as (
    select * from {{ source('journeys', 'messages') }}
),

steps as (
    select distinct journey, step
    from {{ source('journeys', 'steps') }}
    where kind in ('email', 'webhook', 'cta')
),

-- what people who were erased add
erased as (
    select * from analytics.erased_steps
),

entered as (
    select journey, count(*) as entered
    from entries
    where arm = 'treated'
    group by journey
),

reactions as (
    select
        properties ->> 'message_id' as message_id,
        bool_or(event = 'message opened') as is_opened,
        bool_or(event = 'message clicked') as is_clicked
    from events
    where event in ('message opened', 'message clicked') and properties ->> 'machine' is distinct from 'true'
    group by properties ->> 'message_id'
),

sent as (
    select
        messages.journey,
        messages.step,
        count(*) as sent,
        count(*) filter (where reactions.is_opened) as opened,
        count(*) filter (where reactions.is_clicked) as clicked,
        count(*) filter (where entries.goal_reached_at >= messages.sent_at) as converted
    from messages
    inner join entries on messages.entry_id = entries.entry_id
    left join reactions on messages.message_id = reactions.message_id
    where messages.status = 'sent'
    group by messages.journey, messages.step
)

select
    steps.journey,
    steps.step,
    coalesce(entered.entered, 0) + coalesce(erased.entered, 0) as entered,
    coalesce(sent.sent, 0) + coalesce(erased.sent, 0) as sent,
    coalesce(sent.opened, 0) + coalesce(erased.opened, 0) as opened,
    coalesce(sent.clicked, 0) + coalesce(erased.clicked, 0) as clicked,
    coalesce(sent.converted, 0) + coalesce(erased.converted, 0) as converted
from steps
left join entered on steps.journey = entered.journey
left join sent on steps.journey = sent.journey and steps.step = sent.step
left join erased on steps.journey = erased.journey and steps.step = erased.step
