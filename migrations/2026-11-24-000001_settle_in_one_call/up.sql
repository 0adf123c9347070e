-- One call settles a batch: what was four to nine statements of a transaction, each a round trip
-- under the engine's lock, is one function, and one more records progress.
--
-- Locks: none beyond the catalog's.
--
-- The order of locks: rows of active_calls by call id, then the system row, then everything else. What can be done before the system row's lock is: a call's move to history
-- is most of the work of ending it, and needs no one's turn.
--
-- Rows are found by a key, row by row (CROSS JOIN LATERAL ... OFFSET 0), and changed by the address
-- at which they were found, under a lock that an earlier statement took: a row that changed after a
-- statement began has an address that this statement does not see. Written as plain joins, these
-- statements get plans for the empty tables that they were first planned on, which walk the whole
-- table once it has filled.

CREATE TYPE reserved_call AS (
    item_id uuid, call_id uuid, attempt integer, user_id uuid, agent_id uuid, campaign_id uuid, provider text,
    phone_number text, caller_id text, provider_agent_id text, settings text, contact_name text, user_data text
);
COMMENT ON TYPE reserved_call IS 'What a provider must be told of a call that got a slot.';

-- Ending ----------------------------------------------------------------------------------------

CREATE FUNCTION lock_calls(p_calls uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM (SELECT DISTINCT u.id FROM unnest(p_calls) u (id) ORDER BY u.id OFFSET 0) i
    CROSS JOIN LATERAL (SELECT FROM active_calls a WHERE a.call_id = i.id FOR UPDATE) a;
END
$$;
COMMENT ON FUNCTION lock_calls(uuid[]) IS
    'Locks these calls in the one order. What is found by a later statement then stays as it was found. Before lock_engine.';

CREATE FUNCTION close_calls(
    p_server uuid, p_calls uuid[], p_attempts integer[], p_outcomes text[], p_executions text[], p_reasons text[],
    p_durations integer[], p_now timestamptz,
    OUT ended bigint[], OUT users uuid[], OUT direct integer[], OUT campaign integer[], OUT held integer[],
    OUT mean_ms double precision[], OUT campaigns uuid[], OUT completed integer[], OUT failed integer[], OUT cancelled integer[]
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
    ), per_campaign AS (
        SELECT f.campaign_id, (count(*) FILTER (WHERE f.outcome = 'completed'))::integer AS completed,
            (count(*) FILTER (WHERE f.outcome = 'cancelled'))::integer AS cancelled, count(*)::integer AS calls
        FROM freed f WHERE f.campaign_id IS NOT NULL GROUP BY f.campaign_id
    )
    SELECT (SELECT array_agg(f.nth) FROM freed f), c.campaigns, c.completed, c.failed, c.cancelled,
        u.users, u.direct, u.campaign, u.held, u.mean_ms
    INTO ended, campaigns, completed, failed, cancelled, users, direct, campaign, held, mean_ms
    FROM (
        SELECT array_agg(p.user_id) AS users, array_agg(p.direct) AS direct, array_agg(p.campaign) AS campaign,
            array_agg(p.held) AS held, array_agg(p.mean_ms) AS mean_ms
        FROM per_user p
    ) u
    CROSS JOIN (
        SELECT array_agg(k.campaign_id) AS campaigns, array_agg(k.completed) AS completed, array_agg(k.cancelled) AS cancelled,
            array_agg(k.calls - k.completed - k.cancelled) AS failed
        FROM per_campaign k
    ) c;
END
$$;
COMMENT ON FUNCTION close_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz) IS
    'Moves calls that are over to history; hand_out and count_ended must count them in the same transaction. An ending with an attempt takes effect only for the current attempt of p_server. Returns which took effect, per user how many and how long they held their slots, and per campaign how they ended. The rows are locked; the engine need not be.';

CREATE FUNCTION count_ended(p_campaigns uuid[], p_completed integer[], p_failed integer[], p_cancelled integer[], p_now timestamptz)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_empty uuid[];
BEGIN
    WITH counted AS (
        UPDATE campaign_slots c SET completed = c.completed + i.completed, failed = c.failed + i.failed,
            cancelled = c.cancelled + i.cancelled
        FROM (
            SELECT e.*, k.tid FROM unnest(p_campaigns, p_completed, p_failed, p_cancelled) e (campaign_id, completed, failed, cancelled)
            CROSS JOIN LATERAL (SELECT s.ctid AS tid FROM campaign_slots s WHERE s.campaign_id = e.campaign_id OFFSET 0) k
        ) i
        WHERE c.ctid = i.tid
        RETURNING c.campaign_id, c.due + c.later AS waiting
    )
    SELECT array_agg(c.campaign_id) INTO v_empty FROM counted c WHERE c.waiting = 0;
    IF v_empty IS NOT NULL THEN
        PERFORM complete_campaigns(v_empty, p_now);
    END IF;
END
$$;
COMMENT ON FUNCTION count_ended(uuid[], integer[], integer[], integer[], timestamptz) IS
    'Counts how calls of these campaigns ended, and completes those of which nothing is left. After hand_out: the next call of a campaign may have started. Needs lock_engine.';

-- Returning -------------------------------------------------------------------------------------

