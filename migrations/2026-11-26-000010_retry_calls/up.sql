-- Campaign calls that did not get through are made again: the same item, in its old place, due
-- later. What was made of it so far goes with it; each call it had stays in history.
--
-- Locks: call_queue, active_calls and call_queue_history for a moment, to add columns. It only adds:
-- servers of the version before go on, and retry as soon as this is there.

-- In the order in which settlements take them.
ALTER TABLE active_calls ADD COLUMN made smallint[];
ALTER TABLE call_queue ADD COLUMN made smallint[];
COMMENT ON COLUMN call_queue.made IS
    'Calls made for it that are to be made again, by how they ended: busy, no-answer, failed, machine. Null before the first.';
COMMENT ON COLUMN active_calls.made IS 'As in call_queue.';
ALTER TABLE call_queue_history ADD COLUMN retried boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN call_queue_history.retried IS 'A call that is over of an item that is not: it went back to the queue for another.';

CREATE TABLE campaign_retries (
    campaign_id uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    outcome text NOT NULL CHECK (outcome IN ('busy', 'no-answer', 'failed', 'machine')),
    times integer NOT NULL CHECK (times BETWEEN 0 AND 100),
    after_minutes integer[] NOT NULL
        CHECK (cardinality(after_minutes) BETWEEN 1 AND 100 AND 1 <= ALL (after_minutes) AND 43200 >= ALL (after_minutes)),
    PRIMARY KEY (campaign_id, outcome)
);
COMMENT ON TABLE campaign_retries IS
    'Where a campaign says otherwise than: after busy, no-answer and failed, max_retries times, each after retry_interval_minutes; after a machine never. max_retries bounds the sum of all.';
COMMENT ON COLUMN campaign_retries.after_minutes IS 'How long before the first retry after this outcome, the second, and so on; the last for all that follow.';

CREATE TYPE call_to_retry AS (
    item_id uuid, finished_at timestamptz, user_id uuid, phone_number text, campaign_id uuid, kind smallint, ordinal bigint,
    made smallint[]
);
COMMENT ON TYPE call_to_retry IS 'A call that ended so that its campaign may want it made again; kind counts as call_queue.made does, from 1.';

-- By another name than close_calls, which stays: a settlement that began before this is committed goes
-- on after it with what it knew, and would not count what is left to retry_calls.
CREATE FUNCTION end_calls(
    p_server uuid, p_calls uuid[], p_attempts integer[], p_outcomes text[], p_executions text[], p_reasons text[],
    p_durations integer[], p_now timestamptz,
    OUT ended bigint[], OUT users uuid[], OUT direct integer[], OUT campaign integer[], OUT held integer[],
    OUT mean_ms double precision[], OUT completed uuid[], OUT failed uuid[], OUT cancelled uuid[], OUT again call_to_retry[]
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
            coalesce(a.execution_id, i.execution_id) AS execution,
            -- One that failed before a carrier had it was refused for good.
            CASE WHEN a.campaign_id IS NULL OR a.overdue OR i.reason IN ('do-not-call', 'invalid-number', 'timed_out') THEN NULL
                WHEN i.outcome = 'busy' THEN 1 WHEN i.outcome = 'no-answer' THEN 2
                WHEN i.outcome = 'failed' AND (a.execution_id IS NOT NULL OR i.execution_id IS NOT NULL
                    OR a.ringing_at IS NOT NULL OR a.answered_at IS NOT NULL) THEN 3
                WHEN i.outcome = 'completed' AND i.reason = 'machine' THEN 4 END AS kind
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
            array_agg(f.campaign_id) FILTER (WHERE f.outcome = 'completed' AND f.campaign_id IS NOT NULL AND f.kind IS NULL) AS completed,
            array_agg(f.campaign_id) FILTER (
                WHERE f.outcome NOT IN ('completed', 'cancelled') AND f.campaign_id IS NOT NULL AND f.kind IS NULL) AS failed,
            array_agg(f.campaign_id) FILTER (WHERE f.outcome = 'cancelled' AND f.campaign_id IS NOT NULL) AS cancelled,
            array_agg(ROW (f.item_id, p_now, f.user_id, f.phone_number, f.campaign_id, f.kind, f.ordinal, f.made)::call_to_retry)
                FILTER (WHERE f.kind IS NOT NULL) AS again
        FROM freed f
    )
    SELECT o.nths, o.completed, o.failed, o.cancelled, o.again, u.users, u.direct, u.campaign, u.held, u.mean_ms
    INTO ended, completed, failed, cancelled, again, users, direct, campaign, held, mean_ms
    FROM per_outcome o
    CROSS JOIN (
        SELECT array_agg(p.user_id) AS users, array_agg(p.direct) AS direct, array_agg(p.campaign) AS campaign,
            array_agg(p.held) AS held, array_agg(p.mean_ms) AS mean_ms
        FROM per_user p
    ) u;
