-- The campaign-only layout has no place for calls in progress or for call records: refuse rather
-- than lose them.
DO $$
BEGIN
    IF EXISTS (SELECT FROM active_calls) THEN
        RAISE EXCEPTION 'calls hold slots; stop dispatch and let them end before migrating down';
    END IF;
    IF EXISTS (SELECT FROM calls) AND coalesce(current_setting('callq.discard_call_records', true), '') <> 'on' THEN
        RAISE EXCEPTION 'migrating down would discard call records; export calls and call_events, then SET callq.discard_call_records = on';
    END IF;
END
$$;

DROP VIEW call_records;
DROP VIEW queue_items;
DROP VIEW priority_violations;
DROP VIEW queue_status_by_type;
DROP FUNCTION audit_counters();
DROP FUNCTION set_campaign_open(uuid, boolean);
DROP FUNCTION return_stale_reservations(uuid, bigint);
DROP FUNCTION adopt_orphans(uuid);
DROP FUNCTION renew_lease(uuid, bigint);
DROP FUNCTION record_events(uuid, uuid[], text[], text[], text[]);
DROP FUNCTION record_unknown(uuid, uuid[], integer[], text[]);
DROP FUNCTION record_placed(uuid, uuid[], integer[], text[]);
DROP FUNCTION mark_dialing(uuid, uuid[], integer[]);
DROP FUNCTION admit_direct_calls(uuid, text, uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    timestamptz[], bigint[], text[], bytea[], timestamptz);
DROP TYPE admission;
DROP FUNCTION engine_outlook(timestamptz);
DROP FUNCTION wake_and_expire(uuid, timestamptz);
DROP FUNCTION disown_items(uuid, uuid[], timestamptz);
DROP FUNCTION withdraw_items(uuid[], text, text, uuid, timestamptz);
DROP FUNCTION return_calls(uuid, uuid[], integer[], bigint[], text[], boolean[], timestamptz);
DROP FUNCTION end_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz);
DROP FUNCTION complete_campaigns(uuid[], timestamptz);
DROP FUNCTION reserved_calls(uuid[]);
DROP FUNCTION reserve_campaign_calls(uuid, text, integer, timestamptz);
DROP FUNCTION reserve_direct_calls(uuid, text, integer, timestamptz);
DROP FUNCTION start_calls(uuid, text, uuid[], timestamptz);
DROP FUNCTION refile_lanes(uuid[]);
DROP FUNCTION lock_calls(uuid[]);
DROP FUNCTION lock_engine();
DROP FUNCTION create_history_partitions();

DROP TABLE idempotency_keys;
DROP TABLE call_events;
DROP SEQUENCE call_events_id_seq;
DROP TABLE calls;
DROP TABLE active_calls;
DROP TABLE servers;

-- Ended items go back to where the campaign-only layout keeps them.
ALTER TABLE call_queue
    DROP CONSTRAINT call_queue_not_finished,
    DROP CONSTRAINT call_queue_processing_has_call,
    DROP CONSTRAINT call_queue_status_check;
ALTER TABLE call_queue ADD CONSTRAINT call_queue_status_check
    CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled', 'expired'));
INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, priority, position, status, reason, scheduled_for,
    queued_at, started_at, finished_at, call_type, phone_number, contact_name, user_data, caller_id, expires_at,
    due_at, due_since, attempts)
SELECT id, user_id, agent_id, contact_id, campaign_id, priority, position, status, reason, scheduled_for,
    queued_at, started_at, finished_at, call_type, phone_number, contact_name, user_data, caller_id, expires_at,
    due_at, due_since, attempts
FROM call_queue_history;
DROP TABLE call_queue_history;

DROP INDEX call_queue_returned_call;
DROP INDEX call_queue_expires;
DROP INDEX call_queue_wakes;
DROP INDEX call_queue_by_user;
DROP INDEX call_queue_direct_next;
DROP INDEX call_queue_campaign_next;
-- The functions of the migration before compare with scheduled_for themselves.
DROP FUNCTION get_next_queued(uuid);
DROP FUNCTION get_next_direct_call_queued(uuid);
DROP FUNCTION get_call_queue_position(uuid);
DROP FUNCTION count_user_direct_calls_queued(uuid);
ALTER TABLE call_queue
    DROP COLUMN wakes_at,
    DROP COLUMN due_at,
    DROP COLUMN due_since,
    DROP COLUMN attempts,
    DROP COLUMN call_id,
    ALTER COLUMN id SET DEFAULT gen_random_uuid(),
    ALTER COLUMN position DROP DEFAULT,
    RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay,
        autovacuum_analyze_scale_factor);
