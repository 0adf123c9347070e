-- A call is one row that moves: call_queue while it waits, active_calls while it holds a slot,
-- call_queue_history once it is over. Before, starting updated the waiting row beside inserting a
-- second one, and ending wrote three history rows and four events; each status change now fills a
-- column of the row instead, and only what is out of the ordinary is appended to its trail.
--
-- Locks: everything in the queue, for as long as copying takes: about a minute for a million rows.
-- The functions that move slots follow in the next migration.

DO $$
BEGIN
    IF EXISTS (SELECT FROM servers WHERE lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'a server of the version before is running; stop it first'
            USING HINT = 'Its calls in progress go on. A server that was killed counts as running until its lease is over, some 20 seconds.';
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
DROP FUNCTION record_events(uuid, uuid[], text[], text[], text[]);
DROP FUNCTION record_unknown(uuid, uuid[], integer[], text[]);
DROP FUNCTION record_placed(uuid, uuid[], integer[], text[]);
DROP FUNCTION mark_dialing(uuid, uuid[], integer[]);
DROP FUNCTION admit_direct_calls(uuid, text, uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    timestamptz[], bigint[], text[], bytea[], timestamptz);
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
DROP FUNCTION get_next_queued(uuid);
DROP FUNCTION get_next_direct_call_queued(uuid);
DROP FUNCTION get_call_queue_position(uuid);
DROP FUNCTION count_user_direct_calls_queued(uuid);
DROP TYPE admission;

-- A CHECK of a table is parsed anew by each statement that writes to it, a domain's once a connection.
CREATE DOMAIN tally AS integer CHECK (VALUE >= 0);
COMMENT ON DOMAIN tally IS 'A count; never negative.';
CREATE DOMAIN live_status AS text CHECK (VALUE IN ('dialing', 'ringing', 'in-progress', 'unknown'));
COMMENT ON DOMAIN live_status IS 'How far a call that holds a slot has come.';

CREATE TYPE call_transition AS (at timestamptz, attempt integer, status text, reason text, server uuid);
COMMENT ON TYPE call_transition IS 'A change of status: when, of which attempt, to what, why, noted by which server.';

-- The old rows, until they are copied ------------------------------------------------------------

ALTER TABLE active_calls RENAME TO old_active_calls;
ALTER TABLE old_active_calls RENAME CONSTRAINT active_calls_pkey TO old_active_calls_pkey;
ALTER TABLE call_queue_history RENAME TO old_call_queue_history;
ALTER TABLE old_call_queue_history RENAME CONSTRAINT call_queue_history_pkey TO old_call_queue_history_pkey;
ALTER TABLE call_events RENAME TO old_call_events;
-- Partitions keep their names otherwise, which the new ones need.
DO $$
DECLARE
    v_partition regclass;
BEGIN
    FOR v_partition IN
        SELECT inhrelid::regclass FROM pg_inherits
        WHERE inhparent IN ('old_call_queue_history'::regclass, 'old_call_events'::regclass)
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME TO %I', v_partition, 'old_' || v_partition::text);
    END LOOP;
END
$$;
ALTER INDEX call_queue_history_by_user RENAME TO old_call_queue_history_by_user;
ALTER INDEX call_queue_history_by_end RENAME TO old_call_queue_history_by_end;

-- What each item went through, attempt by attempt. The last attempt's ordinary steps become
-- columns; all else is its trail.
CREATE TEMPORARY TABLE story ON COMMIT DROP AS
WITH last AS (
    -- The last attempt of a call that came back to the queue is behind it, like those before.
    SELECT item_id, attempt FROM old_active_calls WHERE status <> 'reserved'
    UNION ALL
    SELECT item_id, attempts FROM calls
), told AS (
    SELECT e.*, coalesce(e.attempt = l.attempt AND e.status IN ('reserved', 'dialing', 'placed', 'ringing', 'in-progress'), false)
            OR (e.status = 'queued' AND e.call_id IS NULL)
            OR e.status IN ('completed', 'busy', 'no-answer', 'failed', 'cancelled', 'expired') AS ordinary
    FROM old_call_events e LEFT JOIN last l ON l.item_id = e.item_id
)
SELECT item_id,
    min(at) FILTER (WHERE ordinary AND status = 'placed') AS placed_at,
    min(at) FILTER (WHERE ordinary AND status = 'ringing') AS ringing_at,
    (array_agg(server ORDER BY id) FILTER (WHERE status = 'queued' AND call_id IS NULL))[1] AS queued_by,
    (array_agg(server ORDER BY id DESC) FILTER (WHERE status IN ('completed', 'busy', 'no-answer', 'failed', 'cancelled', 'expired')))[1] AS ended_by,
    (array_agg(server ORDER BY id DESC) FILTER (WHERE ordinary AND status IN ('reserved', 'dialing')))[1] AS owner,
    array_agg(ROW (at, attempt, status, reason, server)::call_transition ORDER BY id) FILTER (WHERE NOT ordinary) AS trail
FROM told GROUP BY item_id;
CREATE UNIQUE INDEX ON story (item_id);
ANALYZE story;

-- Servers ---------------------------------------------------------------------------------------

ALTER TABLE servers ADD COLUMN void_until bigint NOT NULL DEFAULT 0;
ALTER TABLE servers SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);
COMMENT ON COLUMN servers.void_until IS
    'Settlements of this server numbered up to this whose answers were given up: those not yet in effect never will be.';

-- Calls that hold a slot ------------------------------------------------------------------------

