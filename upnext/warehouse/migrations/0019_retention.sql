-- From when on raw events are kept, by `upnext prune`; null before it has deleted any. Kept names and calls that
-- identities and accounts are resolved from are older.
create table raw.kept (
    name text primary key default 'events' check (name = 'events'),
    since timestamptz,
    events text [] not null default '{}'
);
insert into raw.kept default values;
