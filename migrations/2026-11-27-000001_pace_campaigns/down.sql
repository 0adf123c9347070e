-- Without limits of their own campaigns go as fast as slots allow, by position among a user's campaigns.
SELECT lock_engine();

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('audit_counters', $x$                    AND s.active_direct + s.active_campaign < s.campaign_slots
                    AND CASE WHEN s.paced_until IS NOT NULL THEN s.filed_campaign IS NOT NULL
                        WHEN s.sole_campaign IS NULL OR EXISTS (SELECT FROM provider_paces)
                            THEN EXISTS (SELECT FROM choose_campaign_calls(s.user_id, 1, engine_now()))
                        ELSE true END)::integer)
        ) v (counter, kept, counted)$x$,
     $x$                    AND s.active_direct + s.active_campaign < s.campaign_slots)::integer)
        ) v (counter, kept, counted)$x$),
    ('audit_counters', $x$                -- What a pace holds back is ready when its time has come, and filed when the timer is.
                (s.due_direct > 0 AND s.held_direct IS NULL AND s.active_direct + s.active_campaign < s.slots
                    AND (s.paced_until IS NULL OR s.filed_direct IS NOT NULL))::integer),$x$,
     $x$                (s.due_direct > 0 AND s.held_direct IS NULL AND s.active_direct + s.active_campaign < s.slots)::integer),$x$),
    ('audit_counters', $x$                SELECT CASE WHEN count(*) = 1 AND u.campaign_calls_per_second IS NULL
                        AND bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL)
                    THEN (array_agg(o.campaign_id))[1] END
                FROM campaign_slots o JOIN campaigns k ON k.id = o.campaign_id WHERE o.user_id = s.user_id AND o.open))::integer),
            ('user_slots.calls_per_second', 1, (s.calls_per_second IS NOT DISTINCT FROM u.campaign_calls_per_second)::integer),$x$,
     $x$                SELECT CASE WHEN count(*) = 1 THEN (array_agg(o.campaign_id))[1] END
                FROM campaign_slots o WHERE o.user_id = s.user_id AND o.open))::integer),$x$),
    ('settle', $x$    IF v_next IS NOT NULL OR v_admits OR returned IS NOT NULL
        OR EXISTS (SELECT FROM user_slots s WHERE s.paced_until IS NOT NULL) THEN$x$,
     $x$    IF v_next IS NOT NULL OR v_admits OR returned IS NOT NULL THEN$x$),
    ('admit_direct_calls', $x$            IF v_paced THEN
                PERFORM spend_provider_paces(started, p_now);
            END IF;
            UPDATE system_state SET active = active + cardinality(started)$x$,
     $x$            UPDATE system_state SET active = active + cardinality(started)$x$),
    ('admit_direct_calls', $x$            WHEN v_paced AND v_open AND s.due_direct = 0 AND p.nth_due = 1 THEN 'provider_pace'
            ELSE 'earlier_calls'
$x$,
     $x$            ELSE 'earlier_calls'
$x$),
    ('admit_direct_calls', $x$    IF v_paced AND v_starts IS NOT NULL THEN
        -- As many for each provider as its pace allows, and none of a user behind one that must wait.
        v_starts := ARRAY(
            SELECT u.item_id FROM (
                SELECT k.item_id, k.nth,
                    bool_or(k.nth_of_provider > k.allowed) OVER (PARTITION BY k.user_id ORDER BY k.nth) AS waits
                FROM (
                    SELECT r.item_id, r.nth, r.user_id, pace_allows(p.calls_per_second, p.next_at, p_now) AS allowed,
                        row_number() OVER (PARTITION BY coalesce(a.provider, p_provider) ORDER BY r.nth) AS nth_of_provider
                    FROM unnest(v_rows) r
                    JOIN agents a ON a.id = r.agent_id
                    LEFT JOIN provider_paces p ON p.provider = coalesce(a.provider, p_provider)
                    WHERE r.item_id = ANY (v_starts)
                ) k
            ) u
            WHERE NOT u.waits ORDER BY u.nth);
    END IF;
    v_starts := coalesce(v_starts, '{}');
$x$,
     $x$    v_starts := coalesce(v_starts, '{}');
$x$),
    ('admit_direct_calls', $x$    v_ordinals bigint[];
    v_paced boolean := EXISTS (SELECT FROM provider_paces);
$x$,
     $x$    v_ordinals bigint[];
$x$),
    ('hand_out', $x$            USING HINT = 'callq audit tells which counter is wrong.';
    END IF;
    IF v_paced THEN
        PERFORM spend_provider_paces(reserved, p_now);
    END IF;
    IF v_careful IS NOT NULL THEN
        PERFORM refile_lanes(v_careful);
    END IF;
$x$,
     $x$            USING HINT = 'callq audit tells which counter is wrong.';
    END IF;
$x$),
    ('hand_out', $x$        FROM described
    ), campaigns_went AS (
        UPDATE campaign_slots s SET turn = w.turn + 720720 / k.weight, next_at = pace_after(k.calls_per_second, s.next_at, w.calls, p_now)
        FROM (
            SELECT d.campaign_id, count(*) AS calls, max(d.campaign_turn) AS turn FROM described d
            WHERE d.campaign_turn IS NOT NULL GROUP BY d.campaign_id
        ) w
        CROSS JOIN LATERAL (SELECT c.weight, c.calls_per_second FROM campaigns c WHERE c.id = w.campaign_id OFFSET 0) k
        WHERE s.campaign_id = w.campaign_id
    ), users_went AS (
        UPDATE user_slots s SET campaign_vtime = greatest(s.campaign_vtime, w.turn),
            next_at = pace_after(s.calls_per_second, s.next_at, w.calls, p_now)
        FROM (
            SELECT d.user_id, count(*) AS calls, max(d.campaign_turn) AS turn FROM described d
            WHERE d.campaign_turn IS NOT NULL GROUP BY d.user_id
        ) w
        WHERE s.user_id = w.user_id
    )
