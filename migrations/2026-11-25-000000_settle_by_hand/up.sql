-- An operator's word on a call: settle_by_hand ends one whose end will never come, or puts back one
-- that its carrier never dialled, as the engine would, counters and all.
--
-- Locks: none beyond the catalog's. It only adds: servers of the version before go on.

CREATE FUNCTION settle_by_hand(
    p_id uuid, p_attempt integer, p_outcome text, p_reason text, p_force boolean,
    OUT effect text, OUT was text, OUT at_attempt integer
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_call uuid;
    v_found active_calls;
    v_now timestamptz;
    v_items uuid[];
    v_ends record;
BEGIN
    IF p_outcome NOT IN ('completed', 'busy', 'no-answer', 'failed', 'cancelled') THEN
        RAISE invalid_parameter_value USING MESSAGE = format('a call does not end as %L', p_outcome);
    END IF;
    v_call := coalesce((SELECT a.call_id FROM active_calls a WHERE a.item_id = p_id AND a.item_id <> a.call_id), p_id);
    -- One row by its key: as it is once it is locked.
    SELECT * INTO v_found FROM active_calls a WHERE a.call_id = v_call FOR UPDATE;
    IF NOT FOUND THEN
        SELECT i.status INTO was FROM (
            SELECT CASE WHEN q.call_id IS NULL THEN 'queued' ELSE 'reserved' END AS status FROM call_queue q WHERE q.id = p_id
            UNION ALL
            SELECT 'reserved' FROM call_queue q WHERE q.call_id = p_id AND q.call_id <> q.id
            UNION ALL
            SELECT coalesce(h.outcome, h.status) FROM call_queue_history h WHERE h.id = p_id
            UNION ALL
            SELECT coalesce(h.outcome, h.status) FROM call_queue_history h WHERE h.call_id = p_id AND h.call_id <> h.id
        ) i LIMIT 1;
        effect := CASE WHEN was IS NULL THEN 'no_call' WHEN was IN ('queued', 'reserved') THEN 'waits' ELSE 'over' END;
        RETURN;
    END IF;
    was := v_found.status;
    at_attempt := v_found.attempt;
    effect := CASE
        WHEN p_attempt <> v_found.attempt THEN 'other_attempt'
        WHEN p_outcome IS NULL AND v_found.status <> 'unknown' THEN 'not_unknown'
        WHEN v_found.status <> 'unknown' AND NOT p_force THEN 'needs_force'
    END;
    IF effect IS NOT NULL THEN
        RETURN;
    END IF;

    IF p_outcome IS NULL THEN
        v_now := lock_engine();
        v_items := return_calls(v_found.owner, ARRAY[v_call], ARRAY[v_found.attempt::integer], ARRAY[0::bigint],
            ARRAY[concat_ws(': ', 'an operator says that it was never dialled', p_reason)], ARRAY[true], v_now);
        -- It was no server that noted this.
        UPDATE call_queue q
        SET trail = q.trail[:cardinality(q.trail) - 1] || ROW (v_now, v_found.attempt::integer, 'queued', q.reason, NULL)::call_transition
        WHERE q.id = v_items[1];
        effect := CASE WHEN v_items[1] IS NULL THEN 'not_unknown' ELSE 'returned' END;
        RETURN;
    END IF;

    -- The operator's word stands, though the call may have been given up for its length before.
    UPDATE active_calls a SET overdue = false WHERE a.call_id = v_call AND a.overdue;
    SELECT * INTO v_ends FROM close_calls(NULL, ARRAY[v_call], ARRAY[NULL::integer], ARRAY[p_outcome], ARRAY[NULL::text],
        ARRAY[concat_ws(': ', 'settled by an operator', p_reason)], ARRAY[NULL::integer], engine_now());
    v_now := lock_engine();
    -- Only counts the slot free. Who gets it is for a server to say, which then knows of it.
    PERFORM hand_out(NULL, 0, '', 0, false, false, v_ends.users, v_ends.direct, v_ends.campaign, v_ends.held, v_ends.mean_ms, v_now);
    PERFORM tally_campaigns(NULL, v_ends.completed, v_ends.failed, v_ends.cancelled);
    IF v_found.campaign_id IS NOT NULL THEN
        PERFORM complete_campaigns(ARRAY[v_found.campaign_id], v_now);
    END IF;
    effect := 'ended';
END
$$;
COMMENT ON FUNCTION settle_by_hand(uuid, integer, text, text, boolean) IS
    'An operator''s word on a call, named by its id or its item''s: it ended like this, or, without an outcome, its carrier never dialled it and it goes back to its place. Refuses what holds no slot; what is at another attempt, if one is named; an outcome for a call that is not unknown, unless forced; and to put back one that is not unknown. Answers the effect (ended, returned, or why not), the status it found and the attempt. What it frees is given on by the next settlement of a server. Locks the call, then the engine.';

-- Planned as the engine's functions are.
ALTER FUNCTION settle_by_hand(uuid, integer, text, text, boolean) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION settle_by_hand(uuid, integer, text, text, boolean) SET enable_seqscan = off;
ALTER FUNCTION settle_by_hand(uuid, integer, text, text, boolean) SET enable_bitmapscan = off;
ALTER FUNCTION settle_by_hand(uuid, integer, text, text, boolean) SET enable_mergejoin = off;
ALTER FUNCTION settle_by_hand(uuid, integer, text, text, boolean) SET jit = off;

INSERT INTO additive_migrations (version) VALUES ('20261125000000');
