DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('wake_and_expire', $x$    RETURN turn_windows(p_now) AND v_all_expired;$x$,
     $x$    RETURN v_all_expired;$x$),
    ('complete_campaigns', $x$        DELETE FROM campaign_windows WHERE campaign_id = ANY (v_done);
$x$,
     $x$$x$)
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
COMMENT ON FUNCTION wake_and_expire(uuid, timestamptz) IS
    'Expires what has not started in time, makes due what has slept long enough, releases lanes whose hold is over; up to 1,000 of each. False if more may be left to expire: nothing may be reserved then. Needs lock_engine.';

CREATE OR REPLACE FUNCTION next_timer() RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN least(
        (SELECT min(q.wakes_at) FROM call_queue q WHERE q.wakes_at IS NOT NULL),
        (SELECT min(q.expires_at) FROM call_queue q WHERE q.expires_at IS NOT NULL),
        (SELECT min(s.held_direct) FROM user_slots s WHERE s.held_direct IS NOT NULL),
        (SELECT min(s.held_campaign) FROM user_slots s WHERE s.held_campaign IS NOT NULL));
END
$$;
COMMENT ON FUNCTION next_timer() IS
    'When something next becomes due, expires or is released by itself; null for never.';
ALTER FUNCTION next_timer() SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION next_timer() SET enable_seqscan = off;
ALTER FUNCTION next_timer() SET enable_bitmapscan = off;
ALTER FUNCTION next_timer() SET enable_mergejoin = off;
ALTER FUNCTION next_timer() SET jit = off;

-- Without hours a campaign that was started may call at any time.
SELECT lock_engine();
UPDATE campaign_slots SET keeps_hours = false WHERE keeps_hours;
SELECT reopen_campaigns(ARRAY(SELECT id FROM campaigns WHERE status = 'active'));
CREATE OR REPLACE FUNCTION set_campaign_open(p_campaign uuid, p_open boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_campaign campaign_slots;
BEGIN
    PERFORM fold_campaign_tallies();
    SELECT * INTO v_campaign FROM campaign_slots WHERE campaign_id = p_campaign;
    IF v_campaign.open IS DISTINCT FROM p_open THEN
        UPDATE campaign_slots SET open = p_open WHERE campaign_id = p_campaign;
        PERFORM find_sole_campaign(ARRAY[v_campaign.user_id]);
        PERFORM change_slots(ARRAY[v_campaign.user_id], ARRAY[0], ARRAY[0], ARRAY[0], ARRAY[0],
            ARRAY[CASE WHEN p_open THEN v_campaign.due ELSE -v_campaign.due END::integer], NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION set_campaign_open(uuid, boolean) IS
    'Lets the waiting calls of a campaign go, or holds them, in constant time. Needs lock_engine.';
ALTER FUNCTION set_campaign_open(uuid, boolean) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION set_campaign_open(uuid, boolean) SET enable_seqscan = off;
ALTER FUNCTION set_campaign_open(uuid, boolean) SET enable_bitmapscan = off;
ALTER FUNCTION set_campaign_open(uuid, boolean) SET enable_mergejoin = off;
ALTER FUNCTION set_campaign_open(uuid, boolean) SET jit = off;

DROP FUNCTION turn_windows(timestamptz);
DROP FUNCTION lay_out_windows(uuid, timestamptz[], timestamptz[], boolean, timestamptz);
DROP TABLE campaign_windows;
ALTER TABLE campaign_slots DROP COLUMN keeps_hours, DROP COLUMN opened_at;
DROP FUNCTION reopen_campaigns(uuid[]);
DROP INDEX campaigns_under_way;
ALTER TABLE campaigns DROP COLUMN legal_hours, DROP COLUMN holidays, DROP COLUMN weekdays;
DELETE FROM additive_migrations WHERE version = '20261126000011';
