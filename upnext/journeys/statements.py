"""The SQL of the dispatch, each statement by its name: first how people are moved, then the outbox."""

import sqlalchemy as sa

from upnext.ticks.offsets import MERGED_SINCE

RECORD_DEFINITION = sa.text("""
    insert into journeys.definitions (journey, version, definition, first_dispatched_at)
    values (:journey, :version, cast(:definition as jsonb), :as_of)
    on conflict (journey, version) do nothing
""")

# Definitions of before the steps had a table of their own have none yet.
DEFINITIONS_WITHOUT_STEPS = sa.text("""
    select version, definition from journeys.definitions
    where journey = :journey and not exists (
        select from journeys.steps
        where steps.journey = definitions.journey and steps.version = definitions.version
    )
""")

RECORD_STEP = sa.text("""
    insert into journeys.steps
        (journey, version, step, position, kind, next, otherwise, after, wait, within, any_of, of_step, late, variants,
            definition)
    values (
        :journey, :version, :step, :position, :kind, :next, :otherwise, cast(:after as interval),
        cast(:wait as interval), cast(:within as interval), :any_of, :of_step, :late, cast(:variants as jsonb),
        cast(:definition as jsonb)
    )
""")

# What a journey's key in the graph points to.
CREATE_VIEW = """
    create view journeys.{journey} as
    select entry_id, user_id, entered_at, status, reason, ended_at from journeys.entries where journey = '{journey}'
"""

HAS_UNREAD_CONSENT = sa.text("""
    select coalesce((select max(load_id) from raw.loads) > (select load_id from journeys.consent_read), false)
""")

# A consent event acts from the moment it is loaded, whatever its occurred_at. An unsubscription and a complaint stop
# the user and the address, a bounce the address alone: so a bounce takes the place of neither. A later resubscription
# lifts all of them. A soft bounce is no reason to stop.
RECORD_CONSENT = sa.text("""
    with read as (
        update journeys.consent_read
        set load_id = newest.load_id
        from
            (select load_id from journeys.consent_read for update) as before,
            (select coalesce(max(load_id), 0) as load_id from raw.loads) as newest
        returning before.load_id as since, newest.load_id as until
    ),

    told as (
        select distinct messages.user_id, messages.channel, coalesce(messages.address, '') as address
        from read
        inner join raw.events on events.load_id > read.since and events.load_id <= read.until
        inner join journeys.messages on messages.message_id = events.properties ->> 'message_id'
        where events.event in
            ('message unsubscribed', 'message bounced', 'message complained', 'message resubscribed')
    ),

    latest as (
        select told.user_id, told.channel, told.address, said.event, said.occurred_at
        from told
        cross join lateral (
            select event, occurred_at
            from (
                select
                    events.event,
                    events.occurred_at,
                    max(events.occurred_at) filter (where events.event = 'message resubscribed') over ()
                        as resubscribed_at
                from (
                    select messages.message_id from journeys.messages
                    where messages.user_id = told.user_id and messages.channel = told.channel
                    union
                    select messages.message_id from journeys.messages
                    where messages.address = told.address and messages.channel = told.channel
                ) as theirs
                inner join raw.events on events.properties ->> 'message_id' = theirs.message_id
                where
                    events.event in
                        ('message unsubscribed', 'message bounced', 'message complained', 'message resubscribed')
                    and events.properties ->> 'kind' is distinct from 'soft'
            ) as heard
            where event = 'message resubscribed' or occurred_at >= coalesce(resubscribed_at, '-infinity')
            order by event = 'message resubscribed', event = 'message bounced', occurred_at desc
            limit 1
        ) as said
    ),

    lifted as (
        delete from journeys.suppressions
        using latest
        where
            latest.event = 'message resubscribed'
            and suppressions.channel = latest.channel
            and (
                suppressions.user_id = latest.user_id
                or suppressions.address = latest.address and latest.address <> ''
            )
    )

    insert into journeys.suppressions (user_id, address, channel, reason, since)
    select user_id, address, channel, replace(event, 'message ', ''), occurred_at
    from latest
    where event <> 'message resubscribed'
    on conflict (user_id, channel, address) do update
    set reason = excluded.reason, since = excluded.since
    where suppressions.reason = 'bounced'
""")

# Whoever held an expired lease may or may not have handed the message over. A mail is not tried again; a webhook is,
# under the same id, which its receiver knows.
EXPIRE_LEASES = sa.text("""
    update journeys.messages
    set
        status = case when channel = 'webhook' then 'pending' else 'unknown' end,
        reason = 'the sender went away while sending',
        fence = fence + 1,
        lease_until = null
    where journey = any(:journeys) and status = 'sending' and lease_until < clock_timestamp()
""")

