-- Why nothing may be sent to a user, or to an address, in a channel; null where it may. A bounce stops the address alone:
-- the user may have another by now.
create or replace function journeys.suppressed_by(in_channel text, to_user text, to_address text) returns text
language sql stable
return (
    select reason
    from (
        select reason, since
        from journeys.suppressions
        where
            user_id = to_user and channel in (in_channel, 'all')
            and (reason <> 'bounced' or address in ('', lower(to_address)))
        union all
        select reason, since
        from journeys.suppressions
        where address = lower(to_address) and address <> '' and channel in (in_channel, 'all')
    ) as found
    order by since
    limit 1
);

-- The time zone of a user by a trait of the user or else of the account, as of an instant; UTC where none is known.
create or replace function journeys.time_zone_of(of_user text, trait text, at timestamptz) returns text
language plpgsql stable as $$
declare
    zone text;
begin
    select events.properties ->> trait into zone
    from events.user_events as events
    where
        events.user_id = of_user and events.type = 'identify' and events.occurred_at <= at
        and upnext.is_time_zone(events.properties ->> trait)
    order by events.occurred_at desc, events.source collate "C" desc, events.message_id collate "C" desc
    limit 1;
    if zone is null then
        select accounts.properties ->> trait into zone
        from features.user_accounts
        inner join raw.events as accounts
            on accounts.type = 'group' and accounts.account_id = user_accounts.account_id
        where
            user_accounts.user_id = of_user and accounts.occurred_at <= at
            and upnext.is_time_zone(accounts.properties ->> trait)
        order by accounts.occurred_at desc
        limit 1;
    end if;
    return coalesce(zone, 'UTC');
end
$$;
