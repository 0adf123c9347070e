-- Back to waiting rows that change status, a second row for each slot, three tables of history. What
-- was told in columns and trails becomes events again. Calls in progress go on.

DO $$
BEGIN
    IF EXISTS (SELECT FROM servers WHERE lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'a server is running; stop it first';
    END IF;
END
$$;

CREATE TEMPORARY TABLE events ON COMMIT DROP AS SELECT * FROM call_events;

DROP VIEW priority_violations;
DROP VIEW queue_status_by_type;
DROP VIEW call_events;
DROP VIEW call_records;
DROP VIEW queue_items;
DROP FUNCTION change_slots(uuid[], integer[], integer[], integer[], integer[], integer[], bigint[]);
DROP FUNCTION engine_now();
DROP FUNCTION with_attempt_told(call_transition[], integer, uuid, timestamptz, timestamptz, timestamptz, timestamptz);
DROP FUNCTION transitions_of(timestamptz, uuid, call_transition[], integer, uuid, timestamptz, timestamptz, timestamptz,
    timestamptz, timestamptz, text, text, uuid);
DROP FUNCTION audit_counters();
DROP FUNCTION complete_campaigns(uuid[], timestamptz);
DROP FUNCTION set_campaign_open(uuid, boolean);
DROP FUNCTION withdraw_items(uuid[], text, text, uuid, timestamptz);
DROP FUNCTION wake_and_expire(uuid, timestamptz);
DROP FUNCTION refile_lanes(uuid[]);
DROP FUNCTION lock_engine();
DROP FUNCTION create_history_partitions();
DROP FUNCTION get_next_queued(uuid);
DROP FUNCTION get_next_direct_call_queued(uuid);
DROP FUNCTION get_call_queue_position(uuid);
DROP FUNCTION count_user_direct_calls_queued(uuid);
DROP TRIGGER users_limits_followed ON users;
DROP FUNCTION follow_user_limits();
DROP TRIGGER zz_keep_while_calling ON users;
DROP TRIGGER zz_keep_while_calling ON agents;
DROP TRIGGER zz_keep_while_calling ON contacts;
DROP TRIGGER zz_keep_while_calling ON campaigns;
DROP FUNCTION keep_while_calling();
CREATE OR REPLACE FUNCTION create_user_slots() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_slots (user_id) VALUES (NEW.id);
    RETURN NEW;
END
$$;

ALTER TABLE servers DROP COLUMN void_until;
ALTER TABLE servers RESET (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay);

ALTER TABLE active_calls RENAME TO new_active_calls;
ALTER TABLE new_active_calls RENAME CONSTRAINT active_calls_pkey TO new_active_calls_pkey;
ALTER TABLE call_queue_history RENAME TO new_call_queue_history;
ALTER TABLE new_call_queue_history RENAME CONSTRAINT call_queue_history_pkey TO new_call_queue_history_pkey;
DO $$
DECLARE
    v_partition regclass;
BEGIN
    FOR v_partition IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'new_call_queue_history'::regclass LOOP
        EXECUTE format('ALTER TABLE %s RENAME TO %I', v_partition, 'new_' || v_partition::text);
    END LOOP;
END
$$;
ALTER INDEX call_queue_history_by_user RENAME TO new_call_queue_history_by_user;
ALTER INDEX call_queue_history_by_end RENAME TO new_call_queue_history_by_end;

-- The queue -------------------------------------------------------------------------------------

DROP INDEX call_queue_direct_next;
DROP INDEX call_queue_campaign_next;
DROP INDEX call_queue_wakes;
DROP INDEX call_queue_asleep;
DROP INDEX call_queue_expires;
DROP INDEX call_queue_returned_call;
ALTER TABLE call_queue
    DROP CONSTRAINT call_queue_waits,
    DROP CONSTRAINT call_queue_agent_fkey,
    DROP CONSTRAINT call_queue_contact_fkey,
    DROP CONSTRAINT call_queue_campaign_fkey,
    DROP COLUMN queued_by,
    DROP COLUMN trail,
    ADD COLUMN started_at timestamptz,
    ADD COLUMN finished_at timestamptz,
    ADD CONSTRAINT call_queue_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id),
    ADD CONSTRAINT call_queue_agent_id_fkey FOREIGN KEY (agent_id) REFERENCES agents (id),
    ADD CONSTRAINT call_queue_contact_id_fkey FOREIGN KEY (contact_id) REFERENCES contacts (id),
    ADD CONSTRAINT call_queue_campaign_id_fkey FOREIGN KEY (campaign_id) REFERENCES campaigns (id);
CREATE INDEX agents_by_user ON agents (user_id, id DESC);
CREATE INDEX contacts_by_user ON contacts (user_id, id DESC);
CREATE INDEX campaigns_by_user ON campaigns (user_id, id DESC);
DROP INDEX agents_of_user;
DROP INDEX contacts_of_user;
DROP INDEX campaigns_of_user;

CREATE TABLE call_queue_history (
    LIKE call_queue,
    PRIMARY KEY (id, finished_at),
    CHECK (status IN ('completed', 'failed', 'cancelled', 'expired')),
    CHECK ((call_type = 'direct') = (campaign_id IS NULL))
) PARTITION BY RANGE (finished_at);
COMMENT ON TABLE call_queue_history IS 'Items that ended, moved here in the transaction that ended them. Append-only.';
CREATE INDEX call_queue_history_by_user ON call_queue_history (user_id, call_type, due_at DESC, id DESC);
CREATE INDEX call_queue_history_by_end ON call_queue_history (user_id, finished_at);
-- Calls that came back to the queue and were withdrawn there: they have no record in calls.
CREATE INDEX call_queue_history_withdrawn_call ON call_queue_history (call_id)
    WHERE call_id IS NOT NULL AND started_at IS NULL;
CREATE TABLE call_queue_history_default PARTITION OF call_queue_history DEFAULT;


INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, priority, position, status, scheduled_for, queued_at,
    started_at, call_type, phone_number, contact_name, user_data, caller_id, expires_at, due_at, due_since, attempts, call_id)
SELECT item_id, user_id, agent_id, contact_id, campaign_id, priority, position, 'processing', scheduled_for, queued_at,
    reserved_at, call_type, phone_number, contact_name, user_data, caller_id, expires_at, due_at, due_since, attempt, call_id
FROM new_active_calls;
ALTER TABLE call_queue
    ADD CONSTRAINT call_queue_status_check CHECK (status IN ('queued', 'processing')),
    ADD CONSTRAINT call_queue_processing_has_call CHECK (status = 'queued' OR (call_id IS NOT NULL AND started_at IS NOT NULL AND wakes_at IS NULL)),
    ADD CONSTRAINT call_queue_not_finished CHECK (finished_at IS NULL);
COMMENT ON TABLE call_queue IS 'Accepted calls that have not ended: waiting (queued) or holding a slot (processing).';
CREATE INDEX call_queue_direct_next ON call_queue (user_id, priority DESC, position)
    WHERE status = 'queued' AND call_type = 'direct' AND wakes_at IS NULL;
CREATE INDEX call_queue_campaign_next ON call_queue (campaign_id, priority DESC, position)
    WHERE status = 'queued' AND call_type = 'campaign' AND wakes_at IS NULL;
CREATE INDEX call_queue_wakes ON call_queue (wakes_at) WHERE status = 'queued' AND wakes_at IS NOT NULL;
CREATE INDEX call_queue_expires ON call_queue (expires_at) WHERE status = 'queued' AND expires_at IS NOT NULL;
CREATE UNIQUE INDEX call_queue_returned_call ON call_queue (call_id) WHERE status = 'queued' AND call_id IS NOT NULL;


-- Calls and history -----------------------------------------------------------------------------

CREATE TABLE active_calls (
    call_id uuid PRIMARY KEY,
    item_id uuid NOT NULL UNIQUE REFERENCES call_queue (id),
    user_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    call_type call_type NOT NULL,
    campaign_id uuid,
    provider text NOT NULL,
    attempt integer NOT NULL CHECK (attempt > 0),
    owner uuid NOT NULL,
    status text NOT NULL DEFAULT 'reserved'
        CHECK (status IN ('reserved', 'dialing', 'ringing', 'in-progress', 'unknown')),
    reason text,
    overdue boolean NOT NULL DEFAULT false,
    execution_id text,
    reserved_at timestamptz NOT NULL,
    dialing_at timestamptz,
    answered_at timestamptz,
    CHECK ((call_type = 'direct') = (campaign_id IS NULL)),
    CHECK (status = 'reserved' OR dialing_at IS NOT NULL)
) WITH (fillfactor = 50);
COMMENT ON TABLE active_calls IS 'One row for each slot taken. Inserting it takes the slot, deleting it frees the slot.';
COMMENT ON COLUMN active_calls.overdue IS 'It was given up for its length and is being hung up: it will end as failed, timed_out.';
COMMENT ON COLUMN active_calls.owner IS 'The server that may place and settle this attempt.';

ALTER TABLE active_calls SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);

INSERT INTO active_calls (call_id, item_id, user_id, agent_id, call_type, campaign_id, provider, attempt, owner, status, reason,
    overdue, execution_id, reserved_at, dialing_at, answered_at)
SELECT call_id, item_id, user_id, agent_id, call_type, campaign_id, provider, attempt, owner, status, reason, overdue,
    execution_id, reserved_at, reserved_at, answered_at
FROM new_active_calls;

CREATE TABLE calls (
    id uuid NOT NULL,
    item_id uuid NOT NULL,
    user_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    contact_id uuid,
    call_type call_type NOT NULL,
    campaign_id uuid,
    phone_number text NOT NULL,
    contact_name text,
    provider text NOT NULL,
    execution_id text,
    status text NOT NULL CHECK (status IN ('completed', 'busy', 'no-answer', 'failed', 'cancelled')),
    reason text,
    attempts integer NOT NULL,
    reserved_at timestamptz NOT NULL,
    answered_at timestamptz,
    ended_at timestamptz NOT NULL,
    duration_seconds integer,
    PRIMARY KEY (id, ended_at)
) PARTITION BY RANGE (ended_at);
COMMENT ON TABLE calls IS 'Calls that ended. Append-only.';
CREATE INDEX calls_by_user ON calls (user_id, id DESC);
CREATE INDEX calls_by_item ON calls (item_id);
CREATE TABLE calls_default PARTITION OF calls DEFAULT;