COMMENT ON TABLE call_queue IS NULL;
CREATE INDEX call_queue_direct_next ON call_queue (user_id, priority DESC, position)
    WHERE status = 'queued' AND call_type = 'direct';
CREATE INDEX call_queue_campaign_next ON call_queue (campaign_id, priority DESC, position)
    WHERE status = 'queued' AND call_type = 'campaign';

DROP INDEX campaigns_by_agent;
DROP TABLE campaign_contacts;
DROP TABLE campaign_slots;
DROP TABLE ready_lanes;
DROP TRIGGER users_have_slots ON users;
DROP FUNCTION create_user_slots();
DROP TABLE user_slots;
DROP SEQUENCE call_queue_position_seq;
DROP TABLE system_state;
DROP TABLE api_tokens;
ALTER TABLE users DROP COLUMN weight, DROP COLUMN direct_reserved_slots;
DROP FUNCTION uuid_v7();

CREATE FUNCTION get_next_direct_call_queued(p_user_id uuid) RETURNS SETOF call_queue
LANGUAGE sql STABLE AS $$
    SELECT * FROM call_queue
    WHERE user_id = p_user_id AND call_type = 'direct' AND status = 'queued'
        AND (scheduled_for IS NULL OR scheduled_for <= now())
        AND (expires_at IS NULL OR expires_at > now())
    ORDER BY priority DESC, position
    LIMIT 1
$$;
COMMENT ON FUNCTION get_next_direct_call_queued(uuid) IS
    'The direct call of this user that goes next, or no row. Looks only; reserves nothing.';

CREATE FUNCTION count_user_direct_calls_queued(p_user_id uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*) FROM call_queue
    WHERE user_id = p_user_id AND call_type = 'direct' AND status = 'queued'
$$;
COMMENT ON FUNCTION count_user_direct_calls_queued(uuid) IS
    'How many direct calls of this user wait, due or not.';

CREATE FUNCTION get_call_queue_position(p_queue_id uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT count(*)
    FROM call_queue me
    JOIN call_queue other
        ON other.user_id = me.user_id AND other.call_type = me.call_type AND other.status = 'queued'
        AND (other.priority > me.priority
            OR (other.priority = me.priority AND other.position <= me.position))
    WHERE me.id = p_queue_id AND me.status = 'queued'
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION get_call_queue_position(uuid) IS
    'Place of a waiting item among the waiting items of its user and type, 1 for the next to go; no row if it does not wait.';

CREATE FUNCTION get_next_queued(p_user_id uuid) RETURNS SETOF call_queue
LANGUAGE sql STABLE AS $$
    SELECT q.* FROM call_queue q
    LEFT JOIN campaigns c ON c.id = q.campaign_id
    WHERE q.user_id = p_user_id AND q.status = 'queued'
        AND (q.scheduled_for IS NULL OR q.scheduled_for <= now())
        AND (q.expires_at IS NULL OR q.expires_at > now())
        AND (q.call_type = 'direct' OR c.status = 'active')
    ORDER BY q.call_type, q.priority DESC, q.position
    LIMIT 1
$$;
COMMENT ON FUNCTION get_next_queued(uuid) IS
    'The call of this user that goes next, direct before campaign, or no row. Looks only; reserves nothing.';

CREATE VIEW queue_status_by_type AS
SELECT user_id, call_type, status, count(*) AS calls, min(queued_at) AS oldest_queued_at
FROM call_queue
GROUP BY user_id, call_type, status;
COMMENT ON VIEW queue_status_by_type IS 'Items by user, type and status.';

CREATE VIEW priority_violations AS
SELECT c.user_id, c.id AS campaign_queue_id, d.id AS direct_queue_id,
    d.queued_at AS direct_waits_since, c.started_at AS campaign_started_at
FROM call_queue c
JOIN call_queue d ON d.user_id = c.user_id AND d.call_type = 'direct' AND d.status = 'queued'
WHERE c.call_type = 'campaign' AND c.status = 'processing'
    AND greatest(d.queued_at, d.scheduled_for) < c.started_at;
COMMENT ON VIEW priority_violations IS
    'Campaign calls that started while a due direct call of the same user waited. Always empty.';
