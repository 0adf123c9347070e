-- Queues have an end, and calls that wait too long a default for when they give up. The settings of
-- the server that started last stand in system_state, where the engine reads them; a user may have
-- caps of its own.
--
-- Locks: system_state and users for a moment, to add columns. It only adds: until a newer server has
-- started there is no cap and no default. Beside one, servers of the version before keep both; where
-- a cap is reached they answer 500 instead of 503, and queue nothing.

-- In the order in which settlements take them.
ALTER TABLE system_state
    ADD COLUMN max_queued_direct_calls integer CHECK (max_queued_direct_calls >= 0),
    ADD COLUMN max_queued_campaign_calls integer CHECK (max_queued_campaign_calls >= 0),
    ADD COLUMN direct_call_ttl_seconds integer CHECK (direct_call_ttl_seconds BETWEEN 1 AND 31536000),
    ADD COLUMN campaign_call_ttl_seconds integer CHECK (campaign_call_ttl_seconds BETWEEN 1 AND 31536000);
COMMENT ON COLUMN system_state.max_queued_direct_calls IS
    'So many direct calls of a user may wait, unless its row says otherwise; null for any number. Set by each server that starts, as the three beside it.';
COMMENT ON COLUMN system_state.max_queued_campaign_calls IS
    'So many campaign calls of a user may wait, those of drafts left out, unless its row says otherwise; null for any number.';
COMMENT ON COLUMN system_state.direct_call_ttl_seconds IS
    'A direct call that names no expiry has not started so long after its acceptance, or the time it is scheduled for: it expires. Null for never.';
COMMENT ON COLUMN system_state.campaign_call_ttl_seconds IS
    'As direct_call_ttl_seconds, for campaign calls: from when they are laid out, or the next hours of their campaign. Read when they are.';
ALTER TABLE users
    ADD COLUMN max_queued_direct_calls integer CHECK (max_queued_direct_calls >= 0),
    ADD COLUMN max_queued_campaign_calls integer CHECK (max_queued_campaign_calls >= 0);
COMMENT ON COLUMN users.max_queued_direct_calls IS 'Instead of the default in system_state; null for that.';
COMMENT ON COLUMN users.max_queued_campaign_calls IS 'Instead of the default in system_state; null for that.';

CREATE INDEX campaigns_under_way_of ON campaigns (user_id) WHERE status IN ('active', 'paused');