CREATE FUNCTION return_calls(
    p_server uuid, p_calls uuid[], p_attempts integer[], p_delays_ms bigint[], p_reasons text[],
    p_if_unknown boolean[], p_now timestamptz
) RETURNS uuid[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_items uuid[];
    v_count integer;
    v_users uuid[];
    v_active_direct integer[];
    v_active_campaign integer[];
    v_due_direct integer[];
    v_later_direct integer[];
    v_due_campaign integer[];
    v_held_direct timestamptz[];
    v_held_campaign timestamptz[];
BEGIN
    WITH freed AS (
        DELETE FROM active_calls a
        USING (
            SELECT DISTINCT ON (i.call_id) i.*, t.tid, p_now + make_interval(secs => i.delay_ms / 1000.0) AS until
            FROM unnest(p_calls, p_attempts, p_delays_ms, p_reasons, p_if_unknown)
                WITH ORDINALITY i (call_id, attempt, delay_ms, because, if_unknown, nth)
            CROSS JOIN LATERAL (
                SELECT c.ctid AS tid FROM active_calls c
                WHERE c.call_id = i.call_id AND c.attempt = i.attempt AND c.owner = p_server AND c.execution_id IS NULL
                    AND (c.status = 'unknown' OR (c.status = 'dialing' AND NOT i.if_unknown))
                OFFSET 0
            ) t
            ORDER BY i.call_id, i.nth
        ) i
        WHERE a.ctid = i.tid
        RETURNING a.*, i.nth, i.because, i.until, i.delay_ms,
            -- The lane is held for the delay, so the item stays at its head. One that keeps coming
            -- back also steps aside itself, so that it cannot block the calls behind it for ever.
            CASE WHEN a.attempt >= 4 AND i.delay_ms > 0 THEN i.until END AS wakes_at
    ), waiting AS (
        INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, reason,
            phone_number, contact_name, user_data, caller_id, scheduled_for, wakes_at, expires_at, due_at, due_since,
            queued_at, queued_by, attempts, call_id, status, trail)
        SELECT item_id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, because, phone_number,
            contact_name, user_data, caller_id, scheduled_for, wakes_at, expires_at, due_at, p_now, queued_at, queued_by,
            attempt, call_id, 'queued',
            with_attempt_told(trail, attempt, owner, reserved_at, placed_at, ringing_at, answered_at)
                || ROW (p_now, attempt, 'queued', because, p_server)::call_transition
        FROM freed
    ), campaigns_counted AS (
        UPDATE campaign_slots c SET due = c.due + p.due, later = c.later + p.calls - p.due
        FROM (
            SELECT campaign_id, count(*)::integer AS calls, (count(*) FILTER (WHERE wakes_at IS NULL))::integer AS due
            FROM freed WHERE campaign_id IS NOT NULL GROUP BY campaign_id
        ) p
        WHERE c.campaign_id = p.campaign_id
        RETURNING c.user_id, CASE WHEN c.open THEN p.due ELSE 0 END AS due
    ), per_user AS (
        SELECT f.user_id, (count(*) FILTER (WHERE f.call_type = 'direct'))::integer AS direct,
            (count(*) FILTER (WHERE f.call_type = 'direct' AND f.wakes_at IS NULL))::integer AS due_direct,
            (count(*) FILTER (WHERE f.call_type = 'campaign'))::integer AS campaign,
            coalesce((SELECT sum(c.due) FROM campaigns_counted c WHERE c.user_id = f.user_id), 0)::integer AS due_campaign,
            max(f.until) FILTER (WHERE f.call_type = 'direct' AND f.delay_ms > 0) AS held_direct,
            max(f.until) FILTER (WHERE f.call_type = 'campaign' AND f.delay_ms > 0) AS held_campaign
        FROM freed f GROUP BY f.user_id
    )
    SELECT (SELECT array_agg(f.item_id ORDER BY n.nth) FROM generate_series(1, cardinality(p_calls)) n (nth)
            LEFT JOIN freed f ON f.nth = n.nth),
        coalesce(sum(p.direct + p.campaign), 0)::integer, array_agg(p.user_id), array_agg(-p.direct), array_agg(-p.campaign),
        array_agg(p.due_direct), array_agg(p.direct - p.due_direct), array_agg(p.due_campaign), array_agg(p.held_direct),
        array_agg(p.held_campaign)
    INTO v_items, v_count, v_users, v_active_direct, v_active_campaign, v_due_direct, v_later_direct, v_due_campaign,
        v_held_direct, v_held_campaign
    FROM per_user p;

    IF v_users IS NOT NULL THEN
        UPDATE system_state SET active = active - v_count;
        UPDATE user_slots s SET held_direct = greatest(s.held_direct, i.direct), held_campaign = greatest(s.held_campaign, i.campaign)
        FROM unnest(v_users, v_held_direct, v_held_campaign) i (user_id, direct, campaign)
        WHERE s.user_id = i.user_id AND (i.direct IS NOT NULL OR i.campaign IS NOT NULL);
        PERFORM change_slots(v_users, v_active_direct, v_active_campaign, v_due_direct, v_later_direct, v_due_campaign, NULL);
    END IF;
    RETURN v_items;
END
$$;
COMMENT ON FUNCTION return_calls(uuid, uuid[], integer[], bigint[], text[], boolean[], timestamptz) IS
    'Puts calls whose current attempt provably reached nobody back into their place and frees their slots. Their user''s calls of that type wait for the delay. With p_if_unknown only while nothing has proved the call since. Answers the item for each, or null where the attempt was not p_server''s to return. Needs lock_engine, and the rows locked before it.';

-- Starting --------------------------------------------------------------------------------------

CREATE FUNCTION hand_out(
    p_server uuid, p_batch bigint, p_provider text, p_limit integer, p_direct boolean, p_campaign boolean,
    p_ended_users uuid[], p_ended_direct integer[], p_ended_campaign integer[], p_held integer[], p_mean_ms double precision[],
    p_now timestamptz
) RETURNS reserved_call[] LANGUAGE plpgsql VOLATILE AS $$
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
    v_reserved reserved_call[];
