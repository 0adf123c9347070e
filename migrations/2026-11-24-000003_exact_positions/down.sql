-- Locks: everything in the queue, for a moment.
DO $$
BEGIN
    IF EXISTS (SELECT FROM servers WHERE lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'a server is running; stop it first';
    END IF;
END
$$;

LOCK TABLE active_calls, system_state, user_slots, campaign_slots, call_queue IN ACCESS EXCLUSIVE MODE;

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('audit_counters', $x$count(filed_campaign) FROM user_slots) FROM ready_lanes
        UNION ALL
        SELECT p.counter, p.subject, p.kept, p.counted FROM audit_places() p$x$,
     $x$count(filed_campaign) FROM user_slots) FROM ready_lanes$x$),
    ('withdraw_items', $x$    IF v_ordinals IS NOT NULL THEN
        PERFORM open_gaps(v_types, v_lanes, v_ordinals);
    END IF;
    IF v_users IS NOT NULL THEN$x$,
     $x$    IF v_users IS NOT NULL THEN$x$),
    ('withdraw_items', $x$        FROM per_user p
    ) u
    CROSS JOIN (
        SELECT array_agg(g.call_type) AS types, array_agg(coalesce(g.campaign_id, g.user_id)) AS lanes,
            array_agg(g.ordinal) AS ordinals
        FROM gone g WHERE g.wakes_at IS NULL AND g.ordinal IS NOT NULL
    ) l;$x$,
     $x$        FROM per_user p
    ) u;$x$),
    ('withdraw_items', $x$    INTO v_types, v_lanes, v_ordinals, v_items,$x$,
     $x$    INTO v_items,$x$),
    ('withdraw_items', $x$    SELECT l.types, l.lanes, l.ordinals, (SELECT array_agg(id) FROM gone),$x$,
     $x$    SELECT (SELECT array_agg(id) FROM gone),$x$),
    ('withdraw_items', $x$    v_items uuid[];
    v_types call_type[];
    v_lanes uuid[];
    v_ordinals bigint[];
$x$,
     $x$    v_items uuid[];
$x$),
    ('wake_and_expire', $x$        PERFORM close_gaps(v_items);
        PERFORM change_slots($x$,
     $x$        PERFORM change_slots($x$),
    ('return_calls', $x$        PERFORM close_gaps(v_items);
        PERFORM change_slots($x$,
     $x$        PERFORM change_slots($x$),
    ('return_calls', $x$because, p_server)::call_transition, ordinal$x$,
     $x$because, p_server)::call_transition$x$),
    ('return_calls', $x$attempts, call_id, status, trail, ordinal)$x$,
     $x$attempts, call_id, status, trail)$x$),
    ('admit_direct_calls', $x$        PERFORM open_gaps(array_agg(q.call_type), array_agg(q.user_id), array_agg(q.ordinal))
        FROM unnest(verdicts) v JOIN call_queue q ON q.id = v.item_id WHERE v.verdict = 'scheduled';
        -- What sleeps stands behind$x$,
     $x$        -- What sleeps stands behind$x$),
    ('admit_direct_calls', $x$p_batch, p_now, d.ordinal
$x$,
     $x$p_batch, p_now
$x$),
    ('admit_direct_calls', $x$batch, reserved_at, ordinal)$x$,
     $x$batch, reserved_at)$x$),
    ('admit_direct_calls', $x$a.expires_at, p_now, p_server, a.ordinal
$x$,
     $x$a.expires_at, p_now, p_server
$x$),
    ('admit_direct_calls', $x$expires_at, queued_at, queued_by, ordinal)
        SELECT a.item_id$x$,
     $x$expires_at, queued_at, queued_by)
        SELECT a.item_id$x$),
    ('admit_direct_calls', $x$nextval('call_queue_position_seq') AS position, v_ordinals[r.nth] AS ordinal$x$,
     $x$nextval('call_queue_position_seq') AS position$x$),
    ('admit_direct_calls', $x$)::verdict ORDER BY p.nth), array_agg(s.direct_tail + p.nth_accepted ORDER BY p.nth)
    INTO verdicts, v_ordinals
$x$,
     $x$)::verdict ORDER BY p.nth)
    INTO verdicts