CREATE SEQUENCE call_events_id_seq;
CREATE TABLE call_events (
    id bigint NOT NULL DEFAULT nextval('call_events_id_seq'),
    at timestamptz NOT NULL,
    user_id uuid NOT NULL,
    item_id uuid NOT NULL,
    call_id uuid,
    attempt integer,
    status text NOT NULL,
    reason text,
    server uuid
) PARTITION BY RANGE (at);
COMMENT ON TABLE call_events IS 'Every status change of every item and call, with time, cause and server. Append-only.';
CREATE INDEX call_events_by_item ON call_events (item_id, id);
CREATE TABLE call_events_default PARTITION OF call_events DEFAULT;

CREATE FUNCTION create_history_partitions() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_from timestamptz;
    v_until timestamptz;
    v_table text;
    v_column text;
    v_partition text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('callq history partitions'));
    FOR n IN 0..2 LOOP
        v_from := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n)) AT TIME ZONE 'UTC';
        v_until := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => n + 1)) AT TIME ZONE 'UTC';
        FOR v_table, v_column IN
            VALUES ('calls', 'ended_at'), ('call_queue_history', 'finished_at'), ('call_events', 'at')
        LOOP
            v_partition := format('%s_%s', v_table, to_char(v_from AT TIME ZONE 'UTC', 'YYYY_MM'));
            CONTINUE WHEN to_regclass(v_partition) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', v_partition, v_table);
            -- Rows that came while their month had no partition are in the default one, and must
            -- leave it first.
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', v_table || '_default');
            EXECUTE format(
                'WITH strays AS (DELETE FROM %1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *) '
                'INSERT INTO %5$I SELECT * FROM strays',
                v_table || '_default', v_column, v_from, v_until, v_partition);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                v_table, v_partition, v_from, v_until);
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION create_history_partitions() IS
    'Makes the history partitions of this month and the next two. Called by the migration and hourly by each server.';

SELECT create_history_partitions();

INSERT INTO call_queue_history (id, user_id, agent_id, contact_id, campaign_id, priority, position, status, reason,
    scheduled_for, queued_at, started_at, finished_at, call_type, phone_number, contact_name, user_data, caller_id, expires_at,
    wakes_at, due_at, due_since, attempts, call_id)
SELECT id, user_id, agent_id, contact_id, campaign_id, priority, position, status, coalesce(reason, outcome), scheduled_for,
    queued_at, reserved_at, finished_at, call_type, phone_number, contact_name, user_data, caller_id, expires_at, wakes_at,
    due_at, due_since, attempts, call_id
FROM new_call_queue_history;
INSERT INTO calls (id, item_id, user_id, agent_id, contact_id, call_type, campaign_id, phone_number, contact_name, provider,
    execution_id, status, reason, attempts, reserved_at, answered_at, ended_at, duration_seconds)
SELECT call_id, id, user_id, agent_id, contact_id, call_type, campaign_id, phone_number, contact_name, provider, execution_id,
    outcome, reason, attempts, reserved_at, answered_at, finished_at, duration_seconds
FROM new_call_queue_history WHERE was_call;
-- The event that first put an item into the queue named no call.
INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, reason, server)
SELECT at, user_id, item_id, CASE WHEN attempt IS NOT NULL OR status <> 'queued' THEN call_id END, attempt, status, reason, server FROM events ORDER BY at, nth;

-- Counters --------------------------------------------------------------------------------------

ALTER TABLE system_state
    ALTER COLUMN active TYPE integer,
    ADD CONSTRAINT system_state_active_check CHECK (active >= 0);
ALTER TABLE user_slots
    DROP COLUMN slots,
    DROP COLUMN campaign_slots,
    DROP COLUMN stride,
    ALTER COLUMN active_direct TYPE integer,
    ALTER COLUMN active_campaign TYPE integer,
    ALTER COLUMN due_direct TYPE integer,
    ALTER COLUMN later_direct TYPE integer,
    ALTER COLUMN due_campaign TYPE integer,
    ADD CONSTRAINT user_slots_active_direct_check CHECK (active_direct >= 0),
    ADD CONSTRAINT user_slots_active_campaign_check CHECK (active_campaign >= 0),
    ADD CONSTRAINT user_slots_due_direct_check CHECK (due_direct >= 0),
    ADD CONSTRAINT user_slots_later_direct_check CHECK (later_direct >= 0),
    ADD CONSTRAINT user_slots_due_campaign_check CHECK (due_campaign >= 0);
COMMENT ON COLUMN user_slots.turn_direct IS 'Virtual time of the next direct turn; each call taken in turn adds 720720 / weight.';
ALTER TABLE campaign_slots
    ALTER COLUMN due TYPE integer,
    ALTER COLUMN later TYPE integer,
    ADD CONSTRAINT campaign_slots_due_check CHECK (due >= 0),
    ADD CONSTRAINT campaign_slots_later_check CHECK (later >= 0),
    ALTER COLUMN completed TYPE integer,
    ALTER COLUMN failed TYPE integer,
    ALTER COLUMN cancelled TYPE integer,
    ALTER COLUMN expired TYPE integer,
    ADD CONSTRAINT campaign_slots_completed_check CHECK (completed >= 0),
    ADD CONSTRAINT campaign_slots_failed_check CHECK (failed >= 0),
    ADD CONSTRAINT campaign_slots_cancelled_check CHECK (cancelled >= 0),
    ADD CONSTRAINT campaign_slots_expired_check CHECK (expired >= 0),
    ADD COLUMN active integer NOT NULL DEFAULT 0 CHECK (active >= 0);
UPDATE campaign_slots s SET active = (SELECT count(*) FROM new_active_calls a WHERE a.campaign_id = s.campaign_id);
DROP TABLE new_active_calls;
DROP TABLE new_call_queue_history;
DROP TYPE call_transition;
DROP DOMAIN live_status;
DROP DOMAIN tally;

-- The functions and views of the migration before, as they were -----------------------------------

-- Locking and filing ----------------------------------------------------------------------------

CREATE FUNCTION lock_engine() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM system_state FOR NO KEY UPDATE;
    RETURN clock_timestamp();
END
$$;
COMMENT ON FUNCTION lock_engine() IS
    'Takes the lock that comes first and returns the time at which it was had: the instant at which everything in this transaction happens.';

