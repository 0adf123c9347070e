-- The place of a waiting item without counting those before it, at any depth. Each item has a number
-- within its lane, given in order when it is accepted; its place is how far its number is behind
-- that of the lane's first, less the numbers between that nobody has. docs/adr/0011 has the proof.
--
-- Locks: everything in the queue, for as long as numbering takes: some 15 seconds for a million
-- waiting rows.

DO $$
BEGIN
    IF EXISTS (SELECT FROM servers WHERE lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'a server of the version before is running; stop it first'
            USING HINT = 'Its calls in progress go on. A server that was killed counts as running until its lease is over, some 20 seconds.';
    END IF;
END
$$;

LOCK TABLE active_calls, system_state, user_slots, campaign_slots, call_queue IN ACCESS EXCLUSIVE MODE;

ALTER TABLE call_queue ADD COLUMN ordinal bigint;
ALTER TABLE active_calls ADD COLUMN ordinal bigint;
ALTER TABLE user_slots ADD COLUMN direct_tail bigint NOT NULL DEFAULT 0;
ALTER TABLE campaign_slots ADD COLUMN tail bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN call_queue.ordinal IS
    'Its number among the user''s direct calls or the campaign''s calls, in order of acceptance; kept for life. Null for one whose priority is not its type''s own, or that was not accepted by the engine: such are counted.';
COMMENT ON COLUMN active_calls.ordinal IS 'As in call_queue, to which it may return.';
COMMENT ON COLUMN user_slots.direct_tail IS 'The largest number given to a direct call of this user.';
COMMENT ON COLUMN campaign_slots.tail IS 'The largest number given to a call of this campaign.';
CREATE INDEX call_queue_unnumbered ON call_queue (user_id, call_type, priority DESC, position)
    WHERE ordinal IS NULL AND wakes_at IS NULL;

CREATE TABLE lane_gaps (
    lane uuid,
    level smallint,
    block bigint,
    absent bigint NOT NULL,
    PRIMARY KEY (lane, level, block)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE lane_gaps IS
    'Numbers of a lane that no due item has, though a due item has a smaller one. Which of them lie before the lane''s first item does not matter.';
COMMENT ON COLUMN lane_gaps.lane IS 'The user, for direct calls, or the campaign.';
COMMENT ON COLUMN lane_gaps.level IS
    '0: one gap, block its first number and absent its length. 1, 2, 3: the sum of the gaps that begin in a block of 256, 65536, 16777216 numbers.';

-- The gaps of a lane ------------------------------------------------------------------------------

CREATE FUNCTION change_gaps(p_lanes uuid[], p_starts bigint[], p_lengths bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO lane_gaps AS g (lane, level, block, absent)
    SELECT i.lane, l.level::smallint, i.start >> 8 * l.level, sum(i.length)::bigint
    FROM unnest(p_lanes, p_starts, p_lengths) i (lane, start, length) CROSS JOIN generate_series(0, 3) l (level)
    GROUP BY 1, 2, 3 HAVING sum(i.length) <> 0
    -- Side by side, for those who add them up.
    ORDER BY 1, 2, 3
    ON CONFLICT (lane, level, block) DO UPDATE SET absent = g.absent + excluded.absent;
    IF 0 > ANY (p_lengths) THEN
        DELETE FROM lane_gaps g
        USING (
            SELECT k.tid FROM (
                SELECT DISTINCT i.lane, l.level::smallint AS level, i.start >> 8 * l.level AS block
                FROM unnest(p_lanes, p_starts, p_lengths) i (lane, start, length) CROSS JOIN generate_series(0, 3) l (level)
                WHERE i.length < 0
            ) c
            CROSS JOIN LATERAL (
                SELECT e.ctid AS tid FROM lane_gaps e
                WHERE e.lane = c.lane AND e.level = c.level AND e.block = c.block AND e.absent = 0 OFFSET 0
            ) k
        ) gone
        WHERE g.ctid = gone.tid;
    END IF;
END
$$;
COMMENT ON FUNCTION change_gaps(uuid[], bigint[], bigint[]) IS
    'Adds gaps, each by its first number and its length, and takes away those whose length is negative. Needs lock_engine.';

CREATE FUNCTION gaps_before(p_lane uuid, p_ordinal bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT coalesce(sum(k.absent), 0)::bigint
        FROM (VALUES (0, p_ordinal >> 8 << 8, p_ordinal), (1, p_ordinal >> 16 << 8, p_ordinal >> 8),
            (2, p_ordinal >> 24 << 8, p_ordinal >> 16), (3, 0, p_ordinal >> 24)) l (level, first, until)
        CROSS JOIN LATERAL (
            SELECT g.absent FROM lane_gaps g
            WHERE g.lane = p_lane AND g.level = l.level AND g.block >= l.first AND g.block < l.until OFFSET 0
        ) k);
END
$$;
COMMENT ON FUNCTION gaps_before(uuid, bigint) IS
    'The sum of the gaps that begin before this number. Of use as a difference between the numbers of two due items, which no gap reaches across.';

CREATE FUNCTION lane_head(p_type call_type, p_lane uuid, p_others bigint[] DEFAULT '{}') RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_type = 'direct' THEN
        RETURN (
            SELECT d.ordinal FROM (
                SELECT h.ordinal, row_number() OVER () AS nth FROM (
                    SELECT q.ordinal FROM call_queue q
                    WHERE q.user_id = p_lane AND q.call_type = 'direct' AND q.wakes_at IS NULL AND q.priority = 100
                        AND q.ordinal IS NOT NULL
                    ORDER BY q.priority DESC, q.position LIMIT cardinality(p_others) + 1
                ) h
            ) d
            WHERE d.ordinal IS DISTINCT FROM p_others[d.nth] ORDER BY d.nth LIMIT 1);
    END IF;
    RETURN (
        SELECT d.ordinal FROM (
            SELECT h.ordinal, row_number() OVER () AS nth FROM (
                SELECT q.ordinal FROM call_queue q
                WHERE q.campaign_id = p_lane AND q.call_type = 'campaign' AND q.wakes_at IS NULL AND q.priority = 0
                    AND q.ordinal IS NOT NULL
                ORDER BY q.priority DESC, q.position LIMIT cardinality(p_others) + 1
            ) h
        ) d
        WHERE d.ordinal IS DISTINCT FROM p_others[d.nth] ORDER BY d.nth LIMIT 1);
END
$$;
COMMENT ON FUNCTION lane_head(call_type, uuid, bigint[]) IS
    'The number of the first due item of a lane, beside others that are due, in ascending order; null if there is none.';

CREATE FUNCTION open_gaps(p_types call_type[], p_lanes uuid[], p_ordinals bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lanes uuid[];
    v_starts bigint[];
    v_lengths bigint[];
BEGIN
    WITH heads AS MATERIALIZED (
        SELECT l.lane, lane_head(l.type, l.lane) AS head
        FROM (SELECT DISTINCT i.type, i.lane FROM unnest(p_types, p_lanes) i (type, lane)) l
    ), left_out AS (
        SELECT i.lane, i.ordinal, i.ordinal - row_number() OVER (PARTITION BY i.lane ORDER BY i.ordinal) AS run
        FROM unnest(p_lanes, p_ordinals) i (lane, ordinal)
        -- Before the first item, or with none, nobody is behind a gap.
        JOIN heads h ON h.lane = i.lane AND h.head < i.ordinal
    ), gaps AS (
        SELECT lane, min(ordinal) AS start, count(*) AS length FROM left_out GROUP BY lane, run
    )
    SELECT array_agg(lane), array_agg(start), array_agg(length) INTO v_lanes, v_starts, v_lengths FROM gaps;
    IF v_lanes IS NOT NULL THEN
        PERFORM change_gaps(v_lanes, v_starts, v_lengths);
    END IF;
END
$$;
COMMENT ON FUNCTION open_gaps(call_type[], uuid[], bigint[]) IS
    'Notes that these numbers, which a due item had or a newcomer got, are not due now. Needs lock_engine.';

CREATE FUNCTION close_gaps(p_items uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lanes uuid[];
    v_starts bigint[];
    v_lengths bigint[];
BEGIN
    WITH come AS (
        SELECT q.call_type, q.lane, q.ordinal
        FROM unnest(p_items) i (id)
        CROSS JOIN LATERAL (
            SELECT c.call_type, coalesce(c.campaign_id, c.user_id) AS lane, c.ordinal FROM call_queue c
            WHERE c.id = i.id AND c.wakes_at IS NULL AND c.ordinal IS NOT NULL OFFSET 0
        ) q
    ), lanes AS MATERIALIZED (
        SELECT c.call_type, c.lane, array_agg(c.ordinal ORDER BY c.ordinal) AS ordinals FROM come c GROUP BY 1, 2
    ), heads AS MATERIALIZED (
        SELECT l.lane, l.ordinals, l.ordinals[1] AS first, coalesce(
            lane_head(l.call_type, l.lane, l.ordinals),
            CASE l.call_type
                WHEN 'direct' THEN (SELECT s.direct_tail FROM user_slots s WHERE s.user_id = l.lane)
                ELSE (SELECT s.tail FROM campaign_slots s WHERE s.campaign_id = l.lane)
            END + 1) AS head
        FROM lanes l
    ), covered AS MATERIALIZED (
        -- Each with the gap that it was in.
        SELECT h.lane, u.ordinal, h.first, h.head, g.block, g.absent
        FROM heads h CROSS JOIN LATERAL unnest(h.ordinals) u (ordinal)
        LEFT JOIN LATERAL (
            SELECT n.* FROM (
                SELECT k.block, k.absent FROM lane_gaps k
                WHERE k.lane = h.lane AND k.level = 0 AND k.block <= u.ordinal ORDER BY k.block DESC LIMIT 1
            ) n
            WHERE n.block + n.absent > u.ordinal
        ) g ON true
    ), stretches AS (
        -- What lies between the new first item and the old one is one gap, whatever was noted of it.
        SELECT c.lane, c.ordinal, CASE WHEN c.ordinal < c.head THEN c.first ELSE c.block END AS start,
            CASE WHEN c.ordinal < c.head THEN c.head ELSE c.block + c.absent END AS until
        FROM covered c WHERE c.ordinal < c.head OR c.block IS NOT NULL
    ), changes AS (
        SELECT r.lane, r.block AS start, -r.absent AS length FROM (
            SELECT c.lane, c.block, c.absent FROM covered c WHERE c.block IS NOT NULL
            UNION
            SELECT h.lane, g.block, g.absent FROM heads h
            CROSS JOIN LATERAL (
                SELECT k.block, k.absent FROM lane_gaps k
                WHERE k.lane = h.lane AND k.level = 0 AND k.block >= h.first AND k.block < h.head OFFSET 0
            ) g
        ) r
        UNION ALL
        -- Before each that has come, and behind the last of a stretch.
        SELECT p.lane, p.start, p.until - p.start FROM (
            SELECT s.lane, coalesce(lag(s.ordinal) OVER w + 1, s.start) AS start, s.ordinal AS until
            FROM stretches s WINDOW w AS (PARTITION BY s.lane, s.start ORDER BY s.ordinal)
            UNION ALL
            SELECT s.lane, max(s.ordinal) + 1, s.until FROM stretches s GROUP BY s.lane, s.start, s.until
        ) p
        WHERE p.until > p.start
    )
    SELECT array_agg(c.lane), array_agg(c.start), array_agg(c.length) INTO v_lanes, v_starts, v_lengths FROM changes c;
    IF v_lanes IS NOT NULL THEN
        PERFORM change_gaps(v_lanes, v_starts, v_lengths);
    END IF;
END
$$;
COMMENT ON FUNCTION close_gaps(uuid[]) IS
    'Notes that these items, which waited for a time or held slots, are due now; one before the first item of its lane makes what lies between a gap. Needs lock_engine.';

CREATE FUNCTION forget_gaps(p_after uuid) RETURNS uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lane uuid := p_after;
    v_last uuid;
    v_head bigint;
    v_starts bigint[];
    v_lengths bigint[];
    v_budget integer := 1000;
BEGIN
    FOR n IN 1..100 LOOP
        v_last := v_lane;
        v_lane := (SELECT g.lane FROM lane_gaps g WHERE g.lane > v_last ORDER BY g.lane LIMIT 1);
        IF v_lane IS NULL THEN
            RETURN NULL;
        END IF;
        v_head := lane_head((CASE WHEN EXISTS (SELECT FROM user_slots s WHERE s.user_id = v_lane)
            THEN 'direct' ELSE 'campaign' END)::call_type, v_lane);
        SELECT array_agg(o.block), array_agg(-o.absent) INTO v_starts, v_lengths FROM (
            SELECT g.block, g.absent FROM lane_gaps g
            WHERE g.lane = v_lane AND g.level = 0 AND g.block < coalesce(v_head, 9223372036854775807)
            ORDER BY g.block LIMIT v_budget
        ) o;
        IF v_starts IS NOT NULL THEN
            PERFORM change_gaps(array_fill(v_lane, ARRAY[cardinality(v_starts)]), v_starts, v_lengths);
            v_budget := v_budget - cardinality(v_starts);
            IF v_budget <= 0 THEN
                RETURN v_last;
            END IF;
        END IF;
    END LOOP;
    RETURN v_lane;
END
$$;
COMMENT ON FUNCTION forget_gaps(uuid) IS
    'Takes away gaps before the first items of lanes, from the lane after this on, as much as one transaction should; answers from where to go on, or null. Changes no place. Needs lock_engine.';

-- Places ------------------------------------------------------------------------------------------

CREATE FUNCTION count_lane(p_type call_type, p_lane uuid, p_until bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_first bigint;
    v_from bigint;
    v_last bigint;
BEGIN
    IF p_type = 'direct' THEN
        SELECT q.ordinal, q.position INTO v_first, v_from FROM call_queue q
        WHERE q.user_id = p_lane AND q.call_type = 'direct' AND q.wakes_at IS NULL AND q.priority = 100
            AND q.ordinal IS NOT NULL
        ORDER BY q.priority DESC, q.position LIMIT 1;
        IF v_from <= p_until THEN
            SELECT q.ordinal INTO v_last FROM call_queue q
            WHERE q.user_id = p_lane AND q.call_type = 'direct' AND q.wakes_at IS NULL AND q.priority = 100
                AND q.position <= p_until AND q.ordinal IS NOT NULL
            ORDER BY q.priority, q.position DESC LIMIT 1;
        END IF;
    ELSE
        SELECT q.ordinal, q.position INTO v_first, v_from FROM call_queue q
        WHERE q.campaign_id = p_lane AND q.call_type = 'campaign' AND q.wakes_at IS NULL AND q.priority = 0
            AND q.ordinal IS NOT NULL
        ORDER BY q.priority DESC, q.position LIMIT 1;
        IF v_from <= p_until THEN
            SELECT q.ordinal INTO v_last FROM call_queue q
            WHERE q.campaign_id = p_lane AND q.call_type = 'campaign' AND q.wakes_at IS NULL AND q.priority = 0
                AND q.position <= p_until AND q.ordinal IS NOT NULL
            ORDER BY q.priority, q.position DESC LIMIT 1;
        END IF;
    END IF;
    IF v_last IS NULL THEN
        RETURN 0;
    END IF;
    RETURN v_last - v_first + 1 - (gaps_before(p_lane, v_last) - gaps_before(p_lane, v_first));
END
$$;
COMMENT ON FUNCTION count_lane(call_type, uuid, bigint) IS
    'How many numbered items of a lane are due and stand at or before this position: a few look-ups, whatever their number.';

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

-- A priority or position that is changed by hand would make the order of numbers a lie.
CREATE FUNCTION drop_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_LEVEL = 'ROW' THEN
        NEW.ordinal := NULL;
        RETURN NEW;
    END IF;
    PERFORM lock_engine();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION drop_number() IS
    'Trigger: an item whose priority or position is changed has no number from then on, and is counted.';
CREATE FUNCTION note_dropped_numbers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- All at once: one by one, each would step over what the ones before it left.
    PERFORM open_gaps(array_agg(b.call_type), array_agg(coalesce(b.campaign_id, b.user_id)), array_agg(b.ordinal))
    FROM before b JOIN after a ON a.id = b.id
    WHERE b.ordinal IS NOT NULL AND a.ordinal IS NULL AND b.wakes_at IS NULL;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION note_dropped_numbers() IS 'Trigger: numbers that due items had and lost are gaps.';
CREATE TRIGGER call_queue_moved_lock BEFORE UPDATE OF priority, position ON call_queue
    FOR EACH STATEMENT EXECUTE FUNCTION drop_number();
CREATE TRIGGER call_queue_moved BEFORE UPDATE OF priority, position ON call_queue
    FOR EACH ROW WHEN (OLD.ordinal IS NOT NULL AND (NEW.priority <> OLD.priority OR NEW.position <> OLD.position))
    EXECUTE FUNCTION drop_number();
-- Transition tables do not go with a list of columns. Waking is all else that updates these rows.
CREATE TRIGGER call_queue_number_dropped AFTER UPDATE ON call_queue
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION note_dropped_numbers();

-- The audit ---------------------------------------------------------------------------------------

CREATE FUNCTION audit_places() RETURNS TABLE (counter text, subject text, kept bigint, counted bigint)
LANGUAGE sql STABLE AS $$
    WITH waiting AS (
        SELECT coalesce(campaign_id, user_id) AS lane, max(ordinal) AS last, min(ordinal) FILTER (WHERE wakes_at IS NULL) AS head,
            count(*) FILTER (WHERE wakes_at IS NULL) AS due, sum(ordinal) FILTER (WHERE wakes_at IS NULL) AS ordinals,
            count(*) FILTER (WHERE priority <> CASE call_type WHEN 'direct' THEN 100 ELSE 0 END) AS unusual
        FROM call_queue WHERE ordinal IS NOT NULL GROUP BY 1
    ), up AS (
        SELECT coalesce(campaign_id, user_id) AS lane, max(ordinal) AS last FROM active_calls WHERE ordinal IS NOT NULL GROUP BY 1
    ), lanes AS (
        SELECT 'user_slots.direct_tail' AS counter, user_id AS lane, direct_tail AS tail FROM user_slots
        UNION ALL
        SELECT 'campaign_slots.tail', campaign_id, tail FROM campaign_slots
    ), gaps AS (
        SELECT w.lane, sum(g.absent) AS absent,
            sum(g.absent * (g.block - w.head) + g.absent * (g.absent - 1) / 2) AS places
        FROM waiting w JOIN lane_gaps g ON g.lane = w.lane AND g.level = 0 AND g.block > w.head
        GROUP BY w.lane
    ), sums AS (
        SELECT g.lane, l.level::smallint AS level, g.block >> 8 * l.level AS block, sum(g.absent) AS absent
        FROM lane_gaps g CROSS JOIN generate_series(1, 3) l (level) WHERE g.level = 0 GROUP BY 1, 2, 3
    )
    SELECT v.counter, l.lane::text, v.kept::bigint, v.counted::bigint
    FROM lanes l
    LEFT JOIN waiting w ON w.lane = l.lane
    LEFT JOIN up u ON u.lane = l.lane
    LEFT JOIN gaps g ON g.lane = l.lane
    CROSS JOIN LATERAL (VALUES
        (l.counter, l.tail, greatest(l.tail, w.last, u.last)),
        ('call_queue.ordinal', 0, coalesce(w.unusual, 0)),
        -- From the first due item to the tail each number is a due item's or in a gap: so many, and
        -- so far behind the first in all.
        ('lane_gaps', coalesce(g.absent, 0), coalesce(l.tail - w.head + 1 - w.due, 0)),
        ('lane_gaps.places', coalesce(g.places, 0),
            coalesce((l.tail - w.head + 1) * (l.tail - w.head) / 2 - (w.ordinals - w.due * w.head), 0))
    ) v (counter, kept, counted)
    UNION ALL
    SELECT 'lane_gaps.level', concat_ws(' ', lane, level, block), coalesce(k.absent, 0)::bigint, coalesce(s.absent, 0)::bigint
    FROM (SELECT * FROM lane_gaps WHERE level > 0) k FULL JOIN sums s USING (lane, level, block)
$$;
COMMENT ON FUNCTION audit_places() IS
    'What the places of waiting items are derived from, beside what their rows say: the last numbers given, the gaps, and the sums of gaps. A part of audit_counters.';

-- What goes on in the engine's functions ----------------------------------------------------------

-- Each says what it said but for a line or two, and these say all that is new: a call's number goes
-- with it, and whoever makes an item due, or no longer due, says so. A start needs no word: it takes
-- the first.
DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('hand_out', $x$reserved_at, trail)$x$,
     $x$reserved_at, trail, ordinal)$x$),
    ('hand_out', $x$p_batch, p_now, trail$x$,
     $x$p_batch, p_now, trail, ordinal$x$),
    ('change_slots', $x$s.due_campaign + i.due_campaign AS due_campaign,$x$,
     $x$s.due_campaign + i.due_campaign AS due_campaign,
            -- What neither waited nor was up before is new, and has a number.
            s.direct_tail + greatest(0, i.active_direct + i.due_direct + i.later_direct) AS direct_tail,$x$),
    ('change_slots', $x$due_campaign = w.due_campaign,$x$,
     $x$due_campaign = w.due_campaign, direct_tail = w.direct_tail,$x$),
    ('admit_direct_calls', $x$    v_none integer[];$x$,
     $x$    v_none integer[];
    v_ordinals bigint[];$x$),
    ('admit_direct_calls', $x$AS nth_waiting$x$,
     $x$AS nth_waiting,
            count(*) FILTER (WHERE l.verdict = 'accepted')
                OVER (PARTITION BY l.user_id ORDER BY l.nth ROWS UNBOUNDED PRECEDING) AS nth_accepted$x$),
    ('admit_direct_calls', $x$)::verdict ORDER BY p.nth)
    INTO verdicts
$x$,
     $x$)::verdict ORDER BY p.nth), array_agg(s.direct_tail + p.nth_accepted ORDER BY p.nth)
    INTO verdicts, v_ordinals
$x$),
    ('admit_direct_calls', $x$nextval('call_queue_position_seq') AS position$x$,
     $x$nextval('call_queue_position_seq') AS position, v_ordinals[r.nth] AS ordinal$x$),
    ('admit_direct_calls', $x$expires_at, queued_at, queued_by)
        SELECT a.item_id$x$,
     $x$expires_at, queued_at, queued_by, ordinal)
        SELECT a.item_id$x$),
    ('admit_direct_calls', $x$a.expires_at, p_now, p_server
$x$,
     $x$a.expires_at, p_now, p_server, a.ordinal
$x$),
    ('admit_direct_calls', $x$batch, reserved_at)$x$,
     $x$batch, reserved_at, ordinal)$x$),
    ('admit_direct_calls', $x$p_batch, p_now
$x$,
     $x$p_batch, p_now, d.ordinal
$x$),
    ('admit_direct_calls', $x$        -- What sleeps stands behind$x$,
     $x$        PERFORM open_gaps(array_agg(q.call_type), array_agg(q.user_id), array_agg(q.ordinal))
        FROM unnest(verdicts) v JOIN call_queue q ON q.id = v.item_id WHERE v.verdict = 'scheduled';
        -- What sleeps stands behind$x$),
    ('return_calls', $x$attempts, call_id, status, trail)$x$,
     $x$attempts, call_id, status, trail, ordinal)$x$),
    ('return_calls', $x$because, p_server)::call_transition$x$,
     $x$because, p_server)::call_transition, ordinal$x$),
    ('return_calls', $x$        PERFORM change_slots($x$,
     $x$        PERFORM close_gaps(v_items);
        PERFORM change_slots($x$),
    ('wake_and_expire', $x$        PERFORM change_slots($x$,
     $x$        PERFORM close_gaps(v_items);
        PERFORM change_slots($x$),
    ('withdraw_items', $x$    v_items uuid[];
$x$,
     $x$    v_items uuid[];
    v_types call_type[];
    v_lanes uuid[];
    v_ordinals bigint[];
$x$),
    ('withdraw_items', $x$    SELECT (SELECT array_agg(id) FROM gone),$x$,
     $x$    SELECT l.types, l.lanes, l.ordinals, (SELECT array_agg(id) FROM gone),$x$),
    ('withdraw_items', $x$    INTO v_items,$x$,
     $x$    INTO v_types, v_lanes, v_ordinals, v_items,$x$),
    ('withdraw_items', $x$        FROM per_user p
    ) u;$x$,
     $x$        FROM per_user p
    ) u
    CROSS JOIN (
        SELECT array_agg(g.call_type) AS types, array_agg(coalesce(g.campaign_id, g.user_id)) AS lanes,
            array_agg(g.ordinal) AS ordinals
        FROM gone g WHERE g.wakes_at IS NULL AND g.ordinal IS NOT NULL
    ) l;$x$),
    ('withdraw_items', $x$    IF v_users IS NOT NULL THEN$x$,
     $x$    IF v_ordinals IS NOT NULL THEN
        PERFORM open_gaps(v_types, v_lanes, v_ordinals);
    END IF;
    IF v_users IS NOT NULL THEN$x$),
    ('audit_counters', $x$count(filed_campaign) FROM user_slots) FROM ready_lanes$x$,
     $x$count(filed_campaign) FROM user_slots) FROM ready_lanes
        UNION ALL
        SELECT p.counter, p.subject, p.kept, p.counted FROM audit_places() p$x$)
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

