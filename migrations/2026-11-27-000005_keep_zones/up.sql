-- A campaign may go by the clock of each contact: its calls carry the zone by whose hours they go, its
-- windows are laid out for each of these zones, and what may go is looked for zone by zone. So a zone
-- opens and closes by one row, however many of its calls wait; campaigns without this pay nothing.
--
-- Locks: campaigns, campaign_contacts, campaign_windows and call_queue for a moment, to add columns, and
-- call_queue against changes while two indexes are built, of which no row is part yet: a second for a
-- million waiting calls. It only adds: a server of the version before hands out these calls as they are
-- kept in here. It cannot tell the zones of contacts: adding some to such a campaign, or queueing them
-- again, fails there and changes nothing.

ALTER TABLE campaigns ADD COLUMN use_contact_timezone boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN campaigns.use_contact_timezone IS
    'Whether its hours go by the clock of each contact, where that is known, rather than by its own zone. Changes in a draft only.';

CREATE TABLE campaign_zones (
    campaign_id uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    zone text COLLATE "C" NOT NULL,
    PRIMARY KEY (campaign_id, zone)
);
COMMENT ON TABLE campaign_zones IS
    'The zones by which calls of a campaign go that goes by its contacts'' clocks: IANA names, empty for the campaign''s own zone.';

ALTER TABLE campaign_contacts ADD COLUMN zone text COLLATE "C";
COMMENT ON COLUMN campaign_contacts.zone IS
    'By which zone its call goes, as in campaign_zones, from when it was laid out; null if its campaign does not go by contacts'' clocks.';

ALTER TABLE call_queue ADD COLUMN zone text COLLATE "C";
ALTER TABLE call_queue ADD CONSTRAINT call_queue_zone_of_campaign CHECK (zone IS NULL OR campaign_id IS NOT NULL) NOT VALID;
COMMENT ON COLUMN call_queue.zone IS 'campaign_contacts.zone, to be found by.';
CREATE INDEX call_queue_zone_next ON call_queue (campaign_id, zone, priority DESC, position)
    WHERE call_type = 'campaign' AND wakes_at IS NULL AND zone IS NOT NULL;
CREATE INDEX call_queue_zone_asleep ON call_queue (campaign_id, zone)
    WHERE call_type = 'campaign' AND wakes_at IS NOT NULL AND zone IS NOT NULL;

ALTER TABLE campaign_windows ADD COLUMN zone text COLLATE "C" NOT NULL DEFAULT '',
    DROP CONSTRAINT campaign_windows_pkey, ADD PRIMARY KEY (campaign_id, zone, opens_at);
COMMENT ON COLUMN campaign_windows.zone IS 'Of which of its calls, as in call_queue; empty for those of the campaign''s own zone, or all.';
CREATE INDEX campaign_windows_opened ON campaign_windows (campaign_id, zone) WHERE opened;

CREATE FUNCTION next_by_zones(p_campaign uuid, p_most integer) RETURNS TABLE (tid tid, priority integer)
LANGUAGE plpgsql STABLE STRICT AS $$
BEGIN
    RETURN QUERY
    SELECT h.tid, h.priority
    -- Each once: a call may be offered once only.
    FROM (SELECT DISTINCT w.zone FROM campaign_windows w WHERE w.campaign_id = p_campaign AND w.opened) z
    CROSS JOIN LATERAL (
        SELECT q.ctid AS tid, q.priority, q.position FROM call_queue q
        WHERE q.campaign_id = p_campaign AND q.zone = z.zone AND q.call_type = 'campaign' AND q.wakes_at IS NULL
        ORDER BY q.priority DESC, q.position LIMIT p_most
    ) h
    ORDER BY h.priority DESC, h.position LIMIT p_most;
END
$$;
COMMENT ON FUNCTION next_by_zones(uuid, integer) IS
    'The next due calls of a campaign that goes by its contacts'' clocks, at most so many, in its order, of those zones that are in their hours.';