BEGIN
    SELECT * INTO v_system FROM system_state;
    SELECT coalesce(sum(d + c), 0) INTO v_ended FROM unnest(p_ended_direct, p_ended_campaign) e (d, c);
    v_free := CASE WHEN v_system.dispatch_paused THEN 0
        -- With direct calls left aside, none may be ready.
        WHEN NOT p_direct AND EXISTS (
            SELECT FROM ready_lanes WHERE call_type = 'direct' AND turn >= v_system.vtime_direct) THEN 0
        ELSE greatest(0, least(p_limit, v_system.concurrent_calls_limit - v_system.active + v_ended)) END;

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
            c.direct + c.campaign > 0 AS ended
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
        array_agg(mean_ms), coalesce(sum(direct + campaign), 0)::integer, max(last_direct), max(last_campaign)
    INTO v_tids, v_users, v_active_direct, v_active_campaign, v_due_direct, v_due_campaign, v_direct, v_campaign, v_turn_direct,
        v_turn_campaign, v_strides, v_filed_direct, v_filed_campaign, v_direct_lanes, v_campaign_lanes, v_file_direct, v_file_campaign, v_held, v_mean_ms, v_picked,
        v_last_direct, v_last_campaign
    FROM filed;
    IF v_users IS NULL THEN
        RETURN '{}';
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
        RETURN '{}';
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
        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride
        FROM unnest(v_users, v_campaign, v_turn_campaign, v_strides) w (user_id, calls, turn, stride)
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
        WHERE w.calls > 0
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
    ), counted AS (
        UPDATE campaign_slots c SET due = c.due - p.calls
        FROM (
            SELECT k.tid, d.calls
            FROM (SELECT campaign_id, count(*)::integer AS calls FROM described WHERE campaign_id IS NOT NULL GROUP BY campaign_id) d
            CROSS JOIN LATERAL (SELECT s.ctid AS tid FROM campaign_slots s WHERE s.campaign_id = d.campaign_id OFFSET 0) k
        ) p
        WHERE c.ctid = p.tid
    )
    SELECT array_agg(ROW (d.id, coalesce(d.call_id, d.id), d.attempts + 1, d.user_id, d.agent_id, d.campaign_id, d.provider,
            d.phone_number, coalesce(d.caller_id, d.agent_caller_id), d.provider_agent_id, d.settings::text, d.contact_name,
            d.user_data::text)::reserved_call
        ORDER BY d.call_type, d.turn, d.user_id)
    INTO v_reserved FROM described d;
    IF cardinality(v_reserved) IS DISTINCT FROM v_picked THEN
        RAISE EXCEPTION 'the counters promise % calls, the queue has %', v_picked, coalesce(cardinality(v_reserved), 0)
            USING HINT = 'callq audit tells which counter is wrong.';
    END IF;
    RETURN v_reserved;
END
$$;
COMMENT ON FUNCTION hand_out(uuid, bigint, text, integer, boolean, boolean, uuid[], integer[], integer[], integer[],
    double precision[], timestamptz) IS
    'Counts the slots of ended calls free, and gives free slots to waiting calls, at most p_limit: direct calls before campaign calls, users in turn, each user''s calls in order. Returns the calls started, in turn order. Needs lock_engine.';

-- The door --------------------------------------------------------------------------------------

CREATE TYPE admission AS (
    nth bigint, item_id uuid, user_id uuid, agent_id uuid, contact_id uuid, phone_number text, contact_name text,
    user_data jsonb, caller_id text, wakes_at timestamptz, expires_at timestamptz, verdict text, number bigint
);
COMMENT ON TYPE admission IS 'A direct call at the door, and what was found out about it so far.';

CREATE TYPE verdict AS (
    nth bigint, verdict text, item_id uuid, number bigint, "limit" bigint, ahead bigint, total bigint, slots integer,
    samples integer, mean_hold_ms double precision, wakes_at timestamptz, expires_at timestamptz, saved_body text
);
COMMENT ON TYPE verdict IS 'What became of a direct call at the door, in the order of arrival.';

