"""The SQL of the dispatch, each statement by its name."""

import sqlalchemy as sa

RECORD_DEFINITION = sa.text("""
    insert into journeys.definitions (journey, version, definition, first_dispatched_at)
    values (:journey, :version, cast(:definition as jsonb), :as_of)
    on conflict (journey, version) do nothing
""")

# What a journey's key in the graph points to.
CREATE_VIEW = """
    create view journeys.{journey} as
    select entry_id, user_id, entered_at, status, reason, ended_at from journeys.entries where journey = '{journey}'
"""

# A consent event acts from the moment it is loaded, whatever its occurred_at.
RECORD_CONSENT = sa.text("""
    insert into journeys.suppressions (user_id, channel, reason, since)
    select
        messages.user_id,
        messages.channel,
        min(case events.event when 'message bounced' then 'bounced' else 'unsubscribed' end),
        min(events.occurred_at)
    from raw.events
    inner join journeys.messages on messages.message_id = events.properties ->> 'message_id'
    where events.event in ('message unsubscribed', 'message bounced')
    group by messages.user_id, messages.channel
    on conflict (user_id, channel) do nothing
""")

# Whoever held an expired lease may or may not have handed the message over.
EXPIRE_LEASES = sa.text("""
    update journeys.messages
    set status = 'unknown', reason = 'the sender went away while sending'
    where journey = :journey and status = 'sending' and lease_until < clock_timestamp()
""")

# One row per published entry into the segment since the last dispatch. At a journey's first one, whoever is a member
# enters now, or nobody: the past is not made up for.
ENROL = sa.text("""
    with entered as (
        select changes.change_id, changes.user_id, changes.as_of
        from segments.published_changes as changes
        where
            changes.segment = :segment
            and changes.change = 'entered'
            and changes.tick_id > :consumed_tick
            and changes.tick_id <= :published_tick
        union all
        select latest.change_id, latest.user_id, ticks.as_of
        from (
            select distinct on (user_id) user_id, change_id, change
            from segments.published_changes
            where segment = :segment and tick_id <= :published_tick
            order by user_id, change_id desc
        ) as latest
        inner join segments.ticks on ticks.tick_id = :published_tick
        where latest.change = 'entered' and cast(:is_enrolling_members as boolean)
    ),

    eligible as (
        select *
        from (select *, row_number() over (partition by user_id order by change_id) as nth from entered) as numbered
        where
            cast(:is_reentry_allowed as boolean)
            or (
                nth = 1
                and not exists (
                    select from journeys.entries
                    where entries.journey = :journey and entries.user_id = numbered.user_id
                )
            )
    ),

    enrolled as (
        insert into journeys.entries
            (journey, version, user_id, change_id, entered_at, status, reason, next_step, next_due_at)
        select
            :journey,
            :version,
            user_id,
            change_id,
            as_of,
            case when is_held_out then 'held_out' else 'active' end,
            case when is_held_out then 'holdout of the journey' end,
            case when not is_held_out then 1 end,
            case when not is_held_out then
                as_of + cast(cast(:definition as jsonb) -> 'steps' -> 0 ->> 'after' as interval)
            end
        from eligible
        cross join lateral (select upnext.bucket('journey:' || :journey, user_id) < :holdout as is_held_out) as draw
        order by change_id
        on conflict (journey, change_id) do nothing
        returning status
    )

    select status, count(*) as entries from enrolled group by status
""")

CONVERT = sa.text("""
    update journeys.entries
    set status = 'converted', reason = reached.event, ended_at = reached.occurred_at,
        next_step = null, next_due_at = null
    from (
        select entries.entry_id, goal.event, goal.occurred_at
        from journeys.entries
        inner join journeys.definitions
            on definitions.journey = entries.journey and definitions.version = entries.version
        cross join lateral (
            select events.event, events.occurred_at
            from events.user_events as events
            where
                events.user_id = entries.user_id
                and events.event = any(
                    array(select jsonb_array_elements_text(definitions.definition -> 'goal' -> 'any_of'))
                )
                and events.occurred_at > entries.entered_at
                and events.occurred_at
                    <= entries.entered_at + cast(definitions.definition -> 'goal' ->> 'within' as interval)
                and events.occurred_at <= :as_of
            order by events.occurred_at
            limit 1
        ) as goal
        where entries.journey = :journey and entries.status in ('active', 'completed')
    ) as reached
    where entries.entry_id = reached.entry_id
""")

