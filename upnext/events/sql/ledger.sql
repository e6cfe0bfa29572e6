-- The ledger of loads: a row per file and content, and a row per file that was refused as a whole.

-- name: waiting
-- Files as they were when they were last read or refused.
select path, source, size, modified_at, inode, changed_at
from raw.loads
where path = any(:paths) and replay_of is null and (look_again_at is null or look_again_at > :now)
union all
select path, source, size, modified_at, inode, changed_at
from raw.refused_files
where path = any(:paths);

-- name: is_refused
select exists (select from raw.refused_files where path = :path);

-- name: newest
select read_to, read_lines, prefix from raw.loads
where source = :source and path = :path and replay_of is null
order by load_id desc
limit 1;

-- name: same_content
select read_to, read_lines, prefix from raw.loads
where source = :source and fingerprint = :fingerprint and replay_of is null
order by load_id desc
limit 1;

-- name: open
insert into raw.loads
    (source, path, fingerprint, size, modified_at, inode, changed_at, received, stored, duplicate, rejected, loaded_at,
        read_to, read_lines, prefix, change)
values
    (:source, :path, :fingerprint, :size, :modified_at, :inode, :changed_at, 0, 0, 0, 0, :loaded_at,
        :read_to, :read_lines, :prefix, :change)
on conflict (source, md5(path), fingerprint) where replay_of is null do update
set
    size = excluded.size,
    modified_at = excluded.modified_at,
    inode = excluded.inode,
    changed_at = excluded.changed_at
returning load_id;

-- name: close
update raw.loads
set
    received = :received,
    stored = :stored,
    duplicate = :duplicate,
    rejected = :rejected,
    read_to = :read_to,
    read_lines = :read_lines,
    prefix = :prefix,
    fingerprint = :fingerprint,
    look_again_at = :look_again_at
where load_id = :load_id;

-- name: look_again
with nothing_read as (
    delete from raw.loads where load_id = :load_id
)

update raw.loads
set
    size = :size,
    modified_at = :modified_at,
    inode = :inode,
    changed_at = :changed_at,
    look_again_at = :look_again_at
where load_id = (
    select max(load_id) from raw.loads
    where source = :source and path = :path and replay_of is null and load_id <> :load_id
);

-- name: refuse
insert into raw.refused_files (path, source, size, modified_at, inode, changed_at, reason, refused_at)
values (:path, :source, :size, :modified_at, :inode, :changed_at, :reason, :refused_at)
on conflict (md5(path)) do update
set
    source = excluded.source,
    size = excluded.size,
    modified_at = excluded.modified_at,
    inode = excluded.inode,
    changed_at = excluded.changed_at,
    reason = excluded.reason,
    refused_at = excluded.refused_at;

-- name: has_lines_waiting
select exists (select from edge.inbox where source = any(:sources));

-- name: take_from_inbox
-- A page of so many lines, or of so many bytes: the reader holds it in memory.
with page as (
    select inbox_id, octet_length(line) as size from edge.inbox
    where source = any(:sources)
    order by inbox_id
    limit :page
    for update skip locked
),

measured as (
    select inbox_id, sum(size) over (order by inbox_id rows unbounded preceding) - size as before from page
)

delete from edge.inbox
where inbox_id in (select inbox_id from measured where before < :bytes)
returning source, inbox_id, line;

-- name: refused_paths
select path from raw.refused_files;

-- name: accept
delete from raw.refused_files where path = any(:paths);

-- name: events_kept
select since, events from raw.kept;

-- name: refused_files
select source, path, reason from raw.refused_files
where cast(:source as text) is null or source = :source
order by path;