CREATE FUNCTION skip_numbers(p_calls reserved_call[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM open_gaps(array_agg(a.call_type), array_agg(a.campaign_id), array_agg(a.ordinal))
    FROM unnest(p_calls) r
    CROSS JOIN LATERAL (
        SELECT k.call_type, k.campaign_id, k.ordinal FROM active_calls k WHERE k.call_id = r.call_id AND k.ordinal IS NOT NULL OFFSET 0
    ) a
    CROSS JOIN LATERAL (
        SELECT FROM campaigns c WHERE c.id = a.campaign_id AND c.use_contact_timezone OFFSET 0
    ) c
    HAVING count(*) > 0;
END
$$;
COMMENT ON FUNCTION skip_numbers(reserved_call[]) IS
    'Leaves out the numbers of calls that have started before others of their campaign whose zone was closed: places are derived from numbers. Needs lock_engine.';

CREATE FUNCTION zone_of_listed(p_campaign uuid, p_contact uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce((SELECT m.zone FROM campaign_contacts m WHERE m.campaign_id = c.id AND m.contact_id = p_contact), '')
        FROM campaigns c WHERE c.id = p_campaign AND c.use_contact_timezone);
END
$$;
COMMENT ON FUNCTION zone_of_listed(uuid, uuid) IS
    'The zone of a call of this campaign to this contact that comes back to the queue; null if the campaign does not go by contacts'' clocks.';

CREATE FUNCTION demand_zones() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT c.use_contact_timezone FROM campaigns c WHERE c.id = NEW.campaign_id) AND (
        SELECT q.zone IS NULL FROM call_queue q
        WHERE q.campaign_id = NEW.campaign_id AND q.call_type = 'campaign' AND q.wakes_at IS NULL
        ORDER BY q.priority, q.position DESC LIMIT 1
    ) THEN
        RAISE EXCEPTION 'campaign % goes by the clocks of its contacts, and calls were laid out that carry no zone', NEW.campaign_id
            USING HINT = 'A server of the version before cannot tell zones: ask one of this version.';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION demand_zones() IS 'Refuses calls without a zone where they need one: they would wait for ever. Looks at the last laid out.';
CREATE TRIGGER campaign_slots_zones_demanded AFTER UPDATE OF tail ON campaign_slots
    FOR EACH ROW WHEN (NEW.tail > OLD.tail) EXECUTE FUNCTION demand_zones();

CREATE FUNCTION lay_out_windows(p_campaign uuid, p_anew text[], p_zones text[], p_opens timestamptz[], p_closes timestamptz[],
    p_now timestamptz)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM campaign_windows w WHERE w.campaign_id = p_campaign AND (p_anew IS NULL OR w.zone = ANY (p_anew));
    INSERT INTO campaign_windows (campaign_id, zone, opens_at, closes_at, opened)
    SELECT p_campaign, i.zone, i.opens_at, i.closes_at, i.opens_at <= p_now
    FROM unnest(p_zones, p_opens, p_closes) i (zone, opens_at, closes_at)
    WHERE i.closes_at > p_now
    ON CONFLICT DO NOTHING;
    -- One that was started before hours were kept has opened long ago.
    UPDATE campaign_slots SET keeps_hours = true, opened_at = CASE WHEN open THEN coalesce(opened_at, p_now) ELSE opened_at END
    WHERE campaign_id = p_campaign AND NOT keeps_hours;
    PERFORM reopen_campaigns(ARRAY[p_campaign]);
END
$$;
COMMENT ON FUNCTION lay_out_windows(uuid, text[], text[], timestamptz[], timestamptz[], timestamptz) IS
    'Adds windows, each of a zone, to those of a campaign, after taking away those of some zones (all: null), and opens or closes it by them. Needs lock_engine.';
COMMENT ON FUNCTION lay_out_windows(uuid, timestamptz[], timestamptz[], boolean, timestamptz) IS
    'What servers of a version before call: the same for windows of the campaign''s own zone. Needs lock_engine.';

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('choose_campaign_calls', $x$            SELECT array_agg(e.tid) AS calls, array_agg(e.priority) AS priorities FROM (
                SELECT q.ctid AS tid, q.priority FROM call_queue q
                WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign' AND q.wakes_at IS NULL
                ORDER BY q.priority DESC, q.position
                LIMIT greatest(0, least(v_want, pace_allows(k.calls_per_second, c.next_at, p_now),
                    k.max_concurrent_calls - CASE WHEN k.max_concurrent_calls IS NOT NULL THEN (
                        SELECT count(*)::integer FROM active_calls a WHERE a.user_id = p_user AND a.campaign_id = c.campaign_id) END,
                    CASE WHEN v_paced AND provider_next_at(k.agent_id) > p_now THEN 0 END))
            ) e
$x$,
     $x$            SELECT greatest(0, least(v_want, pace_allows(k.calls_per_second, c.next_at, p_now),
                k.max_concurrent_calls - CASE WHEN k.max_concurrent_calls IS NOT NULL THEN (
                    SELECT count(*)::integer FROM active_calls a WHERE a.user_id = p_user AND a.campaign_id = c.campaign_id) END,
                CASE WHEN v_paced AND provider_next_at(k.agent_id) > p_now THEN 0 END)) AS most
            OFFSET 0
        ) m
        CROSS JOIN LATERAL (
            SELECT array_agg(e.tid) AS calls, array_agg(e.priority) AS priorities FROM (
                (SELECT q.ctid AS tid, q.priority FROM call_queue q
                    WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign' AND q.wakes_at IS NULL
                        AND NOT k.use_contact_timezone
                    ORDER BY q.priority DESC, q.position LIMIT m.most)
                UNION ALL
                SELECT z.tid, z.priority FROM next_by_zones(CASE WHEN k.use_contact_timezone THEN c.campaign_id END, m.most) z
            ) e
$x$),
    ('hand_out', $x$    IF v_careful IS NOT NULL THEN
        PERFORM refile_lanes(v_careful);
$x$,
     $x$    IF v_careful IS NOT NULL THEN
        PERFORM skip_numbers(reserved);
        PERFORM refile_lanes(v_careful);
$x$),
    -- A zone that is closed waits for its window, not for a pace.
    ('what_may_go', $x$                AND (k.max_concurrent_calls IS NULL OR$x$,
     $x$                AND (NOT k.use_contact_timezone OR EXISTS (SELECT FROM next_by_zones(c.campaign_id, 1)))
                AND (k.max_concurrent_calls IS NULL OR$x$),
    ('find_sole_campaign', $x$bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL)$x$,
     $x$bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL AND NOT k.use_contact_timezone)$x$),
    ('audit_counters', $x$bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL)$x$,
     $x$bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL AND NOT k.use_contact_timezone)$x$),
    ('reopen_campaigns', $x$v_none, v_due, NULL);
    END IF;
