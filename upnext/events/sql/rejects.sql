-- Rejected lines, by reason, and their replay.

-- name: summary
with summary as (
    select
        source,
        reason,
        count(*) as lines,
        (array_agg(load_id order by load_id desc, line))[1] as load_id,
        (array_agg(line order by load_id desc, line))[1] as line
    from raw.rejected_events
    where source = coalesce(:source, source)
    group by source, reason
)

select
    summary.source,
    summary.reason,
    summary.lines,
    example.detail,
    left(example.payload, 200) as payload,
    loads.path || ':' || summary.line as place
from summary
inner join raw.rejected_events as example using (load_id, line)
inner join raw.loads using (load_id)
order by summary.lines desc, summary.source, summary.reason;

-- name: loads
select load_id, source, loaded_at from raw.loads
where exists (
    select from raw.rejected_events as lines
    where
        lines.load_id = loads.load_id
        and lines.source = coalesce(:source, lines.source)
        and lines.reason = coalesce(:reason, lines.reason)
        and lines.reason <> all(:unreadable)
)
order by load_id;

-- name: lines
select line, reason, detail, coalesce(payload_bytes, convert_to(payload, 'UTF8')) as payload
from raw.rejected_events
where
    load_id = :load_id
    and line > :after
    and reason = coalesce(:reason, reason)
    and reason <> all(:unreadable)
order by line
limit :limit;

-- name: open_replay
insert into raw.loads
    (source, path, fingerprint, size, modified_at, received, stored, duplicate, rejected, loaded_at, replay_of)
select source, path, fingerprint, size, modified_at, 0, 0, 0, 0, loaded_at, load_id
from raw.loads
where load_id = :load_id
returning load_id;

-- name: drop_replay
delete from raw.loads where load_id = :load_id;

-- name: close_replay
-- A line that is accepted moves from its load to the replay, so that the sums over all loads stay right.
with moved as (
    update raw.loads
    set
        received = received - cast(:accepted as bigint),
        rejected = rejected - :accepted,
        replayed = replayed + :accepted
    where load_id = :load_id
)

update raw.loads
set received = :accepted, stored = :stored, duplicate = cast(:accepted as bigint) - :stored
where load_id = :replay_id;

-- name: forget_lines
delete from raw.rejected_events where load_id = :load_id and line = any(:lines);

-- name: explain_line
update raw.rejected_events set reason = :reason, detail = :detail where load_id = :load_id and line = :line;
