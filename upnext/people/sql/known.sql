-- Who a person is, and where something is known of them.

-- name: has_links
select to_regclass('events.identity_links') is not null;

-- name: users_of_address
select user_id from journeys.messages where address = :address
union
select user_id from journeys.suppressions where address = :address
union
select coalesce(user_id, upnext.person('visitor', anonymous_id)) from raw.events
where type = 'identify' and lower(properties ->> 'email') = :address;

-- name: survivors_of
select distinct coalesce(links.user_id, asked.id) as user_id
from unnest(cast(:users as text [])) as asked (id)
left join events.identity_links as links
    on links.user_id is not null
    and links.id = regexp_replace(asked.id, '^visitor:', '')
    and links.kind = case when asked.id like 'visitor:%' then 'visitor' else 'user' end;

-- name: ids_of
select kind, id from events.identity_links where user_id = any(:users)
union
select 'user', linked_to from events.identity_links where user_id = any(:users);

-- name: called_ids_of
-- Ids that a user's own calls name, and no earlier call of another user.
with calls as not materialized (
    select events.user_id, events.person_id, events.occurred_at, named.kind, named.id
    from raw.events
    cross join lateral (
        values
        ('visitor', events.anonymous_id),
        ('visitor', case when events.type = 'alias' then events.previous_id end),
        ('user', case when events.type = 'alias' then events.previous_id end)
    ) as named (kind, id)
    where events.type in ('identify', 'alias') and events.user_id is not null and named.id is not null
),

theirs as materialized (
    select kind, id, min(occurred_at) as first_at from calls
    where person_id = any(:users) and user_id = any(:users)
    group by kind, id
),

of_others as materialized (
    select kind, id, min(occurred_at) as first_at from calls
    where user_id <> all(:users) and id in (select theirs.id from theirs)
    group by kind, id
)

select theirs.kind, theirs.id
from theirs
left join of_others on of_others.kind = theirs.kind and of_others.id = theirs.id
where of_others.first_at is null or theirs.first_at <= of_others.first_at;

-- name: not_linked
-- Of these ids those that no tick has linked to anybody.
select called.kind, called.id
from jsonb_array_elements(cast(:called as jsonb)) as one (pair)
cross join lateral (select one.pair ->> 0 as kind, one.pair ->> 1 as id) as called
where not exists (
    select from events.identity_links as links
    where links.kind = called.kind and links.id = called.id and links.user_id is not null
);

-- name: addresses_of
select address from journeys.messages where user_id = any(:users) and address is not null
union
select address from journeys.suppressions where user_id = any(:users) and address <> ''
union
select lower(properties ->> 'email') from raw.events
where
    type = 'identify'
    and (person_id = any(:users) or (person_id = '' and user_id is null and anonymous_id = any(:visitors)))
    and properties ->> 'email' is not null;

-- name: tables
-- Tables and their columns that name a person.
select columns.table_schema || '.' || columns.table_name as name, array_agg(cast(column_name as text)) as columns
from information_schema.columns
inner join information_schema.tables using (table_schema, table_name)
where
    tables.table_type = 'BASE TABLE'
    and columns.table_schema in ('raw', 'events', 'features', 'segments', 'journeys', 'experiences', 'analytics')
    and columns.column_name in ('user_id', 'address', 'anonymous_id', 'previous_id', 'linked_to')
group by 1
order by 1;