# What belonged to a user who is another's now goes to the survivor.
MERGE = (
    sa.text(f"create temporary table merged on commit drop as {MERGED_SINCE}"),
    sa.text("update journeys.entries set user_id = merged.user_id from merged where entries.user_id = merged.absorbed"),
    sa.text(
        "update journeys.messages set user_id = merged.user_id from merged where messages.user_id = merged.absorbed"
    ),
    sa.text("""
        insert into journeys.suppressions (user_id, channel, address, reason, since)
        select
            merged.user_id,
            suppressions.channel,
            suppressions.address,
            (array_agg(suppressions.reason order by suppressions.reason = 'bounced', suppressions.since))[1],
            min(suppressions.since)
        from merged
        inner join journeys.suppressions on suppressions.user_id = merged.absorbed
        group by merged.user_id, suppressions.channel, suppressions.address
        on conflict (user_id, channel, address) do update
        set reason = excluded.reason, since = excluded.since
        where suppressions.reason = 'bounced'
    """),
    # Of several entries of one person the earliest goes on; who was in both arms is told from others.
    sa.text("""
        with entries_of_merged as (
            select
                entries.entry_id,
                entries.journey,
                entries.user_id,
                entries.status,
                entries.ended_at,
                row_number() over (
                    partition by entries.journey, entries.user_id
                    order by entries.ended_at is not null, entered_at, entry_id
                ) as nth,
                bool_or(entries.arm = 'held_out') over (partition by entries.journey, entries.user_id)
                and bool_or(entries.arm = 'treated')
                    over (partition by entries.journey, entries.user_id) as is_in_both_arms
            from journeys.entries
            where entries.user_id in (select user_id from merged)
        )

        update journeys.entries
        set
            is_in_both_arms = entries_of_merged.is_in_both_arms,
            status = case when is_double then 'excluded' else entries.status end,
            reason = case when is_double then 'merged' else entries.reason end,
            ended_at = case when is_double then :as_of else entries.ended_at end,
            step = case when not is_double then entries.step end,
            next_due_at = case when not is_double then entries.next_due_at end
        from entries_of_merged
        cross join lateral (select nth > 1 and entries_of_merged.ended_at is null as is_double) as judged
        where entries.entry_id = entries_of_merged.entry_id and (is_double or entries_of_merged.is_in_both_arms)
    """),
)

# After which events somebody in the journey may be somewhere else: goals, and what is waited for, of all its versions.
EVENTS_OF = sa.text("""
    select jsonb_array_elements_text(definition -> 'goal' -> 'any_of') from journeys.definitions
    where journey = :journey
    union
    select unnest(any_of) from journeys.steps
    where journey = :journey and kind = 'wait'
""")

PUBLISHED_SINCE = sa.text("""
    select tick_id, as_of from segments.published_ticks
    where tick_id > :consumed_tick and tick_id <= :published_tick
    order by tick_id
""")

# Whom an event that counts in the journey, loaded or come to pass since the last look, or a merge, is about.
FIND_TOUCHED = (
    sa.text("create temporary table if not exists affected_users (user_id text primary key) on commit drop"),
    sa.text("delete from affected_users"),
    sa.text("""
        insert into affected_users (user_id)
        select user_id from events.user_events
        where
            event = any(:events)
            and load_id = any(array(select raw.loads_since(:consumed_tick)))
        union
        select user_id from events.user_events
        where event = any(:events) and occurred_at > :consumed_as_of and occurred_at <= :as_of
        union
        select user_id from segments.merged_users where tick_id > :consumed_tick
    """),
)

_ENTERED_SEGMENT = """
    select changes.user_id, changes.as_of as entered_at, 'change ' || changes.change_id as cause, changes.change_id
    from segments.membership_changes as changes
    where
        changes.segment = :segment
        and changes.tick_id = :tick_id
        and changes.change = 'entered'
        -- Whom an edit of the segment lets in is a member already, as it were.
        and (
            cast(:is_enrolling_members as boolean)
            or not exists (
                select from segments.evaluations
                left join lateral (
                    select definition from segments.evaluations as others
                    where others.segment = evaluations.segment and others.tick_id < evaluations.tick_id
                    order by others.tick_id desc
                    limit 1
                ) as earlier on true
                where
                    evaluations.segment = :segment
                    and evaluations.tick_id = :tick_id
                    and evaluations.definition is distinct from earlier.definition
            )
        )
        -- Nobody is let in by a merge: whoever took the place of a member has been in all along.
        and not exists (
            select from events.identity_links as links
            inner join segments.membership_changes as exits
                on exits.user_id = links.id and exits.segment = changes.segment and exits.tick_id = changes.tick_id
            where
                links.kind = 'user' and links.user_id = changes.user_id and links.id <> changes.user_id
                and exits.change = 'exited'
        )
"""

# At a journey's first dispatch whoever is a member enters now: the past is not made up for.
_MEMBERS = """
    select
        members.user_id,
        cast(:as_of as timestamptz) as entered_at,
        'change ' || latest.change_id as cause,
        latest.change_id
    from segments.members
    cross join lateral (
        select max(change_id) as change_id from segments.membership_changes as changes
        where changes.segment = members.segment and changes.user_id = members.user_id and changes.tick_id <= :tick_id
    ) as latest
    where members.segment = :segment
"""

_HAD_EVENT = """
    select
        events.user_id,
        events.occurred_at as entered_at,
        'event ' || events.source || '/' || events.message_id as cause,
        cast(null as bigint) as change_id
    from events.user_events as events
    where
        events.event = any(:entry_events)
        and events.occurred_at <= :as_of
        and events.occurred_at > (
            select coalesce(consumer_offsets.begun_at, '-infinity') from segments.consumer_offsets
            where consumer_offsets.consumer = 'journey:' || :journey
        )
        and (
            events.load_id = any(array(select raw.loads_since(:consumed_tick)))
            or events.occurred_at > :consumed_as_of
        )
"""

