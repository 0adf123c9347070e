DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('admit_direct_calls', $x$
    v_rows := turn_away_from_full_queues(v_rows, v_starts, p_keys);$x$, $x$$x$),
    ('admit_direct_calls', $x$CASE WHEN p.verdict = 'queue_full' THEN (
                SELECT coalesce(u.max_queued_direct_calls, v_system.max_queued_direct_calls) FROM users u WHERE u.id = p.user_id)
            WHEN s.active_direct$x$, $x$CASE WHEN s.active_direct$x$),
    ('judge_admissions', $x$    v_ttl integer := (SELECT y.direct_call_ttl_seconds FROM system_state y);
$x$, $x$$x$),
    ('judge_admissions', $x$        coalesce(p_now + make_interval(secs => i.expires_ms / 1000.0),
            greatest(p_now, i.scheduled_for) + make_interval(secs => v_ttl)),$x$,
     $x$        p_now + make_interval(secs => i.expires_ms / 1000.0),$x$)
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

DROP FUNCTION count_queued_campaign_calls(uuid);
DROP FUNCTION turn_away_from_full_queues(admission[], uuid[], text[]);
DROP INDEX campaigns_under_way_of;
ALTER TABLE users DROP COLUMN max_queued_direct_calls, DROP COLUMN max_queued_campaign_calls;
ALTER TABLE system_state DROP COLUMN max_queued_direct_calls, DROP COLUMN max_queued_campaign_calls,
    DROP COLUMN direct_call_ttl_seconds, DROP COLUMN campaign_call_ttl_seconds;
DELETE FROM additive_migrations WHERE version = '20261127000002';