$x$),
    ('admit_direct_calls', $x$AS nth_waiting,
            count(*) FILTER (WHERE l.verdict = 'accepted')
                OVER (PARTITION BY l.user_id ORDER BY l.nth ROWS UNBOUNDED PRECEDING) AS nth_accepted$x$,
     $x$AS nth_waiting$x$),
    ('admit_direct_calls', $x$    v_none integer[];
    v_ordinals bigint[];$x$,
     $x$    v_none integer[];$x$),
    ('change_slots', $x$due_campaign = w.due_campaign, direct_tail = w.direct_tail,$x$,
     $x$due_campaign = w.due_campaign,$x$),
    ('change_slots', $x$s.due_campaign + i.due_campaign AS due_campaign,
            -- What neither waited nor was up before is new, and has a number.
            s.direct_tail + greatest(0, i.active_direct + i.due_direct + i.later_direct) AS direct_tail,$x$,
     $x$s.due_campaign + i.due_campaign AS due_campaign,$x$),
    ('hand_out', $x$p_batch, p_now, trail, ordinal$x$,
     $x$p_batch, p_now, trail$x$),
    ('hand_out', $x$reserved_at, trail, ordinal)$x$,
     $x$reserved_at, trail)$x$)
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

CREATE OR REPLACE FUNCTION get_call_queue_position(p_queue_id uuid) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    me call_queue;
    v_ahead bigint;
BEGIN
    SELECT * INTO me FROM call_queue WHERE id = p_queue_id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF me.call_type = 'direct' THEN
        IF me.wakes_at IS NULL THEN
            RETURN (SELECT count(*) FROM call_queue WHERE user_id = me.user_id AND call_type = 'direct'
                    AND wakes_at IS NULL AND priority > me.priority)
                + (SELECT count(*) FROM call_queue WHERE user_id = me.user_id AND call_type = 'direct'
                    AND wakes_at IS NULL AND priority = me.priority AND position <= me.position);
        END IF;
        SELECT due_direct INTO v_ahead FROM user_slots WHERE user_id = me.user_id;
    ELSE
        IF me.wakes_at IS NULL THEN
            RETURN (
                SELECT sum(
                    (SELECT count(*) FROM call_queue q WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign'
                        AND q.wakes_at IS NULL AND q.priority > me.priority)
                    + (SELECT count(*) FROM call_queue q WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign'
                        AND q.wakes_at IS NULL AND q.priority = me.priority AND q.position <= me.position))
                FROM campaign_slots c
                WHERE c.user_id = me.user_id AND (c.open OR c.campaign_id = me.campaign_id));
        END IF;
        SELECT sum(due) INTO v_ahead FROM campaign_counts
        WHERE user_id = me.user_id AND (open OR campaign_id = me.campaign_id);
    END IF;
    RETURN v_ahead + (
        SELECT count(*) FROM call_queue q
        WHERE q.user_id = me.user_id AND q.call_type = me.call_type AND q.wakes_at IS NOT NULL
            AND (q.wakes_at, q.position) <= (me.wakes_at, me.position));
END
$$;
COMMENT ON FUNCTION get_call_queue_position(uuid) IS
    'Place of a waiting item among the waiting items of its user and type, 1 for the next to go, null if it does not wait. What is not due yet comes after what is.';

ALTER FUNCTION get_call_queue_position(uuid) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION get_call_queue_position(uuid) SET enable_seqscan = off;
ALTER FUNCTION get_call_queue_position(uuid) SET enable_bitmapscan = off;
ALTER FUNCTION get_call_queue_position(uuid) SET enable_mergejoin = off;
ALTER FUNCTION get_call_queue_position(uuid) SET jit = off;

DROP TRIGGER call_queue_number_dropped ON call_queue;
DROP TRIGGER call_queue_moved ON call_queue;
DROP TRIGGER call_queue_moved_lock ON call_queue;
DROP FUNCTION drop_number();
DROP FUNCTION note_dropped_numbers();
DROP FUNCTION audit_places();
DROP FUNCTION count_lane(call_type, uuid, bigint);
DROP FUNCTION forget_gaps(uuid);
DROP FUNCTION close_gaps(uuid[]);
DROP FUNCTION open_gaps(call_type[], uuid[], bigint[]);
DROP FUNCTION lane_head(call_type, uuid, bigint[]);
DROP FUNCTION gaps_before(uuid, bigint);
DROP FUNCTION change_gaps(uuid[], bigint[], bigint[]);
DROP TABLE lane_gaps;
ALTER TABLE campaign_slots DROP COLUMN tail;
ALTER TABLE user_slots DROP COLUMN direct_tail;
ALTER TABLE active_calls DROP COLUMN ordinal;
-- The index of those without one goes with it.
ALTER TABLE call_queue DROP COLUMN ordinal;