# Eligibility, then the exclusive group, then the draws: of the journey's rivals, `weaker` ones make room.
_ENROL = """
    with entered as (
        {entered}
    ),

    eligible as (
        select distinct on (user_id) *
        from entered
        where not exists (
            select from journeys.entries
            where
                entries.journey = :journey
                and entries.user_id = entered.user_id
                and entries.status <> 'excluded'
                and (
                    :reentry = 'never'
                    or entries.ended_at is null
                    or (
                        :reentry = 'after'
                        and entries.entered_at > entered.entered_at - cast(:reentry_after as interval)
                    )
                    or entries.cause = entered.cause
                )
        )
        order by user_id, entered_at, cause
    ),

    placed as (
        select
            eligible.*,
            occupied.journey as occupied_by,
            upnext.bucket('global holdout', eligible.user_id) < :global_holdout as is_held_out_globally,
            -- Who was drawn before, by whatever holdout, stays in that arm.
            coalesce(
                drawn.arm = 'held_out', upnext.bucket('journey:' || :journey, eligible.user_id) < :holdout
            ) as is_held_out
        from eligible
        left join lateral (
            select entries.arm from journeys.entries
            where
                entries.user_id = eligible.user_id
                and entries.journey = :journey
                and entries.arm is not null
                and not entries.is_held_out_globally
            order by entries.entered_at, entries.entry_id
            limit 1
        ) as drawn on true
        left join lateral (
            select entries.journey from journeys.entries
            where
                entries.user_id = eligible.user_id and entries.ended_at is null and entries.journey = any(:stronger)
            order by entries.entered_at, entries.entry_id
            limit 1
        ) as occupied on true
    ),

    displaced as (
        update journeys.entries
        set status = 'excluded', reason = 'taken over by ' || :journey, ended_at = placed.entered_at,
            step = null, next_due_at = null
        from placed
        where
            placed.occupied_by is null
            and entries.user_id = placed.user_id
            and entries.ended_at is null
            and entries.journey = any(:weaker)
    ),

    judged as (
        select
            *,
            case
                when occupied_by is not null then 'excluded'
                when is_held_out_globally or is_held_out then 'held_out'
                else 'active'
            end as status,
            case
                when occupied_by is not null then 'is in ' || occupied_by
                when is_held_out_globally then 'global holdout'
                when is_held_out then 'holdout of the journey'
            end as reason,
            case
                when occupied_by is not null then null
                when is_held_out_globally or is_held_out then 'held_out'
                else 'treated'
            end as arm
        from placed
    ),

    enrolled as (
        insert into journeys.entries
            (journey, version, user_id, change_id, cause, seed, entered_at, status, reason, arm, is_held_out_globally,
                step, reached_at, next_due_at, ended_at)
        select
            :journey,
            :version,
            judged.user_id,
            judged.change_id,
            judged.cause,
            case
                when judged.change_id is null or exists (
                    select from journeys.entries where md5(entries.seed) = md5(drawn.seed)
                ) then cast(jsonb_build_array(drawn.seed, judged.cause) as text)
                else drawn.seed
            end,
            judged.entered_at,
            judged.status,
            judged.reason,
            judged.arm,
            judged.occupied_by is null and judged.is_held_out_globally,
            case when judged.status = 'active' then steps.step end,
            judged.entered_at,
            case judged.status
                when 'active' then judged.entered_at + coalesce(steps.after, steps.wait, steps.within, interval '0')
                when 'held_out' then judged.entered_at + cast(:longest as interval)
            end,
            case when judged.status = 'excluded' then judged.entered_at end
        from judged
        inner join journeys.steps
            on steps.journey = :journey and steps.version = :version and steps.position = 0
        cross join lateral (
            select concat_ws('/', cast(:journey as text), judged.user_id, extract(epoch from judged.entered_at)) as seed
        ) as drawn
        order by judged.entered_at, judged.user_id
        on conflict (journey, cause) do nothing
        returning user_id, status
    ),

    touched as (
        insert into affected_users (user_id) select distinct user_id from enrolled on conflict do nothing
    )

    select status, count(*) as entries from enrolled group by status
"""

# An event of somebody who is inside leaves a row all the same, so that it can be told why nothing came of it.
_NOTE_EVENTS_INSIDE = """
    with entered as (
        {entered}
    )

    insert into journeys.entries
        (journey, version, user_id, cause, seed, entered_at, status, reason, reached_at, ended_at)
    select
        :journey,
        :version,
        entered.user_id,
        entered.cause,
        cast(jsonb_build_array('inside', cast(:journey as text), entered.cause) as text),
        entered.entered_at,
        'excluded',
        'is in the journey',
        entered.entered_at,
        entered.entered_at
    from entered
    where exists (
        select from journeys.entries
        where
            entries.journey = :journey
            and entries.user_id = entered.user_id
            and entries.status <> 'excluded'
            and entries.cause <> entered.cause
            and entries.entered_at <= entered.entered_at
            and (entries.ended_at is null or entries.ended_at > entered.entered_at)
    )
    order by entered.entered_at, entered.user_id, entered.cause
    on conflict (journey, cause) do nothing
"""
ENROL = sa.text(_ENROL.format(entered=_ENTERED_SEGMENT))
ENROL_MEMBERS = sa.text(_ENROL.format(entered=_MEMBERS))
ENROL_BY_EVENT = sa.text(_ENROL.format(entered=_HAD_EVENT))
NOTE_EVENTS_INSIDE = sa.text(_NOTE_EVENTS_INSIDE.format(entered=_HAD_EVENT))