LEAVE = sa.text("""
    update journeys.entries
    set status = 'left', reason = 'left the segment', ended_at = changes.as_of, next_step = null, next_due_at = null
    from (
        select segment, user_id, change_id, as_of from segments.published_changes where change = 'exited'
    ) as changes
    where
        entries.journey = :journey
        and entries.status = 'active'
        and changes.segment = :segment
        and changes.user_id = entries.user_id
        and changes.change_id > entries.change_id
""")

# All steps that are due become messages, and the entry moves on, in one statement.
ADVANCE = sa.text("""
    with due as (
        select
            entries.entry_id,
            entries.user_id,
            entries.entered_at,
            steps.step,
            entries.entered_at + cast(steps.step ->> 'after' as interval) as due_at
        from journeys.entries
        inner join journeys.definitions
            on definitions.journey = entries.journey and definitions.version = entries.version
        cross join lateral
            jsonb_array_elements(definitions.definition -> 'steps') with ordinality as steps (step, position)
        where
            entries.journey = :journey
            and entries.status = 'active'
            and entries.next_due_at <= :as_of
            and steps.position >= entries.next_step
            and entries.entered_at + cast(steps.step ->> 'after' as interval) <= :as_of
    ),

    moved as (
        update journeys.entries
        set next_step = next_step + passed.steps,
            next_due_at = entries.entered_at + cast(
                definitions.definition -> 'steps' -> cast(entries.next_step + passed.steps - 1 as integer)
                ->> 'after' as interval
            )
        from journeys.definitions, (select entry_id, cast(count(*) as integer) as steps from due group by 1) as passed
        where
            definitions.journey = entries.journey
            and definitions.version = entries.version
            and passed.entry_id = entries.entry_id
    )

    insert into journeys.messages (message_id, entry_id, journey, step, channel, user_id, due_at, status, reason)
    select
        cast(cast(md5(
            concat_ws('/', cast(:journey as text), user_id, extract(epoch from entered_at), step ->> 'name')
        ) as uuid) as text),
        entry_id,
        :journey,
        step ->> 'name',
        step ->> 'channel',
        user_id,
        due_at,
        :status,
        case when :status = 'skipped' then 'replay' end
    from due
    order by due_at, user_id
    on conflict do nothing
""")

# A call to action needs no sender: it stands from now on, for as long as its step says.
SHOW_CTAS = sa.text("""
    update journeys.messages
    set status = 'sent', sent_at = :as_of, ends_at = :as_of + cast(steps.step ->> 'lasts' as interval)
    from journeys.entries, journeys.definitions,
        lateral jsonb_array_elements(definitions.definition -> 'steps') as steps (step)
    where
        messages.journey = :journey
        and messages.status = 'pending'
        and messages.channel = 'cta'
        and entries.entry_id = messages.entry_id
        and entries.status = 'active'
        and definitions.journey = entries.journey
        and definitions.version = entries.version
        and steps.step ->> 'name' = messages.step
""")

SKIP_ENDED = sa.text("""
    update journeys.messages
    set status = 'skipped', reason = entries.status
    from journeys.entries
    where
        messages.journey = :journey
        and messages.status = 'pending'
        and entries.entry_id = messages.entry_id
        and entries.status in ('converted', 'left', 'excluded')
""")

COMPLETE = sa.text("""
    update journeys.entries
    set status = 'completed', ended_at = :as_of
    where
        entries.journey = any(:journeys)
        and entries.status = 'active'
        and entries.next_due_at is null
        and not exists (
            select from journeys.messages
            where messages.entry_id = entries.entry_id and messages.status in ('pending', 'sending')
        )
""")