CREATE FUNCTION lock_calls(p_calls uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM FROM active_calls a WHERE a.call_id = ANY (p_calls) ORDER BY a.call_id FOR UPDATE;
END
$$;
COMMENT ON FUNCTION lock_calls(uuid[]) IS
    'Locks these calls in the one order. For a transaction that goes on to change some of them by several functions.';

CREATE FUNCTION refile_lanes(p_users uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_system system_state;
BEGIN
    SELECT * INTO v_system FROM system_state;
    WITH wanted AS (
        SELECT s.user_id, s.filed_direct, s.filed_campaign,
            CASE WHEN s.due_direct > 0 AND s.held_direct IS NULL
                    AND s.active_direct + s.active_campaign < u.concurrent_calls_limit
                THEN CASE WHEN s.filed_direct IS NULL THEN greatest(s.turn_direct, v_system.vtime_direct)
                    ELSE s.turn_direct END
            END AS file_direct,
            CASE WHEN s.due_campaign > 0 AND s.due_direct = 0 AND s.held_campaign IS NULL
                    AND s.active_direct + s.active_campaign < u.concurrent_calls_limit - u.direct_reserved_slots
                THEN CASE WHEN s.filed_campaign IS NULL THEN greatest(s.turn_campaign, v_system.vtime_campaign)
                    ELSE s.turn_campaign END
            END AS file_campaign
        FROM user_slots s
        JOIN users u ON u.id = s.user_id
        WHERE s.user_id = ANY (p_users)
    ), changed AS (
        UPDATE user_slots s SET
            filed_direct = w.file_direct, turn_direct = coalesce(w.file_direct, s.turn_direct),
            filed_campaign = w.file_campaign, turn_campaign = coalesce(w.file_campaign, s.turn_campaign)
        FROM wanted w
        WHERE w.user_id = s.user_id
            AND (w.file_direct IS DISTINCT FROM w.filed_direct OR w.file_campaign IS DISTINCT FROM w.filed_campaign)
        RETURNING w.*
    ), unfiled AS (
        DELETE FROM ready_lanes r
        USING (
            SELECT 'direct'::call_type AS call_type, filed_direct AS turn, user_id FROM changed
                WHERE filed_direct IS DISTINCT FROM file_direct
            UNION ALL
            SELECT 'campaign', filed_campaign, user_id FROM changed
                WHERE filed_campaign IS DISTINCT FROM file_campaign
        ) c
        WHERE r.call_type = c.call_type AND r.turn = c.turn AND r.user_id = c.user_id
    )
    INSERT INTO ready_lanes (call_type, turn, user_id)
    SELECT 'direct'::call_type, file_direct, user_id FROM changed
        WHERE file_direct IS NOT NULL AND filed_direct IS DISTINCT FROM file_direct
    UNION ALL
    SELECT 'campaign', file_campaign, user_id FROM changed
        WHERE file_campaign IS NOT NULL AND filed_campaign IS DISTINCT FROM file_campaign;
END
$$;
COMMENT ON FUNCTION refile_lanes(uuid[]) IS
    'Brings the ready lanes of these users up to date with their counters. A lane that becomes ready is filed at its own turn or the largest turn served so far, whichever is later. Needs lock_engine.';

-- Starting --------------------------------------------------------------------------------------

CREATE FUNCTION start_calls(
    p_server uuid, p_provider text, p_items uuid[], p_now timestamptz
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_system system_state;
    v_users uuid[];
BEGIN
    SELECT * INTO v_system FROM system_state;
    WITH started AS (
        UPDATE call_queue q SET
            status = 'processing', attempts = q.attempts + 1, call_id = coalesce(q.call_id, uuid_v7()),
            started_at = p_now, reason = NULL
        WHERE q.id = ANY (p_items)
        RETURNING q.id, q.user_id, q.agent_id, q.call_type, q.campaign_id, q.attempts, q.call_id
    ), taken AS (
        INSERT INTO active_calls (call_id, item_id, user_id, agent_id, call_type, campaign_id, provider, attempt,
            owner, reserved_at)
        SELECT s.call_id, s.id, s.user_id, s.agent_id, s.call_type, s.campaign_id,
            coalesce(a.provider, p_provider), s.attempts, p_server, p_now
        FROM started s JOIN agents a ON a.id = s.agent_id
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, server)
        SELECT p_now, user_id, id, call_id, attempts, 'reserved', p_server FROM started
    ), per_user AS (
        SELECT user_id, count(*) FILTER (WHERE call_type = 'direct') AS direct,
            count(*) FILTER (WHERE call_type = 'campaign') AS campaign
        FROM started GROUP BY user_id
    ), counted AS (
        UPDATE user_slots s SET
            active_direct = s.active_direct + p.direct, due_direct = s.due_direct - p.direct,
            active_campaign = s.active_campaign + p.campaign, due_campaign = s.due_campaign - p.campaign,
            turn_direct = CASE WHEN p.direct = 0 THEN s.turn_direct
                ELSE greatest(s.turn_direct, v_system.vtime_direct) + p.direct * (720720 / u.weight) END,
            turn_campaign = CASE WHEN p.campaign = 0 THEN s.turn_campaign
                ELSE greatest(s.turn_campaign, v_system.vtime_campaign) + p.campaign * (720720 / u.weight) END
        FROM per_user p JOIN users u ON u.id = p.user_id
        WHERE s.user_id = p.user_id
        RETURNING s.user_id,
            CASE WHEN p.direct > 0 THEN s.turn_direct - 720720 / u.weight END AS last_direct,
            CASE WHEN p.campaign > 0 THEN s.turn_campaign - 720720 / u.weight END AS last_campaign
    ), campaigns_counted AS (
        UPDATE campaign_slots c SET due = c.due - p.calls, active = c.active + p.calls
        FROM (SELECT campaign_id, count(*) AS calls FROM started WHERE campaign_id IS NOT NULL GROUP BY campaign_id) p
        WHERE c.campaign_id = p.campaign_id
    ), system_counted AS (
        UPDATE system_state SET active = active + (SELECT count(*) FROM started),
            vtime_direct = greatest(vtime_direct, (SELECT max(last_direct) FROM counted)),
            vtime_campaign = greatest(vtime_campaign, (SELECT max(last_campaign) FROM counted))
    )
    SELECT array_agg(user_id) INTO v_users FROM counted;
    PERFORM refile_lanes(v_users);
END
$$;
COMMENT ON FUNCTION start_calls(uuid, text, uuid[], timestamptz) IS
    'Gives each of these waiting, due items a slot owned by p_server, and moves its user''s next turn back by a stride. The caller has checked the limits under lock_engine.';

CREATE FUNCTION reserve_direct_calls(p_server uuid, p_provider text, p_limit integer, p_now timestamptz)
RETURNS uuid[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_free integer;
    v_items uuid[];
BEGIN
    SELECT CASE WHEN dispatch_paused THEN 0 ELSE least(p_limit, concurrent_calls_limit - active) END
    INTO v_free FROM system_state;
    IF v_free <= 0 THEN
        RETURN '{}';
    END IF;
    -- The k smallest turns of all lie on the k lanes at the left edge; each lane offers its turn,
    -- then that plus a stride, and so on for as many calls and slots as its user has.
    WITH lanes AS MATERIALIZED (
        SELECT user_id, turn FROM ready_lanes WHERE call_type = 'direct' ORDER BY turn, user_id LIMIT v_free
    ), turns AS (
        SELECT l.user_id, 720720 / u.weight AS stride, l.turn + (n - 1) * (720720 / u.weight) AS turn
        FROM lanes l
        JOIN user_slots s ON s.user_id = l.user_id
        JOIN users u ON u.id = l.user_id
        CROSS JOIN LATERAL generate_series(1,
            least(v_free, s.due_direct, u.concurrent_calls_limit - s.active_direct - s.active_campaign)) n
        ORDER BY turn, l.user_id
        LIMIT v_free
    ), shares AS (
        SELECT user_id, stride, count(*)::integer AS calls, min(turn) AS first_turn
        FROM turns GROUP BY user_id, stride
    )
    SELECT array_agg(h.id ORDER BY s.first_turn + (h.nth - 1) * s.stride, s.user_id)
    INTO v_items
    FROM shares s
    CROSS JOIN LATERAL (
        SELECT q.id, row_number() OVER (ORDER BY q.priority DESC, q.position) AS nth
        FROM call_queue q
        WHERE q.user_id = s.user_id AND q.status = 'queued' AND q.call_type = 'direct' AND q.wakes_at IS NULL
        ORDER BY q.priority DESC, q.position
        LIMIT s.calls
    ) h;
    IF v_items IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM start_calls(p_server, p_provider, v_items, p_now);
    RETURN v_items;
END
$$;
COMMENT ON FUNCTION reserve_direct_calls(uuid, text, integer, timestamptz) IS
    'Gives free slots to waiting direct calls, at most p_limit, users in turn, each user''s calls in order; returns the items started, in turn order. Needs lock_engine.';

CREATE FUNCTION reserve_campaign_calls(p_server uuid, p_provider text, p_limit integer, p_now timestamptz)
RETURNS uuid[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_free integer;
    v_items uuid[];
BEGIN
    SELECT CASE WHEN dispatch_paused THEN 0 ELSE least(p_limit, concurrent_calls_limit - active) END
    INTO v_free FROM system_state;
    IF v_free <= 0 OR EXISTS (SELECT FROM ready_lanes WHERE call_type = 'direct') THEN
        RETURN '{}';
    END IF;
    WITH lanes AS MATERIALIZED (
        SELECT user_id, turn FROM ready_lanes WHERE call_type = 'campaign' ORDER BY turn, user_id LIMIT v_free
    ), turns AS (
        SELECT l.user_id, 720720 / u.weight AS stride, l.turn + (n - 1) * (720720 / u.weight) AS turn
        FROM lanes l
        JOIN user_slots s ON s.user_id = l.user_id
        JOIN users u ON u.id = l.user_id
        CROSS JOIN LATERAL generate_series(1, least(v_free, s.due_campaign,
            u.concurrent_calls_limit - u.direct_reserved_slots - s.active_direct - s.active_campaign)) n
        ORDER BY turn, l.user_id
        LIMIT v_free
    ), shares AS (
        SELECT user_id, stride, count(*)::integer AS calls, min(turn) AS first_turn
        FROM turns GROUP BY user_id, stride
    )
    SELECT array_agg(h.id ORDER BY s.first_turn + (h.nth - 1) * s.stride, s.user_id)
    INTO v_items
    FROM shares s
    CROSS JOIN LATERAL (
        SELECT q.id, row_number() OVER (ORDER BY q.priority DESC, q.position) AS nth
        FROM campaign_slots c
        CROSS JOIN LATERAL (
            SELECT cq.id, cq.priority, cq.position
            FROM call_queue cq
            WHERE cq.campaign_id = c.campaign_id AND cq.status = 'queued' AND cq.call_type = 'campaign'
                AND cq.wakes_at IS NULL
            ORDER BY cq.priority DESC, cq.position
            LIMIT s.calls
        ) q
        WHERE c.user_id = s.user_id AND c.open
        ORDER BY q.priority DESC, q.position
        LIMIT s.calls
    ) h;
    IF v_items IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM start_calls(p_server, p_provider, v_items, p_now);
    RETURN v_items;
END
$$;
COMMENT ON FUNCTION reserve_campaign_calls(uuid, text, integer, timestamptz) IS
    'As reserve_direct_calls, for campaign calls of open campaigns; does nothing while any direct call is ready to go. Needs lock_engine.';

CREATE FUNCTION reserved_calls(p_items uuid[])
RETURNS TABLE (
    item_id uuid, call_id uuid, attempt integer, user_id uuid, agent_id uuid, campaign_id uuid, provider text,
    phone_number text, caller_id text, provider_agent_id text, settings text, contact_name text, user_data text
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT q.id, c.call_id, c.attempt, q.user_id, q.agent_id, q.campaign_id, c.provider, q.phone_number,
        coalesce(q.caller_id, a.caller_id), a.provider_agent_id, a.settings::text, q.contact_name, q.user_data::text
    FROM unnest(p_items) WITH ORDINALITY i (id, nth)
    JOIN call_queue q ON q.id = i.id
    JOIN active_calls c ON c.item_id = i.id
    JOIN agents a ON a.id = q.agent_id
    ORDER BY i.nth;
END
$$;
COMMENT ON FUNCTION reserved_calls(uuid[]) IS 'What a provider must be told of these items, in the order given.';

-- Ending and returning --------------------------------------------------------------------------

CREATE FUNCTION complete_campaigns(p_campaigns uuid[], p_now timestamptz) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    WITH done AS (
        UPDATE campaigns c SET status = 'completed', finished_at = p_now, updated_at = p_now
        FROM campaign_slots s
        WHERE c.id = ANY (p_campaigns) AND s.campaign_id = c.id AND c.status IN ('active', 'paused')
            AND s.due = 0 AND s.later = 0 AND s.active = 0
        RETURNING c.id
    )
    UPDATE campaign_slots SET open = false WHERE campaign_id IN (SELECT id FROM done) AND open;
END
$$;
COMMENT ON FUNCTION complete_campaigns(uuid[], timestamptz) IS
    'Marks those of these campaigns completed, and closes them, whose every contact is accounted for.';

CREATE FUNCTION end_calls(
    p_server uuid, p_calls uuid[], p_attempts integer[], p_outcomes text[], p_executions text[], p_reasons text[],
    p_durations integer[], p_now timestamptz
) RETURNS TABLE (effect text) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_ended bigint[];
    v_users uuid[];
    v_campaigns uuid[];
BEGIN
    PERFORM lock_calls(p_calls);

    WITH asked AS (
        SELECT DISTINCT ON (i.call_id) i.*
        FROM unnest(p_calls, p_attempts, p_outcomes, p_executions, p_reasons, p_durations)
            WITH ORDINALITY i (call_id, attempt, outcome, execution_id, reason, duration, nth)
        JOIN active_calls a ON a.call_id = i.call_id
            AND (i.attempt IS NULL OR (a.attempt = i.attempt AND a.owner = p_server))
            -- An end of another execution is not this call's.
            AND (i.execution_id IS NULL OR a.execution_id IS NULL OR i.execution_id = a.execution_id)
        ORDER BY i.call_id, i.nth
    ), freed AS (
        DELETE FROM active_calls a USING asked i WHERE a.call_id = i.call_id
        RETURNING i.nth, i.duration,
            -- A call given up for its length failed, whatever its hang-up is reported as.
            CASE WHEN a.overdue THEN 'failed' ELSE i.outcome END AS outcome,
            CASE WHEN a.overdue THEN 'timed_out' ELSE i.reason END AS ended_because,
            coalesce(a.execution_id, i.execution_id) AS execution_id, a.call_id, a.item_id, a.provider, a.attempt,
            a.reserved_at, a.answered_at, a.dialing_at
    ), items AS (
        DELETE FROM call_queue q USING freed f WHERE q.id = f.item_id RETURNING q.*
    ), ended AS (
        SELECT f.*, q.user_id, q.agent_id, q.contact_id, q.campaign_id, q.call_type, q.phone_number, q.contact_name
        FROM freed f JOIN items q ON q.id = f.item_id
    ), item_history AS (
        INSERT INTO call_queue_history (id, user_id, agent_id, contact_id, campaign_id, priority, position, status,
            reason, scheduled_for, queued_at, started_at, finished_at, call_type, phone_number, contact_name, user_data,
            caller_id, expires_at, due_at, due_since, attempts, call_id)
        SELECT q.id, q.user_id, q.agent_id, q.contact_id, q.campaign_id, q.priority, q.position,
            CASE f.outcome WHEN 'completed' THEN 'completed' WHEN 'cancelled' THEN 'cancelled' ELSE 'failed' END,
            coalesce(f.ended_because, f.outcome), q.scheduled_for, q.queued_at, q.started_at, p_now, q.call_type,
            q.phone_number, q.contact_name, q.user_data, q.caller_id, q.expires_at, q.due_at, q.due_since, q.attempts,
            q.call_id
        FROM items q JOIN freed f ON f.item_id = q.id
    ), call_history AS (
        INSERT INTO calls (id, item_id, user_id, agent_id, contact_id, call_type, campaign_id, phone_number,
            contact_name, provider, execution_id, status, reason, attempts, reserved_at, answered_at, ended_at,
            duration_seconds)
        SELECT call_id, item_id, user_id, agent_id, contact_id, call_type, campaign_id, phone_number, contact_name,
            provider, execution_id, outcome, ended_because, attempt, reserved_at, answered_at, p_now, duration
        FROM ended
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, reason, server)
        SELECT p_now, user_id, item_id, call_id, attempt, outcome, ended_because, p_server FROM ended
    ), per_user AS (
        SELECT user_id, count(*) FILTER (WHERE call_type = 'direct') AS direct,
            count(*) FILTER (WHERE call_type = 'campaign') AS campaign,
            count(execution_id)::integer AS held,
            extract(epoch FROM avg(p_now - reserved_at) FILTER (WHERE execution_id IS NOT NULL)) * 1000 AS mean_ms
        FROM ended GROUP BY user_id
    ), counted AS (
        UPDATE user_slots s SET
            active_direct = s.active_direct - p.direct, active_campaign = s.active_campaign - p.campaign,
            hold_samples = least(s.hold_samples + p.held, 1000000),
            mean_hold_ms = CASE WHEN p.held = 0 THEN s.mean_hold_ms
                WHEN s.hold_samples = 0 THEN p.mean_ms
                ELSE s.mean_hold_ms + (1 - power(0.8, p.held)) * (p.mean_ms - s.mean_hold_ms) END
        FROM per_user p WHERE s.user_id = p.user_id
        RETURNING s.user_id
    ), campaigns_counted AS (
        UPDATE campaign_slots c SET active = c.active - p.calls, completed = c.completed + p.completed,
            cancelled = c.cancelled + p.cancelled, failed = c.failed + p.calls - p.completed - p.cancelled
        FROM (
            SELECT campaign_id, count(*) AS calls, count(*) FILTER (WHERE outcome = 'completed') AS completed,
                count(*) FILTER (WHERE outcome = 'cancelled') AS cancelled
            FROM ended WHERE campaign_id IS NOT NULL GROUP BY campaign_id
        ) p
        WHERE c.campaign_id = p.campaign_id
        RETURNING c.campaign_id
    ), system_counted AS (
        UPDATE system_state SET active = active - (SELECT count(*) FROM ended) WHERE EXISTS (SELECT FROM ended)
    )
    SELECT (SELECT array_agg(nth) FROM freed), (SELECT array_agg(user_id) FROM counted),
        (SELECT array_agg(campaign_id) FROM campaigns_counted)
    INTO v_ended, v_users, v_campaigns;

    IF v_campaigns IS NOT NULL THEN
        PERFORM complete_campaigns(v_campaigns, p_now);
    END IF;
    IF v_users IS NOT NULL THEN
        PERFORM refile_lanes(v_users);
    END IF;

    RETURN QUERY
    SELECT CASE
        WHEN i.nth = ANY (v_ended) THEN 'ended'
        WHEN EXISTS (SELECT FROM calls c WHERE c.id = i.call_id)
            OR EXISTS (SELECT FROM active_calls a WHERE a.call_id = i.call_id)
            OR EXISTS (SELECT FROM call_queue q WHERE q.call_id = i.call_id AND q.status = 'queued') THEN 'ignored'
        ELSE 'unknown'
    END
    FROM unnest(p_calls) WITH ORDINALITY i (call_id, nth)
    ORDER BY i.nth;
END
$$;
COMMENT ON FUNCTION end_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz) IS
    'Ends calls and frees their slots, each once. An ending with an attempt takes effect only for the current attempt of p_server. Answers ended, ignored or unknown for each, in order. Needs lock_engine.';

CREATE FUNCTION return_calls(
    p_server uuid, p_calls uuid[], p_attempts integer[], p_delays_ms bigint[], p_reasons text[],
    p_if_unknown boolean[], p_now timestamptz
) RETURNS TABLE (item_id uuid) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_items uuid[];
    v_users uuid[];
BEGIN
    PERFORM lock_calls(p_calls);

    WITH freed AS (
        DELETE FROM active_calls a
        USING unnest(p_calls, p_attempts, p_delays_ms, p_reasons, p_if_unknown)
            WITH ORDINALITY i (call_id, attempt, delay_ms, reason, if_unknown, nth)
        WHERE a.call_id = i.call_id AND a.attempt = i.attempt AND a.owner = p_server AND a.execution_id IS NULL
            AND (a.status = 'unknown' OR (a.status IN ('reserved', 'dialing') AND NOT i.if_unknown))
        RETURNING i.nth, i.reason, p_now + make_interval(secs => i.delay_ms / 1000.0) AS until, i.delay_ms,
            a.call_id, a.item_id, a.attempt
    ), waiting AS (
        -- The lane is held for the delay, so the item stays at its head. One that keeps coming back
        -- also steps aside itself, so that it cannot block the calls behind it for ever.
        UPDATE call_queue q SET status = 'queued', started_at = NULL, reason = f.reason, due_since = p_now,
            wakes_at = CASE WHEN f.attempt >= 4 AND f.delay_ms > 0 THEN f.until END
        FROM freed f WHERE q.id = f.item_id
        RETURNING q.id, q.user_id, q.call_type, q.campaign_id, q.wakes_at, f.nth, f.reason, f.until, f.delay_ms,
            f.call_id, f.attempt
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, reason, server)
        SELECT p_now, user_id, id, call_id, attempt, 'queued', reason, p_server FROM waiting
    ), per_campaign AS (
        SELECT campaign_id, count(*) AS calls, count(*) FILTER (WHERE wakes_at IS NULL) AS due
        FROM waiting WHERE campaign_id IS NOT NULL GROUP BY campaign_id
    ), campaigns_counted AS (
        UPDATE campaign_slots c SET active = c.active - p.calls, due = c.due + p.due, later = c.later + p.calls - p.due
        FROM per_campaign p WHERE c.campaign_id = p.campaign_id
        RETURNING c.user_id, CASE WHEN c.open THEN p.due ELSE 0 END AS due
    ), per_user AS (
        SELECT w.user_id,
            count(*) FILTER (WHERE w.call_type = 'direct') AS direct,
            count(*) FILTER (WHERE w.call_type = 'direct' AND w.wakes_at IS NULL) AS due_direct,
            count(*) FILTER (WHERE w.call_type = 'campaign') AS campaign,
            max(w.until) FILTER (WHERE w.call_type = 'direct' AND w.delay_ms > 0) AS held_direct,
            max(w.until) FILTER (WHERE w.call_type = 'campaign' AND w.delay_ms > 0) AS held_campaign
        FROM waiting w GROUP BY w.user_id
    ), counted AS (
        UPDATE user_slots s SET
            active_direct = s.active_direct - p.direct, due_direct = s.due_direct + p.due_direct,
            later_direct = s.later_direct + p.direct - p.due_direct,
            active_campaign = s.active_campaign - p.campaign,
            due_campaign = s.due_campaign + coalesce((SELECT sum(c.due) FROM campaigns_counted c WHERE c.user_id = p.user_id), 0),
            held_direct = greatest(s.held_direct, p.held_direct), held_campaign = greatest(s.held_campaign, p.held_campaign)
        FROM per_user p WHERE s.user_id = p.user_id
        RETURNING s.user_id
    ), system_counted AS (
        UPDATE system_state SET active = active - (SELECT count(*) FROM waiting) WHERE EXISTS (SELECT FROM waiting)
    )
    SELECT (SELECT array_agg(w.id ORDER BY w.nth) FROM waiting w), (SELECT array_agg(c.user_id) FROM counted c)
    INTO v_items, v_users;

    IF v_users IS NOT NULL THEN
        PERFORM refile_lanes(v_users);
    END IF;
    RETURN QUERY
    SELECT q.id FROM unnest(p_calls) WITH ORDINALITY i (call_id, nth)
    LEFT JOIN call_queue q ON q.call_id = i.call_id AND q.status = 'queued' AND q.id = ANY (v_items)
    ORDER BY i.nth;
END
$$;
COMMENT ON FUNCTION return_calls(uuid, uuid[], integer[], bigint[], text[], boolean[], timestamptz) IS
    'Puts calls whose current attempt provably reached nobody back into their place and frees their slots. Their user''s calls of that type wait for the delay. With p_if_unknown only while nothing has proved the call since. Answers the item for each, or null where the attempt was not p_server''s to return. Needs lock_engine.';

CREATE FUNCTION withdraw_items(p_items uuid[], p_status text, p_reason text, p_server uuid, p_now timestamptz)
RETURNS SETOF uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_items uuid[];
    v_users uuid[];
    v_campaigns uuid[];
BEGIN
    PERFORM FROM call_queue q WHERE q.id = ANY (p_items) ORDER BY q.id FOR UPDATE;

    WITH gone AS (
        DELETE FROM call_queue q WHERE q.id = ANY (p_items) AND q.status = 'queued' RETURNING q.*
    ), history AS (
        INSERT INTO call_queue_history (id, user_id, agent_id, contact_id, campaign_id, priority, position, status,
            reason, scheduled_for, queued_at, finished_at, call_type, phone_number, contact_name, user_data,
            caller_id, expires_at, wakes_at, due_at, due_since, attempts, call_id)
        SELECT id, user_id, agent_id, contact_id, campaign_id, priority, position, p_status, p_reason, scheduled_for,
            queued_at, p_now, call_type, phone_number, contact_name, user_data, caller_id, expires_at, wakes_at, due_at,
            due_since, attempts, call_id
        FROM gone
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, status, reason, server)
        SELECT p_now, user_id, id, call_id, p_status, p_reason, p_server FROM gone
    ), per_campaign AS (
        SELECT campaign_id, count(*) AS calls, count(*) FILTER (WHERE wakes_at IS NULL) AS due
        FROM gone WHERE campaign_id IS NOT NULL GROUP BY campaign_id
    ), campaigns_counted AS (
        UPDATE campaign_slots c SET due = c.due - p.due, later = c.later - (p.calls - p.due),
            cancelled = c.cancelled + CASE p_status WHEN 'cancelled' THEN p.calls ELSE 0 END,
            expired = c.expired + CASE p_status WHEN 'expired' THEN p.calls ELSE 0 END
        FROM per_campaign p WHERE c.campaign_id = p.campaign_id
        RETURNING c.campaign_id, c.user_id, CASE WHEN c.open THEN p.due ELSE 0 END AS due
    ), per_user AS (
        SELECT user_id, count(*) FILTER (WHERE call_type = 'direct' AND wakes_at IS NULL) AS due_direct,
            count(*) FILTER (WHERE call_type = 'direct' AND wakes_at IS NOT NULL) AS later_direct
        FROM gone GROUP BY user_id
    ), counted AS (
        UPDATE user_slots s SET due_direct = s.due_direct - p.due_direct, later_direct = s.later_direct - p.later_direct,
            due_campaign = s.due_campaign - coalesce((SELECT sum(c.due) FROM campaigns_counted c WHERE c.user_id = p.user_id), 0)
        FROM per_user p WHERE s.user_id = p.user_id
        RETURNING s.user_id
    )
    SELECT (SELECT array_agg(id) FROM gone), (SELECT array_agg(user_id) FROM counted),
        (SELECT array_agg(campaign_id) FROM campaigns_counted)
    INTO v_items, v_users, v_campaigns;

    IF v_campaigns IS NOT NULL THEN
        PERFORM complete_campaigns(v_campaigns, p_now);
    END IF;
    IF v_users IS NOT NULL THEN
        PERFORM refile_lanes(v_users);
    END IF;
    RETURN QUERY SELECT unnest(v_items);
END
$$;
COMMENT ON FUNCTION withdraw_items(uuid[], text, text, uuid, timestamptz) IS
    'Ends waiting items as cancelled or expired; returns those that did wait. Needs lock_engine.';

CREATE FUNCTION disown_items(p_server uuid, p_items uuid[], p_now timestamptz) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_calls uuid[];
    v_count integer;
    v_reason text := 'its caller was told that it was not accepted';
BEGIN
    DELETE FROM idempotency_keys WHERE item_id = ANY (p_items) AND body IS NULL;
    PERFORM withdraw_items(p_items, 'cancelled', v_reason, p_server, p_now);
    SELECT array_agg(call_id), count(*) INTO v_calls, v_count
    FROM active_calls WHERE item_id = ANY (p_items) AND owner = p_server AND status = 'reserved';
    IF v_calls IS NOT NULL THEN
        PERFORM end_calls(p_server, v_calls, array_fill(NULL::integer, ARRAY[v_count]),
            array_fill('cancelled'::text, ARRAY[v_count]), array_fill(NULL::text, ARRAY[v_count]),
            array_fill(v_reason, ARRAY[v_count]), array_fill(NULL::integer, ARRAY[v_count]), p_now);
    END IF;
END
$$;
COMMENT ON FUNCTION disown_items(uuid, uuid[], timestamptz) IS
    'Cancels direct calls whose admission may have been committed although its answer was lost and its caller was told no. Those never committed are not there; those another server has begun to dial go on. Needs lock_engine.';

CREATE FUNCTION wake_and_expire(p_server uuid, p_now timestamptz) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_all_expired boolean := true;
    v_items uuid[];
    v_users uuid[];
BEGIN
    SELECT array_agg(id) INTO v_items FROM (
        SELECT id FROM call_queue WHERE status = 'queued' AND expires_at IS NOT NULL AND expires_at <= p_now
        ORDER BY expires_at LIMIT 1000
    ) q;
    IF v_items IS NOT NULL THEN
        PERFORM withdraw_items(v_items, 'expired', 'did not start before its expiry', p_server, p_now);
        v_all_expired := NOT EXISTS (
            SELECT FROM call_queue WHERE status = 'queued' AND expires_at IS NOT NULL AND expires_at <= p_now);
    END IF;

    SELECT array_agg(id) INTO v_items FROM (
        SELECT id FROM call_queue WHERE status = 'queued' AND wakes_at IS NOT NULL AND wakes_at <= p_now
        ORDER BY wakes_at LIMIT 1000
    ) q;
    IF v_items IS NOT NULL THEN
        PERFORM FROM call_queue WHERE id = ANY (v_items) ORDER BY id FOR UPDATE;
        WITH woken AS (
            UPDATE call_queue SET wakes_at = NULL, due_since = p_now WHERE id = ANY (v_items)
            RETURNING user_id, call_type, campaign_id
        ), campaigns_counted AS (
            UPDATE campaign_slots c SET due = c.due + p.calls, later = c.later - p.calls
            FROM (SELECT campaign_id, count(*) AS calls FROM woken WHERE campaign_id IS NOT NULL GROUP BY campaign_id) p
            WHERE c.campaign_id = p.campaign_id
            RETURNING c.user_id, CASE WHEN c.open THEN p.calls ELSE 0 END AS due
        ), counted AS (
            UPDATE user_slots s SET due_direct = s.due_direct + p.direct, later_direct = s.later_direct - p.direct,
                due_campaign = s.due_campaign + coalesce((SELECT sum(c.due) FROM campaigns_counted c WHERE c.user_id = p.user_id), 0)
            FROM (SELECT user_id, count(*) FILTER (WHERE call_type = 'direct') AS direct FROM woken GROUP BY user_id) p
            WHERE s.user_id = p.user_id
            RETURNING s.user_id
        )
        SELECT array_agg(user_id) INTO v_users FROM counted;
        PERFORM refile_lanes(v_users);
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

CREATE FUNCTION engine_outlook(p_now timestamptz) RETURNS TABLE (next_timer_ms bigint, more boolean)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT CASE WHEN t.next IS NOT NULL
            THEN greatest(0, ceil(extract(epoch FROM t.next - p_now) * 1000))::bigint END,
        (SELECT NOT s.dispatch_paused AND s.active < s.concurrent_calls_limit FROM system_state s)
            AND EXISTS (SELECT FROM ready_lanes)
    FROM (
        SELECT least(
            (SELECT min(q.wakes_at) FROM call_queue q WHERE q.status = 'queued' AND q.wakes_at IS NOT NULL),
            (SELECT min(q.expires_at) FROM call_queue q WHERE q.status = 'queued' AND q.expires_at IS NOT NULL),
            (SELECT min(s.held_direct) FROM user_slots s WHERE s.held_direct IS NOT NULL),
            (SELECT min(s.held_campaign) FROM user_slots s WHERE s.held_campaign IS NOT NULL)
        ) AS next
    ) t;
END
$$;
COMMENT ON FUNCTION engine_outlook(timestamptz) IS
    'Milliseconds until something becomes due by itself, null for never; and whether a ready call could go now.';

-- The door --------------------------------------------------------------------------------------

CREATE TYPE admission AS (
    nth bigint, item_id uuid, user_id uuid, agent_id uuid, contact_id uuid, phone_number text, contact_name text,
    user_data jsonb, caller_id text, wakes_at timestamptz, expires_at timestamptz, verdict text, number bigint
);

CREATE FUNCTION admit_direct_calls(
    p_server uuid, p_provider text,
    p_items uuid[], p_users uuid[], p_agents uuid[], p_contacts uuid[], p_numbers text[], p_names text[],
    p_user_data text[], p_caller_ids text[], p_scheduled timestamptz[], p_expires_ms bigint[],
    p_keys text[], p_hashes bytea[], p_now timestamptz
) RETURNS TABLE (
    verdict text, item_id uuid, number bigint, "limit" bigint, ahead bigint, total bigint, slots integer,
    samples integer, mean_hold_ms double precision, wakes_at timestamptz, expires_at timestamptz, saved_body text
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_rows admission[];
    v_starts uuid[];
    v_users uuid[];
    v_system system_state;
    v_open boolean;
BEGIN
    IF EXISTS (SELECT FROM unnest(p_keys) k WHERE k IS NOT NULL) THEN
        DELETE FROM idempotency_keys k USING unnest(p_users, p_keys) i (user_id, key)
        WHERE k.user_id = i.user_id AND k.key = i.key AND k.created_at <= p_now - interval '24 hours';
    END IF;
    -- Judge each request: known before, refused, or accepted.
    SELECT array_agg(ROW (
        i.nth, i.item_id, i.user_id, i.agent_id, i.contact_id, coalesce(i.phone_number, c.phone_number),
        coalesce(i.contact_name, c.name), coalesce(i.user_data::jsonb, c.user_data), i.caller_id,
        CASE WHEN i.scheduled_for > p_now THEN i.scheduled_for END,
        p_now + make_interval(secs => i.expires_ms / 1000.0),
        CASE
            WHEN again.id IS NOT NULL THEN 'again'
            WHEN k.item_id IS NOT NULL AND k.request_hash <> i.request_hash THEN 'mismatch'
            WHEN k.body IS NOT NULL THEN 'answered'
            -- Longer than any placement takes, an answer that was never kept is not coming.
            WHEN k.created_at > p_now - interval '6 minutes'
                AND EXISTS (SELECT FROM servers s WHERE s.id = k.server AND s.lease_until > p_now)
                THEN 'in_progress'
            WHEN k.item_id IS NOT NULL THEN 'unanswered'
            WHEN u.id IS NULL THEN 'unknown_user'
            WHEN a.id IS NULL THEN 'unknown_agent'
            WHEN i.contact_id IS NOT NULL AND c.id IS NULL THEN 'unknown_contact'
            WHEN u.credits <= 0 THEN 'no_credits'
            ELSE 'accepted'
        END,
        u.credits
    )::admission ORDER BY i.nth)
    INTO v_rows
    FROM unnest(p_items, p_users, p_agents, p_contacts, p_numbers, p_names, p_user_data, p_caller_ids, p_scheduled,
            p_expires_ms, p_keys, p_hashes)
        WITH ORDINALITY i (item_id, user_id, agent_id, contact_id, phone_number, contact_name, user_data, caller_id,
            scheduled_for, expires_ms, key, request_hash, nth)
    LEFT JOIN call_queue again ON again.id = i.item_id
    LEFT JOIN idempotency_keys k ON k.user_id = i.user_id AND k.key = i.key
    LEFT JOIN users u ON u.id = i.user_id
    LEFT JOIN agents a ON a.id = i.agent_id AND a.user_id = i.user_id
    LEFT JOIN contacts c ON c.id = i.contact_id AND c.user_id = i.user_id;

    IF EXISTS (SELECT FROM unnest(p_keys) k WHERE k IS NOT NULL) THEN
        WITH kept AS (
            INSERT INTO idempotency_keys (user_id, key, request_hash, item_id, server, created_at)
            SELECT r.user_id, i.key, i.request_hash, r.item_id, p_server, p_now
            FROM unnest(v_rows) r
            JOIN unnest(p_keys, p_hashes) WITH ORDINALITY i (key, request_hash, nth) ON i.nth = r.nth
            WHERE r.verdict = 'accepted' AND i.key IS NOT NULL
            ORDER BY r.nth
            ON CONFLICT DO NOTHING
            RETURNING idempotency_keys.item_id
        ), judged AS (
            -- Two requests with one key in one batch: the first has it.
            SELECT r.nth, r.item_id, r.user_id, r.agent_id, r.contact_id, r.phone_number, r.contact_name, r.user_data,
                r.caller_id, r.wakes_at, r.expires_at,
                CASE WHEN r.verdict = 'accepted' AND p_keys[r.nth] IS NOT NULL
                        AND NOT EXISTS (SELECT FROM kept WHERE kept.item_id = r.item_id)
                    THEN CASE WHEN EXISTS (
                        SELECT FROM unnest(p_users, p_keys, p_hashes) o (user_id, key, request_hash)
                        WHERE o.user_id = r.user_id AND o.key = p_keys[r.nth] AND o.request_hash <> p_hashes[r.nth]
                    ) THEN 'mismatch' ELSE 'in_progress' END
                    ELSE r.verdict END AS verdict,
                r.number
            FROM unnest(v_rows) r
        )
        SELECT array_agg(ROW (j.*)::admission ORDER BY j.nth) INTO v_rows FROM judged j;
    END IF;

    -- Who of the accepted may start: slots free for the user and the system, and no direct call
    -- waiting that could use them. In order of arrival.
    SELECT * INTO v_system FROM system_state;
    v_open := NOT v_system.dispatch_paused AND NOT EXISTS (SELECT FROM ready_lanes WHERE call_type = 'direct');
    WITH asking AS (
        SELECT r.nth, r.item_id, r.user_id, row_number() OVER (PARTITION BY r.user_id ORDER BY r.nth) AS nth_of_user
        FROM unnest(v_rows) r WHERE r.verdict = 'accepted' AND r.wakes_at IS NULL
    )
    SELECT array_agg(q.item_id ORDER BY q.nth) INTO v_starts
    FROM (
        SELECT k.item_id, k.nth
        FROM asking k
        JOIN user_slots s ON s.user_id = k.user_id
        JOIN users u ON u.id = k.user_id
        WHERE v_open AND s.due_direct = 0
            AND k.nth_of_user <= u.concurrent_calls_limit - s.active_direct - s.active_campaign
        ORDER BY k.nth
        LIMIT greatest(0, v_system.concurrent_calls_limit - v_system.active)
    ) q;

    RETURN QUERY
    WITH accepted AS (
        SELECT r.*, r.item_id = ANY (coalesce(v_starts, '{}')) AS starts FROM unnest(v_rows) r WHERE r.verdict = 'accepted'
    ), lines AS (
        SELECT a.nth, a.item_id, a.user_id, a.starts,
            count(*) FILTER (WHERE a.starts) OVER (PARTITION BY a.user_id) AS user_starts,
            count(*) FILTER (WHERE NOT a.starts AND a.wakes_at IS NULL)
                OVER (PARTITION BY a.user_id ORDER BY a.nth ROWS UNBOUNDED PRECEDING) AS nth_due,
            count(*) FILTER (WHERE NOT a.starts)
                OVER (PARTITION BY a.user_id ORDER BY a.nth ROWS UNBOUNDED PRECEDING) AS nth_waiting
        FROM accepted a
    )
    SELECT CASE
            WHEN r.verdict <> 'accepted' THEN r.verdict
            WHEN l.starts THEN 'started'
            WHEN r.wakes_at IS NOT NULL THEN 'scheduled'
            WHEN v_system.dispatch_paused THEN 'paused'
            WHEN s.active_direct + s.active_campaign + l.user_starts >= u.concurrent_calls_limit THEN 'user_limit'
            WHEN v_system.active + coalesce(cardinality(v_starts), 0) >= v_system.concurrent_calls_limit THEN 'system_limit'
            ELSE 'earlier_calls'
        END,
        CASE WHEN r.verdict IN ('unanswered', 'answered') THEN k.item_id ELSE r.item_id END,
        CASE
            WHEN r.verdict = 'answered' THEN k.status::bigint
            WHEN r.verdict <> 'accepted' THEN r.number
            WHEN s.active_direct + s.active_campaign + l.user_starts >= u.concurrent_calls_limit
                THEN s.active_direct + s.active_campaign + l.user_starts
            ELSE v_system.active + coalesce(cardinality(v_starts), 0)
        END,
        CASE WHEN s.active_direct + s.active_campaign + l.user_starts >= u.concurrent_calls_limit
            THEN u.concurrent_calls_limit ELSE v_system.concurrent_calls_limit END::bigint,
        s.due_direct + l.nth_due - CASE WHEN r.wakes_at IS NULL THEN 1 ELSE 0 END,
        s.due_direct + s.later_direct + l.nth_waiting,
        least(u.concurrent_calls_limit, v_system.concurrent_calls_limit), s.hold_samples, s.mean_hold_ms,
        r.wakes_at, r.expires_at, k.body
    FROM unnest(v_rows) r
    LEFT JOIN lines l ON l.nth = r.nth
    LEFT JOIN users u ON u.id = r.user_id
    LEFT JOIN user_slots s ON s.user_id = r.user_id
    LEFT JOIN idempotency_keys k ON r.verdict IN ('unanswered', 'answered')
        AND k.user_id = r.user_id AND k.key = p_keys[r.nth]
    ORDER BY r.nth;

    WITH accepted AS (
        SELECT r.* FROM unnest(v_rows) r WHERE r.verdict = 'accepted'
    ), queued AS (
        INSERT INTO call_queue (id, user_id, agent_id, contact_id, call_type, priority, position, status, phone_number,
            contact_name, user_data, caller_id, scheduled_for, wakes_at, due_at, due_since, expires_at, queued_at)
        SELECT a.item_id, a.user_id, a.agent_id, a.contact_id, 'direct', 100, nextval('call_queue_position_seq'),
            'queued', a.phone_number, a.contact_name, a.user_data, a.caller_id, a.wakes_at, a.wakes_at,
            coalesce(a.wakes_at, p_now), coalesce(a.wakes_at, p_now), a.expires_at, p_now
        FROM accepted a ORDER BY a.nth
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, status, server)
        SELECT p_now, a.user_id, a.item_id, 'queued', p_server FROM accepted a
        WHERE NOT a.item_id = ANY (coalesce(v_starts, '{}'))
    ), counted AS (
        UPDATE user_slots s SET due_direct = s.due_direct + p.due, later_direct = s.later_direct + p.later
        FROM (
            SELECT a.user_id, count(*) FILTER (WHERE a.wakes_at IS NULL) AS due,
                count(*) FILTER (WHERE a.wakes_at IS NOT NULL) AS later
            FROM accepted a GROUP BY a.user_id
        ) p
        WHERE s.user_id = p.user_id
        RETURNING s.user_id
    )
    SELECT array_agg(c.user_id) INTO v_users FROM counted c;

    IF v_starts IS NOT NULL THEN
        PERFORM start_calls(p_server, p_provider, v_starts, p_now);
    END IF;
    IF v_users IS NOT NULL THEN
        PERFORM refile_lanes(v_users);
    END IF;
END
$$;
COMMENT ON FUNCTION admit_direct_calls(uuid, text, uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    timestamptz[], bigint[], text[], bytea[], timestamptz) IS
    'Decides direct calls at the door, in order: started (a slot is reserved), queued with a reason, refused, or known before. A refused request writes nothing. Needs lock_engine.';

-- Progress of calls that hold a slot: no counters move, so no engine lock ------------------------

CREATE FUNCTION mark_dialing(p_server uuid, p_calls uuid[], p_attempts integer[]) RETURNS TABLE (of_call uuid, of_attempt integer)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz;
BEGIN
    PERFORM lock_calls(p_calls);
    v_now := clock_timestamp();
    RETURN QUERY
    WITH marked AS (
        UPDATE active_calls a SET status = 'dialing', dialing_at = v_now
        FROM unnest(p_calls, p_attempts) i (call_id, attempt)
        WHERE a.call_id = i.call_id AND a.attempt = i.attempt AND a.owner = p_server AND a.status = 'reserved'
            AND EXISTS (SELECT FROM servers s WHERE s.id = p_server AND s.lease_until > v_now)
        RETURNING a.*
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, server)
        SELECT v_now, m.user_id, m.item_id, m.call_id, m.attempt, 'dialing', p_server FROM marked m
    )
    SELECT m.call_id, m.attempt FROM marked m;
