-- What is odd about an event's times; null where nothing is.
alter table raw.events add column flags text[];
create index events_flagged on raw.events (load_id) where flags is not null;
-- Who is whom, and who belongs to which account, are read from these few.
create index events_of_identity on raw.events (occurred_at) where type in ('identify', 'alias', 'group');

-- What a visitor did before it was known who it was.
create index events_by_visitor on raw.events (anonymous_id, event, occurred_at) where user_id is null;

-- One row per name of an event, and when it first and last occurred: a look at the index for each, not a scan.
create view raw.event_names as
with recursive names as (
    (select event from raw.events where event is not null order by event limit 1)
    union all
    select (select events.event from raw.events where events.event > names.event order by events.event limit 1)
    from names
    where names.event is not null
)

select names.event, span.first_at, span.last_at
from names
cross join lateral (
    select min(events.occurred_at) as first_at, max(events.occurred_at) as last_at
    from raw.events
    where events.event = names.event
) as span
where names.event is not null;

-- A JSON number, or a text that is written like one, as CSV's are; null for anything else.
create function upnext.number(value jsonb) returns numeric
language sql immutable strict parallel safe
return case
    when jsonb_typeof(value) = 'number' then value::numeric
    when value #>> '{}' ~ '^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$' then (value #>> '{}')::numeric
end;

-- How far into a file's content a load has read, and the fingerprint of that part: a file that grew goes on from there.
alter table raw.loads
    add column read_to bigint,
    add column read_lines bigint,
    add column prefix text,
    add column change text check (change in ('grew', 'cut', 'replaced')),
    add column replayed bigint not null default 0,
    add column replay_of bigint references raw.loads;
update raw.loads set read_to = size, read_lines = received, prefix = fingerprint;
alter table raw.loads drop constraint loads_source_path_fingerprint_key;
create unique index loads_once on raw.loads (source, path, fingerprint) where replay_of is null;
create index loads_by_content on raw.loads (source, fingerprint);

-- The exact bytes, where the payload is only a way to show them.
alter table raw.rejected_events add column payload_bytes bytea;

-- One row per file that was refused as a whole; it is looked at again when it has changed.
create table raw.refused_files (
    path text primary key,
    source text not null,
    size bigint not null,
    modified_at timestamptz not null,
    reason text not null,
    refused_at timestamptz not null
);
