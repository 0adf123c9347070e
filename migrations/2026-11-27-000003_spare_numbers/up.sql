-- So many campaign calls to one number within 24 hours, and no more: a limit of a user's, and one of
-- each campaign's own, both over all campaigns of that user. It is counted over the last 24 hours, not
-- by any calendar. What would be one too many is put off, and not lost.
--
-- Where: settle looks at what hand_out has just reserved, call by call in the order of their turns, in
-- the same transaction and under the engine's lock, and undoes a reservation that its number has no
-- room for. Why that holds, whatever races:
--   * a campaign call gets its slot from hand_out within settle and from nothing else, and is sent only
--     once that settlement is committed and has answered. What is undone was never told to anyone;
--   * settlements come one after the other, so each sees every call counted before it, and within one
--     each call is counted before the next is looked at: two to one number that were reserved together
--     are two;
--   * it is looked at as it starts, however it came to wait: laid out, added, queued again, a retry, back
--     from its slot, woken, in another campaign, or with a contact's new number. So nothing has to be
--     kept right about what waits, starting a campaign stays one row's change, and a limit that is set
--     holds for the very next call;
--   * a call counts from its reservation for 24 hours, whatever becomes of it, unless it is proved that
--     it reached nobody: it goes back to the queue, in that same transaction no longer counted.
-- What is put off sleeps until the oldest call that stands against it is 24 hours old, and is looked
-- at anew when it is chosen again. Its slot goes to the next in the same settlement.
--
-- Counted are the calls of users who have such a limit, or a campaign under way that has: number_calls.
-- When the first such limit comes into force, what was called in the 24 hours before is taken from
-- active_calls and the history.
--
-- Locks: users and campaigns for a moment, to add columns. It only adds: servers of the version before
-- keep the limits as well, since they settle by the same function.

-- In the order in which settlements take them.
ALTER TABLE users ADD COLUMN max_calls_per_number_per_day integer CHECK (max_calls_per_number_per_day BETWEEN 1 AND 1000);
ALTER TABLE campaigns ADD COLUMN max_calls_per_number_per_day integer CHECK (max_calls_per_number_per_day BETWEEN 1 AND 1000);
COMMENT ON COLUMN users.max_calls_per_number_per_day IS
    'So many campaign calls of all its campaigns to one number within any 24 hours; null for any number. Direct calls neither count nor are held back.';
COMMENT ON COLUMN campaigns.max_calls_per_number_per_day IS
    'As that of its user, of whose campaigns all calls count: none of this campaign starts beyond it.';

CREATE TABLE sparing_users (
    user_id uuid PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE
);
COMMENT ON TABLE sparing_users IS
    'Whose campaign calls are counted in number_calls: all who have a limit on calls per number, or a campaign under way that has one.';

