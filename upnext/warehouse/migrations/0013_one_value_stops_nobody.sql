-- The values of one row must never stop its neighbours: a B-tree refuses texts of over 2.7 KB, a hash does not.
drop index raw.events_of_consent;
create index events_of_consent on raw.events using hash ((properties ->> 'message_id'))
where event in ('message unsubscribed', 'message bounced', 'message complained', 'message resubscribed');

drop index raw.loads_once;
create unique index loads_once on raw.loads (source, md5(path), fingerprint) where replay_of is null;
create index loads_by_path on raw.loads using hash (path);
alter table raw.refused_files drop constraint refused_files_pkey;
create unique index refused_files_once on raw.refused_files (md5(path));

-- Some programs replace a file by one of the same size and keep its time (`cp -p`, `rsync -t`): its inode and the time at
-- which the system changed it tell.
alter table raw.loads
    add column inode numeric,
    add column changed_at timestamptz,
    -- The last row of a CSV file has no newline, and may not be written to its end: the file is read on from here.
    add column look_again_at timestamptz;
alter table raw.refused_files add column inode numeric, add column changed_at timestamptz;

-- What the ids of an entry's messages are made of. It is drawn once, at entry: a merge changes the user, and two entries
-- of one user may begin at one instant.
alter table journeys.entries add column seed text;
update journeys.entries
set seed = concat_ws('/', journey, user_id, extract(epoch from entered_at), cause)
where change_id is null;
update journeys.entries
set seed = case
    when nth = 1 then concat_ws('/', entries.journey, entries.user_id, extract(epoch from entries.entered_at))
    else concat_ws('/', entries.journey, entries.user_id, extract(epoch from entries.entered_at), entries.cause)
end
from (
    select entry_id, row_number() over (partition by journey, user_id, entered_at order by entry_id) as nth
    from journeys.entries
    where change_id is not null
) as numbered
where numbered.entry_id = entries.entry_id;
alter table journeys.entries alter column seed set not null;
create unique index entries_by_seed on journeys.entries (md5(seed));

-- Whether a session of this database holds the advisory lock of this name; of this process of the server, where it is named.
create function upnext.is_locked(name text, holder integer default null) returns boolean
language sql volatile
return exists (
    select from pg_locks
    where
        locktype = 'advisory'
        and granted
        and database = (select oid from pg_database where datname = current_database())
        and classid::bigint << 32 | objid::bigint = hashtextextended('upnext:' || name, 0)
        and (holder is null or pid = holder)
);

-- Who opened a tick loses its lock with its session, and may not notice. So each transaction that writes for a tick calls
-- `upnext.fence_tick` first: until it ends nobody else can take the tick over, and once somebody has it fails.
alter table segments.ticks add column holder integer;

create function upnext.fence_tick(number bigint) returns void language plpgsql as $$
begin
    perform from segments.ticks
    where tick_id = number and published_at is null and upnext.is_locked('tick', holder)
    for share;
    if not found then
        raise exception using message
            = concat('tick ', number, ' has lost its lock, or was taken over by a later one: it writes nothing more');
    end if;
end
$$;
