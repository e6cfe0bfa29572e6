-- The value of the journey's `keyed_by` in the event that let the user in: one run for each. Null where it has none.
alter table journeys.entries add column key text;

-- They take the key now.
drop function if exists journeys.entering_by_event(text, jsonb, bigint, timestamptz, timestamptz);
drop function if exists journeys.goal_reached(text, jsonb, timestamptz, timestamptz);
drop function if exists upnext.is_asked_for(jsonb, jsonb, jsonb);

-- A user may have thousands of runs, and each looks for one of its own key.
create index entries_by_key on journeys.entries (user_id, journey, coalesce(key, ''));
-- The frequency cap counts these. A user may have thousands of others.
create index messages_of_cap on journeys.messages (user_id) where status in ('sending', 'sent', 'unknown');