-- No foreign keys: a settlement waits for nobody's row.
CREATE TABLE number_calls (
    call_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    phone_number text NOT NULL,
    called_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE number_calls IS 'Campaign calls of the last 24 hours that count against their numbers; older ones go by housekeeping.';
CREATE INDEX number_calls_of ON number_calls (user_id, phone_number text_pattern_ops, called_at);

CREATE FUNCTION count_number_calls(p_user uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_since timestamptz;
BEGIN
    INSERT INTO sparing_users (user_id) VALUES (p_user) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_since := engine_now() - interval '24 hours';
    INSERT INTO number_calls (call_id, user_id, phone_number, called_at)
    SELECT a.call_id, a.user_id, a.phone_number, a.reserved_at FROM active_calls a
    WHERE a.user_id = p_user AND a.campaign_id IS NOT NULL AND a.reserved_at > v_since
    UNION ALL
    SELECT h.call_id, h.user_id, h.phone_number, h.reserved_at FROM call_queue_history h
    WHERE h.user_id = p_user AND h.was_call AND h.finished_at > v_since AND h.campaign_id IS NOT NULL AND h.reserved_at > v_since
    ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION count_number_calls(uuid) IS
    'From now on the campaign calls of this user are counted by number, those of the last 24 hours among them. Needs lock_engine.';

CREATE FUNCTION follow_number_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_engine();
    IF TG_TABLE_NAME = 'users' THEN
        PERFORM count_number_calls(NEW.id);
    ELSE
        PERFORM count_number_calls(NEW.user_id);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION follow_number_limit() IS 'A limit on calls per number holds from the transaction that sets it on, or starts its campaign.';
CREATE TRIGGER users_number_limit_followed AFTER INSERT OR UPDATE OF max_calls_per_number_per_day ON users
    FOR EACH ROW WHEN (NEW.max_calls_per_number_per_day IS NOT NULL) EXECUTE FUNCTION follow_number_limit();
-- Who changes these has the engine's lock already.
CREATE TRIGGER campaigns_number_limit_followed AFTER INSERT OR UPDATE OF status, max_calls_per_number_per_day ON campaigns
    FOR EACH ROW WHEN (NEW.max_calls_per_number_per_day IS NOT NULL AND NEW.status IN ('active', 'paused'))
    EXECUTE FUNCTION follow_number_limit();

CREATE FUNCTION spare_numbers(p_server uuid, p_reserved reserved_call[], p_now timestamptz, OUT kept reserved_call[], OUT put_off integer)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_call record;
    v_until timestamptz;
    v_calls uuid[] := '{}';
    v_untils timestamptz[] := '{}';
    v_most integer[] := '{}';
    v_users uuid[];
    v_freed integer[];
    v_none integer[];
BEGIN
    FOR v_call IN
        SELECT r.call_id, r.user_id, r.phone_number, least(u.most, c.most) AS most
        FROM unnest(p_reserved) WITH ORDINALITY r (item_id, call_id, attempt, user_id, agent_id, campaign_id, provider,
            phone_number, caller_id, provider_agent_id, settings, contact_name, user_data, nth)
        CROSS JOIN LATERAL (SELECT FROM sparing_users x WHERE x.user_id = r.user_id OFFSET 0) s
        CROSS JOIN LATERAL (SELECT x.max_calls_per_number_per_day AS most FROM users x WHERE x.id = r.user_id OFFSET 0) u
        CROSS JOIN LATERAL (SELECT x.max_calls_per_number_per_day AS most FROM campaigns x WHERE x.id = r.campaign_id OFFSET 0) c
        WHERE r.campaign_id IS NOT NULL
        ORDER BY r.nth
    LOOP
        -- With as many in the last 24 hours, when the one is so old that only its successors count.
        v_until := NULL;
        IF v_call.most IS NOT NULL THEN
            SELECT n.called_at + interval '24 hours' INTO v_until FROM number_calls n
            WHERE n.user_id = v_call.user_id AND n.phone_number = v_call.phone_number AND n.called_at > p_now - interval '24 hours'
            ORDER BY n.called_at DESC OFFSET v_call.most - 1 LIMIT 1;
        END IF;
        IF v_until IS NULL THEN
            INSERT INTO number_calls (call_id, user_id, phone_number, called_at)
            VALUES (v_call.call_id, v_call.user_id, v_call.phone_number, p_now)
            ON CONFLICT (call_id) DO UPDATE SET called_at = excluded.called_at;
        ELSE
            v_calls := v_calls || v_call.call_id;
            v_untils := v_untils || v_until;
            v_most := v_most || v_call.most::integer;
        END IF;
    END LOOP;
    put_off := cardinality(v_calls);
    IF put_off = 0 THEN
        kept := p_reserved;
        RETURN;
    END IF;
    SELECT coalesce(array_agg(r ORDER BY i.nth), '{}') INTO kept
    FROM generate_subscripts(p_reserved, 1) i (nth) CROSS JOIN LATERAL (SELECT p_reserved[i.nth] AS r) e
    WHERE NOT (e.r).call_id = ANY (v_calls);

    -- As if it had not been chosen, but that it sleeps: the same place, attempts and call as before.
    WITH freed AS (
        DELETE FROM active_calls a
        USING (
            SELECT o.until, t.tid, format('its number may be called %s in 24 hours, and was',
                CASE o.most WHEN 1 THEN 'once' ELSE o.most || ' times' END) AS why
            FROM unnest(v_calls, v_untils, v_most) o (call_id, until, most)
            CROSS JOIN LATERAL (SELECT c.ctid AS tid FROM active_calls c WHERE c.call_id = o.call_id OFFSET 0) t
        ) o
        WHERE a.ctid = o.tid
        RETURNING a.*, o.until, o.why
    ), waiting AS (
        INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, reason,
            phone_number, contact_name, user_data, caller_id, scheduled_for, wakes_at, expires_at, due_at, due_since,
            queued_at, queued_by, attempts, call_id, status, trail, ordinal, made)
        SELECT f.item_id, f.user_id, f.agent_id, f.contact_id, f.campaign_id, f.call_type, f.priority, f.position, f.why,
            f.phone_number, f.contact_name, f.user_data, f.caller_id, f.scheduled_for, f.until, f.expires_at, f.due_at,
            f.due_since, f.queued_at, f.queued_by, f.attempt - 1,
            -- A call that came back from its slot goes on when it is chosen again. One whose attempt
            -- before is over, as a first one, has just been made up.
            CASE WHEN f.attempt > 1 AND NOT EXISTS (
                SELECT FROM call_queue_history h WHERE h.id = f.item_id AND h.attempts = f.attempt - 1) THEN f.call_id END,
            'queued', f.trail || ROW (p_now, nullif(f.attempt - 1, 0), 'queued', f.why, p_server)::call_transition,
            f.ordinal, f.made
        FROM freed f
    ), campaigns_counted AS (
        UPDATE campaign_slots c SET due = c.due - p.calls, later = c.later + p.calls
        FROM (SELECT f.campaign_id, count(*)::integer AS calls FROM freed f GROUP BY f.campaign_id) p
        WHERE c.campaign_id = p.campaign_id
    ), per_user AS (
        SELECT f.user_id, count(*)::integer AS calls FROM freed f GROUP BY f.user_id
    )
    SELECT array_agg(p.user_id), array_agg(-p.calls), array_fill(0, ARRAY[count(*)::integer])
    INTO v_users, v_freed, v_none FROM per_user p;

    UPDATE system_state SET active = active - put_off;
    -- The turns were not had. Nobody is filed before the largest turn served.
    UPDATE user_slots s SET turn_campaign = greatest(s.turn_campaign + p.freed * s.stride::bigint, y.vtime_campaign)
    FROM unnest(v_users, v_freed) p (user_id, freed) CROSS JOIN system_state y WHERE s.user_id = p.user_id;
    PERFORM change_slots(v_users, v_none, v_freed, v_none, v_none, v_none, NULL);
END
$$;
COMMENT ON FUNCTION spare_numbers(uuid, reserved_call[], timestamptz) IS
    'Counts campaign calls that were just reserved against their numbers, in their order, and undoes those whose number was called as often as it may be within 24 hours: they sleep until that is over. Returns what is left. The tallies must count only that. Needs lock_engine, in the transaction that reserved them.';

CREATE FUNCTION forget_number_calls() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM lock_engine();
    DELETE FROM sparing_users s
    WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = s.user_id AND u.max_calls_per_number_per_day IS NOT NULL)
        AND NOT EXISTS (SELECT FROM campaigns c WHERE c.user_id = s.user_id AND c.max_calls_per_number_per_day IS NOT NULL
            AND c.status IN ('active', 'paused'));
    DELETE FROM number_calls WHERE called_at <= engine_now() - interval '24 hours';
