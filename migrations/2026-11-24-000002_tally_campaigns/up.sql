-- Starting a call no longer changes its campaign's row, nor does ending one: what a settlement
-- starts and ends is tallied in one row, and folded into the campaigns' rows now and then.
--
-- Locks: the counters of users, briefly.

DO $$
BEGIN
    IF EXISTS (SELECT FROM servers WHERE lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'a server of the version before is running; stop it first'
            USING HINT = 'Its calls in progress go on. A server that was killed counts as running until its lease is over, some 20 seconds.';
    END IF;
END
$$;

DROP FUNCTION close_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz);
DROP FUNCTION count_ended(uuid[], integer[], integer[], integer[], timestamptz);
DROP FUNCTION engine_outlook(timestamptz);
DROP FUNCTION hand_out(uuid, bigint, text, integer, boolean, boolean, uuid[], integer[], integer[], integer[],
    double precision[], timestamptz);
DROP FUNCTION settle(uuid, bigint, bigint, text, integer, uuid[], uuid[], integer[], text[], text[], text[], integer[], uuid[],
    integer[], bigint[], text[], boolean[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[], timestamptz[], bigint[],
    text[], bytea[]);

-- Campaigns -------------------------------------------------------------------------------------

ALTER TABLE user_slots ADD COLUMN sole_campaign uuid;
COMMENT ON COLUMN user_slots.sole_campaign IS 'The user''s open campaign if there is exactly one: where its campaign calls are found.';

ALTER TABLE system_state ADD COLUMN tallies_folded bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN system_state.tallies_folded IS
    'The last row of campaign_tallies that was folded: none before it is looked at again, dead rows kept by an old snapshot among them.';

CREATE TABLE campaign_tallies (
    nth bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started uuid[] NOT NULL,
    completed uuid[] NOT NULL,
    failed uuid[] NOT NULL,
    cancelled uuid[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE campaign_tallies IS
    'What settlements changed about campaigns since these were last folded into campaign_slots: the campaign of each call that started, and of each that ended, by how. campaign_counts has the sum.';

CREATE VIEW campaign_counts AS
SELECT s.campaign_id, s.user_id, s.open, (s.due + coalesce(t.due, 0))::integer AS due, s.later::integer AS later,
    (s.completed + coalesce(t.completed, 0))::integer AS completed, (s.failed + coalesce(t.failed, 0))::integer AS failed,
    (s.cancelled + coalesce(t.cancelled, 0))::integer AS cancelled, s.expired::integer AS expired
FROM campaign_slots s
LEFT JOIN (
    SELECT e.campaign_id, -count(*) FILTER (WHERE e.what = 1) AS due, count(*) FILTER (WHERE e.what = 2) AS completed,
        count(*) FILTER (WHERE e.what = 3) AS failed, count(*) FILTER (WHERE e.what = 4) AS cancelled
    FROM system_state y
    JOIN campaign_tallies k ON k.nth > y.tallies_folded
    CROSS JOIN LATERAL (
        SELECT 1 AS what, unnest(k.started) AS campaign_id
        UNION ALL SELECT 2, unnest(k.completed)
        UNION ALL SELECT 3, unnest(k.failed)
        UNION ALL SELECT 4, unnest(k.cancelled)
    ) e
    GROUP BY e.campaign_id
) t ON t.campaign_id = s.campaign_id;
COMMENT ON VIEW campaign_counts IS 'The counters of every campaign, tallies included.';

CREATE FUNCTION tally_campaigns(p_started uuid[], p_completed uuid[], p_failed uuid[], p_cancelled uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_nth bigint;
BEGIN
    IF coalesce(cardinality(p_started), 0) > 0 OR coalesce(p_completed, p_failed, p_cancelled) IS NOT NULL THEN
        INSERT INTO campaign_tallies (started, completed, failed, cancelled)
        VALUES (coalesce(p_started, '{}'), coalesce(p_completed, '{}'), coalesce(p_failed, '{}'), coalesce(p_cancelled, '{}'))
        RETURNING nth INTO v_nth;
        -- Often enough that reading them stays cheap, seldom enough that a campaign's many calls cost it one update.
        IF v_nth >= (SELECT tallies_folded + 32 FROM system_state) THEN
            PERFORM fold_campaign_tallies();
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION tally_campaigns(uuid[], uuid[], uuid[], uuid[]) IS
    'Notes the campaign of each call that started and of each that ended: one row, whatever their number; folds what has gathered once that is 32 rows. Needs lock_engine.';

CREATE FUNCTION fold_campaign_tallies() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_folded bigint := (SELECT tallies_folded FROM system_state);
BEGIN
    WITH taken AS (
        DELETE FROM campaign_tallies WHERE nth > v_folded RETURNING nth, started, completed, failed, cancelled
    ), noted AS (
        UPDATE system_state SET tallies_folded = t.last FROM (SELECT max(k.nth) AS last FROM taken k) t WHERE t.last IS NOT NULL
    ), changes AS (
        SELECT e.campaign_id, (count(*) FILTER (WHERE e.what = 1))::integer AS started,
            (count(*) FILTER (WHERE e.what = 2))::integer AS completed, (count(*) FILTER (WHERE e.what = 3))::integer AS failed,
            (count(*) FILTER (WHERE e.what = 4))::integer AS cancelled
        FROM taken k
        CROSS JOIN LATERAL (
            SELECT 1 AS what, unnest(k.started) AS campaign_id
            UNION ALL SELECT 2, unnest(k.completed)
            UNION ALL SELECT 3, unnest(k.failed)
            UNION ALL SELECT 4, unnest(k.cancelled)
        ) e
        GROUP BY e.campaign_id
    )
    UPDATE campaign_slots s SET due = s.due - i.started, completed = s.completed + i.completed, failed = s.failed + i.failed,
        cancelled = s.cancelled + i.cancelled
    FROM (
        SELECT c.*, k.tid FROM changes c
        CROSS JOIN LATERAL (SELECT l.ctid AS tid FROM campaign_slots l WHERE l.campaign_id = c.campaign_id OFFSET 0) k
    ) i
    WHERE s.ctid = i.tid;
END
$$;
COMMENT ON FUNCTION fold_campaign_tallies() IS 'Brings campaign_slots up to date with what was tallied. Needs lock_engine.';

CREATE FUNCTION find_sole_campaign(p_users uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE user_slots s SET sole_campaign = o.campaign_id
    FROM (
        SELECT u.id AS user_id, CASE WHEN count(c.campaign_id) = 1 THEN (array_agg(c.campaign_id))[1] END AS campaign_id
        FROM unnest(p_users) u (id) LEFT JOIN campaign_slots c ON c.user_id = u.id AND c.open
        GROUP BY u.id
    ) o
    WHERE s.user_id = o.user_id AND s.sole_campaign IS DISTINCT FROM o.campaign_id;
END
$$;
COMMENT ON FUNCTION find_sole_campaign(uuid[]) IS 'Notes for each of these users which campaign is the only open one, if one is. Needs lock_engine.';
SELECT find_sole_campaign(ARRAY(SELECT user_id FROM campaign_slots WHERE open));

CREATE OR REPLACE FUNCTION set_campaign_open(p_campaign uuid, p_open boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_campaign campaign_slots;
BEGIN
    PERFORM fold_campaign_tallies();
    SELECT * INTO v_campaign FROM campaign_slots WHERE campaign_id = p_campaign;
    IF v_campaign.open IS DISTINCT FROM p_open THEN
        UPDATE campaign_slots SET open = p_open WHERE campaign_id = p_campaign;
        PERFORM find_sole_campaign(ARRAY[v_campaign.user_id]);
        PERFORM change_slots(ARRAY[v_campaign.user_id], ARRAY[0], ARRAY[0], ARRAY[0], ARRAY[0],
            ARRAY[CASE WHEN p_open THEN v_campaign.due ELSE -v_campaign.due END::integer], NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION set_campaign_open(uuid, boolean) IS
    'Lets the waiting calls of a campaign go, or holds them, in constant time. Needs lock_engine.';

CREATE OR REPLACE FUNCTION complete_campaigns(p_campaigns uuid[], p_now timestamptz) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_done uuid[];
    v_users uuid[];
BEGIN
    SELECT array_agg(s.campaign_id), array_agg(DISTINCT s.user_id) INTO v_done, v_users
    FROM (SELECT DISTINCT i.id FROM unnest(p_campaigns) i (id)) i
    CROSS JOIN LATERAL (
        SELECT k.campaign_id, k.user_id FROM campaign_slots k
        WHERE k.campaign_id = i.id AND k.later = 0 OFFSET 0
    ) s
    -- Its due calls are looked for, not read off the count, of which some may be in tallies still.
    WHERE NOT EXISTS (
            SELECT FROM call_queue q
            WHERE q.campaign_id = s.campaign_id AND q.call_type = 'campaign' AND q.wakes_at IS NULL)
        AND NOT EXISTS (SELECT FROM active_calls a WHERE a.user_id = s.user_id AND a.campaign_id = s.campaign_id);
    IF v_done IS NOT NULL THEN
        UPDATE campaigns c SET status = 'completed', finished_at = p_now, updated_at = p_now
        WHERE c.id = ANY (v_done) AND c.status IN ('active', 'paused');
        UPDATE campaign_slots SET open = false WHERE campaign_id = ANY (v_done) AND open;
        PERFORM find_sole_campaign(v_users);
    END IF;
END
$$;
COMMENT ON FUNCTION complete_campaigns(uuid[], timestamptz) IS
    'Marks those of these campaigns completed, and closes them, whose every contact is accounted for. Needs lock_engine.';

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

CREATE OR REPLACE FUNCTION audit_counters() RETURNS TABLE (counter text, subject text, kept bigint, counted bigint)
LANGUAGE sql STABLE AS $$
    WITH held AS (
        SELECT user_id, count(*) FILTER (WHERE call_type = 'direct') AS direct,
            count(*) FILTER (WHERE call_type = 'campaign') AS campaign
        FROM active_calls GROUP BY user_id
    ), waiting AS (
        SELECT q.user_id,
            count(*) FILTER (WHERE q.call_type = 'direct' AND q.wakes_at IS NULL) AS due_direct,
            count(*) FILTER (WHERE q.call_type = 'direct' AND q.wakes_at IS NOT NULL) AS later_direct,
            count(*) FILTER (WHERE q.call_type = 'campaign' AND q.wakes_at IS NULL AND c.open) AS due_campaign
        FROM call_queue q LEFT JOIN campaign_slots c ON c.campaign_id = q.campaign_id
        GROUP BY q.user_id
    ), per_campaign AS (
        SELECT campaign_id, count(*) FILTER (WHERE wakes_at IS NULL) AS due,
            count(*) FILTER (WHERE wakes_at IS NOT NULL) AS later
        FROM call_queue WHERE campaign_id IS NOT NULL GROUP BY campaign_id
    ), every_count AS (
        SELECT 'system_state.active' AS counter, '' AS subject, active::bigint AS kept, (SELECT count(*) FROM active_calls) AS counted
        FROM system_state
        UNION ALL
        SELECT v.counter, s.user_id::text, v.kept, v.counted
        FROM user_slots s
        JOIN users u ON u.id = s.user_id
        LEFT JOIN held h ON h.user_id = s.user_id
        LEFT JOIN waiting w ON w.user_id = s.user_id
        CROSS JOIN LATERAL (VALUES
            ('user_slots.active_direct', s.active_direct::bigint, coalesce(h.direct, 0)),
            ('user_slots.active_campaign', s.active_campaign, coalesce(h.campaign, 0)),
            ('user_slots.due_direct', s.due_direct, coalesce(w.due_direct, 0)),
            ('user_slots.later_direct', s.later_direct, coalesce(w.later_direct, 0)),
            ('user_slots.due_campaign', s.due_campaign, coalesce(w.due_campaign, 0)),
            ('user_slots.slots', s.slots, u.concurrent_calls_limit),
            ('user_slots.campaign_slots', s.campaign_slots, greatest(u.concurrent_calls_limit - u.direct_reserved_slots, 0)),
            ('user_slots.stride', s.stride, 720720 / u.weight),
            ('user_slots.sole_campaign', 1, (s.sole_campaign IS NOT DISTINCT FROM (
                SELECT CASE WHEN count(*) = 1 THEN (array_agg(o.campaign_id))[1] END
                FROM campaign_slots o WHERE o.user_id = s.user_id AND o.open))::integer),
            ('ready_lanes.direct',
                (SELECT count(*) FROM ready_lanes r WHERE r.call_type = 'direct' AND r.turn = s.filed_direct AND r.user_id = s.user_id),
                (s.due_direct > 0 AND s.held_direct IS NULL AND s.active_direct + s.active_campaign < s.slots)::integer),
            ('ready_lanes.campaign',
                (SELECT count(*) FROM ready_lanes r WHERE r.call_type = 'campaign' AND r.turn = s.filed_campaign AND r.user_id = s.user_id),
                (s.due_campaign > 0 AND s.due_direct = 0 AND s.held_campaign IS NULL
                    AND s.active_direct + s.active_campaign < s.campaign_slots)::integer)
        ) v (counter, kept, counted)
        UNION ALL
        SELECT v.counter, s.campaign_id::text, v.kept, v.counted
        FROM campaign_counts s
        LEFT JOIN per_campaign p ON p.campaign_id = s.campaign_id
        CROSS JOIN LATERAL (VALUES
            ('campaign_slots.due', s.due::bigint, coalesce(p.due, 0)),
            ('campaign_slots.later', s.later, coalesce(p.later, 0))
        ) v (counter, kept, counted)
        UNION ALL
        SELECT 'ready_lanes', '', count(*), (SELECT count(filed_direct) + count(filed_campaign) FROM user_slots) FROM ready_lanes
    )
    SELECT counter, subject, kept, counted FROM every_count WHERE kept <> counted
$$;
COMMENT ON FUNCTION audit_counters() IS
    'Recounts every kept counter from its rows, in one snapshot, and returns each difference: no row is the only good answer.';

-- Slots -----------------------------------------------------------------------------------------

CREATE FUNCTION close_calls(
    p_server uuid, p_calls uuid[], p_attempts integer[], p_outcomes text[], p_executions text[], p_reasons text[],
    p_durations integer[], p_now timestamptz,
    OUT ended bigint[], OUT users uuid[], OUT direct integer[], OUT campaign integer[], OUT held integer[],
    OUT mean_ms double precision[], OUT completed uuid[], OUT failed uuid[], OUT cancelled uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    WITH asked AS (
        -- Two reports of one end: the first counts.
        SELECT DISTINCT ON (i.call_id) i.nth, i.outcome, i.execution_id, i.reason, i.duration, t.tid
        FROM unnest(p_calls, p_attempts, p_outcomes, p_executions, p_reasons, p_durations)
            WITH ORDINALITY i (call_id, attempt, outcome, execution_id, reason, duration, nth)
        CROSS JOIN LATERAL (
            SELECT a.ctid AS tid FROM active_calls a
            WHERE a.call_id = i.call_id AND (i.attempt IS NULL OR (a.attempt = i.attempt AND a.owner = p_server))
                -- An end of another execution is not this call's.
                AND (i.execution_id IS NULL OR a.execution_id IS NULL OR i.execution_id = a.execution_id)
            OFFSET 0
        ) t
        ORDER BY i.call_id, i.nth
    ), freed AS (
        DELETE FROM active_calls a USING asked i WHERE a.ctid = i.tid
        RETURNING a.*, i.nth, i.duration,
            -- A call given up for its length failed, whatever its hang-up is reported as.
            CASE WHEN a.overdue THEN 'failed' ELSE i.outcome END AS outcome,
            CASE WHEN a.overdue THEN 'timed_out' ELSE i.reason END AS because,
            coalesce(a.execution_id, i.execution_id) AS execution
    ), history AS (
        INSERT INTO call_queue_history (id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status,
            phone_number, contact_name, user_data, caller_id, scheduled_for, expires_at, due_at, due_since, queued_at,
            queued_by, attempts, call_id, provider, execution_id, outcome, was_call, reason, owner, reserved_at, placed_at,
            ringing_at, answered_at, finished_at, ended_by, duration_seconds, trail)
        SELECT item_id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position,
            CASE outcome WHEN 'completed' THEN outcome WHEN 'cancelled' THEN outcome ELSE 'failed' END,
            phone_number, contact_name, user_data, caller_id, scheduled_for, expires_at, due_at, due_since, queued_at,
            queued_by, attempt, call_id, provider, execution, outcome, true, because, owner, reserved_at, placed_at, ringing_at,
            answered_at, p_now, p_server, duration, trail
        FROM freed
    ), per_user AS (
        SELECT f.user_id, (count(*) FILTER (WHERE call_type = 'direct'))::integer AS direct,
            (count(*) FILTER (WHERE call_type = 'campaign'))::integer AS campaign, count(execution)::integer AS held,
            avg(extract(epoch FROM p_now - reserved_at) * 1000) FILTER (WHERE execution IS NOT NULL)::double precision AS mean_ms
        FROM freed f GROUP BY f.user_id
    ), per_outcome AS (
        SELECT array_agg(f.nth) AS nths,
            array_agg(f.campaign_id) FILTER (WHERE f.outcome = 'completed' AND f.campaign_id IS NOT NULL) AS completed,
            array_agg(f.campaign_id) FILTER (WHERE f.outcome NOT IN ('completed', 'cancelled') AND f.campaign_id IS NOT NULL) AS failed,
            array_agg(f.campaign_id) FILTER (WHERE f.outcome = 'cancelled' AND f.campaign_id IS NOT NULL) AS cancelled
        FROM freed f
    )
    SELECT o.nths, o.completed, o.failed, o.cancelled, u.users, u.direct, u.campaign, u.held, u.mean_ms
    INTO ended, completed, failed, cancelled, users, direct, campaign, held, mean_ms
    FROM per_outcome o
    CROSS JOIN (
        SELECT array_agg(p.user_id) AS users, array_agg(p.direct) AS direct, array_agg(p.campaign) AS campaign,
            array_agg(p.held) AS held, array_agg(p.mean_ms) AS mean_ms
        FROM per_user p
    ) u;
END
$$;
COMMENT ON FUNCTION close_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz) IS
    'Moves calls that are over to history; hand_out and tally_campaigns must count them in the same transaction. An ending with an attempt takes effect only for the current attempt of p_server. Returns which took effect, per user how many and how long they held their slots, and the campaign of each by how it ended. The rows are locked; the engine need not be.';

CREATE FUNCTION hand_out(
    p_server uuid, p_batch bigint, p_provider text, p_limit integer, p_direct boolean, p_campaign boolean,
    p_ended_users uuid[], p_ended_direct integer[], p_ended_campaign integer[], p_held integer[], p_mean_ms double precision[],
    p_now timestamptz, OUT reserved reserved_call[], OUT busy uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_system system_state;
    v_ended integer;
    v_free integer;
    v_picked integer;
    v_last_direct bigint;
    v_last_campaign bigint;
    v_strides integer[];
    v_tids tid[];
    v_users uuid[];
    v_active_direct integer[];
    v_active_campaign integer[];
    v_due_direct integer[];
    v_due_campaign integer[];
    v_direct integer[];
    v_campaign integer[];
    v_turn_direct bigint[];
    v_turn_campaign bigint[];
    v_filed_direct bigint[];
    v_filed_campaign bigint[];
    v_direct_lanes tid[];
    v_campaign_lanes tid[];
    v_file_direct bigint[];
    v_file_campaign bigint[];
    v_held integer[];
    v_mean_ms double precision[];
    v_sole uuid[];
BEGIN
    reserved := '{}';
    SELECT * INTO v_system FROM system_state;
    SELECT coalesce(sum(d + c), 0) INTO v_ended FROM unnest(p_ended_direct, p_ended_campaign) e (d, c);
    v_free := CASE WHEN v_system.dispatch_paused THEN 0
        -- With direct calls left aside, none may be ready.
        WHEN NOT p_direct AND EXISTS (
            SELECT FROM ready_lanes WHERE call_type = 'direct' AND turn >= v_system.vtime_direct) THEN 0
        ELSE greatest(0, least(p_limit, v_system.concurrent_calls_limit - v_system.active + v_ended)) END;
    IF p_ended_users IS NULL AND (v_free = 0 OR NOT (
        (p_direct AND EXISTS (SELECT FROM ready_lanes WHERE call_type = 'direct' AND turn >= v_system.vtime_direct))
        OR (p_campaign AND EXISTS (SELECT FROM ready_lanes WHERE call_type = 'campaign' AND turn >= v_system.vtime_campaign)))) THEN
        RETURN;
    END IF;

    -- Who may go: those at the left edge of the ready lanes, and those whose calls have just ended.
    -- The k smallest turns of all lie among k lanes at the edge; each lane offers its turn, then
    -- that plus a stride, and so on for as many calls and slots as its user has. No lane is filed
    -- before the largest turn served, so dead entries left of that are never stepped over.
    -- Campaign offers come after all direct ones, and a user makes any only if its own direct calls
    -- are all among its offers: taken from the left, none goes before a direct call that could go.
    WITH edge AS MATERIALIZED (
        SELECT user_id, ctid AS lane FROM ready_lanes
        WHERE call_type = 'direct' AND turn >= v_system.vtime_direct AND p_direct
        ORDER BY call_type, turn, user_id LIMIT v_free
    ), candidates AS (
        SELECT user_id, sum(direct)::integer AS direct, sum(campaign)::integer AS campaign, sum(held)::integer AS held,
            max(mean_ms) AS mean_ms, max(direct_lane) AS direct_lane, max(campaign_lane) AS campaign_lane
        FROM (
            SELECT user_id, 0 AS direct, 0 AS campaign, 0 AS held, NULL::double precision AS mean_ms, lane AS direct_lane,
                NULL::tid AS campaign_lane
            FROM edge
            UNION ALL
            (SELECT user_id, 0, 0, 0, NULL, NULL, ctid FROM ready_lanes
                WHERE call_type = 'campaign' AND turn >= v_system.vtime_campaign AND p_campaign
                ORDER BY call_type, turn, user_id LIMIT greatest(0, v_free - (SELECT count(*) FROM edge)))
            UNION ALL
            SELECT e.*, NULL, NULL FROM unnest(p_ended_users, p_ended_direct, p_ended_campaign, p_held, p_mean_ms) e
        ) c GROUP BY user_id
    ), state AS MATERIALIZED (
        SELECT s.tid, s.user_id, c.held, c.mean_ms, c.direct_lane, c.campaign_lane, s.stride, s.slots, s.campaign_slots,
            s.active_direct - c.direct AS active_direct, s.active_campaign - c.campaign AS active_campaign,
            s.slots - s.active_direct - s.active_campaign + c.direct + c.campaign AS room,
            s.campaign_slots - s.active_direct - s.active_campaign + c.direct + c.campaign AS campaign_room,
            s.due_direct, s.due_campaign, s.filed_direct, s.filed_campaign,
            CASE WHEN s.filed_direct IS NULL THEN greatest(s.turn_direct, v_system.vtime_direct) ELSE s.turn_direct END AS turn_direct,
            CASE WHEN s.filed_campaign IS NULL THEN greatest(s.turn_campaign, v_system.vtime_campaign) ELSE s.turn_campaign END AS turn_campaign,
            s.held_direct IS NULL AS may_direct, s.held_campaign IS NULL AS may_campaign,
            c.direct + c.campaign > 0 AS ended, c.campaign > 0 AS ended_campaign, s.sole_campaign
        FROM candidates c
        CROSS JOIN LATERAL (SELECT u.ctid AS tid, u.* FROM user_slots u WHERE u.user_id = c.user_id OFFSET 0) s
    ), offers AS (
        SELECT user_id, 0 AS class, turn_direct + (n - 1) * stride::bigint AS turn
        FROM state CROSS JOIN LATERAL generate_series(1, least(due_direct, room, v_free)) n
        WHERE p_direct AND due_direct > 0 AND may_direct
        UNION ALL
        SELECT user_id, 1, turn_campaign + (n - 1) * stride::bigint
        FROM state CROSS JOIN LATERAL generate_series(1, least(due_campaign, campaign_room - due_direct, v_free)) n
        WHERE p_campaign AND due_campaign > 0 AND may_campaign
            AND (due_direct = 0 OR (p_direct AND may_direct AND room > due_direct))
    ), taken AS (
        SELECT user_id, class, turn FROM offers ORDER BY class, turn, user_id LIMIT v_free
    ), picks AS (
        SELECT user_id, (count(*) FILTER (WHERE class = 0))::integer AS direct, (count(*) FILTER (WHERE class = 1))::integer AS campaign,
            max(turn) FILTER (WHERE class = 0) AS last_direct, max(turn) FILTER (WHERE class = 1) AS last_campaign
        FROM taken GROUP BY user_id
    ), settled AS (
        SELECT s.*, coalesce(p.direct, 0) AS direct, coalesce(p.campaign, 0) AS campaign, p.last_direct, p.last_campaign,
            coalesce(p.last_direct + s.stride, s.turn_direct) AS next_direct,
            coalesce(p.last_campaign + s.stride, s.turn_campaign) AS next_campaign,
            s.room - coalesce(p.direct + p.campaign, 0) AS left_room,
            s.campaign_room - coalesce(p.direct + p.campaign, 0) AS left_campaign_room
        FROM state s LEFT JOIN picks p ON p.user_id = s.user_id
        WHERE s.ended OR p.user_id IS NOT NULL
    ), filed AS (
        SELECT *,
            CASE WHEN due_direct > direct AND may_direct AND left_room > 0 THEN next_direct END AS file_direct,
            CASE WHEN due_campaign > campaign AND due_direct = direct AND may_campaign AND left_campaign_room > 0
                THEN next_campaign END AS file_campaign
        FROM settled
    )
    SELECT array_agg(tid), array_agg(user_id), array_agg(active_direct + direct), array_agg(active_campaign + campaign),
        array_agg(due_direct - direct), array_agg(due_campaign - campaign), array_agg(direct), array_agg(campaign),
        -- A lane that is neither filed nor served keeps the turn it had.
        array_agg(CASE WHEN file_direct IS NOT NULL OR direct > 0 THEN next_direct END),
        array_agg(CASE WHEN file_campaign IS NOT NULL OR campaign > 0 THEN next_campaign END),
        array_agg(stride), array_agg(filed_direct), array_agg(filed_campaign), array_agg(direct_lane), array_agg(campaign_lane), array_agg(file_direct),
        array_agg(file_campaign), array_agg(held),
        array_agg(mean_ms), array_agg(sole_campaign),
        array_agg(sole_campaign) FILTER (WHERE ended_campaign AND due_campaign > campaign AND sole_campaign IS NOT NULL),
        coalesce(sum(direct + campaign), 0)::integer, max(last_direct), max(last_campaign)
    INTO v_tids, v_users, v_active_direct, v_active_campaign, v_due_direct, v_due_campaign, v_direct, v_campaign, v_turn_direct,
        v_turn_campaign, v_strides, v_filed_direct, v_filed_campaign, v_direct_lanes, v_campaign_lanes, v_file_direct, v_file_campaign, v_held, v_mean_ms, v_sole, busy, v_picked,
        v_last_direct, v_last_campaign
    FROM filed;
    IF v_users IS NULL THEN
        RETURN;
    END IF;

    WITH updated AS (
        UPDATE user_slots s SET active_direct = w.active_direct, active_campaign = w.active_campaign, due_direct = w.due_direct,
            due_campaign = w.due_campaign, turn_direct = coalesce(w.turn_direct, s.turn_direct),
            turn_campaign = coalesce(w.turn_campaign, s.turn_campaign), filed_direct = w.file_direct, filed_campaign = w.file_campaign,
            hold_samples = least(s.hold_samples + w.held, 1000000),
            mean_hold_ms = CASE WHEN w.held = 0 THEN s.mean_hold_ms WHEN s.hold_samples = 0 THEN w.mean_ms
                ELSE s.mean_hold_ms + (1 - power(0.8, w.held)) * (w.mean_ms - s.mean_hold_ms) END
        FROM unnest(v_tids, v_active_direct, v_active_campaign, v_due_direct, v_due_campaign, v_turn_direct, v_turn_campaign,
                v_file_direct, v_file_campaign, v_held, v_mean_ms)
            w (tid, active_direct, active_campaign, due_direct, due_campaign, turn_direct, turn_campaign, file_direct,
                file_campaign, held, mean_ms)
        WHERE s.ctid = w.tid
    ), unfiled AS (
        DELETE FROM ready_lanes r
        USING (
            SELECT c.lane AS tid FROM (
                SELECT lane FROM unnest(v_direct_lanes, v_filed_direct, v_file_direct) u (lane, was, is_now)
                    WHERE was IS DISTINCT FROM is_now
                UNION ALL
                SELECT lane FROM unnest(v_campaign_lanes, v_filed_campaign, v_file_campaign) u (lane, was, is_now)
                    WHERE was IS DISTINCT FROM is_now
            ) c
            WHERE c.lane IS NOT NULL
            UNION ALL
            -- Those of users who came here because calls of theirs ended were not looked up yet.
            SELECT l.tid FROM (
                SELECT 'direct'::call_type AS call_type, was, user_id
                    FROM unnest(v_users, v_direct_lanes, v_filed_direct, v_file_direct) u (user_id, lane, was, is_now)
                    WHERE lane IS NULL AND was IS NOT NULL AND was IS DISTINCT FROM is_now
                UNION ALL
                SELECT 'campaign', was, user_id
                    FROM unnest(v_users, v_campaign_lanes, v_filed_campaign, v_file_campaign) u (user_id, lane, was, is_now)
                    WHERE lane IS NULL AND was IS NOT NULL AND was IS DISTINCT FROM is_now
            ) c
            CROSS JOIN LATERAL (
                SELECT k.ctid AS tid FROM ready_lanes k
                WHERE k.call_type = c.call_type AND k.turn = c.was AND k.user_id = c.user_id OFFSET 0
            ) l
        ) gone
        WHERE r.ctid = gone.tid
    )
    INSERT INTO ready_lanes (call_type, turn, user_id)
    SELECT 'direct'::call_type, is_now, user_id FROM unnest(v_users, v_filed_direct, v_file_direct) u (user_id, was, is_now)
        WHERE is_now IS NOT NULL AND was IS DISTINCT FROM is_now
    UNION ALL
    SELECT 'campaign', is_now, user_id FROM unnest(v_users, v_filed_campaign, v_file_campaign) u (user_id, was, is_now)
        WHERE is_now IS NOT NULL AND was IS DISTINCT FROM is_now;
    UPDATE system_state SET active = active - v_ended + v_picked, vtime_direct = greatest(vtime_direct, v_last_direct),
        vtime_campaign = greatest(vtime_campaign, v_last_campaign);
    IF v_picked = 0 THEN
        RETURN;
    END IF;

    WITH heads AS (
        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride AS turn
        FROM unnest(v_users, v_direct, v_turn_direct, v_strides) w (user_id, calls, turn, stride)
        CROSS JOIN LATERAL (
            SELECT e.tid, row_number() OVER () AS nth FROM (
                SELECT q.ctid AS tid FROM call_queue q
                WHERE q.user_id = w.user_id AND q.call_type = 'direct' AND q.wakes_at IS NULL
                ORDER BY q.priority DESC, q.position LIMIT w.calls
            ) e
        ) h
        WHERE w.calls > 0
        UNION ALL
        -- Most users have one campaign open at a time: its calls are in order already.
        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride
        FROM unnest(v_sole, v_campaign, v_turn_campaign, v_strides) w (campaign_id, calls, turn, stride)
        CROSS JOIN LATERAL (
            SELECT e.tid, row_number() OVER () AS nth FROM (
                SELECT q.ctid AS tid FROM call_queue q
                WHERE q.campaign_id = w.campaign_id AND q.call_type = 'campaign' AND q.wakes_at IS NULL
                ORDER BY q.priority DESC, q.position LIMIT w.calls
            ) e
        ) h
        WHERE w.calls > 0 AND w.campaign_id IS NOT NULL
        UNION ALL
        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride
        FROM unnest(v_users, v_campaign, v_turn_campaign, v_strides, v_sole) w (user_id, calls, turn, stride, sole)
        CROSS JOIN LATERAL (
            SELECT e.tid, row_number() OVER () AS nth FROM (
                SELECT q.tid FROM campaign_slots c
                CROSS JOIN LATERAL (
                    SELECT k.ctid AS tid, k.priority, k.position FROM call_queue k
                    WHERE k.campaign_id = c.campaign_id AND k.call_type = 'campaign' AND k.wakes_at IS NULL
                    ORDER BY k.priority DESC, k.position LIMIT w.calls
                ) q
                WHERE c.user_id = w.user_id AND c.open
                ORDER BY q.priority DESC, q.position LIMIT w.calls
            ) e
        ) h
        WHERE w.calls > 0 AND w.sole IS NULL
    ), moved AS (
        DELETE FROM call_queue q USING heads h WHERE q.ctid = h.tid RETURNING q.*, h.turn
    ), described AS MATERIALIZED (
        SELECT m.*, coalesce(a.provider, p_provider) AS provider, a.provider_agent_id, a.settings, a.caller_id AS agent_caller_id
        FROM moved m
        CROSS JOIN LATERAL (
            SELECT g.provider, g.provider_agent_id, g.settings, g.caller_id FROM agents g WHERE g.id = m.agent_id OFFSET 0
        ) a
    ), started AS (
        INSERT INTO active_calls (call_id, item_id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position,
            phone_number, contact_name, user_data, caller_id, scheduled_for, expires_at, due_at, due_since, queued_at, queued_by,
            provider, attempt, owner, batch, reserved_at, trail)
        SELECT coalesce(call_id, id), id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position,
            phone_number, contact_name, user_data, caller_id, scheduled_for, expires_at, due_at, due_since, queued_at, queued_by,
            provider, attempts + 1, p_server, p_batch, p_now, trail
        FROM described
    )
    SELECT array_agg(ROW (d.id, coalesce(d.call_id, d.id), d.attempts + 1, d.user_id, d.agent_id, d.campaign_id, d.provider,
            d.phone_number, coalesce(d.caller_id, d.agent_caller_id), d.provider_agent_id, d.settings::text, d.contact_name,
            d.user_data::text)::reserved_call
        ORDER BY d.call_type, d.turn, d.user_id)
    INTO reserved FROM described d;
    IF cardinality(reserved) IS DISTINCT FROM v_picked THEN
        RAISE EXCEPTION 'the counters promise % calls, the queue has %', v_picked, coalesce(cardinality(reserved), 0)
            USING HINT = 'callq audit tells which counter is wrong.';
    END IF;
END
$$;
COMMENT ON FUNCTION hand_out(uuid, bigint, text, integer, boolean, boolean, uuid[], integer[], integer[], integer[],
    double precision[], timestamptz) IS
    'Counts the slots of ended calls free, and gives free slots to waiting calls, at most p_limit: direct calls before campaign calls, users in turn, each user''s calls in order. Returns the calls started, in turn order, and of the users whose campaign calls ended the only open campaign where it has calls left to start. What starts is still to be tallied. Needs lock_engine.';

CREATE FUNCTION next_timer() RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN least(
        (SELECT min(q.wakes_at) FROM call_queue q WHERE q.wakes_at IS NOT NULL),
        (SELECT min(q.expires_at) FROM call_queue q WHERE q.expires_at IS NOT NULL),
        (SELECT min(s.held_direct) FROM user_slots s WHERE s.held_direct IS NOT NULL),
        (SELECT min(s.held_campaign) FROM user_slots s WHERE s.held_campaign IS NOT NULL));
END
$$;
COMMENT ON FUNCTION next_timer() IS
    'When something next becomes due, expires or is released by itself; null for never.';

CREATE FUNCTION settle(
    p_server uuid, p_batch bigint, p_answered bigint, p_provider text, p_limit integer, p_disowned uuid[],
    p_end_calls uuid[], p_end_attempts integer[], p_end_outcomes text[], p_end_executions text[], p_end_reasons text[],
    p_end_durations integer[],
    p_return_calls uuid[], p_return_attempts integer[], p_return_delays_ms bigint[], p_return_reasons text[],
    p_return_if_unknown boolean[],
    p_items uuid[], p_users uuid[], p_agents uuid[], p_contacts uuid[], p_numbers text[], p_names text[],
    p_user_data text[], p_caller_ids text[], p_scheduled timestamptz[], p_expires_ms bigint[], p_keys text[], p_hashes bytea[],
    OUT effects text[], OUT returned verdict[], OUT verdicts verdict[], OUT door reserved_call[], OUT reserved reserved_call[],
    OUT more boolean, OUT next_timer_ms bigint, OUT durable boolean
) LANGUAGE plpgsql VOLATILE SET lock_timeout = '8s' AS $$
DECLARE
    v_now timestamptz;
    v_alive boolean;
    v_void bigint;
    v_ends record;
    v_gone record;
    v_disowned uuid[];
    v_taken uuid[] := '{}';
    v_lost uuid[];
    v_lost_attempts integer[];
    v_items uuid[];
    v_left integer := p_limit;
    v_next timestamptz;
    v_admits boolean := cardinality(p_items) > 0;
    v_busy uuid[];
    v_idle uuid[];
    v_more reserved_call[];
BEGIN
    IF p_answered IS NOT NULL THEN
        v_taken := ARRAY(SELECT a.call_id FROM active_calls a WHERE a.owner = p_server AND a.batch > p_answered);
    END IF;
    IF cardinality(p_end_calls) + cardinality(p_return_calls) + cardinality(v_taken) > 0 THEN
        PERFORM lock_calls(p_end_calls || p_return_calls || v_taken);
    END IF;
    -- What was noted of these calls before they were locked was before this.
    v_now := engine_now();
    IF cardinality(p_end_calls) > 0 THEN
        SELECT * INTO v_ends
        FROM close_calls(p_server, p_end_calls, p_end_attempts, p_end_outcomes, p_end_executions, p_end_reasons, p_end_durations, v_now);
        SELECT array_agg(CASE WHEN i.nth = ANY (v_ends.ended) THEN 'ended' WHEN was_call(i.call_id) THEN 'ignored' ELSE 'unknown' END
            ORDER BY i.nth)
        INTO effects FROM unnest(p_end_calls) WITH ORDINALITY i (call_id, nth);
    ELSE
        SELECT NULL::uuid[] AS users, NULL::integer[] AS direct, NULL::integer[] AS campaign, NULL::integer[] AS held,
            NULL::double precision[] AS mean_ms, NULL::uuid[] AS completed, NULL::uuid[] AS failed, NULL::uuid[] AS cancelled
        INTO v_ends;
    END IF;

    v_now := lock_engine();
    -- Nothing may start in the name of a server that cannot prove its life. The lock on its row
    -- makes whoever takes over from it wait until this is committed.
    SELECT s.lease_until > clock_timestamp(), s.void_until INTO v_alive, v_void
    FROM servers s WHERE s.id = p_server FOR KEY SHARE;
    IF v_void >= p_batch THEN
        RAISE EXCEPTION 'settlement % of server % was given up before', p_batch, p_server;
    END IF;
    IF NOT coalesce(v_alive, false) AND (p_limit > 0 OR v_admits) THEN
        RAISE EXCEPTION 'the lease of server % is over', p_server;
    END IF;
    -- While others wait for the lock it is not held until the disk answers: this transaction commits
    -- without waiting, and its server flushes before it acts. Alone, one commit that waits is less.
    durable := (SELECT count(*) FROM servers WHERE lease_until > clock_timestamp()) < 2;
    IF NOT durable THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;

    IF p_answered IS NOT NULL THEN
        -- What settlements took whose answers never came: nothing was sent for it. One still on its
        -- way must not take effect behind this.
        IF EXISTS (
            SELECT FROM active_calls a
            WHERE a.owner = p_server AND a.batch > p_answered AND NOT a.call_id = ANY (v_taken)
        ) THEN
            -- It took effect just now. Its calls are locked before the engine, so once more from the start.
            RAISE serialization_failure USING MESSAGE = 'a settlement whose answer was lost took effect meanwhile';
        END IF;
        UPDATE servers SET void_until = p_batch - 1 WHERE id = p_server;
        SELECT array_agg(a.call_id) FILTER (WHERE a.item_id = ANY (p_disowned)),
            array_agg(a.call_id) FILTER (WHERE NOT a.item_id = ANY (p_disowned || p_items)),
            array_agg(a.attempt::integer) FILTER (WHERE NOT a.item_id = ANY (p_disowned || p_items))
        INTO v_disowned, v_lost, v_lost_attempts
        FROM active_calls a WHERE a.owner = p_server AND a.batch > p_answered;
        IF v_lost IS NOT NULL THEN
            PERFORM return_calls(p_server, v_lost, v_lost_attempts, array_fill(0::bigint, ARRAY[cardinality(v_lost)]),
                array_fill('the answer that reserved it was lost'::text, ARRAY[cardinality(v_lost)]),
                array_fill(false, ARRAY[cardinality(v_lost)]), v_now);
        END IF;
        IF v_disowned IS NOT NULL THEN
            SELECT * INTO v_gone FROM close_calls(p_server, v_disowned, array_fill(NULL::integer, ARRAY[cardinality(v_disowned)]),
                array_fill('cancelled'::text, ARRAY[cardinality(v_disowned)]), array_fill(NULL::text, ARRAY[cardinality(v_disowned)]),
                array_fill('its caller was told that it was not accepted'::text, ARRAY[cardinality(v_disowned)]),
                array_fill(NULL::integer, ARRAY[cardinality(v_disowned)]), v_now);
            PERFORM hand_out(p_server, p_batch, p_provider, 0, false, false, v_gone.users, v_gone.direct, v_gone.campaign,
                v_gone.held, v_gone.mean_ms, v_now);
            PERFORM tally_campaigns(NULL, v_gone.completed, v_gone.failed, v_gone.cancelled);
        END IF;
    END IF;
    IF cardinality(p_disowned) > 0 THEN
        DELETE FROM idempotency_keys WHERE item_id = ANY (p_disowned) AND body IS NULL;
        PERFORM withdraw_items(p_disowned, 'cancelled', 'its caller was told that it was not accepted', p_server, v_now);
    END IF;
    IF cardinality(p_return_calls) > 0 THEN
        v_items := return_calls(p_server, p_return_calls, p_return_attempts, p_return_delays_ms, p_return_reasons,
            p_return_if_unknown, v_now);
        -- Told before anything starts: what came back may go again in this very settlement.
        SELECT array_agg(ROW (i.nth, NULL, i.id, NULL, NULL, get_call_queue_position(i.id) - 1,
                CASE q.call_type WHEN 'direct' THEN s.due_direct::bigint + s.later_direct ELSE (
                    SELECT sum(l.due::bigint + l.later) FROM campaigns c JOIN campaign_counts l ON l.campaign_id = c.id
                    WHERE c.user_id = q.user_id AND (c.status <> 'draft' OR c.id = q.campaign_id)
                ) END, least(s.slots, y.concurrent_calls_limit), s.hold_samples, s.mean_hold_ms, q.wakes_at, q.expires_at, NULL
            )::verdict ORDER BY i.nth)
        INTO returned
        FROM unnest(v_items) WITH ORDINALITY i (id, nth)
        LEFT JOIN call_queue q ON q.id = i.id
        LEFT JOIN user_slots s ON s.user_id = q.user_id
        CROSS JOIN system_state y;
    END IF;
    v_next := next_timer();
    IF v_next <= v_now THEN
        -- Nothing that should have expired may start: while some is left, only that is worked off.
        IF NOT wake_and_expire(p_server, v_now) THEN
            v_left := 0;
        END IF;
    END IF;

    SELECT h.reserved, h.busy INTO reserved, v_busy
    FROM hand_out(p_server, p_batch, p_provider, v_left, true, NOT v_admits, v_ends.users, v_ends.direct, v_ends.campaign,
        v_ends.held, v_ends.mean_ms, v_now) h;
    IF v_admits THEN
        SELECT a.verdicts, a.started INTO verdicts, door
        FROM admit_direct_calls(p_server, p_batch, p_answered, p_provider, p_items, p_users, p_agents, p_contacts, p_numbers,
            p_names, p_user_data, p_caller_ids, p_scheduled, p_expires_ms, p_keys, p_hashes, v_now) a;
        v_left := v_left - cardinality(reserved);
        IF p_answered IS NOT NULL THEN
            -- A call asked for again that had its turn just now is its caller's to place.
            reserved := ARRAY(SELECT r FROM unnest(reserved) r WHERE NOT r.item_id = ANY (p_items));
        END IF;
        IF v_left > 0 THEN
            SELECT h.reserved INTO v_more
            FROM hand_out(p_server, p_batch, p_provider, v_left, false, true, NULL, NULL, NULL, NULL, NULL, v_now) h;
            reserved := reserved || v_more;
        END IF;
    END IF;
    IF cardinality(reserved) > 0 OR v_ends.users IS NOT NULL THEN
        PERFORM tally_campaigns(ARRAY(SELECT r.campaign_id FROM unnest(reserved) r WHERE r.campaign_id IS NOT NULL),
            v_ends.completed, v_ends.failed, v_ends.cancelled);
    END IF;
    IF coalesce(v_ends.completed, v_ends.failed, v_ends.cancelled) IS NOT NULL THEN
        -- Those of which nothing may be left.
        v_idle := ARRAY(
            SELECT unnest(coalesce(v_ends.completed, '{}') || coalesce(v_ends.failed, '{}') || coalesce(v_ends.cancelled, '{}'))
            EXCEPT SELECT unnest(v_busy));
        IF cardinality(v_idle) > 0 THEN
            PERFORM complete_campaigns(v_idle, v_now);
        END IF;
    END IF;
    IF v_next IS NOT NULL OR v_admits OR returned IS NOT NULL THEN
        v_next := next_timer();
    END IF;
    next_timer_ms := CASE WHEN v_next IS NOT NULL THEN greatest(0, ceil(extract(epoch FROM v_next - v_now) * 1000)) END;
    SELECT NOT y.dispatch_paused AND y.active < y.concurrent_calls_limit AND (
        EXISTS (SELECT FROM ready_lanes WHERE call_type = 'direct' AND turn >= y.vtime_direct)
        OR EXISTS (SELECT FROM ready_lanes WHERE call_type = 'campaign' AND turn >= y.vtime_campaign))
    INTO more FROM system_state y;
END
$$;
COMMENT ON FUNCTION settle(uuid, bigint, bigint, text, integer, uuid[], uuid[], integer[], text[], text[], text[], integer[], uuid[],
    integer[], bigint[], text[], boolean[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[], timestamptz[], bigint[],
    text[], bytea[]) IS
    'Settles a batch of one server: ends and returns free slots, waiting direct calls take them, then newcomers, then campaign calls. p_batch grows from settlement to settlement of a server; p_answered is set when the answers to those since it were lost. What it reserves is authorised: its server may send it, once. Unless durable, it must first be flushed.';

-- Planning these statements anew for each batch would cost more than running them: plan once a
-- connection. A plan made while a table was small must not scan it once it is large.
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
        WHERE p.pronamespace = current_schema()::regnamespace AND l.lanname = 'plpgsql'
            AND p.prorettype <> 'trigger'::regtype
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_function);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_function);
        EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_function);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_function);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_function);
    END LOOP;
END
$$;
