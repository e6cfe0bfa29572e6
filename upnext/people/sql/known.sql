-- Who a person is, and where something is known of them.

-- name: has_links
select to_regclass('events.identity_links') is not null;

-- name: users_of_address
select user_id from journeys.messages where address = :address
union
select user_id from journeys.suppressions where address = :address
union
select user_id from raw.events
where type = 'identify' and lower(properties ->> 'email') = :address and user_id is not null;

-- name: is_user
-- An id of a visitor may be the same text as an id of another user.
select exists (select from raw.events where user_id = :id or (type = 'alias' and previous_id = :id))
    or exists (select from journeys.suppressions where user_id = :id);

-- name: survivors_of
select distinct coalesce(links.user_id, asked.id) as user_id
from unnest(cast(:ids as text [])) as asked (id)
left join events.identity_links as links
    on links.user_id is not null
    and links.id = regexp_replace(asked.id, '^visitor:', '')
    and links.kind = case when asked.id like 'visitor:%' then 'visitor' else 'user' end;

-- name: ids_of
select kind, id from events.identity_links where user_id = any(:users)
union
select 'user', linked_to from events.identity_links where user_id = any(:users);

-- name: addresses_of
select address from journeys.messages where user_id = any(:users) and address is not null
union
select address from journeys.suppressions where user_id = any(:users) and address <> ''
union
select lower(properties ->> 'email') from raw.events
where type = 'identify' and user_id = any(:users) and properties ->> 'email' is not null;

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
