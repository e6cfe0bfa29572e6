-- The interval of the lift that holds at every look, and the page that shows all results.
alter table analytics.experiment_results add column lift_always_low double precision;
alter table analytics.experiment_results add column lift_always_high double precision;

-- The newest page, as HTML in gzip. Its one row is written by each report, and read by the edge.
create table analytics.report (
    name text primary key default 'report' check (name = 'report'),
    as_of timestamptz,
    hash text not null,
    page bytea not null
);
