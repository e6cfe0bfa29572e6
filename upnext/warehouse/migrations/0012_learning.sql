-- The features of a user when a variant was assigned, for experiences that are learned from.
create table experiences.seen_features (
    experience text not null,
    user_id text not null,
    features jsonb not null,
    primary key (experience, user_id)
);

-- How the variant was chosen, and by which rules: at chance, the best single one, or by the rules.
alter table experiences.assignments
add column mode text not null default 'chance' check (mode in ('chance', 'single', 'rules')),
add column rules text;