END
$$;
COMMENT ON FUNCTION mark_dialing(uuid, uuid[], integer[]) IS
    'Authorises attempts: returns those that p_server may now send, each once in its life. None while the lease of p_server is over.';

CREATE FUNCTION record_placed(p_server uuid, p_calls uuid[], p_attempts integer[], p_executions text[])
RETURNS TABLE (of_call uuid, of_attempt integer) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz;
BEGIN
    PERFORM lock_calls(p_calls);
    v_now := clock_timestamp();
    RETURN QUERY
    WITH placed AS (
        UPDATE active_calls a SET execution_id = i.execution_id, reason = NULL,
            status = CASE a.status WHEN 'unknown' THEN 'dialing' ELSE a.status END
        FROM unnest(p_calls, p_attempts, p_executions) i (call_id, attempt, execution_id)
        WHERE a.call_id = i.call_id AND a.attempt = i.attempt AND a.owner = p_server AND a.status <> 'reserved'
            AND a.execution_id IS NULL
        RETURNING a.*
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, server)
        SELECT v_now, p.user_id, p.item_id, p.call_id, p.attempt, 'placed', p_server FROM placed p
    )
    SELECT p.call_id, p.attempt FROM placed p;
END
$$;
COMMENT ON FUNCTION record_placed(uuid, uuid[], integer[], text[]) IS
    'Notes the provider''s name for calls it took; returns those for which it was news.';

