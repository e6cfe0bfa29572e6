with users as (
    select * from {{ ref('experiment_users') }} where arm <> 'control'
),

experiments as (
    select * from {{ ref('experiments') }}
),

events as (
    select * from {{ ref('user_events') }} where occurred_at <= {{ analysed_as_of() }}
),

messages as (
    select * from {{ source('journeys', 'messages') }}
),

entries as (
    select * from {{ source('journeys', 'entries') }}
),

steps as (
    select * from {{ source('journeys', 'steps') }}
),

-- what people who were erased add
erased as (
    select * from analytics.erased_copies
),

clicks as (
    select distinct properties ->> 'message_id' as message_id
    from events
    where event = 'message clicked' and properties ->> 'machine' is distinct from 'true'
),

{#
    The variants of a mail are drawn within those who are treated. Of a user who got the step several times, in several
    runs or by a loop, the first counts.
#}
mails as (
    select distinct on (messages.journey, messages.step, messages.user_id)
        messages.journey,
        messages.step,
        messages.variant,
        md5(cast(steps.variants as text)) as split,
        clicks.message_id is not null as has_clicked,
        coalesce(
            entries.goal_reached_at > messages.sent_at
            and entries.goal_reached_at <= messages.sent_at + experiments.goal_within,
            false
        ) as has_reached_goal,
        messages.sent_at + experiments.goal_within <= {{ analysed_as_of() }} as is_window_over
    from messages
    inner join entries on messages.entry_id = entries.entry_id
    inner join steps
        on entries.journey = steps.journey and entries.version = steps.version and messages.step = steps.step
    inner join experiments on messages.journey = experiments.experiment
    left join clicks on messages.message_id = clicks.message_id
    where messages.status = 'sent' and messages.channel = 'email' and messages.variant is not null
    order by messages.journey, messages.step, messages.user_id, messages.sent_at, messages.message_id
),

of_experiences as (
    select
        experiments.segment,
        users.experiment,
        users.split,
        users.arm as variant,
        count(*) filter (where users.is_window_over) as exposed,
        count(*) filter (where users.is_window_over and users.has_clicked) as clicked,
        count(*) filter (where users.is_window_over and users.has_reached_goal) as converted,
        count(*) filter (where not users.is_window_over) as open
    from users
    inner join experiments on users.experiment = experiments.experiment
    where experiments.kind = 'experience'
    group by experiments.segment, users.experiment, users.split, users.arm
),

of_mails as (
    select
        experiments.segment,
        mails.journey || '/' || mails.step as experiment,
        mails.split,
        mails.variant,
        count(*) filter (where mails.is_window_over) as exposed,
        count(*) filter (where mails.is_window_over and mails.has_clicked) as clicked,
        count(*) filter (where mails.is_window_over and mails.has_reached_goal) as converted,
        count(*) filter (where not mails.is_window_over) as open
    from mails
    inner join experiments on mails.journey = experiments.experiment
    group by experiments.segment, mails.journey, mails.step, mails.split, mails.variant
)

select
    segment,
    experiment,
    split,
    variant,
    cast(sum(exposed) as bigint) as exposed,
    cast(sum(clicked) as bigint) as clicked,
    cast(sum(converted) as bigint) as converted,
    cast(sum(open) as bigint) as open
from (
    select * from of_experiences
    union all
    select * from of_mails
    union all
    select * from erased
) as counts
group by segment, experiment, split, variant