END
$$;
COMMENT ON FUNCTION forget_number_calls() IS
    'Takes away calls that count no more, and stops counting those of users without a limit. Takes lock_engine.';

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('return_calls', $x$    -- Its number may have been put on a do-not-call list while it was up.$x$,
     $x$    IF v_users IS NOT NULL AND EXISTS (SELECT FROM number_calls) THEN
        -- It reached nobody, and does not count against its number.
        DELETE FROM number_calls n
        USING unnest(v_items) i (id)
        CROSS JOIN LATERAL (SELECT c.call_id FROM call_queue c WHERE c.id = i.id OFFSET 0) q
        WHERE n.call_id = q.call_id;
    END IF;
    -- Its number may have been put on a do-not-call list while it was up.$x$),
    ('settle', $x$    v_more reserved_call[];$x$,
     $x$    v_more reserved_call[];
    v_fresh reserved_call[];
    v_put_off integer := 0;
    v_put_off_in_all integer := 0;
    v_rounds integer := 0;$x$),
    ('settle', $x$    IF cardinality(reserved) > 0 OR v_ends.users IS NOT NULL THEN$x$,
     $x$    IF cardinality(reserved) > 0 AND EXISTS (SELECT FROM sparing_users) THEN
        -- Before anything is told or tallied. What is put off makes room for the next, whose number may
        -- have been called as often; how long that goes on is bounded.
        v_fresh := reserved;
        reserved := '{}';
        LOOP
            SELECT s.kept, s.put_off INTO v_more, v_put_off FROM spare_numbers(p_server, v_fresh, v_now) s;
            reserved := reserved || v_more;
            EXIT WHEN v_put_off = 0;
            v_next := coalesce(v_next, v_now);
            v_rounds := v_rounds + 1;
            v_put_off_in_all := v_put_off_in_all + v_put_off;
            EXIT WHEN v_rounds = 16 OR v_put_off_in_all >= 500;
            SELECT h.reserved INTO v_fresh
            FROM hand_out(p_server, p_batch, p_provider, v_put_off, false, true, NULL, NULL, NULL, NULL, NULL, v_now) h;
        END LOOP;
    END IF;
    IF cardinality(reserved) > 0 OR v_ends.users IS NOT NULL THEN$x$),
    ('settle', $x$    next_timer_ms := CASE WHEN v_next IS NOT NULL$x$,
     $x$    IF v_put_off > 0 THEN
        -- It left off with slots free: once more, at once.
        v_next := v_now;
    END IF;
    next_timer_ms := CASE WHEN v_next IS NOT NULL$x$)
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
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname IN ('count_number_calls', 'spare_numbers')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_change.function);
    END LOOP;
END
$amend$;

INSERT INTO additive_migrations (version) VALUES ('20261127000003');