CREATE FUNCTION record_unknown(p_server uuid, p_calls uuid[], p_attempts integer[], p_reasons text[])
RETURNS TABLE (of_call uuid, of_attempt integer) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz;
BEGIN
    PERFORM lock_calls(p_calls);
    v_now := clock_timestamp();
    RETURN QUERY
    WITH lost AS (
        UPDATE active_calls a SET status = 'unknown', reason = i.reason
        FROM unnest(p_calls, p_attempts, p_reasons) i (call_id, attempt, reason)
        WHERE a.call_id = i.call_id AND a.attempt = i.attempt AND a.owner = p_server AND a.status = 'dialing'
            AND a.execution_id IS NULL
        RETURNING a.*
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, reason, server)
        SELECT v_now, l.user_id, l.item_id, l.call_id, l.attempt, 'unknown', l.reason, p_server FROM lost l
    )
    SELECT l.call_id, l.attempt FROM lost l;
END
$$;
COMMENT ON FUNCTION record_unknown(uuid, uuid[], integer[], text[]) IS
    'Notes attempts whose answer was lost and that no event has proved yet; returns those.';

CREATE FUNCTION record_events(p_server uuid, p_calls uuid[], p_statuses text[], p_executions text[], p_reasons text[])
RETURNS TABLE (effect text) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz;
    v_order text[] := ARRAY['unknown', 'dialing', 'ringing', 'in-progress'];
    v_changed uuid[];
