-- Campaigns call within their hours. When these begin and end is worked out ahead, as instants, by
-- whoever knows zones and calendars; here are only the instants, and the engine's own timers open
-- and close by them: one row each, however many calls wait.
--
-- Locks: campaigns and campaign_slots for a moment, to add columns. It only adds: a server of the version
-- before opens and closes on time what others have worked out, and a campaign that it starts keeps its
-- hours as soon as another server has looked, within half a minute.

ALTER TABLE campaigns
    ADD COLUMN weekdays text[] NOT NULL DEFAULT '{mon,tue,wed,thu,fri,sat,sun}'
        CHECK (cardinality(weekdays) BETWEEN 1 AND 7 AND weekdays <@ '{mon,tue,wed,thu,fri,sat,sun}'),
    ADD COLUMN holidays date[] NOT NULL DEFAULT '{}' CHECK (cardinality(holidays) <= 366),
    ADD COLUMN legal_hours text CHECK (legal_hours IN ('tcpa', 'ofcom', 'trai'));
COMMENT ON COLUMN campaigns.weekdays IS 'The days on which its hours begin.';
COMMENT ON COLUMN campaigns.holidays IS 'Dates of its zone on which nobody is called.';
COMMENT ON COLUMN campaigns.legal_hours IS 'A preset within which its own hours are cut.';
CREATE INDEX campaigns_under_way ON campaigns (id) WHERE status IN ('active', 'paused');

ALTER TABLE campaign_slots ADD COLUMN keeps_hours boolean NOT NULL DEFAULT false, ADD COLUMN opened_at timestamptz;
COMMENT ON COLUMN campaign_slots.opened_at IS 'When its calls could first go.';
COMMENT ON COLUMN campaign_slots.keeps_hours IS
    'Whether its hours have been worked out: from then on it is open only while one of its windows is.';

