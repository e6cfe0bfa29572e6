-- Experiences: definitions, assignments, and the calls to action for each user.
create schema if not exists experiences;

create table experiences.definitions (
    experience text primary key,
    definition jsonb not null
);

-- Each traffic split with its start: changing it does not reassign users.
create table experiences.shares (
    experience text not null,
    since timestamptz not null,
    weights jsonb not null,
    primary key (experience, since)
);

create table experiences.assignments (
    experience text not null,
    user_id text not null,
    variant text not null,
    assigned_at timestamptz not null,
    -- Whether users of two arms were merged.
    is_in_both_arms boolean not null default false,
    primary key (experience, user_id)
);
create index assignments_by_user on experiences.assignments (user_id);

-- Calls to action, which a site reads by key. Control has a row too, with a null copy, which holds the slot.
create table experiences.live_ctas (
    user_id text not null,
    surface text not null,
    slot text not null,
    source text not null,
    source_kind text not null check (source_kind in ('experience', 'journey')),
    variant text not null,
    copy text,
    url text,
    starts_at timestamptz not null,
    ends_at timestamptz,
    trigger jsonb,
    primary key (user_id, surface, slot)
);
create index live_ctas_of_journeys on experiences.live_ctas (user_id) where source_kind = 'journey';