BEGIN
    PERFORM lock_calls(p_calls);
    v_now := clock_timestamp();
    -- Of several events for one call in one batch the furthest counts; statuses only move forward.
    WITH furthest AS (
        SELECT DISTINCT ON (i.call_id) i.*
        FROM unnest(p_calls, p_statuses, p_executions, p_reasons) i (call_id, status, execution_id, reason)
        ORDER BY i.call_id, array_position(v_order, i.status) DESC
    ), changed AS (
        UPDATE active_calls a SET status = f.status, execution_id = coalesce(a.execution_id, f.execution_id),
            reason = f.reason,
            answered_at = CASE WHEN f.status = 'in-progress' THEN v_now ELSE a.answered_at END
        FROM furthest f
        WHERE a.call_id = f.call_id AND a.status <> 'reserved'
            AND (f.execution_id IS NULL OR a.execution_id IS NULL OR f.execution_id = a.execution_id)
            AND array_position(v_order, f.status) > array_position(v_order, a.status)
        RETURNING a.*
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, reason, server)
        SELECT v_now, c.user_id, c.item_id, c.call_id, c.attempt, c.status, c.reason, p_server FROM changed c
    )
    SELECT array_agg(c.call_id) INTO v_changed FROM changed c;
    -- An event may bring the provider's name for a call before the placement's own answer does.
    UPDATE active_calls a SET execution_id = i.execution_id
    FROM unnest(p_calls, p_executions) i (call_id, execution_id)
    WHERE a.call_id = i.call_id AND a.status <> 'reserved' AND a.execution_id IS NULL AND i.execution_id IS NOT NULL;

    RETURN QUERY
    SELECT CASE
        WHEN i.call_id = ANY (v_changed) THEN 'ended'
        WHEN EXISTS (SELECT FROM active_calls a WHERE a.call_id = i.call_id)
            OR EXISTS (SELECT FROM calls c WHERE c.id = i.call_id)
            OR EXISTS (SELECT FROM call_queue q WHERE q.call_id = i.call_id AND q.status = 'queued') THEN 'ignored'
        ELSE 'unknown'
    END
    FROM unnest(p_calls) WITH ORDINALITY i (call_id, nth)
    ORDER BY i.nth;
