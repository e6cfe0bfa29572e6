-- Which database this one is, since it first sent something. A copy of it is another, and sends nothing until somebody
-- says so.
create table upnext.origin (
    name text primary key default 'origin' check (name = 'origin'),
    database text not null,
    since timestamptz not null
);