-- Planned as the rest is: see the migration before.
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

-- Numbers for what is there -----------------------------------------------------------------------

CREATE TEMPORARY TABLE numbered ON COMMIT DROP AS
SELECT id, call_type, lane, waits, due, row_number() OVER (PARTITION BY lane ORDER BY position) AS ordinal
FROM (
    SELECT *, count(*) OVER (PARTITION BY lane, position) AS alike
    FROM (
        SELECT id, call_type, coalesce(campaign_id, user_id) AS lane, priority, position, true AS waits, wakes_at IS NULL AS due
        FROM call_queue
        UNION ALL
        SELECT call_id, call_type, coalesce(campaign_id, user_id), priority, position, false, false FROM active_calls
    ) i
    WHERE priority = CASE call_type WHEN 'direct' THEN 100 ELSE 0 END
) i
-- Two of one position have no order.
WHERE alike = 1;
ANALYZE numbered;
UPDATE call_queue q SET ordinal = n.ordinal FROM numbered n WHERE n.waits AND n.id = q.id;
UPDATE active_calls a SET ordinal = n.ordinal FROM numbered n WHERE NOT n.waits AND n.id = a.call_id;
UPDATE user_slots s SET direct_tail = n.tail
FROM (SELECT lane, max(ordinal) AS tail FROM numbered WHERE call_type = 'direct' GROUP BY lane) n WHERE n.lane = s.user_id;
UPDATE campaign_slots s SET tail = n.tail
FROM (SELECT lane, max(ordinal) AS tail FROM numbered WHERE call_type = 'campaign' GROUP BY lane) n WHERE n.lane = s.campaign_id;
SELECT open_gaps(array_agg(call_type), array_agg(lane), array_agg(ordinal)) FROM numbered WHERE NOT due;
