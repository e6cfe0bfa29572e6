-- Wilson's intervals of the shares of the messages sent that were opened, clicked, and followed by the goal.
alter table analytics.journey_funnel
add column open_rate double precision,
add column open_low double precision,
add column open_high double precision,
add column click_rate double precision,
add column click_low double precision,
add column click_high double precision,
add column goal_rate double precision,
add column goal_low double precision,
add column goal_high double precision;
