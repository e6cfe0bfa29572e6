create schema if not exists analytics;

create table analytics.experiment_results (
    as_of timestamptz not null,
    experiment text not null,
    segment text not null,
    metric text not null,
    arm text not null,
    n_control bigint not null,
    n_arm bigint not null,
    mean_control double precision,
    mean_arm double precision,
    diff double precision,
    diff_low double precision,
    diff_high double precision,
    lift double precision,
    lift_low double precision,
    lift_high double precision,
    p_value double precision,
    p_adjusted double precision,
    p_always_valid double precision,
    srm_p double precision,
    reason text,
    primary key (as_of, experiment, segment, metric, arm)
);

create table analytics.journey_funnel (
    as_of timestamptz not null,
    journey text not null,
    step text not null,
    entered bigint not null,
    sent bigint not null,
    opened bigint not null,
    clicked bigint not null,
    converted bigint not null,
    primary key (as_of, journey, step)
);

create table analytics.copy_ranking (
    as_of timestamptz not null,
    segment text not null,
    experiment text not null,
    variant text not null,
    exposed bigint not null,
    clicked bigint not null,
    rate double precision,
    rate_low double precision,
    rate_high double precision,
    rank integer not null,
    primary key (as_of, segment, experiment, variant)
);