END
$$;
COMMENT ON FUNCTION record_events(uuid, uuid[], text[], text[], text[]) IS
    'Applies status events other than terminal ones (dialing, ringing, in-progress). Answers ended (it had an effect), ignored or unknown for each, in order.';

-- Ownership -------------------------------------------------------------------------------------

CREATE FUNCTION adopt_orphans(p_server uuid) RETURNS SETOF uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz;
    v_calls uuid[];
    v_attempts integer[];
    v_kept uuid[];
BEGIN
    IF NOT EXISTS (
        SELECT FROM active_calls a
        WHERE a.owner <> p_server
            AND NOT EXISTS (SELECT FROM servers s WHERE s.id = a.owner AND s.lease_until > clock_timestamp())
    ) THEN
        RETURN;
    END IF;
    v_now := lock_engine();
    PERFORM FROM active_calls a
    WHERE a.owner <> p_server
        AND NOT EXISTS (SELECT FROM servers s WHERE s.id = a.owner AND s.lease_until > v_now)
    ORDER BY a.call_id FOR UPDATE;

    WITH adopted AS (
        UPDATE active_calls a SET owner = p_server,
            status = CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN 'unknown' ELSE a.status END,
            reason = CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN 'its server stopped while dialing'
                ELSE a.reason END
        WHERE a.owner <> p_server
            AND NOT EXISTS (SELECT FROM servers s WHERE s.id = a.owner AND s.lease_until > v_now)
        RETURNING a.*
    ), logged AS (
        INSERT INTO call_events (at, user_id, item_id, call_id, attempt, status, reason, server)
        SELECT v_now, a.user_id, a.item_id, a.call_id, a.attempt, a.status, 'taken over from a server that is gone', p_server
        FROM adopted a WHERE a.status <> 'reserved'
    )
    SELECT array_agg(a.call_id) FILTER (WHERE a.status = 'reserved'),
        array_agg(a.attempt) FILTER (WHERE a.status = 'reserved'),
        array_agg(a.call_id) FILTER (WHERE a.status <> 'reserved')
    INTO v_calls, v_attempts, v_kept
    FROM adopted a;

    IF v_calls IS NOT NULL THEN
        PERFORM return_calls(p_server, v_calls, v_attempts, array_fill(0::bigint, ARRAY[cardinality(v_calls)]),
            array_fill('its server stopped before dialing'::text, ARRAY[cardinality(v_calls)]),
            array_fill(false, ARRAY[cardinality(v_calls)]), v_now);
    END IF;
    RETURN QUERY SELECT unnest(v_kept);
END
$$;
COMMENT ON FUNCTION adopt_orphans(uuid) IS
    'Takes over the calls of servers whose lease is over: reserved ones go back to their place, dialing ones become unknown, the rest change owner. Returns those now held by p_server.';

