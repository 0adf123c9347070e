-- Campaigns that went by the clocks of their contacts go by their own zone again.
SELECT lock_engine();

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('get_next_queued', $x$AND (q.call_type = 'direct' OR c.open)
        AND (q.zone IS NULL OR EXISTS (
            SELECT FROM campaign_windows w WHERE w.campaign_id = q.campaign_id AND w.zone = q.zone AND w.opened))
$x$,
     $x$AND (q.call_type = 'direct' OR c.open)
$x$),
    ('spare_numbers', $x$            f.ordinal, f.made, zone_of_listed(f.campaign_id, f.contact_id)
$x$,
     $x$            f.ordinal, f.made
$x$),
    ('spare_numbers', $x$attempts, call_id, status, trail, ordinal, made, zone)$x$,
     $x$attempts, call_id, status, trail, ordinal, made)$x$),
    ('retry_calls', $x$v.made[4] + (v.kind = 4)::integer],
            zone_of_listed(h.campaign_id, h.contact_id),
$x$,
     $x$v.made[4] + (v.kind = 4)::integer],
$x$),
    ('retry_calls', $x$queued_at, queued_by, attempts, status, ordinal, made, zone, trail)$x$,
     $x$queued_at, queued_by, attempts, status, ordinal, made, trail)$x$),
    ('return_calls', $x$::call_transition, ordinal, made,
            zone_of_listed(campaign_id, contact_id)
$x$,
     $x$::call_transition, ordinal, made
$x$),
    ('return_calls', $x$attempts, call_id, status, trail, ordinal, made, zone)$x$,
     $x$attempts, call_id, status, trail, ordinal, made)$x$),
    ('reopen_campaigns', $x$v_none, v_due, NULL);
    END IF;
    -- One that stays open has other calls to offer when a zone of it has opened or closed.
    PERFORM refile_lanes(array_agg(DISTINCT c.user_id)) FROM campaigns c
    WHERE c.id = ANY (p_campaigns) AND c.use_contact_timezone HAVING count(*) > 0;
$x$,
     $x$v_none, v_due, NULL);
    END IF;
$x$),
    ('audit_counters', $x$bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL AND NOT k.use_contact_timezone)$x$,
     $x$bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL)$x$),
    ('find_sole_campaign', $x$bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL AND NOT k.use_contact_timezone)$x$,
     $x$bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL)$x$),
    ('what_may_go', $x$                AND (NOT k.use_contact_timezone OR EXISTS (SELECT FROM next_by_zones(c.campaign_id, 1)))
                AND (k.max_concurrent_calls IS NULL OR$x$,
     $x$                AND (k.max_concurrent_calls IS NULL OR$x$),
    ('hand_out', $x$    IF v_careful IS NOT NULL THEN
        PERFORM skip_numbers(reserved);
        PERFORM refile_lanes(v_careful);
$x$,
     $x$    IF v_careful IS NOT NULL THEN
        PERFORM refile_lanes(v_careful);
$x$),
    ('choose_campaign_calls', $x$            SELECT greatest(0, least(v_want, pace_allows(k.calls_per_second, c.next_at, p_now),
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
$x$,
     $x$            SELECT array_agg(e.tid) AS calls, array_agg(e.priority) AS priorities FROM (
                SELECT q.ctid AS tid, q.priority FROM call_queue q
                WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign' AND q.wakes_at IS NULL
                ORDER BY q.priority DESC, q.position
                LIMIT greatest(0, least(v_want, pace_allows(k.calls_per_second, c.next_at, p_now),
                    k.max_concurrent_calls - CASE WHEN k.max_concurrent_calls IS NOT NULL THEN (
                        SELECT count(*)::integer FROM active_calls a WHERE a.user_id = p_user AND a.campaign_id = c.campaign_id) END,
                    CASE WHEN v_paced AND provider_next_at(k.agent_id) > p_now THEN 0 END))
            ) e
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
END
$amend$;

-- Their windows are worked out anew by whoever keeps hours next; until then they are closed.
DELETE FROM campaign_windows w USING campaigns c WHERE c.id = w.campaign_id AND c.use_contact_timezone;
SELECT reopen_campaigns(ARRAY(SELECT id FROM campaigns WHERE use_contact_timezone));
SELECT find_sole_campaign(array_agg(DISTINCT user_id)) FROM campaigns WHERE use_contact_timezone HAVING count(*) > 0;

DROP TRIGGER campaign_slots_zones_demanded ON campaign_slots;
DROP FUNCTION demand_zones();
DROP FUNCTION lay_out_windows(uuid, text[], text[], timestamptz[], timestamptz[], timestamptz);
DROP FUNCTION skip_numbers(reserved_call[]);
DROP FUNCTION zone_of_listed(uuid, uuid);
DROP FUNCTION next_by_zones(uuid, integer);
COMMENT ON FUNCTION lay_out_windows(uuid, timestamptz[], timestamptz[], boolean, timestamptz) IS
    'Adds windows to those of a campaign, or puts them in their place, and opens or closes it by them. Needs lock_engine.';
DROP INDEX campaign_windows_opened;
ALTER TABLE campaign_windows DROP COLUMN zone, ADD PRIMARY KEY (campaign_id, opens_at);
DROP INDEX call_queue_zone_next;
DROP INDEX call_queue_zone_asleep;
ALTER TABLE call_queue DROP COLUMN zone;
ALTER TABLE campaign_contacts DROP COLUMN zone;
DROP TABLE campaign_zones;
ALTER TABLE campaigns DROP COLUMN use_contact_timezone;
DELETE FROM additive_migrations WHERE version = '20261127000005';