JOURNEYS_WITH_WORK = sa.text("""
    select journey from journeys.entries
    where journey = any(:journeys) and status = 'active' and next_due_at <= :now
    union
    select journey from journeys.messages
    where
        journey = any(:journeys)
        and status in ('pending', 'sending')
        and (lease_until is null or lease_until < clock_timestamp())
""")

HAS_PENDING = sa.text("""
    select 1 from journeys.messages
    where journey = any(:journeys) and status = 'pending' and (lease_until is null or lease_until < clock_timestamp())
    limit 1
""")

# One message for one sender: what must stop it is looked at while its row is locked.
CLAIM = sa.text("""
    with next as (
        select
            messages.message_id,
            messages.user_id,
            entries.status as entry_status,
            entries.entered_at,
            entries.journey,
            entries.version
        from journeys.messages
        inner join journeys.entries on entries.entry_id = messages.entry_id
        where
            messages.journey = any(:journeys)
            and messages.status = 'pending'
            and messages.channel = 'email'
            and (messages.lease_until is null or messages.lease_until < clock_timestamp())
        order by messages.due_at, messages.message_id
        limit 1
        for update of messages skip locked
    ),

    judged as (
        select
            next.*,
            definitions.definition,
            case
                when next.entry_status in ('converted', 'left', 'excluded') then next.entry_status
                when suppressions.user_id is not null then suppressions.reason
                when exists (
                    select from journeys.messages as earlier
                    inner join raw.events on events.properties ->> 'message_id' = earlier.message_id
                    where
                        earlier.user_id = next.user_id
                        and earlier.channel = 'email'
                        and events.event in ('message unsubscribed', 'message bounced')
                ) then 'unsubscribed'
                when exists (
                    select from events.user_events as events
                    where
                        events.user_id = next.user_id
                        and definitions.definition -> 'goal' -> 'any_of' ? events.event
                        and events.occurred_at > next.entered_at
                        and events.occurred_at
                            <= next.entered_at + cast(definitions.definition -> 'goal' ->> 'within' as interval)
                        and events.occurred_at <= :as_of
                ) then 'converted'
            end as stopped_by
        from next
        inner join journeys.definitions
            on definitions.journey = next.journey and definitions.version = next.version
        left join journeys.suppressions
            on suppressions.user_id = next.user_id and suppressions.channel = 'email'
    )

    update journeys.messages
    set
        status = case when judged.stopped_by is null then 'sending' else 'skipped' end,
        reason = judged.stopped_by,
        fence = messages.fence + 1,
        lease_until = clock_timestamp() + interval '120 seconds'
    from judged
    where messages.message_id = judged.message_id
    returning
        messages.message_id,
        messages.user_id,
        messages.step,
        messages.status,
        messages.fence,
        messages.attempts,
        judged.definition,
        (
            select jsonb_object_agg(
                traits.key, traits.value
                order by events.occurred_at, events.source collate "C", events.message_id collate "C"
            )
            from events.user_events as events
            cross join lateral jsonb_each(events.properties) as traits
            where events.user_id = messages.user_id and events.type = 'identify' and events.occurred_at <= :as_of
        ) as traits,
        (
            select to_jsonb(user_features) from features.user_features
            where user_features.user_id = messages.user_id
        ) as features
""")

# Only the holder of the newest fence may write. A refusal counts as an attempt and waits for five minutes; where the
# server was not reached, the message was not tried.
RECORD_OUTCOME = sa.text("""
    update journeys.messages
    set
        status = :status,
        reason = :reason,
        sent_at = case when :status = 'sent' then cast(:as_of as timestamptz) end,
        attempts = attempts + cast(:is_attempt as integer),
        lease_until = case
            when :status = 'pending' and cast(:is_attempt as boolean) then clock_timestamp() + interval '5 minutes'
        end
    where message_id = :message_id and status = 'sending' and fence = :fence
""")