CONVERT = sa.text("""
    update journeys.entries
    set
        goal_reached_at = reached.occurred_at,
        status = case when reached.is_end and entries.status <> 'held_out' then 'converted' else entries.status end,
        reason = case when reached.is_end and entries.status <> 'held_out' then reached.event else entries.reason end,
        ended_at = case
            when reached.is_end then coalesce(entries.ended_at, reached.occurred_at)
            else entries.ended_at
        end,
        step = case when not reached.is_end then entries.step end,
        next_due_at = case when not reached.is_end then entries.next_due_at end
    from (
        select
            open.entry_id,
            goal.event,
            goal.occurred_at,
            definitions.definition -> 'goal' ->> 'then' is distinct from 'continue' as is_end
        from affected_users
        inner join journeys.entries as open on open.user_id = affected_users.user_id and open.journey = :journey
        inner join journeys.definitions
            on definitions.journey = open.journey and definitions.version = open.version
        cross join lateral (
            select events.event, events.occurred_at
            from events.user_events as events
            where
                events.user_id = open.user_id
                and events.event = any(
                    array(select jsonb_array_elements_text(definitions.definition -> 'goal' -> 'any_of'))
                )
                and events.occurred_at > open.entered_at
                and events.occurred_at
                    <= open.entered_at + cast(definitions.definition -> 'goal' ->> 'within' as interval)
                and events.occurred_at <= :as_of
            order by events.occurred_at
            limit 1
        ) as goal
        where open.status in ('active', 'completed', 'held_out') and open.goal_reached_at is null
    ) as reached
    where entries.entry_id = reached.entry_id
""")

LEAVE = sa.text("""
    update journeys.entries
    set
        status = case when status = 'held_out' then status else 'left' end,
        reason = case when status = 'held_out' then reason else 'left the segment' end,
        ended_at = :as_of,
        step = null,
        next_due_at = null
    where
        entries.journey = :journey
        and entries.ended_at is null
        and (
            exists (
                select from segments.membership_changes as changes
                where
                    changes.tick_id = :tick_id
                    and changes.segment = :segment
                    and changes.change = 'exited'
                    and changes.user_id = entries.user_id
                    and changes.change_id > entries.change_id
            )
            -- Who came here by a merge may be no member.
            or (
                entries.user_id in (select user_id from segments.merged_users where tick_id = :tick_id)
                and not exists (
                    select from segments.members
                    where members.segment = :segment and members.user_id = entries.user_id
                )
            )
        )
        and entries.user_id in (
            select user_id from segments.membership_changes
            where tick_id = :tick_id and segment = :segment and change = 'exited'
            union
            select user_id from segments.merged_users where tick_id = :tick_id
        )
""")

# What the steps of a journey, in all its versions, ask for.
STEPS_OF = sa.text("""
    select
        coalesce(bool_or(kind = 'wait'), false) as can_wait,
        coalesce(bool_or(targets.position <= steps.position), false) as can_come_round
    from journeys.steps
    left join lateral (
        select min(others.position) as position from journeys.steps as others
        where
            others.journey = steps.journey
            and others.version = steps.version
            and others.step in (steps.next, steps.otherwise)
    ) as targets on true
    where steps.journey = :journey
""")

# Whether an event is about the newest message of the step that a wait or a branch names; any is, where it names none.
_IS_OF_STEP = """
    (steps.of_step is null or events.properties ->> 'message_id' = (
        select messages.message_id from journeys.messages
        where messages.entry_id = {entry}.entry_id and messages.step = steps.of_step
        order by messages.visit desc
        limit 1
    ))
"""

# What is waited for has happened: the wait is over at that instant. A message may have been opened before it began.
WAKE = sa.text(f"""
    update journeys.entries
    set is_woken = true, next_due_at = heard.occurred_at
    from (
        select waiting.entry_id, greatest(event.occurred_at, waiting.reached_at) as occurred_at
        from affected_users
        inner join journeys.entries as waiting
            on waiting.user_id = affected_users.user_id and waiting.journey = :journey and waiting.status = 'active'
        inner join journeys.steps
            on steps.journey = waiting.journey and steps.version = waiting.version and steps.step = waiting.step
        cross join lateral (
            select events.occurred_at
            from events.user_events as events
            where
                events.user_id = waiting.user_id
                and events.event = any(steps.any_of)
                and events.occurred_at
                    > case when steps.of_step is null then waiting.reached_at else waiting.entered_at end
                and events.occurred_at <= least(waiting.next_due_at, :as_of)
                and {_IS_OF_STEP.format(entry="waiting")}
            order by events.occurred_at
            limit 1
        ) as event
        where steps.kind = 'wait' and not waiting.is_woken
    ) as heard
    where entries.entry_id = heard.entry_id
""")  # noqa: S608 - made of the constants above