END
$$;
COMMENT ON FUNCTION close_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz) IS
    'What end_calls does, of a version before: for settlements that were under way. Nothing else calls it.';
COMMENT ON FUNCTION end_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz) IS
    'Moves calls that are over to history; hand_out, retry_calls and tally_campaigns must count them in the same transaction. An ending with an attempt takes effect only for the current attempt of p_server. Returns which took effect, per user how many and how long they held their slots, the campaign of each by how it ended, and apart from these the calls that their campaigns may want made again. The rows are locked; the engine need not be.';

CREATE FUNCTION retry_calls(p_server uuid, p_ended call_to_retry[], p_now timestamptz, OUT completed uuid[], OUT failed uuid[])
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_kinds constant text[] := ARRAY['busy', 'no-answer', 'failed', 'machine'];
BEGIN
    WITH ruled AS MATERIALIZED (
        SELECT e.item_id, e.finished_at, e.user_id, e.phone_number, e.campaign_id, e.kind, e.ordinal, e.made, c.max_retries, c.goes_on,
            (SELECT sum(n) FROM unnest(e.made) n) AS made_in_all,
            coalesce(r.times, CASE e.kind WHEN 4 THEN 0 ELSE c.max_retries END) AS times,
            coalesce(r.after_minutes, ARRAY[c.retry_interval_minutes]) AS after_minutes
        FROM (
            SELECT i.item_id, i.finished_at, i.user_id, i.phone_number, i.campaign_id, i.kind, i.ordinal, coalesce(i.made, '{0,0,0,0}') AS made
            FROM unnest(p_ended) i
        ) e
        CROSS JOIN LATERAL (
            SELECT k.max_retries, k.retry_interval_minutes, k.status IN ('active', 'paused') AS goes_on
            FROM campaigns k WHERE k.id = e.campaign_id OFFSET 0
        ) c
        LEFT JOIN LATERAL (
            SELECT k.times, k.after_minutes FROM campaign_retries k
            WHERE k.campaign_id = e.campaign_id AND k.outcome = v_kinds[e.kind] OFFSET 0
        ) r ON true
    ), verdicts AS MATERIALIZED (
        SELECT r.*, r.goes_on AND r.made_in_all < r.max_retries AND r.made[r.kind] < r.times
            AND do_not_call_list(r.user_id, r.phone_number) IS NULL AS goes_again
        FROM ruled r
    ), laid AS (
        INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, reason,
            phone_number, contact_name, user_data, caller_id, scheduled_for, wakes_at, expires_at, due_at, due_since,
            queued_at, queued_by, attempts, status, ordinal, made, trail)
        SELECT h.id, h.user_id, h.agent_id, h.contact_id, h.campaign_id, h.call_type, h.priority, h.position, w.why,
            h.phone_number, h.contact_name, h.user_data, h.caller_id, h.scheduled_for,
            p_now + make_interval(mins => v.after_minutes[least(v.made[v.kind] + 1, cardinality(v.after_minutes))]),
            h.expires_at, h.due_at, p_now, h.queued_at, h.queued_by, h.attempts, 'queued', v.ordinal,
            ARRAY[v.made[1] + (v.kind = 1)::integer, v.made[2] + (v.kind = 2)::integer, v.made[3] + (v.kind = 3)::integer,
                v.made[4] + (v.kind = 4)::integer],
            with_attempt_told(h.trail, h.attempts, h.owner, h.reserved_at, h.placed_at, h.ringing_at, h.answered_at)
                || ROW (h.finished_at, h.attempts, h.outcome, h.reason, h.ended_by)::call_transition
                || ROW (p_now, h.attempts, 'queued', w.why, p_server)::call_transition
        FROM verdicts v
        CROSS JOIN LATERAL (
            SELECT k.* FROM call_queue_history k WHERE k.id = v.item_id AND k.finished_at = v.finished_at OFFSET 0
        ) h
        CROSS JOIN LATERAL (SELECT format('retry %s of %s, after %s', v.made_in_all + 1, v.max_retries, v_kinds[v.kind]) AS why) w
        WHERE v.goes_again
    ), told AS (
        UPDATE call_queue_history h SET retried = true
        FROM verdicts v WHERE v.goes_again AND h.id = v.item_id AND h.finished_at = v.finished_at
    ), counted AS (
        UPDATE campaign_slots s SET later = s.later + i.calls
        FROM (SELECT v.campaign_id, count(*)::integer AS calls FROM verdicts v WHERE v.goes_again GROUP BY v.campaign_id) i
        WHERE s.campaign_id = i.campaign_id
    )
    SELECT array_agg(v.campaign_id) FILTER (WHERE v.kind = 4), array_agg(v.campaign_id) FILTER (WHERE v.kind <> 4)
    INTO completed, failed
    FROM verdicts v WHERE NOT v.goes_again;
