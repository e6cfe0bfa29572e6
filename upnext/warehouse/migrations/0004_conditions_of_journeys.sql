-- It takes the whole entry now, with its conditions.
drop function if exists journeys.entering_by_event(text, text [], bigint, timestamptz, timestamptz);
