-- Published ticks, on which consumers may act.
create or replace view segments.published_ticks as
select tick_id, as_of, published_at from segments.ticks where published_at is not null;

-- Changes of published ticks.
create or replace view segments.published_changes as
select change_id, tick_id, segment, user_id, change, as_of
from segments.membership_changes
where tick_id is distinct from (select tick_id from segments.ticks where published_at is null);

create or replace view segments.current_members as
select segment, user_id, entered_at from segments.members;

-- What a segment's limit holds back until somebody releases it.
create or replace view segments.held as
select segment, entered + exited as changes
from (select distinct on (segment) * from segments.evaluations order by segment, tick_id desc) as newest
where is_held and not is_released;

-- One row per segment and day (UTC), for plots; `members` is the count after the day's last tick.
create or replace view segments.daily_changes as
select
    segment,
    day,
    entered,
    exited,
    sum(entered - exited) over (partition by segment order by day)::bigint as members
from (
    select
        changes.segment,
        (changes.as_of at time zone 'UTC')::date as day,
        count(*) filter (where changes.change = 'entered') as entered,
        count(*) filter (where changes.change = 'exited') as exited
    from (
        select tick_id, segment, change, as_of from segments.membership_changes
        union all
        select tick_id, segment, change, as_of from segments.account_membership_changes
    ) as changes
    inner join segments.published_ticks on changes.tick_id = published_ticks.tick_id
    group by changes.segment, day
) as days;

-- Users who were merged into another since a tick, and the survivor of each; also visitors who were identified.
create or replace function segments.merges_since(tick bigint) returns table (absorbed text, user_id text)
language sql stable
as $$
    select merged.user_id, links.user_id
    from (select distinct merged_users.user_id from segments.merged_users where merged_users.tick_id > tick) as merged
    inner join events.identity_links as links
        on links.kind = case when upnext.is_visitor(merged.user_id) then 'visitor' else 'user' end
        and links.id = case
            when upnext.is_visitor(merged.user_id) then substr(merged.user_id, length('visitor:') + 1)
            else merged.user_id
        end
    where links.user_id <> merged.user_id
$$;

-- The experiences, or journeys, that were edited, added or removed since `of_consumer` last acted on them.
-- `definitions` has the hash of each by its name, and is recorded as acted on.
create or replace function segments.changed_definitions(of_consumer text, definitions jsonb) returns setof text
language sql
as $$
    with definitions as (
        select key as name, value as hash from jsonb_each_text(definitions)
    ),

    gone as (
        delete from segments.seen_definitions
        where consumer = of_consumer and name not in (select definitions.name from definitions)
        returning name
    ),

    written as (
        insert into segments.seen_definitions as before (consumer, name, hash)
        select of_consumer, definitions.name, definitions.hash from definitions
        on conflict (consumer, name) do update set hash = excluded.hash
        where before.hash <> excluded.hash
        returning name
    )

    select name from gone
    union all
    select name from written
$$;

-- The open tick that this transaction builds; null in any other.
create or replace function segments.tick_being_built() returns bigint language sql stable as $$
    select cast(nullif(current_setting('upnext.tick_id', true), '') as bigint)
$$;

-- Members of a segment, including the changes of the tick that this transaction builds. Each segment's view reads it.
create or replace function segments.users_of(of_segment text) returns table (user_id text, entered_at timestamptz)
language sql stable as $$
    select members.user_id, members.entered_at
    from segments.members
    where
        members.segment = of_segment
        and not exists (
            select from segments.membership_changes as changes
            where
                changes.tick_id = segments.tick_being_built()
                and changes.segment = of_segment
                and changes.user_id = members.user_id
                and changes.change = 'exited'
        )
    union all
    select changes.user_id, changes.as_of
    from segments.membership_changes as changes
    where
        changes.tick_id = segments.tick_being_built()
        and changes.segment = of_segment
        and changes.change = 'entered'
$$;

create or replace function segments.accounts_of(of_segment text)
returns table (account_id text, entered_at timestamptz) language sql stable as $$
    select members.account_id, members.entered_at
    from segments.account_members as members
    where
        members.segment = of_segment
        and not exists (
            select from segments.account_membership_changes as changes
            where
                changes.tick_id = segments.tick_being_built()
                and changes.segment = of_segment
                and changes.account_id = members.account_id
                and changes.change = 'exited'
        )
    union all
    select changes.account_id, changes.as_of
    from segments.account_membership_changes as changes
    where
        changes.tick_id = segments.tick_being_built()
        and changes.segment = of_segment
        and changes.change = 'entered'
$$;
