-- Whatever waits to be retried goes on as a call of its own. Earlier calls of an item that was retried
-- stay in history, and look like items that failed: nothing remembers that the item went on.
UPDATE call_queue SET call_id = uuid_v7() WHERE made IS NOT NULL AND call_id IS NULL;

CREATE OR REPLACE VIEW queue_items AS
SELECT id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status, phone_number, contact_name,
    user_data, caller_id, scheduled_for, wakes_at, due_at, due_since, expires_at, attempts::integer AS attempts, call_id,
    reason, queued_at, NULL::timestamptz AS started_at, NULL::timestamptz AS finished_at
FROM call_queue
UNION ALL
SELECT item_id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, 'processing', phone_number,
    contact_name, user_data, caller_id, scheduled_for, NULL, due_at, due_since, expires_at, attempt::integer, call_id,
    NULL, queued_at, reserved_at, NULL
FROM active_calls
UNION ALL
SELECT id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status, phone_number, contact_name,
    user_data, caller_id, scheduled_for, wakes_at, due_at, due_since, expires_at, attempts::integer, call_id,
    coalesce(reason, outcome), queued_at, reserved_at, finished_at
FROM call_queue_history;

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('settle_by_hand', $x$    SELECT v_ends.completed || r.completed, v_ends.failed || r.failed INTO v_ends.completed, v_ends.failed
    FROM retry_calls(NULL, v_ends.again, v_now) r;
    -- Only counts the slot free.$x$,
     $x$    -- Only counts the slot free.$x$),
    ('settle_by_hand', $x$        -- One whose number was put on a list meanwhile is withdrawn, and no longer there.
        effect := CASE WHEN EXISTS (SELECT FROM active_calls a WHERE a.call_id = v_call) THEN 'not_unknown' ELSE 'returned' END;$x$,
     $x$        effect := CASE WHEN v_items[1] IS NULL THEN 'not_unknown' ELSE 'returned' END;$x$),
    ('settle_by_hand', $x$FROM end_calls(NULL,$x$,
     $x$FROM close_calls(NULL,$x$),
    ('settle', $x$    IF v_ends.again IS NOT NULL THEN
        -- Before anything asks whether a campaign has calls left.
        SELECT v_ends.completed || r.completed, v_ends.failed || r.failed INTO v_ends.completed, v_ends.failed
        FROM retry_calls(p_server, v_ends.again, v_now) r;
    END IF;
    IF p_answered IS NOT NULL THEN
        -- What settlements took$x$,
     $x$    IF p_answered IS NOT NULL THEN
        -- What settlements took$x$),
    ('settle', $x$FROM end_calls(p_server, v_disowned,$x$,
     $x$FROM close_calls(p_server, v_disowned,$x$),
    ('settle', $x$FROM end_calls(p_server, p_end_calls,$x$,
     $x$FROM close_calls(p_server, p_end_calls,$x$),
    ('settle', $x$NULL::uuid[] AS failed, NULL::uuid[] AS cancelled,
            NULL::call_to_retry[] AS again$x$,
     $x$NULL::uuid[] AS failed, NULL::uuid[] AS cancelled$x$),
    ('return_calls', $x$because, p_server)::call_transition, ordinal, made$x$,
     $x$because, p_server)::call_transition, ordinal$x$),
    ('return_calls', $x$attempts, call_id, status, trail, ordinal, made)$x$,
     $x$attempts, call_id, status, trail, ordinal)$x$),
    ('return_calls', $x$    -- Its number may have been put on a do-not-call list while it was up.
    v_listed := withdraw_listed(v_items, p_server, p_now);
    IF v_listed > 0 THEN
        v_items := ARRAY(
            SELECT CASE WHEN EXISTS (SELECT FROM call_queue q WHERE q.id = i.id) THEN i.id END
            FROM unnest(v_items) WITH ORDINALITY i (id, nth) ORDER BY i.nth);
    END IF;
    RETURN v_items;$x$,
     $x$    RETURN v_items;$x$),
    ('return_calls', $x$    v_count integer;
    v_listed integer;$x$,
     $x$    v_count integer;$x$),
    ('hand_out', $x$d.this_call$x$,
     $x$coalesce(d.call_id, d.id)$x$),
    ('hand_out', $x$SELECT this_call, id,$x$,
     $x$SELECT coalesce(call_id, id), id,$x$),
    ('hand_out', $x$SELECT m.*, coalesce(a.provider, p_provider) AS provider,
            -- An item's first call has its id. A later one is another call.
            coalesce(m.call_id, CASE WHEN m.made IS NULL THEN m.id ELSE uuid_v7() END) AS this_call,$x$,
     $x$SELECT m.*, coalesce(a.provider, p_provider) AS provider,$x$),
    ('hand_out', $x$p_batch, p_now, trail, ordinal, made$x$,
     $x$p_batch, p_now, trail, ordinal$x$),
    ('hand_out', $x$reserved_at, trail, ordinal, made)$x$,
     $x$reserved_at, trail, ordinal)$x$)
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

DROP FUNCTION retry_calls(uuid, call_to_retry[], timestamptz);
DROP FUNCTION end_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz);
COMMENT ON FUNCTION close_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz) IS
    'Moves calls that are over to history; hand_out and tally_campaigns must count them in the same transaction. An ending with an attempt takes effect only for the current attempt of p_server. Returns which took effect, per user how many and how long they held their slots, and the campaign of each by how it ended. The rows are locked; the engine need not be.';
DROP TYPE call_to_retry;
DROP TABLE campaign_retries;
ALTER TABLE call_queue_history DROP COLUMN retried;
ALTER TABLE active_calls DROP COLUMN made;
ALTER TABLE call_queue DROP COLUMN made;
DELETE FROM additive_migrations WHERE version = '20261126000010';
