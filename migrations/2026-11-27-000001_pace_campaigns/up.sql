-- Campaigns go at a pace of their own: how many calls at once, how many in a second, by campaign,
-- user and provider; and the campaigns of one user take turns. Whoever has none of this pays nothing
-- for it: the calls of a user's only open campaign, if nothing limits it, are found as before.
--
-- Locks: campaigns, campaign_slots, users, user_slots and system_state for a moment, to add columns. It
-- only adds: a server of the version before keeps these limits too, as they are kept in here.

ALTER TABLE campaigns
    ADD COLUMN max_concurrent_calls integer CHECK (max_concurrent_calls BETWEEN 1 AND 1000000),
    ADD COLUMN calls_per_second double precision CHECK (calls_per_second > 0 AND calls_per_second <= 1000),
    ADD COLUMN weight integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 1000);
COMMENT ON COLUMN campaigns.max_concurrent_calls IS 'How many of its calls may be up at once; null for as many as its user may have.';
COMMENT ON COLUMN campaigns.calls_per_second IS 'How many of its calls may start in a second; null for any number.';
COMMENT ON COLUMN campaigns.weight IS 'Its turns beside those of the user''s other campaigns.';

ALTER TABLE campaign_slots ADD COLUMN turn bigint NOT NULL DEFAULT 0, ADD COLUMN next_at timestamptz;
COMMENT ON COLUMN campaign_slots.turn IS 'Its next turn among the user''s campaigns, in the time of user_slots.campaign_vtime.';
COMMENT ON COLUMN campaign_slots.next_at IS 'When its pace lets the next call go; null if it keeps none or has not begun.';

ALTER TABLE users ADD COLUMN campaign_calls_per_second double precision
    CHECK (campaign_calls_per_second > 0 AND campaign_calls_per_second <= 1000);
COMMENT ON COLUMN users.campaign_calls_per_second IS
    'How many campaign calls of this user may start in a second; null for any number. Direct calls are not held back by it.';

ALTER TABLE user_slots ADD COLUMN calls_per_second double precision, ADD COLUMN next_at timestamptz,
    ADD COLUMN campaign_vtime bigint NOT NULL DEFAULT 0, ADD COLUMN paced_until timestamptz;
COMMENT ON COLUMN user_slots.calls_per_second IS 'users.campaign_calls_per_second.';
COMMENT ON COLUMN user_slots.next_at IS 'When the pace of its campaign calls lets the next go.';
COMMENT ON COLUMN user_slots.campaign_vtime IS 'The turn at which one of its campaigns last went, where several are open.';
COMMENT ON COLUMN user_slots.paced_until IS 'When a lane of it may be ready that only a pace holds back; null if none is.';
COMMENT ON COLUMN user_slots.sole_campaign IS
    'The user''s open campaign if there is exactly one and neither it nor the user keeps a pace or a limit: where its campaign calls are found.';
CREATE INDEX user_slots_paced ON user_slots (paced_until) WHERE paced_until IS NOT NULL;

CREATE TABLE provider_paces (
    provider text PRIMARY KEY,
    calls_per_second double precision NOT NULL CHECK (calls_per_second > 0 AND calls_per_second <= 1000),
    next_at timestamptz
);
COMMENT ON TABLE provider_paces IS 'How many calls of either type a provider may be sent in a second, by all servers together.';
ALTER TABLE system_state ADD COLUMN default_provider text NOT NULL DEFAULT 'simulator';
COMMENT ON COLUMN system_state.default_provider IS 'The provider of agents that name none: what the server started last was told.';

-- A pace is a bucket of tokens, kept as the time at which the next call may go. Calls are as far apart as
-- the pace says; what a late timer missed, up to a tenth of a second, is made up for at once.
CREATE FUNCTION pace_allows(p_rate double precision, p_next_at timestamptz, p_now timestamptz) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_rate IS NULL THEN 2147483647 WHEN p_next_at > p_now THEN 0
        ELSE 1 + floor(extract(epoch FROM p_now - greatest(p_next_at, p_now - interval '100 milliseconds'))::double precision
            * p_rate)::integer END
