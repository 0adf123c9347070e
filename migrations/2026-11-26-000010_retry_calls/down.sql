-- Whatever waits to be retried goes on as a call of its own.
UPDATE call_queue SET call_id = uuid_v7() WHERE made IS NOT NULL AND call_id IS NULL;

CREATE OR REPLACE VIEW queue_items AS
SELECT id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status, phone_number, contact_name,
    user_data, caller_id, scheduled_for, wakes_at, due_at, due_since, expires_at, attempts::integer AS attempts, call_id,
    reason, queued_at, NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at
FROM call_queue
UNION ALL
SELECT item_id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, 'processing', phone_number,
    contact_name, user_data, caller_id, scheduled_for, NULL, due_at, due_since, expires_at, attempt::integer, call_id,
    NULL, queued_at, reserved_at, NULL
FROM active_calls
UNION ALL
SELECT id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status, phone_number, contact_name,
    user_data, caller_id, scheduled_for, wakes_at, due_at, due_since, expires_at, attempts::integer, call_id,
    coalesce(reason, outcome), queued_at, reserved_at, finished_at
FROM call_queue_history;

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('settle_by_hand', $x$    SELECT v_ends.completed || r.completed, v_ends.failed || r.failed INTO v_ends.completed, v_ends.failed
    FROM retry_calls(NULL, v_ends.again, v_now) r;
    -- Only counts the slot free.$x$,
     $x$    -- Only counts the slot free.$x$),
    ('settle', $x$    IF v_ends.again IS NOT NULL THEN
        SELECT v_ends.completed || r.completed, v_ends.failed || r.failed INTO v_ends.completed, v_ends.failed
        FROM retry_calls(p_server, v_ends.again, v_now) r;
    END IF;
    v_next := next_timer();
    IF v_next <= v_now THEN$x$,
     $x$    v_next := next_timer();
    IF v_next <= v_now THEN$x$),
    ('settle', $x$NULL::uuid[] AS failed, NULL::uuid[] AS cancelled,
            NULL::call_to_retry[] AS again$x$,
     $x$NULL::uuid[] AS failed, NULL::uuid[] AS cancelled$x$),
    ('return_calls', $x$because, p_server)::call_transition, ordinal, made$x$,
     $x$because, p_server)::call_transition, ordinal$x$),
    ('return_calls', $x$attempts, call_id, status, trail, ordinal, made)$x$,
     $x$attempts, call_id, status, trail, ordinal)$x$),
    ('return_calls', $x$    -- Its number may have been put on a do-not-call list while it was up.
    v_listed := withdraw_listed(v_items, p_server, p_now);
    IF v_listed > 0 THEN
        v_items := ARRAY(
            SELECT CASE WHEN EXISTS (SELECT FROM call_queue q WHERE q.id = i.id) THEN i.id END
            FROM unnest(v_items) WITH ORDINALITY i (id, nth) ORDER BY i.nth);
    END IF;
    RETURN v_items;$x$,
     $x$    RETURN v_items;$x$),
    ('return_calls', $x$    v_count integer;
    v_listed integer;$x$,
     $x$    v_count integer;$x$),
    ('hand_out', $x$d.this_call$x$,
     $x$coalesce(d.call_id, d.id)$x$),
    ('hand_out', $x$SELECT this_call, id,$x$,
     $x$SELECT coalesce(call_id, id), id,$x$),
    ('hand_out', $x$SELECT m.*, coalesce(a.provider, p_provider) AS provider,
            -- An item's first call has its id. A later one is another call.
            coalesce(m.call_id, CASE WHEN m.made IS NULL THEN m.id ELSE uuid_v7() END) AS this_call,$x$,
     $x$SELECT m.*, coalesce(a.provider, p_provider) AS provider,$x$),
    ('hand_out', $x$p_batch, p_now, trail, ordinal, made$x$,
     $x$p_batch, p_now, trail, ordinal$x$),
    ('hand_out', $x$reserved_at, trail, ordinal, made)$x$,
     $x$reserved_at, trail, ordinal)$x$)
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

DROP FUNCTION retry_calls(uuid, call_to_retry[], timestamptz);
DROP FUNCTION close_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz);
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

DO $plan$
DECLARE
    v_function regprocedure := 'close_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz)';
BEGIN
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_function);
    EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_function);
    EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_function);
    EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_function);
    EXECUTE format('ALTER FUNCTION %s SET jit = off', v_function);
END
$plan$;

DROP TYPE call_to_retry;
DROP TABLE campaign_retries;
ALTER TABLE call_queue_history DROP COLUMN retried;
ALTER TABLE active_calls DROP COLUMN made;
ALTER TABLE call_queue DROP COLUMN made;
DELETE FROM additive_migrations WHERE version = '20261126000010';
