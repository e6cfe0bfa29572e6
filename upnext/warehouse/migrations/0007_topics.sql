-- What a user has said about a topic last, and where.
create table journeys.consents (
    user_id text not null,
    topic text not null,
    is_granted boolean not null,
    source text not null,
    since timestamptz not null,
    primary key (user_id, topic)
);
alter table journeys.suppressions add column source text;

-- Transactional messages go first.
alter table journeys.messages add column is_transactional boolean not null default false;
create index messages_first on journeys.messages (due_at, user_id, position, message_id)
where status = 'pending' and is_transactional;

-- They take other arguments now.
drop function if exists journeys.stop_reason(text, text, timestamptz, interval, text [], integer, interval);
drop function if exists journeys.suppressed_by(text, text, text);
drop function if exists journeys.due_messages(text, text [], timestamptz);