CREATE FUNCTION judge_admissions(
    p_server uuid, p_batch bigint, p_answered bigint,
    p_items uuid[], p_users uuid[], p_agents uuid[], p_contacts uuid[], p_numbers text[], p_names text[],
    p_user_data text[], p_caller_ids text[], p_scheduled timestamptz[], p_expires_ms bigint[],
    p_keys text[], p_hashes bytea[], p_now timestamptz
) RETURNS admission[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rows admission[];
    v_has_keys boolean := EXISTS (SELECT FROM unnest(p_keys) k WHERE k IS NOT NULL);
BEGIN
    IF v_has_keys THEN
        DELETE FROM idempotency_keys k USING unnest(p_users, p_keys) i (user_id, key)
        WHERE k.user_id = i.user_id AND k.key = i.key AND k.created_at <= p_now - interval '24 hours';
    END IF;
    SELECT array_agg(ROW (
        i.nth, i.item_id, i.user_id, i.agent_id, i.contact_id, coalesce(i.phone_number, c.phone_number),
        coalesce(i.contact_name, c.name), coalesce(i.user_data::jsonb, c.user_data), i.caller_id,
        CASE WHEN i.scheduled_for > p_now THEN i.scheduled_for END,
        p_now + make_interval(secs => i.expires_ms / 1000.0),
        CASE
            -- Asked once more after a settlement whose answer was lost.
            WHEN again.verdict IS NOT NULL THEN again.verdict
            WHEN k.item_id IS NOT NULL AND k.request_hash <> i.request_hash THEN 'mismatch'
            WHEN k.body IS NOT NULL THEN 'answered'
            -- Longer than any placement takes, an answer that was never kept is not coming.
            WHEN k.created_at > p_now - interval '6 minutes'
                AND EXISTS (SELECT FROM servers s WHERE s.id = k.server AND s.lease_until > p_now)
                THEN 'in_progress'
            WHEN k.item_id IS NOT NULL THEN 'unanswered'
            WHEN u.id IS NULL THEN 'unknown_user'
            WHEN a.id IS NULL THEN 'unknown_agent'
            WHEN i.contact_id IS NOT NULL AND c.id IS NULL THEN 'unknown_contact'
            WHEN u.credits <= 0 THEN 'no_credits'
            ELSE 'accepted'
        END,
        u.credits
    )::admission ORDER BY i.nth)
    INTO v_rows
    FROM unnest(p_items, p_users, p_agents, p_contacts, p_numbers, p_names, p_user_data, p_caller_ids, p_scheduled,
            p_expires_ms, p_keys, p_hashes)
        WITH ORDINALITY i (item_id, user_id, agent_id, contact_id, phone_number, contact_name, user_data, caller_id,
            scheduled_for, expires_ms, key, request_hash, nth)
    LEFT JOIN LATERAL (
        SELECT CASE
            WHEN q.waits THEN 'again'
            WHEN q.mine THEN 'started_before'
            ELSE 'unanswered' END AS verdict
        FROM (
            SELECT true AS waits, false AS mine FROM call_queue w WHERE w.id = i.item_id
            UNION ALL
            SELECT false, r.owner = p_server AND r.batch > p_answered FROM active_calls r WHERE r.call_id = i.item_id
            UNION ALL
            SELECT false, false FROM call_queue_history h WHERE h.id = i.item_id
        ) q
        WHERE p_answered IS NOT NULL LIMIT 1
    ) again ON true
    LEFT JOIN idempotency_keys k ON v_has_keys AND k.user_id = i.user_id AND k.key = i.key
    LEFT JOIN LATERAL (SELECT x.id, x.credits FROM users x WHERE x.id = i.user_id OFFSET 0) u ON true
    LEFT JOIN LATERAL (SELECT x.id FROM agents x WHERE x.user_id = i.user_id AND x.id = i.agent_id OFFSET 0) a ON true
    LEFT JOIN LATERAL (
        SELECT x.id, x.phone_number, x.name, x.user_data FROM contacts x WHERE x.user_id = i.user_id AND x.id = i.contact_id OFFSET 0
    ) c ON true;

    IF v_has_keys THEN
        WITH kept AS (
            INSERT INTO idempotency_keys (user_id, key, request_hash, item_id, server, created_at)
            SELECT r.user_id, i.key, i.request_hash, r.item_id, p_server, p_now
            FROM unnest(v_rows) r
            JOIN unnest(p_keys, p_hashes) WITH ORDINALITY i (key, request_hash, nth) ON i.nth = r.nth
            WHERE r.verdict = 'accepted' AND i.key IS NOT NULL
            ORDER BY r.nth
            ON CONFLICT DO NOTHING
            RETURNING idempotency_keys.item_id
        ), judged AS (
            -- Two requests with one key in one batch: the first has it.
            SELECT r.nth, r.item_id, r.user_id, r.agent_id, r.contact_id, r.phone_number, r.contact_name, r.user_data,
                r.caller_id, r.wakes_at, r.expires_at,
                CASE WHEN r.verdict = 'accepted' AND p_keys[r.nth] IS NOT NULL
                        AND NOT EXISTS (SELECT FROM kept WHERE kept.item_id = r.item_id)
                    THEN CASE WHEN EXISTS (
                        SELECT FROM unnest(p_users, p_keys, p_hashes) o (user_id, key, request_hash)
                        WHERE o.user_id = r.user_id AND o.key = p_keys[r.nth] AND o.request_hash <> p_hashes[r.nth]
                    ) THEN 'mismatch' ELSE 'in_progress' END
                    ELSE r.verdict END AS verdict,
                r.number
            FROM unnest(v_rows) r
        )
        SELECT array_agg(ROW (j.*)::admission ORDER BY j.nth) INTO v_rows FROM judged j;
    END IF;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION judge_admissions(uuid, bigint, bigint, uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    timestamptz[], bigint[], text[], bytea[], timestamptz) IS
    'Finds out about direct calls at the door what does not depend on slots: known before, refused, or accepted; keeps the idempotency keys of those accepted. Needs lock_engine.';

CREATE FUNCTION admit_direct_calls(
    p_server uuid, p_batch bigint, p_answered bigint, p_provider text,
    p_items uuid[], p_users uuid[], p_agents uuid[], p_contacts uuid[], p_numbers text[], p_names text[],
    p_user_data text[], p_caller_ids text[], p_scheduled timestamptz[], p_expires_ms bigint[],
    p_keys text[], p_hashes bytea[], p_now timestamptz,
    OUT verdicts verdict[], OUT started reserved_call[]
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rows admission[];
    v_starts uuid[];
    v_system system_state;
    v_open boolean;
    v_users uuid[];
    v_active integer[];
    v_due integer[];
    v_later integer[];
    v_turns bigint[];
    v_last bigint;
    v_none integer[];
BEGIN
    v_rows := judge_admissions(p_server, p_batch, p_answered, p_items, p_users, p_agents, p_contacts, p_numbers, p_names,
        p_user_data, p_caller_ids, p_scheduled, p_expires_ms, p_keys, p_hashes, p_now);

    -- Who of the accepted may start: slots free for the user and the system, and no direct call
    -- waiting that could use them. In order of arrival.
    SELECT * INTO v_system FROM system_state;
    v_open := NOT v_system.dispatch_paused AND v_system.active < v_system.concurrent_calls_limit
        AND NOT EXISTS (SELECT FROM ready_lanes WHERE call_type = 'direct' AND turn >= v_system.vtime_direct);
    IF v_open THEN
        SELECT array_agg(q.item_id ORDER BY q.nth) INTO v_starts
        FROM (
            SELECT k.item_id, k.nth
            FROM (
                SELECT r.nth, r.item_id, r.user_id, row_number() OVER (PARTITION BY r.user_id ORDER BY r.nth) AS nth_of_user
                FROM unnest(v_rows) r WHERE r.verdict = 'accepted' AND r.wakes_at IS NULL
            ) k
            CROSS JOIN LATERAL (SELECT u.* FROM user_slots u WHERE u.user_id = k.user_id OFFSET 0) s
            WHERE s.due_direct = 0 AND k.nth_of_user <= s.slots - s.active_direct - s.active_campaign
            ORDER BY k.nth
            LIMIT v_system.concurrent_calls_limit - v_system.active
        ) q;
    END IF;
    v_starts := coalesce(v_starts, '{}');

    WITH lines AS (
        SELECT r.*, r.verdict = 'accepted' AND r.item_id = ANY (v_starts) AS starts,
            r.verdict = 'accepted' AND NOT r.item_id = ANY (v_starts) AS waits
        FROM unnest(v_rows) r
    ), placed AS (
        SELECT l.*, count(*) FILTER (WHERE l.starts) OVER (PARTITION BY l.user_id) AS user_starts,
            count(*) FILTER (WHERE l.waits AND l.wakes_at IS NULL)
                OVER (PARTITION BY l.user_id ORDER BY l.nth ROWS UNBOUNDED PRECEDING) AS nth_due,
            count(*) FILTER (WHERE l.waits) OVER (PARTITION BY l.user_id ORDER BY l.nth ROWS UNBOUNDED PRECEDING) AS nth_waiting
        FROM lines l
    )
    SELECT array_agg(ROW (
        p.nth,
        CASE
            WHEN p.verdict <> 'accepted' THEN p.verdict
            WHEN p.starts THEN 'started'
            WHEN p.wakes_at IS NOT NULL THEN 'scheduled'
            WHEN v_system.dispatch_paused THEN 'paused'
            WHEN s.active_direct + s.active_campaign + p.user_starts >= s.slots THEN 'user_limit'
            WHEN v_system.active + cardinality(v_starts) >= v_system.concurrent_calls_limit THEN 'system_limit'
            ELSE 'earlier_calls'
        END,
        CASE WHEN p.verdict IN ('unanswered', 'answered') THEN coalesce(k.item_id, p.item_id) ELSE p.item_id END,
        CASE
            WHEN p.verdict = 'answered' THEN k.status::bigint
            WHEN p.verdict <> 'accepted' THEN p.number
            WHEN s.active_direct + s.active_campaign + p.user_starts >= s.slots THEN s.active_direct + s.active_campaign + p.user_starts
            ELSE v_system.active + cardinality(v_starts)
        END,
        CASE WHEN s.active_direct + s.active_campaign + p.user_starts >= s.slots THEN s.slots ELSE v_system.concurrent_calls_limit END::bigint,
        s.due_direct + p.nth_due - CASE WHEN p.wakes_at IS NULL THEN 1 ELSE 0 END,
        s.due_direct + s.later_direct + p.nth_waiting,
        least(s.slots, v_system.concurrent_calls_limit), s.hold_samples, s.mean_hold_ms, p.wakes_at, p.expires_at, k.body
    )::verdict ORDER BY p.nth)
    INTO verdicts
    FROM placed p
    LEFT JOIN LATERAL (SELECT u.* FROM user_slots u WHERE u.user_id = p.user_id OFFSET 0) s ON true
    LEFT JOIN idempotency_keys k ON p.verdict IN ('unanswered', 'answered')
        AND k.user_id = p.user_id AND k.key = p_keys[p.nth];

    -- Kept from being deleted until the calls that start now are there for all to see.
    PERFORM FROM (SELECT DISTINCT r.agent_id FROM unnest(v_rows) r WHERE r.item_id = ANY (v_starts) ORDER BY 1 OFFSET 0) i
    CROSS JOIN LATERAL (SELECT FROM agents x WHERE x.id = i.agent_id FOR KEY SHARE) x;
    PERFORM FROM (SELECT DISTINCT r.contact_id FROM unnest(v_rows) r WHERE r.item_id = ANY (v_starts) ORDER BY 1 OFFSET 0) i
    CROSS JOIN LATERAL (SELECT FROM contacts x WHERE x.id = i.contact_id FOR KEY SHARE) x;

    WITH accepted AS (
        SELECT r.*, r.item_id = ANY (v_starts) AS starts,
            nextval('call_queue_position_seq') AS position
        FROM (SELECT * FROM unnest(v_rows) u WHERE u.verdict = 'accepted' ORDER BY u.nth) r
    ), queued AS (
        INSERT INTO call_queue (id, user_id, agent_id, contact_id, call_type, priority, position, status, phone_number,
            contact_name, user_data, caller_id, scheduled_for, wakes_at, due_at, due_since, expires_at, queued_at, queued_by)
        SELECT a.item_id, a.user_id, a.agent_id, a.contact_id, 'direct', 100, a.position, 'queued', a.phone_number,
            a.contact_name, a.user_data, a.caller_id, a.wakes_at, a.wakes_at, coalesce(a.wakes_at, p_now),
            coalesce(a.wakes_at, p_now), a.expires_at, p_now, p_server
        FROM accepted a WHERE NOT a.starts
    ), described AS (
        SELECT a.*, coalesce(g.provider, p_provider) AS provider, g.provider_agent_id, g.settings, g.caller_id AS agent_caller_id
        FROM accepted a
        CROSS JOIN LATERAL (
            SELECT x.provider, x.provider_agent_id, x.settings, x.caller_id FROM agents x WHERE x.id = a.agent_id OFFSET 0
        ) g
        WHERE a.starts AND (a.contact_id IS NULL OR EXISTS (SELECT FROM contacts x WHERE x.id = a.contact_id))
    ), taken AS (
        INSERT INTO active_calls (call_id, item_id, user_id, agent_id, contact_id, call_type, priority, position, phone_number,
            contact_name, user_data, caller_id, expires_at, due_at, due_since, queued_at, queued_by, provider, attempt, owner,
            batch, reserved_at)
        SELECT d.item_id, d.item_id, d.user_id, d.agent_id, d.contact_id, 'direct', 100, d.position, d.phone_number,
            d.contact_name, d.user_data, d.caller_id, d.expires_at, p_now, p_now, p_now, p_server, d.provider, 1, p_server,
            p_batch, p_now
        FROM described d
    ), per_user AS (
        SELECT a.user_id, (count(*) FILTER (WHERE a.starts))::integer AS starts,
            (count(*) FILTER (WHERE NOT a.starts AND a.wakes_at IS NULL))::integer AS due,
            (count(*) FILTER (WHERE a.wakes_at IS NOT NULL))::integer AS later
        FROM accepted a GROUP BY a.user_id
    ), turns AS (
        SELECT p.*, CASE WHEN p.starts > 0
            THEN greatest(s.turn_direct, v_system.vtime_direct) + p.starts * s.stride::bigint END AS turn, s.stride
        FROM per_user p
        CROSS JOIN LATERAL (SELECT u.turn_direct, u.stride FROM user_slots u WHERE u.user_id = p.user_id OFFSET 0) s
    )
    SELECT (SELECT array_agg(ROW (d.item_id, d.item_id, 1, d.user_id, d.agent_id, NULL, d.provider, d.phone_number,
                coalesce(d.caller_id, d.agent_caller_id), d.provider_agent_id, d.settings::text, d.contact_name,
                d.user_data::text)::reserved_call ORDER BY d.nth) FROM described d),
        array_agg(t.user_id), array_agg(t.starts), array_agg(t.due), array_agg(t.later), array_agg(t.turn), max(t.turn - t.stride),
        array_fill(0, ARRAY[count(*)::integer])
    INTO started, v_users, v_active, v_due, v_later, v_turns, v_last, v_none
    FROM turns t;

    IF cardinality(v_starts) <> coalesce(cardinality(started), 0) THEN
        -- Deleted between the look and the lock: judged anew, it is refused.
        RAISE EXCEPTION 'the counters promise % calls, of which an agent or contact is gone', cardinality(v_starts);
    END IF;
    IF v_users IS NOT NULL THEN
        IF started IS NOT NULL THEN
            UPDATE system_state SET active = active + cardinality(started), vtime_direct = greatest(vtime_direct, v_last);
        END IF;
        PERFORM change_slots(v_users, v_active, v_none, v_due, v_later, v_none, v_turns);
    END IF;

    IF EXISTS (SELECT FROM unnest(verdicts) v WHERE v.verdict IN ('scheduled', 'again', 'started_before')) THEN
        -- What sleeps stands behind what is due, by the time it wakes: that takes a look.
        SELECT array_agg(ROW (v.nth, v.verdict, v.item_id, v.number, v."limit",
                CASE WHEN v.verdict IN ('scheduled', 'again') THEN get_call_queue_position(v.item_id) - 1 ELSE v.ahead END,
                CASE WHEN v.verdict IN ('scheduled', 'again') THEN count_user_direct_calls_queued(q.user_id) ELSE v.total END,
                v.slots, v.samples, v.mean_hold_ms, coalesce(v.wakes_at, q.wakes_at), coalesce(q.expires_at, v.expires_at), v.saved_body
            )::verdict ORDER BY v.nth)
        INTO verdicts
        FROM unnest(verdicts) v LEFT JOIN call_queue q ON q.id = v.item_id;
        SELECT coalesce(started, '{}') || array_agg(ROW (c.item_id, c.call_id, c.attempt, c.user_id, c.agent_id, c.campaign_id,
                c.provider, c.phone_number, coalesce(c.caller_id, g.caller_id), g.provider_agent_id, g.settings::text,
                c.contact_name, c.user_data::text)::reserved_call)
        INTO started
        FROM unnest(verdicts) v
        JOIN active_calls c ON c.call_id = v.item_id
        JOIN agents g ON g.id = c.agent_id
        WHERE v.verdict = 'started_before';
        UPDATE active_calls c SET batch = p_batch FROM unnest(verdicts) v
        WHERE v.verdict = 'started_before' AND c.call_id = v.item_id;
    END IF;
END
$$;
COMMENT ON FUNCTION admit_direct_calls(uuid, bigint, bigint, text, uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    timestamptz[], bigint[], text[], bytea[], timestamptz) IS
    'Decides direct calls at the door, in order: started (a slot is reserved), queued with a reason, refused, or known before. A refused request writes nothing. Needs lock_engine.';

-- A whole settlement ----------------------------------------------------------------------------

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
    v_lost uuid[];
    v_lost_attempts integer[];
    v_items uuid[];
    v_left integer := p_limit;
    v_all_expired boolean;
    v_admits boolean := cardinality(p_items) > 0;
BEGIN
    IF cardinality(p_end_calls) + cardinality(p_return_calls) > 0 THEN
        PERFORM lock_calls(p_end_calls || p_return_calls);
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
            NULL::double precision[] AS mean_ms, NULL::uuid[] AS campaigns, NULL::integer[] AS completed,
            NULL::integer[] AS failed, NULL::integer[] AS cancelled INTO v_ends;
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
            PERFORM count_ended(v_gone.campaigns, v_gone.completed, v_gone.failed, v_gone.cancelled, v_now);
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
                    SELECT sum(l.due::bigint + l.later) FROM campaigns c JOIN campaign_slots l ON l.campaign_id = c.id
                    WHERE c.user_id = q.user_id AND (c.status <> 'draft' OR c.id = q.campaign_id)
                ) END, least(s.slots, y.concurrent_calls_limit), s.hold_samples, s.mean_hold_ms, q.wakes_at, q.expires_at, NULL
            )::verdict ORDER BY i.nth)
        INTO returned
        FROM unnest(v_items) WITH ORDINALITY i (id, nth)
        LEFT JOIN call_queue q ON q.id = i.id
        LEFT JOIN user_slots s ON s.user_id = q.user_id
        CROSS JOIN system_state y;
    END IF;
    -- Nothing that should have expired may start: while some is left, only that is worked off.
    v_all_expired := wake_and_expire(p_server, v_now);
    IF NOT v_all_expired THEN
        v_left := 0;
    END IF;

    reserved := hand_out(p_server, p_batch, p_provider, v_left, true, NOT v_admits, v_ends.users, v_ends.direct, v_ends.campaign,
        v_ends.held, v_ends.mean_ms, v_now);
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
            reserved := reserved || hand_out(p_server, p_batch, p_provider, v_left, false, true, NULL, NULL, NULL, NULL, NULL, v_now);
        END IF;
    END IF;
    IF v_ends.campaigns IS NOT NULL THEN
        PERFORM count_ended(v_ends.campaigns, v_ends.completed, v_ends.failed, v_ends.cancelled, v_now);
    END IF;

    SELECT o.more, o.next_timer_ms INTO more, next_timer_ms FROM engine_outlook(v_now) o;
