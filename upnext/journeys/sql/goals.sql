-- Entries that reach the goal, and entries that leave the segment.

-- name: convert
-- Goals that were reached, also by those who have left since: results compare all who entered, whatever became of
-- them. Where the goal ends the journey, the entry of somebody who was inside, or at its end, is `converted`.
update journeys.entries
set
    goal_reached_at = reached.occurred_at,
    status = case when reached.is_end and not reached.keeps_status then 'converted' else entries.status end,
    reason = case when reached.is_end and not reached.keeps_status then reached.event else entries.reason end,
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
        definitions.definition -> 'goal' ->> 'then' is distinct from 'continue' as is_end,
        open.status not in ('active', 'completed') as keeps_status
    from affected_users
    inner join journeys.entries as open on open.user_id = affected_users.user_id and open.journey = :journey
    inner join journeys.definitions
        on definitions.journey = open.journey and definitions.version = open.version
    cross join lateral journeys.goal_reached(
        open.user_id, open.key, definitions.definition -> 'goal', open.entered_at, :as_of
    ) as goal
    where open.arm is not null and open.goal_reached_at is null
) as reached
where entries.entry_id = reached.entry_id;

-- name: leave_by_rule
-- Entries that a rule of the journey ends.
update journeys.entries
set
    status = case when status = 'held_out' then status else 'left' end,
    reason = case when status = 'held_out' then entries.reason else ended.reason end,
    ended_at = :as_of,
    step = null,
    next_due_at = null
from (
    select open.entry_id, rule.reason
    from affected_users
    inner join journeys.entries as open on open.user_id = affected_users.user_id and open.journey = :journey
    inner join journeys.definitions
        on definitions.journey = open.journey and definitions.version = open.version
    cross join lateral journeys.exit_of(
        open.user_id, open.key, open.entry_id, open.trigger_source, open.trigger_id, definitions.definition -> 'exits',
        open.entered_at, :as_of
    ) as rule
    where open.ended_at is null
) as ended
where entries.entry_id = ended.entry_id
returning entries.status;

-- name: leave
-- Whoever is inside leaves with the segment of the version that they entered with, unless they are in the segment that
-- the journey has now: it may be the same one under another name.
update journeys.entries
set
    status = case when status = 'held_out' then status else 'left' end,
    reason = case when status = 'held_out' then reason else 'left the segment' end,
    ended_at = :as_of,
    step = null,
    next_due_at = null
from journeys.definitions
where
    entries.journey = :journey
    and entries.ended_at is null
    and definitions.journey = entries.journey
    and definitions.version = entries.version
    and cast(definitions.definition ->> 'exit_on_leaving' as boolean)
    and (
        exists (
            select from segments.membership_changes as changes
            where
                changes.tick_id = :tick_id
                and changes.segment in (definitions.definition ->> 'segment', cast(:segment as text))
                and changes.change = 'exited'
                and changes.user_id = entries.user_id
                and changes.change_id > entries.change_id
        )
        -- A user who survives a merge may not be a member.
        or (
            entries.user_id in (select user_id from segments.merged_users where tick_id = :tick_id)
            and not exists (
                select from segments.members
                where
                    members.segment = definitions.definition ->> 'segment' and members.user_id = entries.user_id
            )
        )
    )
    and (
        definitions.definition ->> 'segment' = :segment
        or not exists (
            select 1 from segments.membership_changes as stays
            where
                stays.user_id = entries.user_id
                and stays.segment in (definitions.definition ->> 'segment', cast(:segment as text))
                and stays.change = 'entered'
                and stays.tick_id <= :tick_id
                and not exists (
                    select 1 from segments.membership_changes as later
                    where
                        later.user_id = stays.user_id
                        and later.segment = stays.segment
                        and later.change_id > stays.change_id
                        and later.tick_id <= :tick_id
                )
        )
    )
    and entries.user_id in (
        select user_id from segments.membership_changes
        where tick_id = :tick_id and change = 'exited'
        union
        select user_id from segments.merged_users where tick_id = :tick_id
    )
returning entries.status;
