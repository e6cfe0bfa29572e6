-- Dagster keeps its runs and events here, beside the data that they are about.
create schema if not exists dagster;