END
$$;
COMMENT ON FUNCTION settle(uuid, bigint, bigint, text, integer, uuid[], uuid[], integer[], text[], text[], text[], integer[], uuid[],
    integer[], bigint[], text[], boolean[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[], timestamptz[], bigint[],
    text[], bytea[]) IS
    'Settles a batch of one server: ends and returns free slots, waiting direct calls take them, then newcomers, then campaign calls. p_batch grows from settlement to settlement of a server; p_answered is set when the answers to those since it were lost. What it reserves is authorised: its server may send it, once. Unless durable, it must first be flushed.';

CREATE FUNCTION was_call(p_call uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM active_calls WHERE call_id = p_call)
        OR EXISTS (SELECT FROM call_queue WHERE call_id = p_call)
        OR EXISTS (SELECT FROM call_queue_history WHERE id = p_call AND call_id = p_call)
        OR EXISTS (SELECT FROM call_queue_history WHERE call_id = p_call AND call_id <> id);
END
$$;
COMMENT ON FUNCTION was_call(uuid) IS 'Whether there is, or was, a call of this id.';

CREATE FUNCTION engine_outlook(p_now timestamptz, OUT next_timer_ms bigint, OUT more boolean) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_system system_state;
    v_next timestamptz;
BEGIN
    SELECT least(
        (SELECT min(q.wakes_at) FROM call_queue q WHERE q.wakes_at IS NOT NULL),
        (SELECT min(q.expires_at) FROM call_queue q WHERE q.expires_at IS NOT NULL),
        (SELECT min(s.held_direct) FROM user_slots s WHERE s.held_direct IS NOT NULL),
        (SELECT min(s.held_campaign) FROM user_slots s WHERE s.held_campaign IS NOT NULL))
    INTO v_next;
    next_timer_ms := CASE WHEN v_next IS NOT NULL THEN greatest(0, ceil(extract(epoch FROM v_next - p_now) * 1000)) END;
    SELECT * INTO v_system FROM system_state;
    more := NOT v_system.dispatch_paused AND v_system.active < v_system.concurrent_calls_limit AND (
        EXISTS (SELECT FROM ready_lanes WHERE call_type = 'direct' AND turn >= v_system.vtime_direct)
        OR EXISTS (SELECT FROM ready_lanes WHERE call_type = 'campaign' AND turn >= v_system.vtime_campaign));
END
$$;
COMMENT ON FUNCTION engine_outlook(timestamptz) IS
    'Milliseconds until something becomes due by itself, null for never; and whether a ready call could go now.';

-- Progress of calls that hold a slot: no counters move, so no engine lock ------------------------

CREATE FUNCTION record_progress(
    p_server uuid,
    p_placed uuid[], p_placed_attempts integer[], p_placed_executions text[],
    p_events uuid[], p_event_statuses text[], p_event_executions text[], p_event_reasons text[],
    p_unknown uuid[], p_unknown_attempts integer[], p_unknown_reasons text[],
    OUT placed bigint[], OUT effects text[], OUT lost bigint[]
) LANGUAGE plpgsql VOLATILE SET lock_timeout = '8s' AS $$
DECLARE
    v_now timestamptz;
    v_order constant text[] := ARRAY['unknown', 'dialing', 'ringing', 'in-progress'];
    v_changed uuid[];
BEGIN
    PERFORM lock_calls(p_placed || p_events || p_unknown);
    v_now := engine_now();

    IF cardinality(p_placed) > 0 THEN
        WITH news AS (
            UPDATE active_calls a SET execution_id = i.execution_id, placed_at = v_now, reason = NULL, unknown_since = NULL,
                status = CASE a.status WHEN 'unknown' THEN 'dialing' ELSE a.status END
            FROM (
                SELECT i.*, t.tid
                FROM unnest(p_placed, p_placed_attempts, p_placed_executions)
                    WITH ORDINALITY i (call_id, attempt, execution_id, nth)
                CROSS JOIN LATERAL (
                    SELECT c.ctid AS tid FROM active_calls c
                    WHERE c.call_id = i.call_id AND c.attempt = i.attempt AND c.owner = p_server AND c.execution_id IS NULL
                    OFFSET 0
                ) t
            ) i
            WHERE a.ctid = i.tid
            RETURNING i.nth
        )
        SELECT array_agg(n.nth) INTO placed FROM news n;
    END IF;

    IF cardinality(p_events) > 0 THEN
        -- Of several events for one call in one batch the furthest of its own execution counts;
        -- statuses only move forward.
        WITH furthest AS (
            SELECT DISTINCT ON (i.call_id) i.*, t.tid
            FROM unnest(p_events, p_event_statuses, p_event_executions, p_event_reasons) i (call_id, status, execution_id, reason)
            CROSS JOIN LATERAL (
                SELECT c.ctid AS tid FROM active_calls c
                WHERE c.call_id = i.call_id
                    AND (i.execution_id IS NULL OR c.execution_id IS NULL OR i.execution_id = c.execution_id)
                OFFSET 0
            ) t
            ORDER BY i.call_id, array_position(v_order, i.status) DESC
        ), changed AS (
            UPDATE active_calls a SET status = f.status, execution_id = coalesce(a.execution_id, f.execution_id),
                reason = f.reason, unknown_since = NULL,
                ringing_at = CASE f.status WHEN 'ringing' THEN v_now ELSE a.ringing_at END,
                answered_at = CASE f.status WHEN 'in-progress' THEN v_now ELSE a.answered_at END,
                -- Its columns tell of what its owner noted; the trail of all else.
                trail = CASE WHEN a.owner = p_server AND f.reason IS NULL AND f.status IN ('ringing', 'in-progress') THEN a.trail
                    ELSE coalesce(a.trail, '{}') || ROW (v_now, a.attempt, f.status, f.reason, p_server)::call_transition END
            FROM furthest f
            WHERE a.ctid = f.tid AND array_position(v_order, f.status) > array_position(v_order, a.status::text)
            RETURNING a.call_id
        )
        SELECT array_agg(c.call_id) INTO v_changed FROM changed c;
        -- An event may bring the provider's name for a call before the placement's own answer does.
        UPDATE active_calls a SET execution_id = i.execution_id
        FROM (
            SELECT e.execution_id, t.tid FROM unnest(p_events, p_event_executions) e (call_id, execution_id)
            CROSS JOIN LATERAL (
                SELECT c.ctid AS tid FROM active_calls c WHERE c.call_id = e.call_id AND c.execution_id IS NULL OFFSET 0
            ) t
            WHERE e.execution_id IS NOT NULL
        ) i
        WHERE a.ctid = i.tid;
        SELECT array_agg(CASE WHEN i.call_id = ANY (v_changed) THEN 'ended' WHEN was_call(i.call_id) THEN 'ignored' ELSE 'unknown' END
            ORDER BY i.nth)
        INTO effects FROM unnest(p_events) WITH ORDINALITY i (call_id, nth);
    END IF;

    IF cardinality(p_unknown) > 0 THEN
        WITH news AS (
            UPDATE active_calls a SET status = 'unknown', reason = i.reason, unknown_since = v_now,
                trail = coalesce(a.trail, '{}') || ROW (v_now, a.attempt, 'unknown', i.reason, p_server)::call_transition
            FROM (
                SELECT e.*, t.tid
                FROM unnest(p_unknown, p_unknown_attempts, p_unknown_reasons) WITH ORDINALITY e (call_id, attempt, reason, nth)
                CROSS JOIN LATERAL (
                    SELECT c.ctid AS tid FROM active_calls c
                    WHERE c.call_id = e.call_id AND c.attempt = e.attempt AND c.owner = p_server AND c.status = 'dialing'
                        AND c.execution_id IS NULL
                    OFFSET 0
                ) t
            ) i
            WHERE a.ctid = i.tid
            RETURNING i.nth
        )
        SELECT array_agg(n.nth) INTO lost FROM news n;
    END IF;
END
$$;
COMMENT ON FUNCTION record_progress(uuid, uuid[], integer[], text[], uuid[], text[], text[], text[], uuid[], integer[], text[]) IS
    'Notes the provider''s names for calls it took, status events other than terminal ones (dialing, ringing, in-progress), and attempts whose answer was lost. Answers the numbers of those placements and losses that were news, and for each event: ended (it had an effect), ignored or unknown.';

CREATE FUNCTION adopt_orphans(p_server uuid) RETURNS SETOF uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz := engine_now();
    v_dead uuid[];
BEGIN
    IF NOT EXISTS (SELECT FROM servers WHERE id <> p_server AND lease_until <= clock_timestamp()) THEN
        RETURN;
    END IF;
    -- Calls first, as everywhere. Under the locks on the servers' rows no settlement of theirs can
    -- still take effect; what one took until then is locked once more.
    PERFORM FROM active_calls a
    WHERE a.owner IN (SELECT s.id FROM servers s WHERE s.id <> p_server AND s.lease_until <= clock_timestamp())
    ORDER BY a.call_id FOR UPDATE OF a;
    SELECT array_agg(d.id) INTO v_dead FROM (
        SELECT id FROM servers WHERE id <> p_server AND lease_until <= clock_timestamp() ORDER BY id FOR UPDATE
    ) d;
    PERFORM FROM active_calls a WHERE a.owner = ANY (v_dead) ORDER BY a.call_id FOR UPDATE;
    RETURN QUERY
    UPDATE active_calls a SET owner = p_server, batch = 0,
        status = CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN 'unknown' ELSE a.status END,
        reason = CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN 'its server stopped while dialing' ELSE a.reason END,
        unknown_since = CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN v_now ELSE a.unknown_since END,
        trail = with_attempt_told(a.trail, a.attempt, a.owner, a.reserved_at, a.placed_at, a.ringing_at, a.answered_at)
            || ROW (v_now, a.attempt,
            CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN 'unknown' ELSE a.status END,
            'taken over from a server that is gone', p_server)::call_transition
    WHERE a.owner = ANY (v_dead)
    RETURNING a.call_id;
    DELETE FROM servers WHERE id = ANY (v_dead);
END
$$;
COMMENT ON FUNCTION adopt_orphans(uuid) IS
    'Takes over the calls of servers whose lease is over, and forgets those servers: dialing calls become unknown, the rest change owner. Returns those now held by p_server.';

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
