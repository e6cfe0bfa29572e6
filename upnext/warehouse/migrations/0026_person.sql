-- They are functions now. First, so that a view of somebody's own that reads them stops this before all else.
drop view if exists journeys.topic_events;
drop view if exists journeys.consent_events;

-- The person whose event it is: the user or the visitor that it names, until these turn out to be somebody else. Nobody
-- has an empty id.
drop index raw.events_by_user;
drop index raw.events_by_visitor;
drop index raw.events_of_identity;
alter table raw.events add column person_id text not null default '';

do $$
declare
    said text := 'coalesce(user_id, case when starts_with(anonymous_id, ''mail provider '') then '''' end, '
        '''visitor:'' || anonymous_id, '''')';
    visitors text := '';
begin
    if to_regclass('events.identity_links') is null then
        execute 'update raw.events set person_id = ' || said;
        return;
    end if;
    execute concat(
        'update raw.events set person_id = coalesce((
            select coalesce(max(links.user_id), case when links.kind = ''user'' then links.id else '''' end)
            from events.identity_links as links
            where
                links.kind = case when events.user_id is not null then ''user'' else ''visitor'' end
                and links.id = coalesce(events.user_id, events.anonymous_id)
            group by links.kind, links.id
        ), ', said, ')'
    );
    if not exists (select from events.identity_links where starts_with(user_id, 'visitor:')) then
        visitors := ' and not starts_with(person_id, ''visitor:'')';
    end if;
    -- As dbt makes it with the next tick. Until then it would read all events for those of one user.
    if to_regclass('events.identified_events') is not null then
        execute concat(
            'create or replace view events.identified_events as
            select person_id as user_id, account_id, type, event, occurred_at, source, message_id, properties, context,
                load_id
            from raw.events
            where person_id <> ''''', visitors
        );
    end if;
end $$;

alter table raw.events alter column person_id drop default;
create index events_by_person on raw.events (person_id, event, occurred_at);
create index events_of_identity on raw.events (person_id, occurred_at) where type in ('identify', 'alias', 'group');
analyze raw.events;