_HAS_HOURS = """
    cross join lateral (
        select
            definitions.definition -> 'send_window' <> 'null' or definitions.definition -> 'quiet_hours' <> 'null'
            as has_hours
    ) as hours
"""

# Each entry that is due goes one step on, and a message that is due becomes a row: in one statement. An instant counts
# by when it was due, not by when somebody looked, but where lateness shifts what follows. A message that the user's own
# clock does not allow yet is put off, and what follows counts from when it may go.
ADVANCE = sa.text(f"""
    with due as (
        select
            entries.entry_id,
            entries.version,
            entries.user_id,
            entries.seed,
            entries.entered_at,
            entries.shifted,
            entries.next_due_at as due_at,
            steps.step,
            steps.position,
            steps.kind,
            steps.late,
            steps.variants,
            allowed.allowed_at,
            case
                when steps.kind in ('email', 'webhook', 'cta') then steps.next
                when steps.kind = 'wait' then case when entries.is_woken then steps.next else steps.otherwise end
                when branch.is_taken then steps.next
                else steps.otherwise
            end as target,
            steps.kind in ('email', 'webhook', 'cta')
            and cast(:as_of as timestamptz)
                > coalesce(allowed.due_on, entries.next_due_at) + cast(:late_after as interval) as is_late
        from journeys.entries
        inner join journeys.definitions
            on definitions.journey = entries.journey and definitions.version = entries.version
        {_HAS_HOURS}
        inner join journeys.steps
            on steps.journey = entries.journey and steps.version = entries.version and steps.step = entries.step
        left join lateral (
            select
                case
                    when steps.definition ->> 'feature' is not null then (
                        select upnext.passes(
                            to_jsonb(user_features) -> (steps.definition ->> 'feature'), steps.definition
                        )
                        from features.user_features
                        where user_features.user_id = entries.user_id
                    )
                    else exists (
                        select from events.user_events as events
                        where
                            events.user_id = entries.user_id
                            and events.event = any(steps.any_of)
                            and events.occurred_at > entries.entered_at
                            and events.occurred_at <= :as_of
                            and {_IS_OF_STEP.format(entry="entries")}
                    )
                end as is_taken
        ) as branch on steps.kind = 'branch'
        left join lateral (
            select
                due_on,
                -- What may go now counts from when it could have gone, however late somebody looks.
                case when now_on = cast(:as_of as timestamptz) then least(due_on, now_on) else now_on end as allowed_at
            from (
                select
                    upnext.first_allowed(entries.next_due_at, zone, send_window, quiet_hours) as due_on,
                    upnext.first_allowed(:as_of, zone, send_window, quiet_hours) as now_on
                from (
                    select
                        journeys.time_zone_of(entries.user_id, :time_zone_trait, :as_of) as zone,
                        nullif(definitions.definition -> 'send_window', 'null') as send_window,
                        nullif(definitions.definition -> 'quiet_hours', 'null') as quiet_hours
                    where hours.has_hours and steps.kind in ('email', 'webhook')
                    -- Keeps the planner from looking up every clock before it asks whether one is needed.
                    offset 0
                ) as clock
            ) as instants
        ) as allowed on true
        where
            entries.journey = :journey
            and entries.status = 'active'
            and entries.ended_at is null
            and entries.next_due_at <= :as_of
            -- Whether a message is opened can be asked when it has left.
            and (
                steps.of_step is null
                or not exists (
                    select from journeys.messages as asked
                    where
                        asked.entry_id = entries.entry_id
                        and asked.step = steps.of_step
                        and asked.status in ('pending', 'sending')
                )
            )
    ),

    reached as (
        select
            *,
            greatest(
                case when is_late and late = 'shift' then cast(:as_of as timestamptz) else due_at end, allowed_at
            ) as reached_at,
            case
                when is_late and late = 'shift' then shifted + (cast(:as_of as timestamptz) - due_at)
                else shifted
            end as shifted_by
        from due
    ),

    moved as (
        update journeys.entries
        set
            step = reached.target,
            reached_at = reached.reached_at,
            shifted = reached.shifted_by,
            is_woken = false,
            next_due_at = case
                when targets.kind = 'wait' then reached.reached_at + targets.within
                when targets.kind = 'branch' then reached.reached_at
                when targets.wait is not null then reached.reached_at + targets.wait
                when targets.after is not null
                    then greatest(reached.entered_at + targets.after + reached.shifted_by, reached.reached_at)
            end
        from reached
        left join journeys.steps as targets
            on targets.journey = :journey and targets.version = reached.version and targets.step = reached.target
        where entries.entry_id = reached.entry_id
        returning entries.user_id, entries.version, entries.step
    ),

    touched as (
        insert into affected_users (user_id)
        select distinct moved.user_id
        from moved
        inner join journeys.steps
            on steps.journey = :journey and steps.version = moved.version and steps.step = moved.step
        where steps.kind = 'wait'
        on conflict do nothing
    ),

    written as (
        insert into journeys.messages
            (message_id, entry_id, journey, step, position, visit, channel, user_id, variant, due_at, not_before,
                status, reason)
        select
            cast(cast(md5(concat_ws('/', reached.seed, reached.step, nullif(visits.visit, 1))) as uuid) as text),
            reached.entry_id,
            :journey,
            reached.step,
            reached.position,
            visits.visit,
            reached.kind,
            reached.user_id,
            (
                select ranges.variant
                from jsonb_to_recordset(reached.variants)
                    as ranges (variant text, low double precision, high double precision)
                cross join lateral (
                    select upnext.bucket('copy:' || :journey || '/' || reached.step, reached.user_id) as bucket
                ) as draw
                where draw.bucket >= ranges.low and draw.bucket < ranges.high
            ),
            reached.due_at,
            case when reached.allowed_at > reached.due_at then reached.allowed_at end,
            case when cast(:is_replay as boolean) or (is_late and late = 'skip') then 'skipped' else 'pending' end,
            case when cast(:is_replay as boolean) then 'replay' when is_late and late = 'skip' then 'late' end
        from reached
        cross join lateral (
            select case when cast(:can_come_round as boolean) then (
                select cast(count(*) as integer)
                from journeys.messages
                where messages.entry_id = reached.entry_id and messages.step = reached.step
            ) else 0 end + 1 as visit
        ) as visits
        where reached.kind in ('email', 'webhook', 'cta')
        order by reached.due_at, reached.user_id
        returning 1
    )

    select (select count(*) from moved) as moved, (select count(*) from written) as due
""")  # noqa: S608 - made of the constants above

