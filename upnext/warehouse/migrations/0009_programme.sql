-- What the policy says of the programme: journeys and experiences as a whole.
create table analytics.programme (
    name text primary key default 'programme' check (name = 'programme'),
    goal jsonb not null,
    minimum_lift double precision not null,
    revenue text
);

-- The share of the users whom the global holdout keeps from the programme, with the time from which it applies.
create table analytics.programme_shares (
    since timestamptz primary key,
    share double precision not null,
    used_at timestamptz not null
);

-- Users of the global holdout who would have been assigned a variant.
create table experiences.held_out (
    user_id text primary key,
    since timestamptz not null
);

create or replace function analytics.has_programme() returns boolean language sql stable
return exists (select from analytics.programme);