CREATE TABLE campaign_windows (
    campaign_id uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    opens_at timestamptz NOT NULL,
    closes_at timestamptz NOT NULL,
    opened boolean NOT NULL DEFAULT false,
    PRIMARY KEY (campaign_id, opens_at),
    CHECK (opens_at < closes_at)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE campaign_windows IS
    'When a campaign under way may call: the present time if it may, and some that come. One that is over goes.';
COMMENT ON COLUMN campaign_windows.closes_at IS 'The first instant at which it may not; infinity if none is in sight.';
CREATE INDEX campaign_windows_to_open ON campaign_windows (opens_at) WHERE NOT opened;
CREATE INDEX campaign_windows_to_close ON campaign_windows (closes_at);

CREATE FUNCTION reopen_campaigns(p_campaigns uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_users uuid[];
    v_due integer[];
    v_none integer[];
BEGIN
    PERFORM fold_campaign_tallies();
    WITH wanted AS (
        SELECT s.tid, s.user_id, s.due,
            c.active AND (NOT s.keeps_hours OR EXISTS (
                SELECT FROM campaign_windows w WHERE w.campaign_id = s.campaign_id AND w.opened OFFSET 0)) AS open
        FROM (SELECT DISTINCT i.id FROM unnest(p_campaigns) i (id)) i
        CROSS JOIN LATERAL (SELECT k.ctid AS tid, k.* FROM campaign_slots k WHERE k.campaign_id = i.id OFFSET 0) s
        CROSS JOIN LATERAL (SELECT k.status = 'active' AS active FROM campaigns k WHERE k.id = i.id OFFSET 0) c
    ), changed AS (
        UPDATE campaign_slots s SET open = w.open, opened_at = CASE WHEN w.open THEN coalesce(s.opened_at, engine_now()) ELSE s.opened_at END
        FROM wanted w WHERE s.ctid = w.tid AND s.open <> w.open
        RETURNING w.user_id, CASE WHEN w.open THEN w.due ELSE -w.due END AS due
    ), per_user AS (
        SELECT c.user_id, sum(c.due)::integer AS due FROM changed c GROUP BY c.user_id
    )
    SELECT array_agg(p.user_id), array_agg(p.due), array_fill(0, ARRAY[count(*)::integer])
    INTO v_users, v_due, v_none FROM per_user p;
    IF v_users IS NOT NULL THEN
        PERFORM find_sole_campaign(v_users);
        PERFORM change_slots(v_users, v_none, v_none, v_none, v_none, v_due, NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION reopen_campaigns(uuid[]) IS
    'Lets the waiting calls of these campaigns go, or holds them, as their status and hours say: one row each, however many wait. Needs lock_engine.';

CREATE OR REPLACE FUNCTION set_campaign_open(p_campaign uuid, p_open boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM reopen_campaigns(ARRAY[p_campaign]);
END
$$;
COMMENT ON FUNCTION set_campaign_open(uuid, boolean) IS
    'What servers of a version before call once they have changed the status of a campaign: hours hold for these too. Needs lock_engine.';

CREATE FUNCTION lay_out_windows(p_campaign uuid, p_opens timestamptz[], p_closes timestamptz[], p_anew boolean, p_now timestamptz)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF p_anew THEN
        DELETE FROM campaign_windows WHERE campaign_id = p_campaign;
    END IF;
    INSERT INTO campaign_windows (campaign_id, opens_at, closes_at, opened)
    SELECT p_campaign, i.opens_at, i.closes_at, i.opens_at <= p_now
    FROM unnest(p_opens, p_closes) i (opens_at, closes_at)
    WHERE i.closes_at > p_now
    ON CONFLICT DO NOTHING;
    -- One that was started before hours were kept has opened long ago.
    UPDATE campaign_slots SET keeps_hours = true, opened_at = CASE WHEN open THEN coalesce(opened_at, p_now) ELSE opened_at END
    WHERE campaign_id = p_campaign AND NOT keeps_hours;
    PERFORM reopen_campaigns(ARRAY[p_campaign]);
END
$$;
COMMENT ON FUNCTION lay_out_windows(uuid, timestamptz[], timestamptz[], boolean, timestamptz) IS
    'Adds windows to those of a campaign, or puts them in their place, and opens or closes it by them. Needs lock_engine.';

CREATE FUNCTION turn_windows(p_now timestamptz) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_closed uuid[];
    v_opened uuid[];
BEGIN
    WITH gone AS (
        DELETE FROM campaign_windows w
        USING (SELECT k.ctid AS tid FROM campaign_windows k WHERE k.closes_at <= p_now ORDER BY k.closes_at LIMIT 1000) l
        WHERE w.ctid = l.tid
        RETURNING w.campaign_id
    )
    SELECT array_agg(g.campaign_id) INTO v_closed FROM gone g;
    WITH come AS (
        UPDATE campaign_windows w SET opened = true
        FROM (
            SELECT k.ctid AS tid FROM campaign_windows k WHERE NOT k.opened AND k.opens_at <= p_now AND k.closes_at > p_now
            ORDER BY k.opens_at LIMIT 1000
        ) l
        WHERE w.ctid = l.tid
        RETURNING w.campaign_id
    )
    SELECT array_agg(c.campaign_id) INTO v_opened FROM come c;
    IF coalesce(v_closed, v_opened) IS NOT NULL THEN
        PERFORM reopen_campaigns(v_closed || v_opened);
    END IF;
    RETURN v_closed IS NULL OR NOT EXISTS (SELECT FROM campaign_windows k WHERE k.closes_at <= p_now);
END
$$;
COMMENT ON FUNCTION turn_windows(timestamptz) IS
    'Opens and closes the campaigns whose hours begin or end by now, up to 1,000 of each. False if more may be left to close: no campaign call may start then. Needs lock_engine.';

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

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('wake_and_expire', $x$    RETURN v_all_expired;$x$,
     $x$    RETURN turn_windows(p_now) AND v_all_expired;$x$),
    ('complete_campaigns', $x$        UPDATE campaign_slots SET open = false$x$,
     $x$        DELETE FROM campaign_windows WHERE campaign_id = ANY (v_done);
        UPDATE campaign_slots SET open = false$x$)
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
            AND p.proname IN ('reopen_campaigns', 'set_campaign_open', 'lay_out_windows', 'turn_windows', 'next_timer')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_bitmapscan = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET enable_mergejoin = off', v_change.function);
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_change.function);
    END LOOP;
END
$amend$;
COMMENT ON FUNCTION wake_and_expire(uuid, timestamptz) IS
    'Expires what has not started in time, makes due what has slept long enough, releases lanes whose hold is over, opens and closes campaigns by their hours; up to 1,000 of each. False if more may be left to expire or close: nothing may be reserved then. Needs lock_engine.';

INSERT INTO additive_migrations (version) VALUES ('20261126000011');