CREATE FUNCTION return_stale_reservations(p_server uuid, p_age_ms bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz;
    v_calls uuid[];
    v_attempts integer[];
BEGIN
    IF NOT EXISTS (
        SELECT FROM active_calls WHERE owner = p_server AND status = 'reserved'
            AND reserved_at < clock_timestamp() - make_interval(secs => p_age_ms / 1000.0)
    ) THEN
        RETURN 0;
    END IF;
    v_now := lock_engine();
    SELECT array_agg(call_id), array_agg(attempt) INTO v_calls, v_attempts
    FROM active_calls WHERE owner = p_server AND status = 'reserved'
        AND reserved_at < v_now - make_interval(secs => p_age_ms / 1000.0);
    IF v_calls IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM return_calls(p_server, v_calls, v_attempts, array_fill(0::bigint, ARRAY[cardinality(v_calls)]),
        array_fill('the reservation was not used'::text, ARRAY[cardinality(v_calls)]),
        array_fill(false, ARRAY[cardinality(v_calls)]), v_now);
    RETURN cardinality(v_calls);
END
$$;
COMMENT ON FUNCTION return_stale_reservations(uuid, bigint) IS
    'Puts back what p_server reserved long ago and never began to dial, as after a lost connection. Safe at any time: mark_dialing fences. Returns how many.';

-- Operators -------------------------------------------------------------------------------------

CREATE FUNCTION set_campaign_open(p_campaign uuid, p_open boolean) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_campaign campaign_slots;
BEGIN
    SELECT * INTO v_campaign FROM campaign_slots WHERE campaign_id = p_campaign;
    IF v_campaign.open IS DISTINCT FROM p_open THEN
        UPDATE campaign_slots SET open = p_open WHERE campaign_id = p_campaign;
        UPDATE user_slots SET due_campaign = due_campaign + CASE WHEN p_open THEN v_campaign.due ELSE -v_campaign.due END
        WHERE user_id = v_campaign.user_id;
        PERFORM refile_lanes(ARRAY[v_campaign.user_id]);
    END IF;
END
$$;
COMMENT ON FUNCTION set_campaign_open(uuid, boolean) IS
    'Lets the waiting calls of a campaign go, or holds them, in constant time. Needs lock_engine.';

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
        WHERE q.status = 'queued' GROUP BY q.user_id
    ), per_campaign AS (
        SELECT campaign_id, count(*) FILTER (WHERE status = 'queued' AND wakes_at IS NULL) AS due,
            count(*) FILTER (WHERE status = 'queued' AND wakes_at IS NOT NULL) AS later,
            count(*) FILTER (WHERE status = 'processing') AS active
        FROM call_queue WHERE campaign_id IS NOT NULL GROUP BY campaign_id
    ), every_count AS (
        SELECT 'system_state.active' AS counter, '' AS subject, active::bigint AS kept, (SELECT count(*) FROM active_calls) AS counted
        FROM system_state
        UNION ALL
        SELECT 'call_queue.processing', '', count(*), (SELECT count(*) FROM active_calls) FROM call_queue WHERE status = 'processing'
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
            ('ready_lanes.direct',
                (SELECT count(*) FROM ready_lanes r WHERE r.call_type = 'direct' AND r.turn = s.filed_direct AND r.user_id = s.user_id),
                (s.due_direct > 0 AND s.held_direct IS NULL
                    AND s.active_direct + s.active_campaign < u.concurrent_calls_limit)::integer),
            ('ready_lanes.campaign',
                (SELECT count(*) FROM ready_lanes r WHERE r.call_type = 'campaign' AND r.turn = s.filed_campaign AND r.user_id = s.user_id),
                (s.due_campaign > 0 AND s.due_direct = 0 AND s.held_campaign IS NULL
                    AND s.active_direct + s.active_campaign < u.concurrent_calls_limit - u.direct_reserved_slots)::integer)
        ) v (counter, kept, counted)
        UNION ALL
        SELECT v.counter, s.campaign_id::text, v.kept, v.counted
        FROM campaign_slots s
        LEFT JOIN per_campaign p ON p.campaign_id = s.campaign_id
        CROSS JOIN LATERAL (VALUES
            ('campaign_slots.due', s.due::bigint, coalesce(p.due, 0)),
            ('campaign_slots.later', s.later, coalesce(p.later, 0)),
            ('campaign_slots.active', s.active, coalesce(p.active, 0))
        ) v (counter, kept, counted)
        UNION ALL
        SELECT 'ready_lanes', '', count(*), (SELECT count(filed_direct) + count(filed_campaign) FROM user_slots) FROM ready_lanes
    )
    SELECT counter, subject, kept, counted FROM every_count WHERE kept <> counted
$$;
COMMENT ON FUNCTION audit_counters() IS
    'Recounts every kept counter from its rows, in one snapshot, and returns each difference: no row is the only good answer.';

CREATE FUNCTION get_next_direct_call_queued(p_user_id uuid) RETURNS SETOF call_queue
LANGUAGE sql STABLE AS $$
    SELECT * FROM call_queue
    WHERE user_id = p_user_id AND call_type = 'direct' AND status = 'queued' AND wakes_at IS NULL
        AND (expires_at IS NULL OR expires_at > now())
    ORDER BY priority DESC, position
    LIMIT 1
$$;

CREATE FUNCTION count_user_direct_calls_queued(p_user_id uuid) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT due_direct + later_direct FROM user_slots WHERE user_id = p_user_id), 0)::bigint
$$;

CREATE FUNCTION get_call_queue_position(p_queue_id uuid) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    me call_queue;
    v_ahead bigint;
BEGIN
    SELECT * INTO me FROM call_queue WHERE id = p_queue_id AND status = 'queued';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF me.call_type = 'direct' THEN
        IF me.wakes_at IS NULL THEN
            RETURN (SELECT count(*) FROM call_queue WHERE user_id = me.user_id AND call_type = 'direct'
                    AND status = 'queued' AND wakes_at IS NULL AND priority > me.priority)
                + (SELECT count(*) FROM call_queue WHERE user_id = me.user_id AND call_type = 'direct'
                    AND status = 'queued' AND wakes_at IS NULL AND priority = me.priority AND position <= me.position);
        END IF;
        SELECT due_direct INTO v_ahead FROM user_slots WHERE user_id = me.user_id;
    ELSE
        IF me.wakes_at IS NULL THEN
            RETURN (
                SELECT sum(
                    (SELECT count(*) FROM call_queue q WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign'
                        AND q.status = 'queued' AND q.wakes_at IS NULL AND q.priority > me.priority)
                    + (SELECT count(*) FROM call_queue q WHERE q.campaign_id = c.campaign_id AND q.call_type = 'campaign'
                        AND q.status = 'queued' AND q.wakes_at IS NULL AND q.priority = me.priority AND q.position <= me.position))
                FROM campaign_slots c
                WHERE c.user_id = me.user_id AND (c.open OR c.campaign_id = me.campaign_id));
        END IF;
        SELECT sum(due) INTO v_ahead FROM campaign_slots
        WHERE user_id = me.user_id AND (open OR campaign_id = me.campaign_id);
    END IF;
    RETURN v_ahead + (
        SELECT count(*) FROM call_queue q
        WHERE q.user_id = me.user_id AND q.call_type = me.call_type AND q.status = 'queued' AND q.wakes_at IS NOT NULL
            AND (q.wakes_at, q.position) <= (me.wakes_at, me.position));
END
$$;
COMMENT ON FUNCTION get_call_queue_position(uuid) IS
    'Place of a waiting item among the waiting items of its user and type, 1 for the next to go, null if it does not wait. What is not due yet comes after what is.';

CREATE FUNCTION get_next_queued(p_user_id uuid) RETURNS SETOF call_queue
LANGUAGE sql STABLE AS $$
    SELECT q.* FROM call_queue q
    LEFT JOIN campaign_slots c ON c.campaign_id = q.campaign_id
    WHERE q.user_id = p_user_id AND q.status = 'queued' AND q.wakes_at IS NULL
        AND (q.expires_at IS NULL OR q.expires_at > now())
        AND (q.call_type = 'direct' OR c.open)
    ORDER BY q.call_type, q.priority DESC, q.position
    LIMIT 1
$$;

COMMENT ON FUNCTION get_next_direct_call_queued(uuid) IS
    'The direct call of this user that goes next, or no row. Looks only; reserves nothing.';
COMMENT ON FUNCTION count_user_direct_calls_queued(uuid) IS
    'How many direct calls of this user wait, due or not.';
COMMENT ON FUNCTION get_next_queued(uuid) IS
    'The call of this user that goes next, direct before campaign, or no row. Looks only; reserves nothing.';

CREATE VIEW queue_status_by_type AS
SELECT user_id, call_type, status, count(*) AS calls, min(queued_at) AS oldest_queued_at
FROM (
    SELECT user_id, call_type, status, queued_at FROM call_queue
    UNION ALL
    SELECT user_id, call_type, status, queued_at FROM call_queue_history
) items
GROUP BY user_id, call_type, status;
COMMENT ON VIEW queue_status_by_type IS 'Items by user, type and status, ended ones included.';

CREATE VIEW priority_violations AS
SELECT c.user_id, c.item_id AS campaign_queue_id, d.id AS direct_queue_id,
    d.due_since AS direct_waits_since, c.reserved_at AS campaign_started_at
FROM active_calls c
JOIN call_queue d ON d.user_id = c.user_id AND d.call_type = 'direct' AND d.status = 'queued' AND d.wakes_at IS NULL
    AND d.due_since < c.reserved_at
WHERE c.call_type = 'campaign';
COMMENT ON VIEW priority_violations IS
    'Campaign calls up that started while a direct call of the same user, still waiting, was due. Always empty.';

CREATE VIEW queue_items AS
SELECT id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status, phone_number, contact_name,
    user_data, caller_id, scheduled_for, wakes_at, due_at, due_since, expires_at, attempts, call_id, reason, queued_at,
    started_at, finished_at
FROM call_queue
UNION ALL
SELECT id, user_id, agent_id, contact_id, campaign_id, call_type, priority, position, status, phone_number, contact_name,
    user_data, caller_id, scheduled_for, wakes_at, due_at, due_since, expires_at, attempts, call_id, reason, queued_at,
    started_at, finished_at
FROM call_queue_history;
COMMENT ON VIEW queue_items IS 'Every item, waiting, processing or ended.';

CREATE VIEW call_records AS
SELECT a.call_id AS id, a.item_id, a.user_id, a.agent_id, q.contact_id, a.call_type, a.campaign_id, q.phone_number,
    q.contact_name, a.provider, a.execution_id, a.status, a.reason, a.attempt AS attempts, a.reserved_at, a.answered_at,
    NULL::timestamptz AS ended_at, NULL::integer AS duration_seconds
FROM active_calls a JOIN call_queue q ON q.id = a.item_id
UNION ALL
SELECT id, item_id, user_id, agent_id, contact_id, call_type, campaign_id, phone_number, contact_name, provider,
    execution_id, status, reason, attempts, reserved_at, answered_at, ended_at, duration_seconds
FROM calls;
COMMENT ON VIEW call_records IS 'Every call, up or ended.';

-- Planning these statements anew for each batch would cost more than running them: plan once a
-- connection. Their shapes do not depend on the values: a few keys from arrays, an index's edge.
-- A plan made while a table was small must not scan it once it is large.
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
        EXECUTE format('ALTER FUNCTION %s SET jit = off', v_function);
    END LOOP;
END
$$;
