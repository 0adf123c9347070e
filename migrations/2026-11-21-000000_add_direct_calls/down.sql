DROP VIEW priority_violations;
DROP VIEW queue_status_by_type;
DROP FUNCTION get_next_queued(uuid);
DROP FUNCTION get_call_queue_position(uuid);
DROP FUNCTION count_user_direct_calls_queued(uuid);
DROP FUNCTION get_next_direct_call_queued(uuid);

DROP INDEX call_queue_direct_next;
DROP INDEX call_queue_campaign_next;
DROP TRIGGER call_queue_default_priority ON call_queue;
DROP FUNCTION default_call_priority();

-- The campaign-only queue has no place for direct calls: set them aside, for `up` to put back.
CREATE TABLE call_queue_direct_kept AS SELECT * FROM call_queue WHERE call_type = 'direct';
DELETE FROM call_queue WHERE call_type = 'direct';
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM call_queue_direct_kept) THEN
        DROP TABLE call_queue_direct_kept;
    ELSE
        -- Keeps the type alive for the rows set aside.
        ALTER TABLE call_queue_direct_kept ALTER COLUMN call_type TYPE text;
        RAISE NOTICE 'direct calls were set aside in call_queue_direct_kept';
    END IF;
END
$$;

ALTER TABLE call_queue
    DROP CONSTRAINT call_queue_campaign_matches_type,
    DROP CONSTRAINT call_queue_phone_number_is_e164,
    DROP COLUMN call_type,
    DROP COLUMN phone_number,
    DROP COLUMN contact_name,
    DROP COLUMN user_data,
    DROP COLUMN caller_id,
    DROP COLUMN expires_at,
    ALTER COLUMN campaign_id SET NOT NULL,
    ALTER COLUMN contact_id SET NOT NULL,
    ALTER COLUMN priority SET DEFAULT 0;
CREATE INDEX call_queue_next ON call_queue (user_id, priority DESC, position) WHERE status = 'queued';
DROP TYPE call_type;