$x$,
     $x$v_none, v_due, NULL);
    END IF;
    -- One that stays open has other calls to offer when a zone of it has opened or closed.
    PERFORM refile_lanes(array_agg(DISTINCT c.user_id)) FROM campaigns c
    WHERE c.id = ANY (p_campaigns) AND c.use_contact_timezone HAVING count(*) > 0;
$x$),
    ('return_calls', $x$attempts, call_id, status, trail, ordinal, made)$x$,
     $x$attempts, call_id, status, trail, ordinal, made, zone)$x$),
    ('return_calls', $x$::call_transition, ordinal, made
$x$,
     $x$::call_transition, ordinal, made,
            zone_of_listed(campaign_id, contact_id)
$x$),
    ('retry_calls', $x$queued_at, queued_by, attempts, status, ordinal, made, trail)$x$,
     $x$queued_at, queued_by, attempts, status, ordinal, made, zone, trail)$x$),
    ('retry_calls', $x$v.made[4] + (v.kind = 4)::integer],
$x$,
     $x$v.made[4] + (v.kind = 4)::integer],
            zone_of_listed(h.campaign_id, h.contact_id),
$x$),
    ('spare_numbers', $x$attempts, call_id, status, trail, ordinal, made)$x$,
     $x$attempts, call_id, status, trail, ordinal, made, zone)$x$),
    ('spare_numbers', $x$            f.ordinal, f.made
$x$,
     $x$            f.ordinal, f.made, zone_of_listed(f.campaign_id, f.contact_id)
$x$),
    ('get_next_queued', $x$AND (q.call_type = 'direct' OR c.open)
$x$,
     $x$AND (q.call_type = 'direct' OR c.open)
        AND (q.zone IS NULL OR EXISTS (
            SELECT FROM campaign_windows w WHERE w.campaign_id = q.campaign_id AND w.zone = q.zone AND w.opened))
$x$)
    ) c (function, says, instead)
    LOOP
        v_was := pg_get_functiondef(v_change.function::regproc);
        v_found := (length(v_was) - length(replace(v_was, v_change.says, ''))) / length(v_change.says);
        IF v_found <> 1 THEN
            RAISE EXCEPTION '% says % times: %', v_change.function, v_found, v_change.says;
        END IF;
        EXECUTE replace(v_was, v_change.says, v_change.instead);
    END LOOP;
    -- Planned as the engine's functions are.
    FOR v_change IN
        SELECT p.oid::regprocedure AS function FROM pg_proc p
        WHERE p.pronamespace = current_schema()::regnamespace
            AND p.proname IN ('next_by_zones', 'skip_numbers', 'zone_of_listed', 'lay_out_windows')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_change.function);
    END LOOP;
END
$amend$;

INSERT INTO additive_migrations (version) VALUES ('20261127000005');