# Why a message must not go out, looked at when it is prepared and again when it is claimed; null where it may. The cap
# is about what a person sees: mails, and offers where the policy says so.
_STOPPED_BY = """
    case
        when entries.status in ('converted', 'left', 'excluded') then entries.status
        when suppressed.reason is not null then suppressed.reason
        when messages.channel = 'webhook' and exists (
            select from journeys.disabled_endpoints where disabled_endpoints.endpoint = steps.definition ->> 'endpoint'
        ) then 'endpoint is gone'
        when definitions.definition -> 'goal' ->> 'then' is distinct from 'continue' and exists (
            select from events.user_events as events
            where
                events.user_id = messages.user_id
                and definitions.definition -> 'goal' -> 'any_of' ? events.event
                and events.occurred_at > entries.entered_at
                and events.occurred_at
                    <= entries.entered_at + cast(definitions.definition -> 'goal' ->> 'within' as interval)
                and events.occurred_at <= :as_of
        ) then 'converted'
        when
            steps.late = 'skip' and messages.attempts = 0
            and cast(:as_of as timestamptz)
                > greatest(messages.due_at, messages.not_before) + cast(:late_after as interval)
            then 'late'
        when messages.channel = any(cast(:cap_channels as text [])) and (
            select count(*) from journeys.messages as others
            where
                others.user_id = messages.user_id
                and others.channel = any(cast(:cap_channels as text []))
                and others.message_id <> messages.message_id
                and (
                    others.status = 'sending'
                    or others.status in ('sent', 'unknown')
                    and coalesce(others.sent_at, others.due_at)
                        > cast(:as_of as timestamptz) - cast(:cap_per as interval)
                )
        ) >= cast(:cap_messages as integer) then 'frequency cap'
    end
"""
_OF_MESSAGE = """
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.definitions
        on definitions.journey = entries.journey and definitions.version = entries.version
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
"""
_SUPPRESSED = "journeys.suppressed_by(messages.channel, messages.user_id, {address}) as suppressed (reason)"

# A call to action needs no sender: it stands from now on, for as long as its step says.
SHOW_CTAS = sa.text(f"""
    with judged as (
        select
            messages.message_id,
            {_STOPPED_BY} as stopped_by,
            cast(steps.definition ->> 'lasts' as interval) as lasts
        from journeys.messages
        {_OF_MESSAGE}
        cross join {_SUPPRESSED.format(address="null")}
        where messages.journey = :journey and messages.status = 'pending' and messages.channel = 'cta'
    )

    update journeys.messages
    set
        status = case when judged.stopped_by is null then 'sent' else 'skipped' end,
        reason = judged.stopped_by,
        sent_at = case when judged.stopped_by is null then cast(:as_of as timestamptz) end,
        ends_at = case when judged.stopped_by is null then cast(:as_of as timestamptz) + judged.lasts end
    from judged
    where messages.message_id = judged.message_id
""")  # noqa: S608 - made of the constants above

# Who is in a journey that is no more goes out of it; what waits to be sent is not sent.
END = sa.text("""
    with ended as (
        update journeys.entries
        set
            status = case when status = 'held_out' then status else 'left' end,
            reason = case when status = 'held_out' then reason else :reason end,
            ended_at = :at,
            step = null,
            next_due_at = null
        where journey = any(:journeys) and ended_at is null
        returning 1
    ),

    skipped as (
        update journeys.messages
        set status = 'skipped', reason = :reason
        where journey = any(:journeys) and status = 'pending'
    )

    select count(*) from ended
""")
FORGET_CONSUMED = sa.text("delete from segments.consumer_offsets where consumer = :consumer")