CREATE FUNCTION turn_away_from_full_queues(p_rows admission[], p_starts uuid[], p_keys text[]) RETURNS admission[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_users uuid[];
    v_waiting integer[];
    v_most integer[];
    v_rows admission[];
BEGIN
    -- Whose queue does not hold all that would wait: nobody's, as a rule.
    SELECT array_agg(w.user_id), array_agg(w.waiting), array_agg(w.most) INTO v_users, v_waiting, v_most
    FROM (
        SELECT r.user_id, q.waiting, c.most
        FROM (
            SELECT i.user_id, count(*) AS come FROM unnest(p_rows) i
            WHERE i.verdict = 'accepted' AND NOT i.item_id = ANY (p_starts) GROUP BY i.user_id
        ) r
        CROSS JOIN LATERAL (
            SELECT coalesce(u.max_queued_direct_calls, y.max_queued_direct_calls) AS most
            FROM users u CROSS JOIN system_state y WHERE u.id = r.user_id OFFSET 0
        ) c
        CROSS JOIN LATERAL (SELECT s.due_direct + s.later_direct AS waiting FROM user_slots s WHERE s.user_id = r.user_id OFFSET 0) q
        WHERE q.waiting + r.come > c.most
    ) w;
    IF v_users IS NULL THEN
        RETURN p_rows;
    END IF;

    -- The first to come have what room is left. No number, position or turn is given to the others.
    WITH judged AS (
        SELECT r.*, f.waiting, f.most,
            count(*) FILTER (WHERE r.verdict = 'accepted' AND NOT r.item_id = ANY (p_starts))
                OVER (PARTITION BY r.user_id ORDER BY r.nth ROWS UNBOUNDED PRECEDING) AS nth_to_wait
        FROM unnest(p_rows) r LEFT JOIN unnest(v_users, v_waiting, v_most) f (user_id, waiting, most) ON f.user_id = r.user_id
    ), told AS (
        SELECT j.*, j.verdict = 'accepted' AND NOT j.item_id = ANY (p_starts) AND coalesce(j.waiting + j.nth_to_wait > j.most, false) AS is_full
        FROM judged j
    ), forgotten AS (
        DELETE FROM idempotency_keys k USING told t
        WHERE t.is_full AND k.user_id = t.user_id AND k.key = p_keys[t.nth] AND k.item_id = t.item_id
    )
    SELECT array_agg(ROW (t.nth, t.item_id, t.user_id, t.agent_id, t.contact_id, t.phone_number, t.contact_name, t.user_data,
        t.caller_id, t.wakes_at, t.expires_at, CASE WHEN t.is_full THEN 'queue_full' ELSE t.verdict END,
        CASE WHEN t.is_full THEN greatest(t.waiting, t.most) ELSE t.number END)::admission ORDER BY t.nth)
    INTO v_rows FROM told t;
    RETURN v_rows;
END
$$;
COMMENT ON FUNCTION turn_away_from_full_queues(admission[], uuid[], text[]) IS
    'Refuses those accepted direct calls that would have to wait and find as many of their user waiting as may: verdict queue_full, with how many do, and their keys are free again. Those that start are not asked. Needs lock_engine, under which alone the counts move, so no two can take the last place.';

CREATE FUNCTION count_queued_campaign_calls(p_user uuid, OUT waiting bigint, OUT most integer, OUT slots integer, OUT samples integer,
    OUT mean_hold_ms double precision)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT coalesce(u.max_queued_campaign_calls, y.max_queued_campaign_calls), least(s.slots, y.concurrent_calls_limit),
        s.hold_samples, s.mean_hold_ms
    INTO most, slots, samples, mean_hold_ms
    FROM users u JOIN user_slots s ON s.user_id = u.id CROSS JOIN system_state y WHERE u.id = p_user;
    IF most IS NOT NULL THEN
        PERFORM fold_campaign_tallies();
        SELECT coalesce(sum(q.calls), 0) INTO waiting
        FROM campaigns c
        CROSS JOIN LATERAL (SELECT k.due::bigint + k.later AS calls FROM campaign_slots k WHERE k.campaign_id = c.id OFFSET 0) q
        WHERE c.user_id = p_user AND c.status IN ('active', 'paused');
    END IF;
END
$$;
COMMENT ON FUNCTION count_queued_campaign_calls(uuid) IS
    'How many calls of a user''s campaigns under way wait, how many may, and what a wait is estimated from. Without a cap they are not counted. Needs lock_engine.';

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('admit_direct_calls', $x$    v_starts := coalesce(v_starts, '{}');$x$,
     $x$    v_starts := coalesce(v_starts, '{}');
    v_rows := turn_away_from_full_queues(v_rows, v_starts, p_keys);$x$),
    ('admit_direct_calls', $x$        CASE WHEN s.active_direct + s.active_campaign + p.user_starts >= s.slots THEN s.slots ELSE v_system$x$,
     $x$        CASE WHEN p.verdict = 'queue_full' THEN (
                SELECT coalesce(u.max_queued_direct_calls, v_system.max_queued_direct_calls) FROM users u WHERE u.id = p.user_id)
            WHEN s.active_direct + s.active_campaign + p.user_starts >= s.slots THEN s.slots ELSE v_system$x$),
    ('judge_admissions', $x$    v_has_keys boolean := EXISTS$x$,
     $x$    v_ttl integer := (SELECT y.direct_call_ttl_seconds FROM system_state y);
    v_has_keys boolean := EXISTS$x$),
    ('judge_admissions', $x$        p_now + make_interval(secs => i.expires_ms / 1000.0),$x$,
     $x$        coalesce(p_now + make_interval(secs => i.expires_ms / 1000.0),
            greatest(p_now, i.scheduled_for) + make_interval(secs => v_ttl)),$x$)
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
            AND p.proname IN ('turn_away_from_full_queues', 'count_queued_campaign_calls')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_change.function);
    END LOOP;
END
$amend$;

INSERT INTO additive_migrations (version) VALUES ('20261127000002');
