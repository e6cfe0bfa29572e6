-- The lists of ids that segments read, as their files were at the last tick or preview.
create table segments.lists (
    list text not null,
    id text not null,
    primary key (list, id)
);

create table segments.list_files (
    list text primary key,
    -- Of the file's bytes. A segment evaluates everybody where it is another.
    hash text not null,
    stored_at timestamptz not null default now()
);