# What a dispatch has just done in a journey: entries newer than `before`, and their messages.
ENTERED_SINCE = sa.text("""
    select
        count(*) filter (where status = 'active') as enrolled,
        count(*) filter (where status = 'held_out') as held_out,
        count(*) filter (where status = 'excluded') as excluded,
        coalesce(array_agg(user_id order by user_id) filter (where status in ('active', 'completed')), '{}') as ids
    from journeys.entries
    where journey = :journey and entry_id > :before
""")
MESSAGES_OF_ENTERED = sa.text("""
    select
        messages.step || ' (' || messages.channel || ')'
        || case when messages.status = 'skipped' then ', skipped: ' || messages.reason else '' end as step,
        count(*) as messages
    from journeys.messages
    inner join journeys.entries on entries.entry_id = messages.entry_id
    where entries.journey = :journey and entries.entry_id > :before
    group by 1
    order by 1
""")

# Journeys with somebody inside, or something to send, that are not among those declared.
REMOVED = sa.text("""
    select journey from journeys.entries where ended_at is null and journey <> all(:declared)
    union
    select journey from journeys.messages where status = 'pending' and journey <> all(:declared)
    union
    select name from upnext.started where name <> all(:declared)
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
    set
        status = case when status = 'active' then 'completed' else status end,
        ended_at = :as_of
    where
        entries.journey = any(:journeys)
        and entries.ended_at is null
        and (
            (
                entries.status = 'active'
                and entries.next_due_at is null
                and not exists (
                    select from journeys.messages
                    where messages.entry_id = entries.entry_id and messages.status in ('pending', 'sending')
                )
            )
            or (entries.status = 'held_out' and entries.next_due_at <= :as_of)
        )
    returning entries.status
""")

JOURNEYS_WITH_WORK = sa.text("""
    select journeys.name
    from unnest(cast(:journeys as text [])) as journeys (name)
    where
        not exists (select from journeys.pauses where pauses.journey = journeys.name)
        and (
            exists (
                select from journeys.entries
                where
                    entries.journey = journeys.name
                    and entries.status = 'active'
                    and entries.ended_at is null
                    and entries.next_due_at <= :now
            )
            or exists (
                select from journeys.messages
                where
                    messages.journey = journeys.name
                    and (
                        messages.status = 'pending'
                        and (messages.not_before is null or messages.not_before <= :now)
                        and (messages.retry_at is null or messages.retry_at <= clock_timestamp())
                        or messages.status = 'sending' and messages.lease_until < clock_timestamp()
                    )
            )
        )
""")

# Pausing lets nobody go on; resuming puts off everything that follows by as long as it took, so that no steps pile up.
PAUSE = sa.text("""
    insert into journeys.pauses (journey, paused_at) values (:journey, :at) on conflict (journey) do nothing
""")
RESUME = sa.text("""
    with ended as (
        delete from journeys.pauses where journey = :journey returning paused_at
    ),

    shifted as (
        update journeys.entries
        set
            shifted = shifted + (cast(:at as timestamptz) - ended.paused_at),
            next_due_at = next_due_at + (cast(:at as timestamptz) - ended.paused_at)
        from ended
        where journey = :journey and status = 'active' and ended_at is null
        returning 1
    )

    select (select count(*) from ended) as ended, (select count(*) from shifted) as entries
""")
IS_PAUSED = sa.text("select 1 from journeys.pauses where journey = :journey")

_DUE = """
    messages.status = 'pending'
    and messages.channel = :channel
    and messages.journey = any(:journeys)
    and (messages.not_before is null or messages.not_before <= :as_of)
    and (messages.retry_at is null or messages.retry_at <= clock_timestamp())
    and messages.journey not in (select journey from journeys.pauses)
"""
COUNT_DUE = sa.text(f"select count(*) from (select from journeys.messages where {_DUE} limit :at_most) as due")  # noqa: S608

# A page of what is due, with all that it takes to write it; the next page begins after the last of this one. What is
# due to one user at one instant stands together, in the order of the steps.
PREPARE = sa.text(f"""
    with page as (
        select messages.*
        from journeys.messages
        where
            {_DUE}
            and (messages.due_at, messages.user_id, messages.position, messages.message_id)
                > (:after_due_at, :after_user_id, :after_position, :after_message_id)
        order by messages.due_at, messages.user_id, messages.position, messages.message_id
        limit :page
    )

    select
        messages.message_id,
        messages.journey,
        messages.channel,
        messages.user_id,
        messages.variant,
        messages.due_at,
        messages.position,
        messages.attempts,
        steps.definition as step,
        {_STOPPED_BY} as stopped_by,
        case
            when has_hours then upnext.first_allowed(
                :as_of,
                journeys.time_zone_of(messages.user_id, :time_zone_trait, :as_of),
                nullif(definitions.definition -> 'send_window', 'null'),
                nullif(definitions.definition -> 'quiet_hours', 'null')
            )
            else :as_of
        end as allowed_at,
        traits.traits,
        to_jsonb(user_features) as features
    from page as messages
    {_OF_MESSAGE}
    {_HAS_HOURS}
    left join features.user_features on user_features.user_id = messages.user_id
    cross join lateral (
        select coalesce(
            jsonb_object_agg(
                traits.key, traits.value
                order by events.occurred_at, events.source collate "C", events.message_id collate "C"
            ),
            '{{}}'
        ) as traits
        from events.user_events as events
        cross join lateral jsonb_each(events.properties) as traits
        where events.user_id = messages.user_id and events.type = 'identify' and events.occurred_at <= :as_of
    ) as traits
    cross join {_SUPPRESSED.format(address="traits.traits ->> 'email'")}
    order by messages.due_at, messages.user_id, messages.position, messages.message_id
""")  # noqa: S608 - made of the constants above