$$;
COMMENT ON FUNCTION pace_allows(double precision, timestamptz, timestamptz) IS
    'How many calls may go at once now by this pace: one, and as many as a tenth of a second allows.';
CREATE FUNCTION pace_after(p_rate double precision, p_next_at timestamptz, p_calls bigint, p_now timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_rate IS NOT NULL
        THEN greatest(p_next_at, p_now - interval '100 milliseconds') + make_interval(secs => p_calls / p_rate) END
$$;
COMMENT ON FUNCTION pace_after(double precision, timestamptz, bigint, timestamptz) IS
    'When the next call may go by this pace once these have gone; null without one.';

CREATE FUNCTION provider_next_at(p_agent uuid) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT p.next_at FROM agents a CROSS JOIN system_state y
    JOIN provider_paces p ON p.provider = coalesce(a.provider, y.default_provider)
    WHERE a.id = p_agent
$$;
COMMENT ON FUNCTION provider_next_at(uuid) IS 'When the pace of this agent''s provider lets the next call go; null if it keeps none or has not begun.';

CREATE FUNCTION choose_campaign_calls(p_user uuid, p_want integer, p_now timestamptz)
RETURNS TABLE (tid tid, turn bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_user user_slots;
    v_paced boolean := EXISTS (SELECT FROM provider_paces);
    v_want integer;
    v_one record;
    v_turns bigint[] := '{}';
    v_strides integer[] := '{}';
    v_nexts integer[] := '{}';
    v_ends integer[] := '{}';
    v_calls tid[] := '{}';
    v_priorities integer[] := '{}';
    v_vtime bigint;
    v_best integer;
BEGIN
    SELECT * INTO v_user FROM user_slots u WHERE u.user_id = p_user;
    v_want := least(p_want, pace_allows(v_user.calls_per_second, v_user.next_at, p_now));
    IF coalesce(v_want, 0) <= 0 THEN
        RETURN;
    END IF;
    v_vtime := v_user.campaign_vtime;
    -- What each open campaign has to offer, in its own order.
    FOR v_one IN
        SELECT c.turn, 720720 / k.weight AS stride, h.calls, h.priorities
        FROM campaign_slots c
        JOIN campaigns k ON k.id = c.campaign_id
        CROSS JOIN LATERAL (
            SELECT array_agg(e.tid) AS calls, array_agg(e.priority) AS priorities FROM (
                SELECT q.ctid AS tid, q.priority FROM call_queue q
                WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign' AND q.wakes_at IS NULL
                ORDER BY q.priority DESC, q.position
                LIMIT greatest(0, least(v_want, pace_allows(k.calls_per_second, c.next_at, p_now),
                    k.max_concurrent_calls - CASE WHEN k.max_concurrent_calls IS NOT NULL THEN (
                        SELECT count(*)::integer FROM active_calls a WHERE a.user_id = p_user AND a.campaign_id = c.campaign_id) END,
                    CASE WHEN v_paced AND provider_next_at(k.agent_id) > p_now THEN 0 END))
            ) e
        ) h
        WHERE c.user_id = p_user AND c.open AND h.calls IS NOT NULL
        ORDER BY c.campaign_id
    LOOP
        v_turns := v_turns || v_one.turn;
        v_strides := v_strides || v_one.stride;
        v_nexts := v_nexts || cardinality(v_calls) + 1;
        v_calls := v_calls || v_one.calls;
        v_priorities := v_priorities || v_one.priorities;
        v_ends := v_ends || cardinality(v_calls);
    END LOOP;
    -- Turn by turn. A campaign that had nothing to offer for a while does not catch up.
    FOR v_nth IN 1 .. v_want LOOP
        v_best := NULL;
        FOR v_i IN 1 .. cardinality(v_turns) LOOP
            CONTINUE WHEN v_nexts[v_i] > v_ends[v_i];
            IF v_best IS NULL OR v_priorities[v_nexts[v_i]] > v_priorities[v_nexts[v_best]]
                OR (v_priorities[v_nexts[v_i]] = v_priorities[v_nexts[v_best]]
                    AND greatest(v_turns[v_i], v_vtime) < greatest(v_turns[v_best], v_vtime)) THEN
                v_best := v_i;
            END IF;
        END LOOP;
        EXIT WHEN v_best IS NULL;
        turn := greatest(v_turns[v_best], v_vtime);
        tid := v_calls[v_nexts[v_best]];
        v_vtime := turn;
        v_turns[v_best] := turn + v_strides[v_best];
        v_nexts[v_best] := v_nexts[v_best] + 1;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION choose_campaign_calls(uuid, integer, timestamptz) IS
    'Which of the user''s campaign calls may go now, at most so many, in the order in which they go: the highest priority first, among campaigns whose next calls have the same by turns (a campaign of weight 2 has two for another''s one; ties by the older campaign), within a campaign in its order. The turn is that of its campaign. Limits of campaigns, and the paces of campaigns, the user and providers hold; slots are not looked at. Calls of one provider share its pace: with any in provider_paces only the first may be relied on. Needs lock_engine.';

CREATE TYPE may_go AS (direct boolean, campaign boolean, next_at timestamptz);
COMMENT ON TYPE may_go IS 'Whether paces and campaigns'' limits let a direct or a campaign call of a user go, and when a pace next may if not.';
CREATE FUNCTION what_may_go(p_user uuid, p_now timestamptz) RETURNS may_go LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_paced boolean := EXISTS (SELECT FROM provider_paces);
    v_may may_go;
    v_direct_at timestamptz;
    v_campaign_at timestamptz;
BEGIN
    IF v_paced THEN
        v_direct_at := (
            SELECT provider_next_at(h.agent_id) FROM (
                SELECT q.agent_id FROM call_queue q
                WHERE q.user_id = p_user AND q.call_type = 'direct' AND q.wakes_at IS NULL
                ORDER BY q.priority DESC, q.position LIMIT 1
            ) h);
    END IF;
    v_may.direct := coalesce(v_direct_at <= p_now, true);
    v_may.campaign := EXISTS (SELECT FROM choose_campaign_calls(p_user, 1, p_now));
    IF NOT v_may.campaign THEN
        -- One at its limit waits for an end, not for a time.
        SELECT greatest(s.next_at, min(b.next_at)) INTO v_campaign_at
        FROM user_slots s
        LEFT JOIN LATERAL (
            SELECT greatest(c.next_at, CASE WHEN v_paced THEN provider_next_at(k.agent_id) END, p_now) AS next_at
            FROM campaign_slots c
            JOIN campaigns k ON k.id = c.campaign_id
            WHERE c.user_id = p_user AND c.open
                AND EXISTS (SELECT FROM call_queue q
                    WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign' AND q.wakes_at IS NULL)
                AND (k.max_concurrent_calls IS NULL OR k.max_concurrent_calls > (
                    SELECT count(*) FROM active_calls a WHERE a.user_id = p_user AND a.campaign_id = c.campaign_id))
        ) b ON true
        WHERE s.user_id = p_user
        GROUP BY s.next_at
        HAVING count(b.next_at) > 0;
    END IF;
    v_may.next_at := least(CASE WHEN NOT v_may.direct THEN v_direct_at END, v_campaign_at);
    RETURN v_may;
END
$$;
COMMENT ON FUNCTION what_may_go(uuid, timestamptz) IS
    'Whether the head of each of the user''s lanes may go now as far as paces and campaigns'' limits say. Needs lock_engine.';

CREATE FUNCTION spend_provider_paces(p_calls reserved_call[], p_now timestamptz) RETURNS void LANGUAGE sql AS $$
    UPDATE provider_paces p SET next_at = pace_after(p.calls_per_second, p.next_at, i.calls, p_now)
    FROM (SELECT c.provider, count(*) AS calls FROM unnest(p_calls) c GROUP BY c.provider) i
    WHERE p.provider = i.provider
$$;
COMMENT ON FUNCTION spend_provider_paces(reserved_call[], timestamptz) IS 'Notes that these calls go to their providers now. Needs lock_engine.';

CREATE FUNCTION set_provider_pace(p_provider text, p_calls_per_second double precision) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_engine();
    IF p_calls_per_second IS NULL THEN
        DELETE FROM provider_paces WHERE provider = p_provider;
    ELSE
        INSERT INTO provider_paces (provider, calls_per_second) VALUES (p_provider, p_calls_per_second)
        ON CONFLICT (provider) DO UPDATE SET calls_per_second = EXCLUDED.calls_per_second;
    END IF;
    PERFORM refile_lanes(array_agg(s.user_id)) FROM user_slots s WHERE s.due_direct > 0 OR s.due_campaign > 0 HAVING count(*) > 0;
END
$$;
COMMENT ON FUNCTION set_provider_pace(text, double precision) IS
    'Has a provider sent at most so many calls in a second from now on; null for any number.';

CREATE OR REPLACE FUNCTION find_sole_campaign(p_users uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE user_slots s SET sole_campaign = CASE WHEN s.calls_per_second IS NULL THEN o.campaign_id END
    FROM (
        SELECT u.id AS user_id, CASE WHEN count(c.campaign_id) = 1
            AND bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL) THEN (array_agg(c.campaign_id))[1] END AS campaign_id
        FROM unnest(p_users) u (id)
        LEFT JOIN campaign_slots c ON c.user_id = u.id AND c.open
        LEFT JOIN campaigns k ON k.id = c.campaign_id
        GROUP BY u.id
    ) o
    WHERE s.user_id = o.user_id
        AND s.sole_campaign IS DISTINCT FROM CASE WHEN s.calls_per_second IS NULL THEN o.campaign_id END;
END
$$;
COMMENT ON FUNCTION find_sole_campaign(uuid[]) IS
    'Notes for each of these users which campaign is the only open one, if one is and nothing but slots limits it. Needs lock_engine.';

CREATE OR REPLACE FUNCTION follow_user_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_engine();
    UPDATE user_slots SET slots = NEW.concurrent_calls_limit,
        campaign_slots = greatest(NEW.concurrent_calls_limit - NEW.direct_reserved_slots, 0), stride = 720720 / NEW.weight,
        calls_per_second = NEW.campaign_calls_per_second
    WHERE user_id = NEW.id;
    PERFORM find_sole_campaign(ARRAY[NEW.id]);
    PERFORM refile_lanes(ARRAY[NEW.id]);
    RETURN NEW;
END
$$;
DROP TRIGGER users_limits_followed ON users;
CREATE TRIGGER users_limits_followed
    AFTER UPDATE OF concurrent_calls_limit, direct_reserved_slots, weight, campaign_calls_per_second ON users
    FOR EACH ROW EXECUTE FUNCTION follow_user_limits();
CREATE OR REPLACE FUNCTION create_user_slots() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_slots (user_id, slots, campaign_slots, stride, calls_per_second)
    VALUES (NEW.id, NEW.concurrent_calls_limit, greatest(NEW.concurrent_calls_limit - NEW.direct_reserved_slots, 0),
        720720 / NEW.weight, NEW.campaign_calls_per_second);
    RETURN NEW;
END
$$;

CREATE FUNCTION follow_campaign_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_LEVEL = 'STATEMENT' THEN
        -- Before any row is locked: the engine locks campaigns after itself.
        PERFORM lock_engine();
        RETURN NULL;
    END IF;
    IF NEW.calls_per_second IS DISTINCT FROM OLD.calls_per_second THEN
        UPDATE campaign_slots SET next_at = NULL WHERE campaign_id = NEW.id AND NEW.calls_per_second IS NULL;
    END IF;
    PERFORM find_sole_campaign(ARRAY[NEW.user_id]);
    PERFORM refile_lanes(ARRAY[NEW.user_id]);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION follow_campaign_limits() IS 'Lets go, or holds, what a campaign''s changed pace, limit or weight says.';
CREATE TRIGGER campaigns_limits_lock BEFORE UPDATE OF max_concurrent_calls, calls_per_second, weight ON campaigns
    FOR EACH STATEMENT EXECUTE FUNCTION follow_campaign_limits();
CREATE TRIGGER campaigns_limits_followed AFTER UPDATE OF max_concurrent_calls, calls_per_second, weight ON campaigns
    FOR EACH ROW WHEN (OLD.max_concurrent_calls IS DISTINCT FROM NEW.max_concurrent_calls
        OR OLD.calls_per_second IS DISTINCT FROM NEW.calls_per_second OR OLD.weight <> NEW.weight)
    EXECUTE FUNCTION follow_campaign_limits();

CREATE OR REPLACE FUNCTION get_next_queued(p_user_id uuid) RETURNS SETOF call_queue LANGUAGE sql STABLE AS $$
    SELECT q.* FROM call_queue q
    JOIN user_slots s ON s.user_id = q.user_id
    LEFT JOIN campaign_slots c ON c.campaign_id = q.campaign_id
    WHERE q.user_id = p_user_id AND q.wakes_at IS NULL
        AND (q.expires_at IS NULL OR q.expires_at > now())
        AND (q.call_type = 'direct' OR c.open)
    ORDER BY q.call_type, q.priority DESC, greatest(c.turn, CASE WHEN q.call_type = 'campaign' THEN s.campaign_vtime END),
        q.campaign_id, q.position
    LIMIT 1
$$;

CREATE OR REPLACE FUNCTION get_call_queue_position(p_queue_id uuid) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    me call_queue;
    v_usual integer;
    v_until bigint;
    v_ahead bigint;
    v_alike bigint;
    v_turn bigint;
    v_vtime bigint;
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
    v_ahead := count_lane(me.call_type, CASE me.call_type WHEN 'direct' THEN me.user_id ELSE me.campaign_id END, v_until);
    SELECT v_ahead + count(*), CASE WHEN me.priority = v_usual THEN v_ahead ELSE 0 END + count(*) FILTER (WHERE q.priority = me.priority)
    INTO v_ahead, v_alike FROM call_queue q
    WHERE q.user_id = me.user_id AND q.call_type = me.call_type AND q.ordinal IS NULL AND q.wakes_at IS NULL
        AND (q.priority > me.priority OR (q.priority = me.priority AND q.position <= me.position))
        AND q.campaign_id IS NOT DISTINCT FROM me.campaign_id;
    IF me.call_type = 'direct' THEN
        RETURN v_ahead;
    END IF;
    -- The user's other open campaigns: those of a higher priority, and of the same priority as many as
    -- have had their turns by then.
    SELECT s.campaign_vtime, greatest(c.turn, s.campaign_vtime) + (v_alike - 1) * (720720 / k.weight) INTO v_vtime, v_turn
    FROM campaign_slots c
    JOIN campaigns k ON k.id = c.campaign_id
    JOIN user_slots s ON s.user_id = c.user_id
    WHERE c.campaign_id = me.campaign_id;
    RETURN v_ahead + (
        SELECT coalesce(sum(o.higher + least(greatest(o.due - o.higher - o.lower, 0), CASE WHEN v_turn < o.turn THEN 0
            ELSE (v_turn - o.turn) / o.stride
                + ((v_turn - o.turn) % o.stride > 0 OR o.campaign_id < me.campaign_id)::integer END)), 0)::bigint
        FROM (
            SELECT c.campaign_id, greatest(c.turn, v_vtime) AS turn, 720720 / k.weight AS stride, n.due, u.lower
                + CASE WHEN me.priority > v_usual THEN n.due - u.unnumbered ELSE 0 END AS lower,
                u.higher + CASE WHEN me.priority < v_usual THEN n.due - u.unnumbered ELSE 0 END AS higher
            FROM campaign_slots c
            JOIN campaigns k ON k.id = c.campaign_id
            JOIN campaign_counts n ON n.campaign_id = c.campaign_id
            CROSS JOIN LATERAL (
                SELECT count(*) AS unnumbered, count(*) FILTER (WHERE q.priority > me.priority) AS higher,
                    count(*) FILTER (WHERE q.priority < me.priority) AS lower
                FROM call_queue q
                WHERE q.user_id = me.user_id AND q.call_type = 'campaign' AND q.ordinal IS NULL AND q.wakes_at IS NULL
                    AND q.campaign_id = c.campaign_id
            ) u
            WHERE c.user_id = me.user_id AND c.open AND c.campaign_id <> me.campaign_id
        ) o);
END
$$;
COMMENT ON FUNCTION get_call_queue_position(uuid) IS
    'Place of a waiting item among the waiting items of its user and type, 1 for the next to go, null if it does not wait. What is not due yet comes after what is. Campaigns of one user by turns, as if none had a pace or a limit; exact while all their calls have one priority. Takes a few look-ups for each open campaign, and counts only what is not due or has no number.';

CREATE OR REPLACE FUNCTION next_timer() RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN least(
        (SELECT min(q.wakes_at) FROM call_queue q WHERE q.wakes_at IS NOT NULL),
        (SELECT min(q.expires_at) FROM call_queue q WHERE q.expires_at IS NOT NULL),
        (SELECT min(s.held_direct) FROM user_slots s WHERE s.held_direct IS NOT NULL),
        (SELECT min(s.held_campaign) FROM user_slots s WHERE s.held_campaign IS NOT NULL),
        (SELECT min(s.paced_until) FROM user_slots s WHERE s.paced_until IS NOT NULL),
        (SELECT min(w.opens_at) FROM campaign_windows w WHERE NOT w.opened),
        (SELECT nullif(min(w.closes_at), 'infinity') FROM campaign_windows w));
END
$$;
COMMENT ON FUNCTION next_timer() IS
    'When something next becomes due, expires, is released, opens, closes or may go by its pace; null for never.';

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('wake_and_expire', $x$        SELECT user_id FROM user_slots WHERE held_campaign IS NOT NULL AND held_campaign <= p_now
$x$,
     $x$        SELECT user_id FROM user_slots WHERE held_campaign IS NOT NULL AND held_campaign <= p_now
        UNION
        SELECT user_id FROM user_slots WHERE paced_until IS NOT NULL AND paced_until <= p_now
$x$),
    ('change_slots', $x$    v_system system_state;
$x$,
     $x$    v_system system_state;
    v_paced boolean := EXISTS (SELECT FROM provider_paces);
    v_now timestamptz := engine_now();
$x$),
    ('change_slots', $x$WITH changed AS (
        SELECT s.tid,$x$,
     $x$WITH changed AS MATERIALIZED (
        SELECT s.tid,$x$),
    ('change_slots', $x$coalesce(i.turn_direct, s.turn_direct) AS turn_direct, s.turn_campaign
$x$,
     $x$coalesce(i.turn_direct, s.turn_direct) AS turn_direct, s.turn_campaign,
            CASE WHEN v_paced OR (s.sole_campaign IS NULL AND s.due_campaign + i.due_campaign > 0)
                THEN what_may_go(s.user_id, v_now) END AS may
$x$),
    ('change_slots', $x$AND c.held_direct IS NULL AND c.active_direct$x$,
     $x$AND c.held_direct IS NULL AND (c.may).direct IS NOT FALSE AND c.active_direct$x$),
    ('change_slots', $x$AND c.held_campaign IS NULL
$x$,
     $x$AND c.held_campaign IS NULL AND (c.may).campaign IS NOT FALSE
$x$),
    ('change_slots', $x$direct_tail = w.direct_tail,
$x$,
     $x$direct_tail = w.direct_tail,
            paced_until = (w.may).next_at,
$x$),
    ('hand_out', $x$    v_sole uuid[];
$x$,
     $x$    v_sole uuid[];
    v_paced boolean := EXISTS (SELECT FROM provider_paces);
    v_careful uuid[];
    v_more reserved_call[];
$x$),
    ('hand_out', $x$    reserved := '{}';
$x$,
     $x$    reserved := '{}';
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
$x$),
    ('hand_out', $x$s.held_direct IS NULL AS may_direct,$x$,
     $x$s.held_direct IS NULL AND (NOT v_paced OR (what_may_go(s.user_id, p_now)).direct) AS may_direct,$x$),
    ('hand_out', $x$c.campaign > 0 AS ended_campaign, s.sole_campaign
$x$,
     $x$c.campaign > 0 AS ended_campaign, s.sole_campaign,
            v_paced OR (s.sole_campaign IS NULL AND s.due_campaign > 0) AS careful,
            -- With limits of its own, or several campaigns, a user offers the very calls that may go.
            CASE WHEN v_paced OR (s.sole_campaign IS NULL AND s.due_campaign > 0) THEN (
                SELECT count(*)::integer FROM choose_campaign_calls(s.user_id, least(s.due_campaign,
                    s.campaign_slots - s.active_direct - s.active_campaign + c.direct + c.campaign, v_free), p_now))
            END AS bound
$x$),
    ('hand_out', $x$least(due_campaign, campaign_room - due_direct, v_free)$x$,
     $x$least(due_campaign, campaign_room - due_direct, v_free, bound)$x$),
    ('hand_out', $x$WHERE s.ended OR p.user_id IS NOT NULL
$x$,
     $x$WHERE s.ended OR p.user_id IS NOT NULL OR s.careful
$x$),
    ('hand_out', $x$AND may_campaign AND left_campaign_room > 0
$x$,
     $x$AND may_campaign AND left_campaign_room > 0
                AND (bound IS NULL OR bound > campaign)
$x$),
    ('hand_out', $x$::integer, max(last_direct), max(last_campaign)
$x$,
     $x$::integer, max(last_direct), max(last_campaign),
        array_agg(user_id) FILTER (WHERE careful)
$x$),
    ('hand_out', $x$        v_last_direct, v_last_campaign
    FROM filed;$x$,
     $x$        v_last_direct, v_last_campaign, v_careful
    FROM filed;$x$),
    ('hand_out', $x$    IF v_picked = 0 THEN
        RETURN;$x$,
     $x$    IF v_picked = 0 THEN
        IF v_careful IS NOT NULL THEN
            PERFORM refile_lanes(v_careful);
        END IF;
        RETURN;$x$),
    ('hand_out', $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride AS turn
$x$,
     $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride AS turn, NULL::bigint AS campaign_turn
$x$),
    ('hand_out', $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride
        FROM unnest(v_sole,$x$,
     $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride, NULL
        FROM unnest(v_sole,$x$),
    ('hand_out', $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride
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
$x$,
     $x$        SELECT h.tid, w.turn + (h.nth - 1 - w.calls) * w.stride, h.turn
        FROM unnest(v_users, v_campaign, v_turn_campaign, v_strides, v_sole) w (user_id, calls, turn, stride, sole)
        CROSS JOIN LATERAL choose_campaign_calls(w.user_id, w.calls, p_now) WITH ORDINALITY h (tid, turn, nth)
$x$),
    ('hand_out', $x$RETURNING q.*, h.turn
$x$,
     $x$RETURNING q.*, h.turn, h.campaign_turn
$x$),
    ('hand_out', $x$        FROM described
    )
$x$,
     $x$        FROM described
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
$x$),
    ('hand_out', $x$            USING HINT = 'callq audit tells which counter is wrong.';
    END IF;
$x$,
     $x$            USING HINT = 'callq audit tells which counter is wrong.';
    END IF;
    IF v_paced THEN
        PERFORM spend_provider_paces(reserved, p_now);
    END IF;
    IF v_careful IS NOT NULL THEN
        PERFORM refile_lanes(v_careful);
    END IF;
$x$),
    ('admit_direct_calls', $x$    v_ordinals bigint[];
$x$,
     $x$    v_ordinals bigint[];
    v_paced boolean := EXISTS (SELECT FROM provider_paces);
$x$),
    ('admit_direct_calls', $x$    v_starts := coalesce(v_starts, '{}');
$x$,
     $x$    IF v_paced AND v_starts IS NOT NULL THEN
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
$x$),
    ('admit_direct_calls', $x$            ELSE 'earlier_calls'
$x$,
     $x$            WHEN v_paced AND v_open AND s.due_direct = 0 AND p.nth_due = 1 THEN 'provider_pace'
            ELSE 'earlier_calls'
$x$),
    ('admit_direct_calls', $x$            UPDATE system_state SET active = active + cardinality(started)$x$,
     $x$            IF v_paced THEN
                PERFORM spend_provider_paces(started, p_now);
            END IF;
            UPDATE system_state SET active = active + cardinality(started)$x$),
    ('settle', $x$    IF v_next IS NOT NULL OR v_admits OR returned IS NOT NULL THEN$x$,
     $x$    IF v_next IS NOT NULL OR v_admits OR returned IS NOT NULL
        OR EXISTS (SELECT FROM user_slots s WHERE s.paced_until IS NOT NULL) THEN$x$),
    ('audit_counters', $x$                SELECT CASE WHEN count(*) = 1 THEN (array_agg(o.campaign_id))[1] END
                FROM campaign_slots o WHERE o.user_id = s.user_id AND o.open))::integer),$x$,
     $x$                SELECT CASE WHEN count(*) = 1 AND u.campaign_calls_per_second IS NULL
                        AND bool_and(k.max_concurrent_calls IS NULL AND k.calls_per_second IS NULL)
                    THEN (array_agg(o.campaign_id))[1] END
                FROM campaign_slots o JOIN campaigns k ON k.id = o.campaign_id WHERE o.user_id = s.user_id AND o.open))::integer),
            ('user_slots.calls_per_second', 1, (s.calls_per_second IS NOT DISTINCT FROM u.campaign_calls_per_second)::integer),$x$),
    ('audit_counters', $x$                (s.due_direct > 0 AND s.held_direct IS NULL AND s.active_direct + s.active_campaign < s.slots)::integer),$x$,
     $x$                -- What a pace holds back is ready when its time has come, and filed when the timer is.
                (s.due_direct > 0 AND s.held_direct IS NULL AND s.active_direct + s.active_campaign < s.slots
                    AND (s.paced_until IS NULL OR s.filed_direct IS NOT NULL))::integer),$x$),
    ('audit_counters', $x$                    AND s.active_direct + s.active_campaign < s.campaign_slots)::integer)
        ) v (counter, kept, counted)$x$,
     $x$                    AND s.active_direct + s.active_campaign < s.campaign_slots
                    AND CASE WHEN s.paced_until IS NOT NULL THEN s.filed_campaign IS NOT NULL
                        WHEN s.sole_campaign IS NULL OR EXISTS (SELECT FROM provider_paces)
                            THEN EXISTS (SELECT FROM choose_campaign_calls(s.user_id, 1, engine_now()))
                        ELSE true END)::integer)
        ) v (counter, kept, counted)$x$)
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
            AND p.proname IN ('choose_campaign_calls', 'what_may_go', 'find_sole_campaign', 'next_timer', 'get_call_queue_position')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_change.function);
    END LOOP;
END
$amend$;

INSERT INTO additive_migrations (version) VALUES ('20261127000001');
