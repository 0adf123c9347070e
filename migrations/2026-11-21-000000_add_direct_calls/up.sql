-- Direct calls: a person clicked "call". They have no campaign and go before campaign calls.

CREATE TYPE call_type AS ENUM ('direct', 'campaign');

ALTER TABLE call_queue
    ADD COLUMN call_type call_type NOT NULL DEFAULT 'campaign',
    ADD COLUMN phone_number text,
    ADD COLUMN contact_name text,
    ADD COLUMN user_data jsonb CHECK (jsonb_typeof(user_data) = 'object'),
    ADD COLUMN caller_id text,
    ADD COLUMN expires_at timestamptz,
    ALTER COLUMN campaign_id DROP NOT NULL,
    ALTER COLUMN contact_id DROP NOT NULL,
    ADD CONSTRAINT call_queue_campaign_matches_type
        CHECK ((call_type = 'direct') = (campaign_id IS NULL));

UPDATE call_queue q
SET phone_number = c.phone_number, contact_name = c.name
FROM contacts c
WHERE c.id = q.contact_id;

ALTER TABLE call_queue
    ALTER COLUMN call_type DROP DEFAULT,
    ALTER COLUMN phone_number SET NOT NULL,
    ADD CONSTRAINT call_queue_phone_number_is_e164 CHECK (phone_number ~ '^\+[1-9][0-9]{4,14}$');

-- Direct calls that an earlier `down` set aside.
DO $$
BEGIN
    IF to_regclass('call_queue_direct_kept') IS NOT NULL THEN
        INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, priority, position, status,
            reason, scheduled_for, queued_at, started_at, finished_at, call_type, phone_number,
            contact_name, user_data, caller_id, expires_at)
        SELECT id, user_id, agent_id, contact_id, campaign_id, priority, position, status,
            reason, scheduled_for, queued_at, started_at, finished_at, call_type::call_type, phone_number,
            contact_name, user_data, caller_id, expires_at
        FROM call_queue_direct_kept;
        DROP TABLE call_queue_direct_kept;
    END IF;
END
$$;

-- A call that is not told otherwise gets the priority of its type.
ALTER TABLE call_queue ALTER COLUMN priority DROP DEFAULT;
CREATE FUNCTION default_call_priority() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.priority := CASE NEW.call_type WHEN 'direct' THEN 100 ELSE 0 END;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION default_call_priority() IS
    'Trigger: 100 for a direct call, 0 for a campaign call, where the insert names no priority.';
CREATE TRIGGER call_queue_default_priority BEFORE INSERT ON call_queue
    FOR EACH ROW WHEN (NEW.priority IS NULL) EXECUTE FUNCTION default_call_priority();

-- The next direct call of a user, and the next campaign call of a campaign, each at one index's edge.
DROP INDEX call_queue_next;
CREATE INDEX call_queue_direct_next ON call_queue (user_id, priority DESC, position)
    WHERE status = 'queued' AND call_type = 'direct';
CREATE INDEX call_queue_campaign_next ON call_queue (campaign_id, priority DESC, position)
    WHERE status = 'queued' AND call_type = 'campaign';

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