CREATE TABLE active_calls (
    call_id uuid PRIMARY KEY,
    item_id uuid NOT NULL,
    user_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    contact_id uuid,
    campaign_id uuid,
    call_type call_type NOT NULL,
    priority integer NOT NULL,
    position bigint NOT NULL,
    phone_number text NOT NULL,
    contact_name text,
    user_data jsonb,
    caller_id text,
    scheduled_for timestamptz,
    expires_at timestamptz,
    due_at timestamptz NOT NULL,
    due_since timestamptz NOT NULL,
    queued_at timestamptz NOT NULL,
    queued_by uuid,
    provider text NOT NULL,
    attempt tally NOT NULL,
    owner uuid NOT NULL,
    batch bigint NOT NULL,
    status live_status NOT NULL DEFAULT 'dialing',
    reason text,
    overdue boolean NOT NULL DEFAULT false,
    execution_id text,
    reserved_at timestamptz NOT NULL,
    placed_at timestamptz,
    ringing_at timestamptz,
    answered_at timestamptz,
    unknown_since timestamptz,
    trail call_transition[],
    CHECK ((call_type = 'direct') = (campaign_id IS NULL))
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE active_calls IS
    'One row for each slot taken. Inserting it takes the slot and authorises the attempt, deleting it frees the slot.';
COMMENT ON COLUMN active_calls.call_id IS 'The item''s own id for its first call.';
COMMENT ON COLUMN active_calls.owner IS 'The server that may place and settle this attempt.';
COMMENT ON COLUMN active_calls.batch IS 'The settlement of its owner that reserved it, 0 for one taken over.';
COMMENT ON COLUMN active_calls.overdue IS 'It was given up for its length and is being hung up: it will end as failed, timed_out.';
COMMENT ON COLUMN active_calls.trail IS 'Earlier attempts, and what else its own columns do not tell.';
-- An item's first call is found by the primary key.
CREATE UNIQUE INDEX active_calls_of_item ON active_calls (item_id) WHERE item_id <> call_id;
CREATE INDEX active_calls_by_user ON active_calls (user_id);
-- Not on status: a change of an indexed column would write every index anew.
CREATE INDEX active_calls_unknown ON active_calls (owner) WHERE unknown_since IS NOT NULL;

INSERT INTO active_calls (call_id, item_id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position,
    phone_number, contact_name, user_data, caller_id, scheduled_for, expires_at, due_at, due_since, queued_at, queued_by,
    provider, attempt, owner, batch, status, reason, overdue, execution_id, reserved_at, placed_at, ringing_at, answered_at,
    unknown_since, trail)
SELECT a.call_id, a.item_id, a.user_id, a.agent_id, q.contact_id, a.campaign_id, a.call_type, q.priority, q.position,
    q.phone_number, q.contact_name, q.user_data, q.caller_id, q.scheduled_for, q.expires_at, q.due_at, q.due_since,
    q.queued_at, s.queued_by, a.provider, a.attempt, a.owner, 0, a.status, a.reason, a.overdue, a.execution_id,
    a.reserved_at, s.placed_at, s.ringing_at, a.answered_at, CASE a.status WHEN 'unknown' THEN a.dialing_at END, s.trail
FROM old_active_calls a JOIN call_queue q ON q.id = a.item_id LEFT JOIN story s ON s.item_id = a.item_id
WHERE a.status <> 'reserved';

-- A server that stopped left no row: whoever starts now takes over from it.
INSERT INTO servers (id, lease_until) SELECT DISTINCT owner, clock_timestamp() FROM active_calls ON CONFLICT DO NOTHING;

-- The queue -------------------------------------------------------------------------------------

-- What was reserved and never sent waits again, in its place.
UPDATE call_queue q SET status = 'queued', started_at = NULL, due_since = now(), reason = 'its server was stopped before dialing'
FROM old_active_calls a WHERE a.item_id = q.id AND a.status = 'reserved';
DROP TABLE old_active_calls;
DELETE FROM call_queue WHERE status = 'processing';
DROP INDEX call_queue_direct_next;
DROP INDEX call_queue_campaign_next;
DROP INDEX call_queue_wakes;
DROP INDEX call_queue_expires;
DROP INDEX call_queue_returned_call;
ALTER TABLE call_queue
    DROP CONSTRAINT call_queue_status_check,
    DROP CONSTRAINT call_queue_processing_has_call,
    DROP CONSTRAINT call_queue_not_finished,
    DROP COLUMN started_at,
    DROP COLUMN finished_at,
    ADD COLUMN queued_by uuid,
    ADD COLUMN trail call_transition[],
    ADD CONSTRAINT call_queue_waits CHECK (status = 'queued');
UPDATE call_queue q SET queued_by = s.queued_by, trail = s.trail FROM story s
WHERE s.item_id = q.id AND (s.queued_by IS NOT NULL OR s.trail IS NOT NULL);
COMMENT ON TABLE call_queue IS
    'Accepted calls that wait. A call that starts moves to active_calls, one that ends to call_queue_history; queue_items shows all three.';
CREATE INDEX call_queue_direct_next ON call_queue (user_id, priority DESC, position)
    WHERE call_type = 'direct' AND wakes_at IS NULL;
CREATE INDEX call_queue_campaign_next ON call_queue (campaign_id, priority DESC, position)
    WHERE call_type = 'campaign' AND wakes_at IS NULL;
CREATE INDEX call_queue_wakes ON call_queue (wakes_at) WHERE wakes_at IS NOT NULL;
CREATE INDEX call_queue_asleep ON call_queue (user_id, call_type, wakes_at, position) WHERE wakes_at IS NOT NULL;
CREATE INDEX call_queue_expires ON call_queue (expires_at) WHERE expires_at IS NOT NULL;
CREATE UNIQUE INDEX call_queue_returned_call ON call_queue (call_id) WHERE call_id IS NOT NULL;

-- One reference says what two said, and more: the agent, contact and campaign are the user's own.
CREATE UNIQUE INDEX agents_of_user ON agents (user_id, id);
CREATE UNIQUE INDEX contacts_of_user ON contacts (user_id, id);
CREATE UNIQUE INDEX campaigns_of_user ON campaigns (user_id, id);
ALTER TABLE call_queue
    DROP CONSTRAINT call_queue_user_id_fkey,
    DROP CONSTRAINT call_queue_agent_id_fkey,
    DROP CONSTRAINT call_queue_contact_id_fkey,
    DROP CONSTRAINT call_queue_campaign_id_fkey,
    ADD CONSTRAINT call_queue_agent_fkey FOREIGN KEY (user_id, agent_id) REFERENCES agents (user_id, id),
    ADD CONSTRAINT call_queue_contact_fkey FOREIGN KEY (user_id, contact_id) REFERENCES contacts (user_id, id),
    ADD CONSTRAINT call_queue_campaign_fkey FOREIGN KEY (user_id, campaign_id) REFERENCES campaigns (user_id, id);
DROP INDEX agents_by_user;
DROP INDEX contacts_by_user;
DROP INDEX campaigns_by_user;

-- A call that starts leaves the rows that the references above protect. What it names must stay.
CREATE FUNCTION keep_while_calling() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_owner uuid := CASE TG_TABLE_NAME WHEN 'users' THEN OLD.id ELSE (to_jsonb(OLD) ->> 'user_id')::uuid END;
BEGIN
    IF EXISTS (
        SELECT FROM active_calls a WHERE a.user_id = v_owner
            AND OLD.id IN (a.user_id, a.agent_id, a.contact_id, a.campaign_id)
    ) THEN
        RAISE foreign_key_violation USING
            MESSAGE = format('a call in progress refers to this row of %I', TG_TABLE_NAME),
            CONSTRAINT = 'active_calls_' || TG_TABLE_NAME, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION keep_while_calling() IS
    'Trigger: refuses to delete what a call in progress names. A foreign key would be checked for every call that starts, this only when something is deleted. It runs after the foreign keys of call_queue were checked, so a call that moves at that moment is seen in one table or the other.';
-- Triggers fire by name, and those of foreign keys begin with RI.
CREATE TRIGGER zz_keep_while_calling AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION keep_while_calling();
CREATE TRIGGER zz_keep_while_calling AFTER DELETE ON agents FOR EACH ROW EXECUTE FUNCTION keep_while_calling();
CREATE TRIGGER zz_keep_while_calling AFTER DELETE ON contacts FOR EACH ROW EXECUTE FUNCTION keep_while_calling();
CREATE TRIGGER zz_keep_while_calling AFTER DELETE ON campaigns FOR EACH ROW EXECUTE FUNCTION keep_while_calling();

-- History ---------------------------------------------------------------------------------------

CREATE TABLE call_queue_history (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    contact_id uuid,
    campaign_id uuid,
    call_type call_type NOT NULL,
    priority integer NOT NULL,
    position bigint NOT NULL,
    status text NOT NULL,
    phone_number text NOT NULL,
    contact_name text,
    user_data jsonb,
    caller_id text,
    scheduled_for timestamptz,
    wakes_at timestamptz,
    expires_at timestamptz,
    due_at timestamptz NOT NULL,
    due_since timestamptz NOT NULL,
    queued_at timestamptz NOT NULL,
    queued_by uuid,
    attempts tally NOT NULL,
    call_id uuid,
    provider text,
    execution_id text,
    outcome text,
    was_call boolean NOT NULL,
    reason text,
    owner uuid,
    reserved_at timestamptz,
    placed_at timestamptz,
    ringing_at timestamptz,
    answered_at timestamptz,
    finished_at timestamptz NOT NULL,
    ended_by uuid,
    duration_seconds integer,
    trail call_transition[],
    PRIMARY KEY (id, finished_at)
) PARTITION BY RANGE (finished_at);
COMMENT ON TABLE call_queue_history IS
    'Calls that are over, moved here by the transaction that ended them: with an outcome if they held a slot to the end, without if they were withdrawn or expired while they waited. Append-only.';
COMMENT ON COLUMN call_queue_history.status IS 'completed, failed, cancelled or expired.';
COMMENT ON COLUMN call_queue_history.was_call IS 'Whether it ended on a slot, with an outcome.';
COMMENT ON COLUMN call_queue_history.outcome IS 'completed, busy, no-answer, failed or cancelled; null for a call that did not end on a slot.';
CREATE INDEX call_queue_history_by_user ON call_queue_history (user_id, call_type, due_at DESC, id DESC);
CREATE INDEX call_queue_history_by_end ON call_queue_history (user_id, was_call, finished_at DESC, id DESC);
CREATE UNIQUE INDEX call_queue_history_later_call ON call_queue_history (call_id, finished_at) WHERE call_id <> id;
CREATE TABLE call_queue_history_default PARTITION OF call_queue_history DEFAULT;

CREATE FUNCTION create_history_partitions() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_from timestamptz;
    v_until timestamptz;
    v_partition text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('callq history partitions'));
    FOR n IN 0..2 LOOP
        v_from := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n)) AT TIME ZONE 'UTC';
        v_until := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n + 1)) AT TIME ZONE 'UTC';
        v_partition := 'call_queue_history_' || to_char(v_from AT TIME ZONE 'UTC', 'YYYY_MM');
        CONTINUE WHEN to_regclass(v_partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE call_queue_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', v_partition);
        -- Rows that came while their month had no partition are in the default one, and must
        -- leave it first.
        LOCK TABLE call_queue_history_default IN ACCESS EXCLUSIVE MODE;
        EXECUTE format(
            'WITH strays AS (DELETE FROM call_queue_history_default WHERE finished_at >= %1$L AND finished_at < %2$L RETURNING *) '
            'INSERT INTO %3$I SELECT * FROM strays', v_from, v_until, v_partition);
        EXECUTE format('ALTER TABLE call_queue_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            v_partition, v_from, v_until);
    END LOOP;
END
$$;
COMMENT ON FUNCTION create_history_partitions() IS
    'Makes the history partitions of this month and the next two. Called by the migration and hourly by each server.';
SELECT create_history_partitions();

INSERT INTO call_queue_history (id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status,
    phone_number, contact_name, user_data, caller_id, scheduled_for, wakes_at, expires_at, due_at, due_since, queued_at,
    queued_by, attempts, call_id, provider, execution_id, outcome, was_call, reason, owner, reserved_at, placed_at, ringing_at,
    answered_at, finished_at, ended_by, duration_seconds, trail)
SELECT h.id, h.user_id, h.agent_id, h.contact_id, h.campaign_id, h.call_type, h.priority, h.position, h.status,
    h.phone_number, h.contact_name, h.user_data, h.caller_id, h.scheduled_for, h.wakes_at, h.expires_at, h.due_at,
    h.due_since, h.queued_at, s.queued_by, h.attempts, h.call_id, c.provider, c.execution_id, c.status, c.id IS NOT NULL,
    CASE WHEN c.id IS NULL THEN h.reason ELSE c.reason END, s.owner, coalesce(c.reserved_at, h.started_at), s.placed_at, s.ringing_at, c.answered_at,
    h.finished_at, s.ended_by, c.duration_seconds, s.trail
FROM old_call_queue_history h LEFT JOIN calls c ON c.item_id = h.id LEFT JOIN story s ON s.item_id = h.id;
DROP TABLE old_call_queue_history;
DROP TABLE calls;
DROP TABLE old_call_events;
DROP SEQUENCE call_events_id_seq;

-- Counters --------------------------------------------------------------------------------------

ALTER TABLE system_state
    DROP CONSTRAINT system_state_active_check,
    ALTER COLUMN active TYPE tally;
ALTER TABLE user_slots
    DROP CONSTRAINT user_slots_active_direct_check,
    DROP CONSTRAINT user_slots_active_campaign_check,
    DROP CONSTRAINT user_slots_due_direct_check,
    DROP CONSTRAINT user_slots_later_direct_check,
    DROP CONSTRAINT user_slots_due_campaign_check,
    ALTER COLUMN active_direct TYPE tally,
    ALTER COLUMN active_campaign TYPE tally,
    ALTER COLUMN due_direct TYPE tally,
    ALTER COLUMN later_direct TYPE tally,
    ALTER COLUMN due_campaign TYPE tally,
    ADD COLUMN slots tally NOT NULL DEFAULT 0,
    ADD COLUMN campaign_slots tally NOT NULL DEFAULT 0,
    ADD COLUMN stride integer NOT NULL DEFAULT 720720;
COMMENT ON COLUMN user_slots.slots IS 'The user''s limit, copied from users by a trigger so that the engine reads one row.';
COMMENT ON COLUMN user_slots.campaign_slots IS 'How many of the slots campaign calls may use.';
COMMENT ON COLUMN user_slots.stride IS 'What a turn costs in virtual time: 720720 / weight. 720720 is divisible by every number to 16, so that small weights are exact.';
COMMENT ON COLUMN user_slots.turn_direct IS 'Virtual time of the next direct turn; each call taken in turn adds a stride.';
UPDATE user_slots s SET slots = u.concurrent_calls_limit,
    campaign_slots = greatest(u.concurrent_calls_limit - u.direct_reserved_slots, 0), stride = 720720 / u.weight
FROM users u WHERE u.id = s.user_id;
CREATE OR REPLACE FUNCTION create_user_slots() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_slots (user_id, slots, campaign_slots, stride)
    VALUES (NEW.id, NEW.concurrent_calls_limit, greatest(NEW.concurrent_calls_limit - NEW.direct_reserved_slots, 0),
        720720 / NEW.weight);
    RETURN NEW;
END
$$;

-- A campaign's calls that are up are few, and counted where they are.
ALTER TABLE campaign_slots
    DROP CONSTRAINT campaign_slots_due_check,
    DROP CONSTRAINT campaign_slots_later_check,
    ALTER COLUMN due TYPE tally,
    ALTER COLUMN later TYPE tally,
    DROP COLUMN active,
    DROP CONSTRAINT campaign_slots_completed_check,
    DROP CONSTRAINT campaign_slots_failed_check,
    DROP CONSTRAINT campaign_slots_cancelled_check,
    DROP CONSTRAINT campaign_slots_expired_check,
    ALTER COLUMN completed TYPE tally,
    ALTER COLUMN failed TYPE tally,
    ALTER COLUMN cancelled TYPE tally,
    ALTER COLUMN expired TYPE tally;

-- Calls that were reserved wait again; everything else was counted right.
UPDATE campaign_slots s SET due = c.due, later = c.later
FROM (
    SELECT k.campaign_id, count(q.id) FILTER (WHERE q.wakes_at IS NULL) AS due,
        count(q.id) FILTER (WHERE q.wakes_at IS NOT NULL) AS later
    FROM campaign_slots k LEFT JOIN call_queue q ON q.campaign_id = k.campaign_id GROUP BY k.campaign_id
) c
WHERE c.campaign_id = s.campaign_id AND (s.due, s.later) IS DISTINCT FROM (c.due, c.later);
UPDATE user_slots s SET active_direct = c.active_direct, active_campaign = c.active_campaign, due_direct = c.due_direct,
    later_direct = c.later_direct, due_campaign = c.due_campaign, filed_direct = NULL, filed_campaign = NULL
FROM (
    SELECT u.user_id,
        (SELECT count(*) FROM active_calls a WHERE a.user_id = u.user_id AND a.call_type = 'direct') AS active_direct,
        (SELECT count(*) FROM active_calls a WHERE a.user_id = u.user_id AND a.call_type = 'campaign') AS active_campaign,
        (SELECT count(*) FROM call_queue q WHERE q.user_id = u.user_id AND q.call_type = 'direct' AND q.wakes_at IS NULL) AS due_direct,
        (SELECT count(*) FROM call_queue q WHERE q.user_id = u.user_id AND q.call_type = 'direct' AND q.wakes_at IS NOT NULL) AS later_direct,
        (SELECT coalesce(sum(k.due), 0) FROM campaign_slots k WHERE k.user_id = u.user_id AND k.open) AS due_campaign
    FROM user_slots u
) c
WHERE c.user_id = s.user_id;
UPDATE system_state SET active = (SELECT count(*) FROM active_calls);
DELETE FROM ready_lanes;

-- Views -----------------------------------------------------------------------------------------

CREATE VIEW queue_items AS
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
COMMENT ON VIEW queue_items IS 'Every item, waiting, processing or ended.';

CREATE VIEW call_records AS
SELECT call_id AS id, item_id, user_id, agent_id, contact_id, call_type, campaign_id, phone_number, contact_name, provider,
    execution_id, status::text AS status, reason, attempt::integer AS attempts, reserved_at, answered_at,
    NULL::timestamptz AS ended_at, NULL::integer AS duration_seconds
FROM active_calls
UNION ALL
SELECT call_id, id, user_id, agent_id, contact_id, call_type, campaign_id, phone_number, contact_name, provider,
    execution_id, outcome, reason, attempts::integer, reserved_at, answered_at, finished_at, duration_seconds
FROM call_queue_history WHERE was_call;
COMMENT ON VIEW call_records IS 'Every call, up or ended.';

CREATE FUNCTION transitions_of(
    p_queued_at timestamptz, p_queued_by uuid, p_trail call_transition[], p_attempt integer, p_owner uuid,
    p_reserved_at timestamptz, p_placed_at timestamptz, p_ringing_at timestamptz, p_answered_at timestamptz,
    p_ended_at timestamptz, p_ended_as text, p_ended_because text, p_ended_by uuid
) RETURNS TABLE (nth bigint, at timestamptz, attempt integer, status text, reason text, server uuid)
LANGUAGE sql IMMUTABLE AS $$
    SELECT row_number() OVER (ORDER BY t.at, t.part, t.step), t.at, t.attempt, t.status, t.reason, t.server
    FROM (
        SELECT 1 AS part, 0::bigint AS step, p_queued_at AS at, NULL::integer AS attempt, 'queued' AS status,
            NULL::text AS reason, p_queued_by AS server
        -- A call that started at the door did not wait.
        WHERE (p_queued_at = p_reserved_at) IS NOT TRUE
            AND NOT EXISTS (SELECT FROM unnest(p_trail) e WHERE e.at = p_queued_at AND e.status = 'reserved')
        UNION ALL
        SELECT 2, e.nth, e.at, e.attempt, e.status, e.reason, e.server
        FROM unnest(p_trail) WITH ORDINALITY e (at, attempt, status, reason, server, nth)
        UNION ALL
        SELECT 3, v.step, v.at, p_attempt, v.status, NULL, p_owner
        FROM (VALUES (1, p_reserved_at, 'reserved'), (2, p_reserved_at, 'dialing'), (3, p_placed_at, 'placed'),
            (4, p_ringing_at, 'ringing'), (5, p_answered_at, 'in-progress')) v (step, at, status)
        WHERE v.at IS NOT NULL
            AND NOT EXISTS (SELECT FROM unnest(p_trail) e WHERE e.at = v.at AND e.status = v.status)
        UNION ALL
        SELECT 4, 0, p_ended_at, p_attempt, p_ended_as, p_ended_because, p_ended_by WHERE p_ended_at IS NOT NULL
    ) t
$$;
COMMENT ON FUNCTION transitions_of(timestamptz, uuid, call_transition[], integer, uuid, timestamptz, timestamptz, timestamptz,
    timestamptz, timestamptz, text, text, uuid) IS 'The story that the columns and the trail of one row tell, in order.';

CREATE FUNCTION with_attempt_told(
    p_trail call_transition[], p_attempt integer, p_owner uuid, p_reserved_at timestamptz, p_placed_at timestamptz,
    p_ringing_at timestamptz, p_answered_at timestamptz
) RETURNS call_transition[] LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(p_trail, '{}') || coalesce(array_agg(ROW (v.at, p_attempt, v.status, NULL, p_owner)::call_transition ORDER BY v.at, v.step), '{}')
    FROM (VALUES (1, p_reserved_at, 'reserved'), (2, p_reserved_at, 'dialing'), (3, p_placed_at, 'placed'),
        (4, p_ringing_at, 'ringing'), (5, p_answered_at, 'in-progress')) v (step, at, status)
    WHERE v.at IS NOT NULL AND NOT EXISTS (SELECT FROM unnest(p_trail) e WHERE e.at = v.at AND e.status = v.status)
$$;
COMMENT ON FUNCTION with_attempt_told(call_transition[], integer, uuid, timestamptz, timestamptz, timestamptz, timestamptz) IS
    'A trail with what the columns of an attempt say of it: another owner or the next attempt writes them anew.';

CREATE VIEW call_events AS
SELECT t.at, q.user_id, q.id AS item_id, q.call_id, t.attempt, t.status, t.reason, t.server, t.nth
FROM call_queue q
CROSS JOIN LATERAL transitions_of(q.queued_at, q.queued_by, q.trail, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL) t
UNION ALL
SELECT t.at, a.user_id, a.item_id, a.call_id, t.attempt, t.status, t.reason, t.server, t.nth
FROM active_calls a
CROSS JOIN LATERAL transitions_of(a.queued_at, a.queued_by, a.trail, a.attempt, a.owner, a.reserved_at, a.placed_at,
    a.ringing_at, a.answered_at, NULL, NULL, NULL, NULL) t
UNION ALL
SELECT t.at, h.user_id, h.id, h.call_id, t.attempt, t.status, t.reason, t.server, t.nth
FROM call_queue_history h
CROSS JOIN LATERAL transitions_of(h.queued_at, h.queued_by, h.trail, CASE WHEN h.outcome IS NOT NULL THEN h.attempts END,
    h.owner, h.reserved_at, h.placed_at, h.ringing_at, h.answered_at, h.finished_at, coalesce(h.outcome, h.status), h.reason,
    h.ended_by) t;
COMMENT ON VIEW call_events IS
    'Every status change of every item and call, with time, cause and server; nth orders those of one item.';

CREATE VIEW queue_status_by_type AS
SELECT user_id, call_type, status, count(*) AS calls, min(queued_at) AS oldest_queued_at
FROM queue_items
GROUP BY user_id, call_type, status;
COMMENT ON VIEW queue_status_by_type IS 'Items by user, type and status, ended ones included.';

CREATE VIEW priority_violations AS
SELECT c.user_id, c.item_id AS campaign_queue_id, d.id AS direct_queue_id,
    d.due_since AS direct_waits_since, c.reserved_at AS campaign_started_at
FROM active_calls c
JOIN call_queue d ON d.user_id = c.user_id AND d.call_type = 'direct' AND d.wakes_at IS NULL
    AND d.due_since < c.reserved_at
WHERE c.call_type = 'campaign';
COMMENT ON VIEW priority_violations IS
    'Campaign calls up that started while a direct call of the same user, still waiting, was due. Always empty.';

-- Locking and filing ----------------------------------------------------------------------------

CREATE FUNCTION engine_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() $$;
COMMENT ON FUNCTION engine_now() IS 'The engine''s clock. Everything that is decided by time is decided by what it says.';

CREATE FUNCTION lock_engine() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM system_state FOR NO KEY UPDATE;
    RETURN engine_now();
END
$$;
COMMENT ON FUNCTION lock_engine() IS
    'Takes the lock under which slots, counters and queue rows change, and returns the time at which it was had. Rows of active_calls are locked before it, by call id, never after.';

CREATE FUNCTION change_slots(
    p_users uuid[], p_active_direct integer[], p_active_campaign integer[], p_due_direct integer[],
    p_later_direct integer[], p_due_campaign integer[], p_turn_direct bigint[]
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_system system_state;
BEGIN
    SELECT * INTO v_system FROM system_state;
    WITH changed AS (
        SELECT s.tid, s.user_id, s.filed_direct, s.filed_campaign, s.held_direct, s.held_campaign, s.slots, s.campaign_slots,
            s.active_direct + i.active_direct AS active_direct, s.active_campaign + i.active_campaign AS active_campaign,
            s.due_direct + i.due_direct AS due_direct, s.later_direct + i.later_direct AS later_direct,
            s.due_campaign + i.due_campaign AS due_campaign,
            coalesce(i.turn_direct, s.turn_direct) AS turn_direct, s.turn_campaign
        FROM unnest(p_users, p_active_direct, p_active_campaign, p_due_direct, p_later_direct, p_due_campaign, p_turn_direct)
            i (user_id, active_direct, active_campaign, due_direct, later_direct, due_campaign, turn_direct)
        CROSS JOIN LATERAL (SELECT u.ctid AS tid, u.* FROM user_slots u WHERE u.user_id = i.user_id OFFSET 0) s
    ), wanted AS MATERIALIZED (
        SELECT c.*,
            CASE WHEN c.due_direct > 0 AND c.held_direct IS NULL AND c.active_direct + c.active_campaign < c.slots
                THEN CASE WHEN c.filed_direct IS NULL THEN greatest(c.turn_direct, v_system.vtime_direct) ELSE c.turn_direct END
            END AS file_direct,
            CASE WHEN c.due_campaign > 0 AND c.due_direct = 0 AND c.held_campaign IS NULL
                    AND c.active_direct + c.active_campaign < c.campaign_slots
                THEN CASE WHEN c.filed_campaign IS NULL THEN greatest(c.turn_campaign, v_system.vtime_campaign) ELSE c.turn_campaign END
            END AS file_campaign
        FROM changed c
    ), updated AS (
        UPDATE user_slots s SET active_direct = w.active_direct, active_campaign = w.active_campaign,
            due_direct = w.due_direct, later_direct = w.later_direct, due_campaign = w.due_campaign,
            turn_direct = coalesce(w.file_direct, w.turn_direct), turn_campaign = coalesce(w.file_campaign, w.turn_campaign),
            filed_direct = w.file_direct, filed_campaign = w.file_campaign
        FROM wanted w WHERE s.ctid = w.tid
    ), unfiled AS (
        DELETE FROM ready_lanes r
        USING (
            SELECT l.tid FROM (
                SELECT 'direct'::call_type AS call_type, filed_direct AS turn, user_id FROM wanted
                    WHERE filed_direct IS NOT NULL AND filed_direct IS DISTINCT FROM file_direct
                UNION ALL
                SELECT 'campaign', filed_campaign, user_id FROM wanted
                    WHERE filed_campaign IS NOT NULL AND filed_campaign IS DISTINCT FROM file_campaign
            ) c
            CROSS JOIN LATERAL (
                SELECT k.ctid AS tid FROM ready_lanes k
                WHERE k.call_type = c.call_type AND k.turn = c.turn AND k.user_id = c.user_id OFFSET 0
            ) l
        ) gone
        WHERE r.ctid = gone.tid
    )
    INSERT INTO ready_lanes (call_type, turn, user_id)
    SELECT 'direct'::call_type, file_direct, user_id FROM wanted
        WHERE file_direct IS NOT NULL AND filed_direct IS DISTINCT FROM file_direct
    UNION ALL
    SELECT 'campaign', file_campaign, user_id FROM wanted
        WHERE file_campaign IS NOT NULL AND filed_campaign IS DISTINCT FROM file_campaign;
END
$$;
COMMENT ON FUNCTION change_slots(uuid[], integer[], integer[], integer[], integer[], integer[], bigint[]) IS
    'Adds to the counters of these users, each named once, sets their next direct turn where one is given, and files their lanes anew. A lane that becomes ready is filed at its own turn or the largest turn served so far, whichever is later. Needs lock_engine.';

CREATE FUNCTION refile_lanes(p_users uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_none integer[] := array_fill(0, ARRAY[cardinality(p_users)]);
BEGIN
    PERFORM change_slots(p_users, v_none, v_none, v_none, v_none, v_none, NULL);
END
$$;
COMMENT ON FUNCTION refile_lanes(uuid[]) IS
    'Brings the ready lanes of these users up to date with their counters. Needs lock_engine.';

CREATE FUNCTION follow_user_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_engine();
    UPDATE user_slots SET slots = NEW.concurrent_calls_limit,
        campaign_slots = greatest(NEW.concurrent_calls_limit - NEW.direct_reserved_slots, 0), stride = 720720 / NEW.weight
    WHERE user_id = NEW.id;
    PERFORM refile_lanes(ARRAY[NEW.id]);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION follow_user_limits() IS
    'Trigger: a changed limit, reserve or weight holds from this transaction on, whoever changes it.';
CREATE TRIGGER users_limits_followed
    AFTER UPDATE OF concurrent_calls_limit, direct_reserved_slots, weight ON users
    FOR EACH ROW EXECUTE FUNCTION follow_user_limits();

-- Leaving the queue without a call --------------------------------------------------------------

CREATE FUNCTION complete_campaigns(p_campaigns uuid[], p_now timestamptz) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_done uuid[];
BEGIN
    SELECT array_agg(s.campaign_id) INTO v_done
    FROM (SELECT DISTINCT i.id FROM unnest(p_campaigns) i (id)) i
    CROSS JOIN LATERAL (
        SELECT k.campaign_id, k.user_id FROM campaign_slots k
        WHERE k.campaign_id = i.id AND k.due = 0 AND k.later = 0 OFFSET 0
    ) s
    WHERE NOT EXISTS (SELECT FROM active_calls a WHERE a.user_id = s.user_id AND a.campaign_id = s.campaign_id);
    IF v_done IS NOT NULL THEN
        UPDATE campaigns c SET status = 'completed', finished_at = p_now, updated_at = p_now
        WHERE c.id = ANY (v_done) AND c.status IN ('active', 'paused');
        UPDATE campaign_slots SET open = false WHERE campaign_id = ANY (v_done) AND open;
    END IF;
END
$$;
COMMENT ON FUNCTION complete_campaigns(uuid[], timestamptz) IS
    'Marks those of these campaigns completed, and closes them, whose every contact is accounted for. Needs lock_engine.';

CREATE FUNCTION withdraw_items(p_items uuid[], p_status text, p_reason text, p_server uuid, p_now timestamptz)
RETURNS SETOF uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_items uuid[];
    v_users uuid[];
    v_due_direct integer[];
    v_later_direct integer[];
    v_due_campaign integer[];
    v_none integer[];
    v_campaigns uuid[];
BEGIN
    WITH gone AS (
        DELETE FROM call_queue q
        USING unnest(p_items) i (id) CROSS JOIN LATERAL (SELECT c.ctid AS tid FROM call_queue c WHERE c.id = i.id OFFSET 0) t
        WHERE q.ctid = t.tid
        RETURNING q.*
    ), history AS (
        INSERT INTO call_queue_history (id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status,
            phone_number, contact_name, user_data, caller_id, scheduled_for, wakes_at, expires_at, due_at, due_since,
            queued_at, queued_by, attempts, call_id, was_call, reason, finished_at, ended_by, trail)
        SELECT id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, p_status, phone_number,
            contact_name, user_data, caller_id, scheduled_for, wakes_at, expires_at, due_at, due_since, queued_at, queued_by,
            attempts, call_id, false, p_reason, p_now, p_server, trail
        FROM gone
    ), per_campaign AS (
        SELECT campaign_id, count(*)::integer AS calls, (count(*) FILTER (WHERE wakes_at IS NULL))::integer AS due
        FROM gone WHERE campaign_id IS NOT NULL GROUP BY campaign_id
    ), campaigns_counted AS (
        UPDATE campaign_slots c SET due = c.due - p.due, later = c.later - (p.calls - p.due),
            cancelled = c.cancelled + CASE p_status WHEN 'cancelled' THEN p.calls ELSE 0 END,
            expired = c.expired + CASE p_status WHEN 'expired' THEN p.calls ELSE 0 END
        FROM per_campaign p WHERE c.campaign_id = p.campaign_id
        RETURNING c.campaign_id, c.user_id, CASE WHEN c.open THEN p.due ELSE 0 END AS due
    ), per_user AS (
        SELECT user_id, (count(*) FILTER (WHERE call_type = 'direct' AND wakes_at IS NULL))::integer AS due_direct,
            (count(*) FILTER (WHERE call_type = 'direct' AND wakes_at IS NOT NULL))::integer AS later_direct
        FROM gone GROUP BY user_id
    )
    SELECT (SELECT array_agg(id) FROM gone), (SELECT array_agg(campaign_id) FROM campaigns_counted), u.users, u.due_direct,
        u.later_direct, u.due_campaign, array_fill(0, ARRAY[coalesce(cardinality(u.users), 0)])
    INTO v_items, v_campaigns, v_users, v_due_direct, v_later_direct, v_due_campaign, v_none
    FROM (
        SELECT array_agg(p.user_id) AS users, array_agg(-p.due_direct) AS due_direct, array_agg(-p.later_direct) AS later_direct,
            array_agg(-coalesce((SELECT sum(c.due) FROM campaigns_counted c WHERE c.user_id = p.user_id), 0)::integer) AS due_campaign
        FROM per_user p
    ) u;

    IF v_users IS NOT NULL THEN
        PERFORM change_slots(v_users, v_none, v_none, v_due_direct, v_later_direct, v_due_campaign, NULL);
    END IF;
    IF v_campaigns IS NOT NULL THEN
        PERFORM complete_campaigns(v_campaigns, p_now);
    END IF;
    RETURN QUERY SELECT unnest(v_items);
END
$$;
COMMENT ON FUNCTION withdraw_items(uuid[], text, text, uuid, timestamptz) IS
    'Ends waiting items as cancelled or expired; returns those that did wait. Needs lock_engine.';

CREATE FUNCTION wake_and_expire(p_server uuid, p_now timestamptz) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_all_expired boolean := true;
    v_items uuid[];
    v_users uuid[];
    v_due_direct integer[];
    v_later_direct integer[];
    v_due_campaign integer[];
    v_none integer[];
BEGIN
    SELECT array_agg(id) INTO v_items FROM (
        SELECT id FROM call_queue WHERE expires_at IS NOT NULL AND expires_at <= p_now ORDER BY expires_at LIMIT 1000
    ) q;
    IF v_items IS NOT NULL THEN
        PERFORM withdraw_items(v_items, 'expired', 'did not start before its expiry', p_server, p_now);
        v_all_expired := NOT EXISTS (SELECT FROM call_queue WHERE expires_at IS NOT NULL AND expires_at <= p_now);
    END IF;

    SELECT array_agg(id) INTO v_items FROM (
        SELECT id FROM call_queue WHERE wakes_at IS NOT NULL AND wakes_at <= p_now ORDER BY wakes_at LIMIT 1000
    ) q;
    IF v_items IS NOT NULL THEN
        WITH woken AS (
            UPDATE call_queue SET wakes_at = NULL, due_since = p_now WHERE id = ANY (v_items)
            RETURNING user_id, call_type, campaign_id
        ), campaigns_counted AS (
            UPDATE campaign_slots c SET due = c.due + p.calls, later = c.later - p.calls
            FROM (
                SELECT campaign_id, count(*)::integer AS calls FROM woken WHERE campaign_id IS NOT NULL GROUP BY campaign_id
            ) p
            WHERE c.campaign_id = p.campaign_id
            RETURNING c.user_id, CASE WHEN c.open THEN p.calls ELSE 0 END AS due
        ), per_user AS (
            SELECT user_id, (count(*) FILTER (WHERE call_type = 'direct'))::integer AS direct FROM woken GROUP BY user_id
        )
        SELECT array_agg(p.user_id), array_agg(p.direct), array_agg(-p.direct),
            array_agg(coalesce((SELECT sum(c.due) FROM campaigns_counted c WHERE c.user_id = p.user_id), 0)::integer),
            array_fill(0, ARRAY[count(*)::integer])
        INTO v_users, v_due_direct, v_later_direct, v_due_campaign, v_none FROM per_user p;
        PERFORM change_slots(v_users, v_none, v_none, v_due_direct, v_later_direct, v_due_campaign, NULL);
    END IF;

    WITH due AS (
        SELECT user_id FROM user_slots WHERE held_direct IS NOT NULL AND held_direct <= p_now
        UNION
        SELECT user_id FROM user_slots WHERE held_campaign IS NOT NULL AND held_campaign <= p_now
    ), released AS (
        UPDATE user_slots s SET
            held_direct = CASE WHEN s.held_direct > p_now THEN s.held_direct END,
            held_campaign = CASE WHEN s.held_campaign > p_now THEN s.held_campaign END
        FROM due WHERE s.user_id = due.user_id
        RETURNING s.user_id
    )
    SELECT array_agg(user_id) INTO v_users FROM released;
    IF v_users IS NOT NULL THEN
        PERFORM refile_lanes(v_users);
    END IF;
    RETURN v_all_expired;
END
$$;
COMMENT ON FUNCTION wake_and_expire(uuid, timestamptz) IS
    'Expires what has not started in time, makes due what has slept long enough, releases lanes whose hold is over; up to 1,000 of each. False if more may be left to expire: nothing may be reserved then. Needs lock_engine.';

CREATE FUNCTION set_campaign_open(p_campaign uuid, p_open boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_campaign campaign_slots;
BEGIN
    SELECT * INTO v_campaign FROM campaign_slots WHERE campaign_id = p_campaign;
    IF v_campaign.open IS DISTINCT FROM p_open THEN
        UPDATE campaign_slots SET open = p_open WHERE campaign_id = p_campaign;
        PERFORM change_slots(ARRAY[v_campaign.user_id], ARRAY[0], ARRAY[0], ARRAY[0], ARRAY[0],
            ARRAY[CASE WHEN p_open THEN v_campaign.due ELSE -v_campaign.due END::integer], NULL);
    END IF;
END
$$;
COMMENT ON FUNCTION set_campaign_open(uuid, boolean) IS
    'Lets the waiting calls of a campaign go, or holds them, in constant time. Needs lock_engine.';

-- What a person may ask in psql, and the audit ----------------------------------------------------

CREATE FUNCTION get_next_direct_call_queued(p_user_id uuid) RETURNS SETOF call_queue
LANGUAGE sql STABLE AS $$
    SELECT * FROM call_queue
    WHERE user_id = p_user_id AND call_type = 'direct' AND wakes_at IS NULL
        AND (expires_at IS NULL OR expires_at > now())
    ORDER BY priority DESC, position
    LIMIT 1
$$;
COMMENT ON FUNCTION get_next_direct_call_queued(uuid) IS
    'The direct call of this user that goes next, or no row. Looks only; reserves nothing.';

CREATE FUNCTION count_user_direct_calls_queued(p_user_id uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT due_direct::bigint + later_direct FROM user_slots WHERE user_id = p_user_id), 0)
$$;
COMMENT ON FUNCTION count_user_direct_calls_queued(uuid) IS
    'How many direct calls of this user wait, due or not.';

CREATE FUNCTION get_call_queue_position(p_queue_id uuid) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    me call_queue;
    v_ahead bigint;
BEGIN
    SELECT * INTO me FROM call_queue WHERE id = p_queue_id;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF me.call_type = 'direct' THEN
        IF me.wakes_at IS NULL THEN
            RETURN (SELECT count(*) FROM call_queue WHERE user_id = me.user_id AND call_type = 'direct'
                    AND wakes_at IS NULL AND priority > me.priority)
                + (SELECT count(*) FROM call_queue WHERE user_id = me.user_id AND call_type = 'direct'
                    AND wakes_at IS NULL AND priority = me.priority AND position <= me.position);
        END IF;
        SELECT due_direct INTO v_ahead FROM user_slots WHERE user_id = me.user_id;
    ELSE
        IF me.wakes_at IS NULL THEN
            RETURN (
                SELECT sum(
                    (SELECT count(*) FROM call_queue q WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign'
                        AND q.wakes_at IS NULL AND q.priority > me.priority)
                    + (SELECT count(*) FROM call_queue q WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign'
                        AND q.wakes_at IS NULL AND q.priority = me.priority AND q.position <= me.position))
                FROM campaign_slots c
                WHERE c.user_id = me.user_id AND (c.open OR c.campaign_id = me.campaign_id));
        END IF;
        SELECT sum(due) INTO v_ahead FROM campaign_slots
        WHERE user_id = me.user_id AND (open OR campaign_id = me.campaign_id);
    END IF;
    RETURN v_ahead + (
        SELECT count(*) FROM call_queue q
        WHERE q.user_id = me.user_id AND q.call_type = me.call_type AND q.wakes_at IS NOT NULL
            AND (q.wakes_at, q.position) <= (me.wakes_at, me.position));
END
$$;
COMMENT ON FUNCTION get_call_queue_position(uuid) IS
    'Place of a waiting item among the waiting items of its user and type, 1 for the next to go, null if it does not wait. What is not due yet comes after what is.';

CREATE FUNCTION get_next_queued(p_user_id uuid) RETURNS SETOF call_queue
LANGUAGE sql STABLE AS $$
    SELECT q.* FROM call_queue q
    LEFT JOIN campaign_slots c ON c.campaign_id = q.campaign_id
    WHERE q.user_id = p_user_id AND q.wakes_at IS NULL
        AND (q.expires_at IS NULL OR q.expires_at > now())
        AND (q.call_type = 'direct' OR c.open)
    ORDER BY q.call_type, q.priority DESC, q.position
    LIMIT 1
$$;
COMMENT ON FUNCTION get_next_queued(uuid) IS
    'The call of this user that goes next, direct before campaign, or no row. Looks only; reserves nothing.';

CREATE FUNCTION audit_counters() RETURNS TABLE (counter text, subject text, kept bigint, counted bigint)
LANGUAGE sql STABLE AS $$
    WITH held AS (
        SELECT user_id, count(*) FILTER (WHERE call_type = 'direct') AS direct,
            count(*) FILTER (WHERE call_type = 'campaign') AS campaign
        FROM active_calls GROUP BY user_id
    ), waiting AS (
        SELECT q.user_id,
            count(*) FILTER (WHERE q.call_type = 'direct' AND q.wakes_at IS NULL) AS due_direct,
            count(*) FILTER (WHERE q.call_type = 'direct' AND q.wakes_at IS NOT NULL) AS later_direct,
            count(*) FILTER (WHERE q.call_type = 'campaign' AND q.wakes_at IS NULL AND c.open) AS due_campaign
        FROM call_queue q LEFT JOIN campaign_slots c ON c.campaign_id = q.campaign_id
        GROUP BY q.user_id
    ), per_campaign AS (
        SELECT campaign_id, count(*) FILTER (WHERE wakes_at IS NULL) AS due,
            count(*) FILTER (WHERE wakes_at IS NOT NULL) AS later
        FROM call_queue WHERE campaign_id IS NOT NULL GROUP BY campaign_id
    ), every_count AS (
        SELECT 'system_state.active' AS counter, '' AS subject, active::bigint AS kept, (SELECT count(*) FROM active_calls) AS counted
        FROM system_state
        UNION ALL
        SELECT v.counter, s.user_id::text, v.kept, v.counted
        FROM user_slots s
        JOIN users u ON u.id = s.user_id
        LEFT JOIN held h ON h.user_id = s.user_id
        LEFT JOIN waiting w ON w.user_id = s.user_id
        CROSS JOIN LATERAL (VALUES
            ('user_slots.active_direct', s.active_direct::bigint, coalesce(h.direct, 0)),
            ('user_slots.active_campaign', s.active_campaign, coalesce(h.campaign, 0)),
            ('user_slots.due_direct', s.due_direct, coalesce(w.due_direct, 0)),
            ('user_slots.later_direct', s.later_direct, coalesce(w.later_direct, 0)),
            ('user_slots.due_campaign', s.due_campaign, coalesce(w.due_campaign, 0)),
            ('user_slots.slots', s.slots, u.concurrent_calls_limit),
            ('user_slots.campaign_slots', s.campaign_slots, greatest(u.concurrent_calls_limit - u.direct_reserved_slots, 0)),
            ('user_slots.stride', s.stride, 720720 / u.weight),
            ('ready_lanes.direct',
                (SELECT count(*) FROM ready_lanes r WHERE r.call_type = 'direct' AND r.turn = s.filed_direct AND r.user_id = s.user_id),
                (s.due_direct > 0 AND s.held_direct IS NULL AND s.active_direct + s.active_campaign < s.slots)::integer),
            ('ready_lanes.campaign',
                (SELECT count(*) FROM ready_lanes r WHERE r.call_type = 'campaign' AND r.turn = s.filed_campaign AND r.user_id = s.user_id),
                (s.due_campaign > 0 AND s.due_direct = 0 AND s.held_campaign IS NULL
                    AND s.active_direct + s.active_campaign < s.campaign_slots)::integer)
        ) v (counter, kept, counted)
        UNION ALL
        SELECT v.counter, s.campaign_id::text, v.kept, v.counted
        FROM campaign_slots s
        LEFT JOIN per_campaign p ON p.campaign_id = s.campaign_id
        CROSS JOIN LATERAL (VALUES
            ('campaign_slots.due', s.due::bigint, coalesce(p.due, 0)),
            ('campaign_slots.later', s.later, coalesce(p.later, 0))
        ) v (counter, kept, counted)
        UNION ALL
        SELECT 'ready_lanes', '', count(*), (SELECT count(filed_direct) + count(filed_campaign) FROM user_slots) FROM ready_lanes
    )
    SELECT counter, subject, kept, counted FROM every_count WHERE kept <> counted
$$;
COMMENT ON FUNCTION audit_counters() IS
    'Recounts every kept counter from its rows, in one snapshot, and returns each difference: no row is the only good answer.';

SELECT refile_lanes((SELECT array_agg(user_id) FROM user_slots)) WHERE EXISTS (SELECT FROM user_slots);
