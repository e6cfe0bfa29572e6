-- Results, one row per instant of analysis, and what the next analysis has to recompute.
create schema if not exists analytics;

create table analytics.experiment_results (
    as_of timestamptz not null,
    experiment text not null,
    segment text not null,
    metric text not null,
    arm text not null,
    type text,
    -- Results of another goal are not earlier looks at this one.
    goal_version text,
    n_control bigint not null,
    n_arm bigint not null,
    n_open_control bigint,
    n_open_arm bigint,
    n_both_control bigint,
    n_both_arm bigint,
    mean_control double precision,
    mean_arm double precision,
    diff double precision,
    diff_low double precision,
    diff_high double precision,
    diff_always_low double precision,
    diff_always_high double precision,
    lift double precision,
    lift_low double precision,
    lift_high double precision,
    p_value double precision,
    p_adjusted double precision,
    p_always_valid double precision,
    srm_p double precision,
    minimal_detectable_lift double precision,
    days_left bigint,
    decision text,
    reason text,
    primary key (as_of, experiment, segment, metric, arm)
);
create index experiment_results_by_experiment
on analytics.experiment_results (experiment, metric, arm, goal_version, as_of);

create table analytics.segment_results (
    as_of timestamptz not null,
    segment text not null,
    experiment text not null,
    arm text not null,
    reference text not null,
    n_reference bigint not null,
    n_arm bigint not null,
    mean_reference double precision not null,
    mean_arm double precision not null,
    lift double precision,
    lift_low double precision,
    lift_high double precision,
    p_value double precision,
    p_adjusted double precision,
    p_always_valid double precision,
    finding text not null,
    reason text,
    primary key (as_of, segment, experiment, arm, reference)
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
    is_best_by_clicks boolean,
    converted bigint,
    open bigint,
    goal_rate double precision,
    goal_low double precision,
    goal_high double precision,
    goal_rank integer,
    is_best_by_goals boolean,
    primary key (as_of, segment, experiment, variant)
);

-- Users whose entries or assignments were written since the last analysis. A dispatch may commit after the analysis of
-- a later tick, so neither an instant nor a tick can name them.
create table analytics.invalidated_users (
    user_id text not null
);

-- Users whose exposures and outcomes the newest analysis recomputed.
create table analytics.stale_users (
    user_id text primary key
);

-- Days (UTC) of first exposure whose moments are to be recomputed.
create table analytics.stale_days (
    experiment text not null,
    exposed_on date not null,
    primary key (experiment, exposed_on)
);