END
$$;
COMMENT ON FUNCTION retry_calls(uuid, call_to_retry[], timestamptz) IS
    'Puts the items of calls that end_calls has just moved to history back into their places, due later, where their campaigns want another call and are not over, and their numbers are on no do-not-call list. Returns the campaigns of the others, by how these ended. Needs lock_engine.';

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('hand_out', $x$reserved_at, trail, ordinal)$x$,
     $x$reserved_at, trail, ordinal, made)$x$),
    ('hand_out', $x$p_batch, p_now, trail, ordinal$x$,
     $x$p_batch, p_now, trail, ordinal, made$x$),
    ('hand_out', $x$SELECT m.*, coalesce(a.provider, p_provider) AS provider,$x$,
     $x$SELECT m.*, coalesce(a.provider, p_provider) AS provider,
            -- An item's first call has its id. A later one is another call.
            coalesce(m.call_id, CASE WHEN m.made IS NULL THEN m.id ELSE uuid_v7() END) AS this_call,$x$),
    ('hand_out', $x$SELECT coalesce(call_id, id), id,$x$,
     $x$SELECT this_call, id,$x$),
    ('hand_out', $x$coalesce(d.call_id, d.id)$x$,
     $x$d.this_call$x$),
    ('return_calls', $x$    v_count integer;$x$,
     $x$    v_count integer;
    v_listed integer;$x$),
    ('return_calls', $x$    RETURN v_items;$x$,
     $x$    -- Its number may have been put on a do-not-call list while it was up.
    v_listed := withdraw_listed(v_items, p_server, p_now);
    IF v_listed > 0 THEN
        v_items := ARRAY(
            SELECT CASE WHEN EXISTS (SELECT FROM call_queue q WHERE q.id = i.id) THEN i.id END
            FROM unnest(v_items) WITH ORDINALITY i (id, nth) ORDER BY i.nth);
    END IF;
    RETURN v_items;$x$),
    ('return_calls', $x$attempts, call_id, status, trail, ordinal)$x$,
     $x$attempts, call_id, status, trail, ordinal, made)$x$),
    ('return_calls', $x$because, p_server)::call_transition, ordinal$x$,
     $x$because, p_server)::call_transition, ordinal, made$x$),
    ('settle', $x$NULL::uuid[] AS failed, NULL::uuid[] AS cancelled$x$,
     $x$NULL::uuid[] AS failed, NULL::uuid[] AS cancelled,
            NULL::call_to_retry[] AS again$x$),
    ('settle', $x$FROM close_calls(p_server, p_end_calls,$x$, $x$FROM end_calls(p_server, p_end_calls,$x$),
    ('settle', $x$FROM close_calls(p_server, v_disowned,$x$, $x$FROM end_calls(p_server, v_disowned,$x$),
    ('settle', $x$    IF p_answered IS NOT NULL THEN
        -- What settlements took$x$,
     $x$    IF v_ends.again IS NOT NULL THEN
        -- Before anything asks whether a campaign has calls left.
        SELECT v_ends.completed || r.completed, v_ends.failed || r.failed INTO v_ends.completed, v_ends.failed
        FROM retry_calls(p_server, v_ends.again, v_now) r;
    END IF;
    IF p_answered IS NOT NULL THEN
        -- What settlements took$x$),
    ('settle_by_hand', $x$FROM close_calls(NULL,$x$, $x$FROM end_calls(NULL,$x$),
    ('settle_by_hand', $x$        effect := CASE WHEN v_items[1] IS NULL THEN 'not_unknown' ELSE 'returned' END;$x$,
     $x$        -- One whose number was put on a list meanwhile is withdrawn, and no longer there.
        effect := CASE WHEN EXISTS (SELECT FROM active_calls a WHERE a.call_id = v_call) THEN 'not_unknown' ELSE 'returned' END;$x$),
    ('settle_by_hand', $x$    -- Only counts the slot free.$x$,
     $x$    SELECT v_ends.completed || r.completed, v_ends.failed || r.failed INTO v_ends.completed, v_ends.failed
    FROM retry_calls(NULL, v_ends.again, v_now) r;
    -- Only counts the slot free.$x$)
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
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname IN ('end_calls', 'retry_calls')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_change.function);
    END LOOP;
    -- History is looked up by key, however small it was when this was planned.
    ALTER FUNCTION retry_calls(uuid, call_to_retry[], timestamptz) SET enable_hashjoin = off;
END
$amend$;

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
FROM call_queue_history WHERE NOT retried;

INSERT INTO additive_migrations (version) VALUES ('20261126000010');