SKIP = sa.text("""
    update journeys.messages set status = 'skipped', reason = :reason
    where message_id = :message_id and status = 'pending'
""")

POSTPONE = sa.text("""
    update journeys.messages set not_before = :until where message_id = :message_id and status = 'pending'
""")

RECORD_LINKS = sa.text("""
    insert into journeys.links (link_id, url) values (:link_id, :url) on conflict (link_id) do nothing
""")

# Two senders never judge one user's messages at the same time, so that no two go out beyond the cap.
LOCK_USER = sa.text("select pg_advisory_xact_lock(hashtextextended('upnext:messages of ' || :user_id, 0))")

# One message for one sender: what must stop it is looked at again, while its row is locked.
CLAIM = sa.text(f"""
    with locked as (
        select message_id from journeys.messages
        where
            message_id = :message_id
            and status = 'pending'
            and (retry_at is null or retry_at <= clock_timestamp())
            and journey not in (select journey from journeys.pauses)
            and journey in (select name from upnext.started)
        for update skip locked
    ),

    judged as (
        select messages.message_id, {_STOPPED_BY} as stopped_by
        from locked
        inner join journeys.messages on messages.message_id = locked.message_id
        {_OF_MESSAGE}
        cross join {_SUPPRESSED.format(address=":address")}
    )

    update journeys.messages
    set
        status = case when judged.stopped_by is null then 'sending' else 'skipped' end,
        reason = judged.stopped_by,
        address = lower(:address),
        fence = messages.fence + 1,
        lease_until = case when judged.stopped_by is null then clock_timestamp() + interval '120 seconds' end
    from judged
    where messages.message_id = judged.message_id
    returning messages.message_id, messages.status, messages.fence
""")  # noqa: S608 - made of the constants above

# Only the holder of the newest fence may write. Where nothing was handed over, it was no attempt.
# Whoever waits for this message to be opened waits from now on.
RECORD_OUTCOME = sa.text("""
    with recorded as (
        update journeys.messages
        set
            status = :status,
            reason = :reason,
            sent_at = case when :status = 'sent' then cast(:as_of as timestamptz) end,
            attempts = attempts + cast(:is_attempt as integer),
            lease_until = null,
            retry_at = clock_timestamp() + cast(:retry_after as interval)
        where message_id = :message_id and status = 'sending' and fence = :fence
        returning entry_id, step, sent_at
    ),

    waiting as (
        update journeys.entries
        set next_due_at = greatest(entries.next_due_at, recorded.sent_at + steps.within)
        from recorded
        inner join journeys.steps on steps.kind = 'wait' and steps.of_step = recorded.step
        where
            entries.entry_id = recorded.entry_id
            and entries.step = steps.step
            and steps.journey = entries.journey
            and steps.version = entries.version
            and entries.next_due_at < recorded.sent_at + steps.within
    )

    select count(*) > 0 from recorded
""")

SUPPRESS = sa.text("""
    insert into journeys.suppressions (user_id, channel, address, reason, since)
    values (:user_id, :channel, lower(:address), 'bounced', :as_of)
    on conflict (user_id, channel, address) do nothing
""")

DISABLE_ENDPOINT = sa.text("""
    insert into journeys.disabled_endpoints (endpoint, disabled_at, reason) values (:endpoint, :as_of, :reason)
    on conflict (endpoint) do nothing
""")

# What is wrong with the outbox, by the check that tells of it.
TROUBLES = {
    "steps_are_not_overdue": sa.text("""
        select journeys.name, entries.overdue + messages.overdue as troubles
        from (select distinct journey as name from journeys.definitions) as journeys
        cross join lateral (
            select count(*) as overdue from journeys.entries
            where
                entries.journey = journeys.name
                and entries.status = 'active'
                and entries.ended_at is null
                and entries.next_due_at < cast(:now as timestamptz) - interval '1 hour'
        ) as entries
        cross join lateral (
            select count(*) as overdue from journeys.messages
            where
                messages.journey = journeys.name
                and messages.status = 'pending'
                and greatest(messages.due_at, messages.not_before, messages.retry_at)
                    < cast(:now as timestamptz) - interval '1 hour'
        ) as messages
        where
            entries.overdue + messages.overdue > 0
            and not exists (select from journeys.pauses where pauses.journey = journeys.name)
        order by journeys.name
    """),
    "outcomes_are_known": sa.text("""
        select journey as name, count(*) as troubles from journeys.messages
        where status = 'unknown' and due_at > cast(:now as timestamptz) - interval '7 days'
        group by journey
        order by journey
    """),
    "channels_do_not_fail": sa.text("""
        select channel as name, count(*) filter (where status = 'failed') as troubles from journeys.messages
        where status in ('sent', 'failed') and due_at > cast(:now as timestamptz) - interval '1 day'
        group by channel
        having count(*) filter (where status = 'failed') * 20 > count(*)
        order by channel
    """),
}
