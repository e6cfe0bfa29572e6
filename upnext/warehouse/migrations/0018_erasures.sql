-- Ids and addresses of people who were erased, as keyed hashes. Nothing of them is loaded again, and nobody mails them.
create table upnext.erased (
    hash bytea primary key,
    -- Which key the hash is of: a hash of the key itself.
    key text not null,
    erased_at timestamptz not null
);

-- How many of the stored events were erased since.
alter table raw.loads add column erased bigint not null default 0;

-- What erased people add to the sums of the results.
create table analytics.erased_steps (
    journey text not null,
    step text not null,
    entered bigint not null,
    sent bigint not null,
    opened bigint not null,
    clicked bigint not null,
    converted bigint not null,
    primary key (journey, step)
);

create table analytics.erased_copies (
    segment text not null,
    experiment text not null,
    split text not null,
    variant text not null,
    exposed bigint not null,
    clicked bigint not null,
    converted bigint not null,
    open bigint not null,
    primary key (segment, experiment, split, variant)
);
