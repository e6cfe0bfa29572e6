-- Which database this is: by its server, and by its number there.

-- name: claim_origin
insert into upnext.origin (database, since)
select upnext.this_database(), :at
on conflict (name) do nothing;

-- name: is_a_copy
select database <> upnext.this_database() from upnext.origin;

-- name: adopt
insert into upnext.origin (database, since)
select upnext.this_database(), :at
on conflict (name) do update set database = excluded.database, since = excluded.since;

-- name: leave_unsent
-- What was due may have been sent by the database that this one is a copy of.
update journeys.messages
set status = case when status = 'sending' then 'unknown' else 'skipped' end, reason = 'restored', lease_until = null
where status in ('pending', 'sending') and due_at <= :until;
