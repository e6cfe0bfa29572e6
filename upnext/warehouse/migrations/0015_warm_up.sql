drop function if exists journeys.entering_by_start(text);

-- What a channel whose warm-up is on has taken to send on a day, in all ('') and to each domain that has its own tiers.
create table journeys.warm_up (
    channel text not null,
    day date not null,
    domain text not null,
    taken integer not null,
    primary key (channel, day, domain)
);