$x$,
     $x$        FROM described
    )
$x$),
    ('hand_out', $x$RETURNING q.*, h.turn, h.campaign_turn
$x$,
     $x$RETURNING q.*, h.turn
$x$),
    ('hand_out', $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride, h.turn
        FROM unnest(v_users, v_campaign, v_turn_campaign, v_strides, v_sole) w (user_id, calls, turn, stride, sole)
        CROSS JOIN LATERAL choose_campaign_calls(w.user_id, w.calls, p_now) WITH ORDINALITY h (tid, turn, nth)
$x$,
     $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride
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
$x$),
    ('hand_out', $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride, NULL
        FROM unnest(v_sole,$x$,
     $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride
        FROM unnest(v_sole,$x$),
    ('hand_out', $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride AS turn, NULL::bigint AS campaign_turn
$x$,
     $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride AS turn
$x$),
    ('hand_out', $x$    IF v_picked = 0 THEN
        IF v_careful IS NOT NULL THEN
            PERFORM refile_lanes(v_careful);
        END IF;
        RETURN;$x$,
     $x$    IF v_picked = 0 THEN
        RETURN;$x$),
    ('hand_out', $x$        v_last_direct, v_last_campaign, v_careful
    FROM filed;$x$,
     $x$        v_last_direct, v_last_campaign
    FROM filed;$x$),
    ('hand_out', $x$::integer, max(last_direct), max(last_campaign),
        array_agg(user_id) FILTER (WHERE careful)
$x$,
     $x$::integer, max(last_direct), max(last_campaign)
$x$),
    ('hand_out', $x$AND may_campaign AND left_campaign_room > 0
                AND (bound IS NULL OR bound > campaign)
$x$,
     $x$AND may_campaign AND left_campaign_room > 0
$x$),
    ('hand_out', $x$WHERE s.ended OR p.user_id IS NOT NULL OR s.careful
$x$,
     $x$WHERE s.ended OR p.user_id IS NOT NULL
$x$),
    ('hand_out', $x$least(due_campaign, campaign_room - due_direct, v_free, bound)$x$,
     $x$least(due_campaign, campaign_room - due_direct, v_free)$x$),
    ('hand_out', $x$c.campaign > 0 AS ended_campaign, s.sole_campaign,
            v_paced OR (s.sole_campaign IS NULL AND s.due_campaign > 0) AS careful,
            -- With limits of its own, or several campaigns, a user offers the very calls that may go.
            CASE WHEN v_paced OR (s.sole_campaign IS NULL AND s.due_campaign > 0) THEN (
                SELECT count(*)::integer FROM choose_campaign_calls(s.user_id, least(s.due_campaign,
                    s.campaign_slots - s.active_direct - s.active_campaign + c.direct + c.campaign, v_free), p_now))
            END AS bound
$x$,
     $x$c.campaign > 0 AS ended_campaign, s.sole_campaign
$x$),
    ('hand_out', $x$s.held_direct IS NULL AND (NOT v_paced OR (what_may_go(s.user_id, p_now)).direct) AS may_direct,$x$,
     $x$s.held_direct IS NULL AS may_direct,$x$),
    ('hand_out', $x$    reserved := '{}';
    IF v_paced AND p_limit > 1 THEN
        -- One at a time: what a provider takes in a second is shared by all users.
        SELECT h.reserved, h.busy INTO reserved, busy
        FROM hand_out(p_server, p_batch, p_provider, 1, p_direct, p_campaign, p_ended_users, p_ended_direct, p_ended_campaign,
            p_held, p_mean_ms, p_now) h;
        v_more := reserved;
        WHILE cardinality(v_more) > 0 AND cardinality(reserved) < least(p_limit, 100) LOOP
            SELECT h.reserved INTO v_more
            FROM hand_out(p_server, p_batch, p_provider, 1, p_direct, p_campaign, NULL, NULL, NULL, NULL, NULL, p_now) h;
            reserved := reserved || v_more;
        END LOOP;
        RETURN;
    END IF;
$x$,
     $x$    reserved := '{}';
$x$),
    ('hand_out', $x$    v_sole uuid[];
    v_paced boolean := EXISTS (SELECT FROM provider_paces);
    v_careful uuid[];
    v_more reserved_call[];
$x$,
     $x$    v_sole uuid[];
$x$),
    ('change_slots', $x$direct_tail = w.direct_tail,
            paced_until = (w.may).next_at,
$x$,
     $x$direct_tail = w.direct_tail,
$x$),
    ('change_slots', $x$AND c.held_campaign IS NULL AND (c.may).campaign IS NOT FALSE
$x$,
     $x$AND c.held_campaign IS NULL
$x$),
    ('change_slots', $x$AND c.held_direct IS NULL AND (c.may).direct IS NOT FALSE AND c.active_direct$x$,
     $x$AND c.held_direct IS NULL AND c.active_direct$x$),
    ('change_slots', $x$coalesce(i.turn_direct, s.turn_direct) AS turn_direct, s.turn_campaign,
            CASE WHEN v_paced OR (s.sole_campaign IS NULL AND s.due_campaign + i.due_campaign > 0)
                THEN what_may_go(s.user_id, v_now) END AS may
$x$,
     $x$coalesce(i.turn_direct, s.turn_direct) AS turn_direct, s.turn_campaign
$x$),
    ('change_slots', $x$WITH changed AS MATERIALIZED (
        SELECT s.tid,$x$,
     $x$WITH changed AS (
        SELECT s.tid,$x$),
    ('change_slots', $x$    v_system system_state;
    v_paced boolean := EXISTS (SELECT FROM provider_paces);
    v_now timestamptz := engine_now();
$x$,
     $x$    v_system system_state;
$x$),
    ('wake_and_expire', $x$        SELECT user_id FROM user_slots WHERE held_campaign IS NOT NULL AND held_campaign <= p_now
        UNION
        SELECT user_id FROM user_slots WHERE paced_until IS NOT NULL AND paced_until <= p_now
$x$,
     $x$        SELECT user_id FROM user_slots WHERE held_campaign IS NOT NULL AND held_campaign <= p_now
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

CREATE OR REPLACE FUNCTION get_call_queue_position(p_queue_id uuid) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    me call_queue;
    v_usual integer;
    v_until bigint;
    v_ahead bigint;
BEGIN
    SELECT * INTO me FROM call_queue WHERE id = p_queue_id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF me.wakes_at IS NOT NULL THEN
        IF me.call_type = 'direct' THEN
            SELECT due_direct INTO v_ahead FROM user_slots WHERE user_id = me.user_id;
        ELSE
            SELECT sum(c.due) INTO v_ahead FROM (
                SELECT k.campaign_id, k.due FROM campaign_counts k WHERE k.user_id = me.user_id AND k.open
                UNION SELECT k.campaign_id, k.due FROM campaign_counts k WHERE k.campaign_id = me.campaign_id
            ) c;
        END IF;
        RETURN v_ahead + (
            SELECT count(*) FROM call_queue q
            WHERE q.user_id = me.user_id AND q.call_type = me.call_type AND q.wakes_at IS NOT NULL
                AND (q.wakes_at, q.position) <= (me.wakes_at, me.position));
    END IF;
    -- Those with a number all have the priority of their type.
    v_usual := CASE me.call_type WHEN 'direct' THEN 100 ELSE 0 END;
    v_until := CASE sign(me.priority - v_usual) WHEN 0 THEN me.position WHEN 1 THEN '-9223372036854775808' ELSE 9223372036854775807 END;
    IF me.call_type = 'direct' THEN
        v_ahead := count_lane('direct', me.user_id, v_until);
    ELSE
        SELECT sum(count_lane('campaign', c.campaign_id, v_until)) INTO v_ahead FROM (
            SELECT k.campaign_id FROM campaign_slots k WHERE k.user_id = me.user_id AND k.open
            UNION SELECT me.campaign_id
        ) c;
    END IF;
    RETURN v_ahead + (
        SELECT count(*) FROM call_queue q
        WHERE q.user_id = me.user_id AND q.call_type = me.call_type AND q.ordinal IS NULL AND q.wakes_at IS NULL
            AND (q.priority > me.priority OR (q.priority = me.priority AND q.position <= me.position))
            AND (q.campaign_id IS NULL OR q.campaign_id = me.campaign_id
                OR EXISTS (SELECT FROM campaign_slots c WHERE c.campaign_id = q.campaign_id AND c.open)));
END
$$;
COMMENT ON FUNCTION get_call_queue_position(uuid) IS
    'Place of a waiting item among the waiting items of its user and type, 1 for the next to go, null if it does not wait. What is not due yet comes after what is. Takes a few look-ups for each open campaign, and counts only what is not due or has no number.';

CREATE OR REPLACE FUNCTION next_timer() RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN least(
        (SELECT min(q.wakes_at) FROM call_queue q WHERE q.wakes_at IS NOT NULL),
        (SELECT min(q.expires_at) FROM call_queue q WHERE q.expires_at IS NOT NULL),
        (SELECT min(s.held_direct) FROM user_slots s WHERE s.held_direct IS NOT NULL),
        (SELECT min(s.held_campaign) FROM user_slots s WHERE s.held_campaign IS NOT NULL),
        (SELECT min(w.opens_at) FROM campaign_windows w WHERE NOT w.opened),
        (SELECT nullif(min(w.closes_at), 'infinity') FROM campaign_windows w));
END
$$;
COMMENT ON FUNCTION next_timer() IS
    'When something next becomes due, expires, is released, opens or closes by itself; null for never.';
CREATE OR REPLACE FUNCTION get_next_queued(p_user_id uuid) RETURNS SETOF call_queue LANGUAGE sql STABLE AS $$
    SELECT q.* FROM call_queue q
    LEFT JOIN campaign_slots c ON c.campaign_id = q.campaign_id
    WHERE q.user_id = p_user_id AND q.wakes_at IS NULL
        AND (q.expires_at IS NULL OR q.expires_at > now())
        AND (q.call_type = 'direct' OR c.open)
    ORDER BY q.call_type, q.priority DESC, q.position
    LIMIT 1
$$;
CREATE OR REPLACE FUNCTION find_sole_campaign(p_users uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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
COMMENT ON FUNCTION find_sole_campaign(uuid[]) IS
    'Notes for each of these users which campaign is the only open one, if one is. Needs lock_engine.';
CREATE OR REPLACE FUNCTION create_user_slots() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_slots (user_id, slots, campaign_slots, stride)
    VALUES (NEW.id, NEW.concurrent_calls_limit, greatest(NEW.concurrent_calls_limit - NEW.direct_reserved_slots, 0),
        720720 / NEW.weight);
    RETURN NEW;
END
$$;
CREATE OR REPLACE FUNCTION follow_user_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_engine();
    UPDATE user_slots SET slots = NEW.concurrent_calls_limit,
        campaign_slots = greatest(NEW.concurrent_calls_limit - NEW.direct_reserved_slots, 0), stride = 720720 / NEW.weight
    WHERE user_id = NEW.id;
    PERFORM refile_lanes(ARRAY[NEW.id]);
    RETURN NEW;
END
$$;
DO $plan$
DECLARE
    v_function record;
BEGIN
    FOR v_function IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE p.pronamespace = current_schema()::regnamespace AND p.proname IN ('find_sole_campaign', 'next_timer', 'get_call_queue_position')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_function.name);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_function.name);
        EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_function.name);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_function.name);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_function.name);
    END LOOP;
END
$plan$;

DROP TRIGGER users_limits_followed ON users;
CREATE TRIGGER users_limits_followed AFTER UPDATE OF concurrent_calls_limit, direct_reserved_slots, weight ON users
    FOR EACH ROW EXECUTE FUNCTION follow_user_limits();
DROP TRIGGER campaigns_limits_followed ON campaigns;
DROP TRIGGER campaigns_limits_lock ON campaigns;
DROP FUNCTION follow_campaign_limits();
DROP FUNCTION set_provider_pace(text, double precision);
DROP FUNCTION spend_provider_paces(reserved_call[], timestamptz);
DROP FUNCTION what_may_go(uuid, timestamptz);
DROP TYPE may_go;
DROP FUNCTION choose_campaign_calls(uuid, integer, timestamptz);
DROP FUNCTION provider_next_at(uuid);
DROP FUNCTION pace_after(double precision, timestamptz, bigint, timestamptz);
DROP FUNCTION pace_allows(double precision, timestamptz, timestamptz);
DROP TABLE provider_paces;
ALTER TABLE system_state DROP COLUMN default_provider;
DROP INDEX user_slots_paced;
ALTER TABLE user_slots DROP COLUMN paced_until, DROP COLUMN campaign_vtime, DROP COLUMN next_at, DROP COLUMN calls_per_second;
COMMENT ON COLUMN user_slots.sole_campaign IS 'The user''s open campaign if there is exactly one: where its campaign calls are found.';
ALTER TABLE users DROP COLUMN campaign_calls_per_second;
ALTER TABLE campaign_slots DROP COLUMN next_at, DROP COLUMN turn;
ALTER TABLE campaigns DROP COLUMN weight, DROP COLUMN calls_per_second, DROP COLUMN max_concurrent_calls;
SELECT find_sole_campaign(array_agg(user_id)) FROM user_slots HAVING count(*) > 0;
SELECT refile_lanes(array_agg(user_id)) FROM user_slots HAVING count(*) > 0;
DELETE FROM additive_migrations WHERE version = '20261127000001';
