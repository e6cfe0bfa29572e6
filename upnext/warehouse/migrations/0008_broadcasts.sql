-- How fast the messages of a journey may go, and what pauses it; as its file says now, for all versions.
create table journeys.limits (
    journey text primary key,
    most integer,
    per interval,
    -- Shares that pause the journey (`failed`, `bounced`, `complained`), of so many messages or more (`of_at_least`).
    pauses jsonb,
    -- Since the start, or since somebody resumed the journey.
    counted_since timestamptz not null
);
alter table journeys.pauses add column reason text;

-- A message of a journey that has limits: the limits count these.
alter table journeys.messages add column is_limited boolean not null default false;
create index messages_of_limits on journeys.messages (journey, sent_at) where is_limited;
