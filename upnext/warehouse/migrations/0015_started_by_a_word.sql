-- Journeys and experiences do nothing until somebody starts them. Who has started or stopped what, and when: the newest
-- row of a name holds.
create table upnext.switches (
    switch_id bigint generated always as identity primary key,
    name text not null,
    is_started boolean not null,
    changed_at timestamptz not null default now(),
    changed_by text not null
);
create index switches_by_name on upnext.switches (name, switch_id desc);

create view upnext.started as
select name, changed_at as since, changed_by as started_by
from (select distinct on (name) * from upnext.switches order by name, switch_id desc) as newest
where is_started;

-- What has been at work goes on.
insert into upnext.switches (name, is_started, changed_by)
select journey, true, 'upgrade' from journeys.definitions group by journey
union
select experience, true, 'upgrade' from experiences.definitions;

-- The instant at which a consumer looked for the first time: what was before it is not made up for.
alter table segments.consumers add column begun_at timestamptz;
update segments.consumers
set begun_at = (
    select min(first_dispatched_at) from journeys.definitions
    where 'journey:' || definitions.journey = consumers.consumer
);

create or replace function experiences.is_running(definition jsonb, at timestamptz) returns boolean
language sql stable parallel safe
return coalesce((definition ->> 'is_started')::boolean, true)
    and coalesce(at >= (definition ->> 'starts_at')::timestamptz, true)
    and coalesce(at < (definition ->> 'ends_at')::timestamptz, true);

-- A suppression stops a user, an address, or both ('' where the address is not known). `address` is in lower case.
alter table journeys.suppressions add column address text not null default '';
alter table journeys.suppressions
    drop constraint suppressions_pkey,
    add primary key (user_id, channel, address);
create index suppressions_by_address on journeys.suppressions using hash (address) where address <> '';

-- Why nothing may be sent to a user, or to an address, in a channel; null where it may. A bounce stops the address alone:
-- the user may have another by now.
create function journeys.suppressed_by(in_channel text, to_user text, to_address text) returns text
language sql stable
return (
    select reason
    from (
        select reason, since
        from journeys.suppressions
        where
            user_id = to_user and channel in (in_channel, 'all')
            and (reason <> 'bounced' or address in ('', lower(to_address)))
        union all
        select reason, since
        from journeys.suppressions
        where address = lower(to_address) and address <> '' and channel in (in_channel, 'all')
    ) as found
    order by since
    limit 1
);

-- Up to which load consent events have been acted on, each once: a suppression that somebody deletes stays deleted.
-- Loads commit in the order of their ids.
create table journeys.consent_read (
    load_id bigint not null
);
-- What was loaded after the last look has not been acted on.
insert into journeys.consent_read (load_id)
select coalesce(max(loads.load_id), 0)
from raw.loads
inner join segments.consumers on consumers.consumer = 'consent' and loads.tick_id <= consumers.tick_id;
delete from segments.consumers where consumer = 'consent';

-- Where a message went, in lower case; and the place of its step, for messages of one user that are due at one instant.
alter table journeys.messages
    add column address text,
    add column position integer not null default 0;
create index messages_by_address on journeys.messages using hash (address) where address is not null;
drop index journeys.messages_pending;
create index messages_pending on journeys.messages (due_at, user_id, position, message_id) where status = 'pending';

-- The step whose message a wait or a branch asks about, where it asks whether that was opened or clicked.
alter table journeys.steps add column of_step text;

-- The time zone of a user by a trait of the user or else of the account, as of an instant; UTC where none is known.
create function journeys.time_zone_of(of_user text, trait text, at timestamptz) returns text
language plpgsql stable as $$
declare
    zone text;
begin
    select events.properties ->> trait into zone
    from events.user_events as events
    where
        events.user_id = of_user and events.type = 'identify' and events.occurred_at <= at
        and upnext.is_time_zone(events.properties ->> trait)
    order by events.occurred_at desc, events.source collate "C" desc, events.message_id collate "C" desc
    limit 1;
    if zone is null then
        select accounts.properties ->> trait into zone
        from features.user_accounts
        inner join raw.events as accounts
            on accounts.type = 'group' and accounts.account_id = user_accounts.account_id
        where
            user_accounts.user_id = of_user and accounts.occurred_at <= at
            and upnext.is_time_zone(accounts.properties ->> trait)
        order by accounts.occurred_at desc
        limit 1;
    end if;
    return coalesce(zone, 'UTC');
end
$$;
