CREATE OR REPLACE FUNCTION adopt_orphans(p_server uuid) RETURNS SETOF uuid LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_now timestamptz := engine_now();
    v_dead uuid[];
BEGIN
    IF NOT EXISTS (SELECT FROM servers WHERE id <> p_server AND lease_until <= clock_timestamp()) THEN
        RETURN;
    END IF;
    -- Calls first, as everywhere. Under the locks on the servers' rows no settlement of theirs can
    -- still take effect; what one took until then is locked once more.
    PERFORM FROM active_calls a
    WHERE a.owner IN (SELECT s.id FROM servers s WHERE s.id <> p_server AND s.lease_until <= clock_timestamp())
    ORDER BY a.call_id FOR UPDATE OF a;
    SELECT array_agg(d.id) INTO v_dead FROM (
        SELECT id FROM servers WHERE id <> p_server AND lease_until <= clock_timestamp() ORDER BY id FOR UPDATE
    ) d;
    PERFORM FROM active_calls a WHERE a.owner = ANY (v_dead) ORDER BY a.call_id FOR UPDATE;
    RETURN QUERY
    UPDATE active_calls a SET owner = p_server, batch = 0,
        status = CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN 'unknown' ELSE a.status END,
        reason = CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN 'its server stopped while dialing' ELSE a.reason END,
        unknown_since = CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN v_now ELSE a.unknown_since END,
        trail = with_attempt_told(a.trail, a.attempt, a.owner, a.reserved_at, a.placed_at, a.ringing_at, a.answered_at)
            || ROW (v_now, a.attempt,
            CASE WHEN a.status = 'dialing' AND a.execution_id IS NULL THEN 'unknown' ELSE a.status END,
            'taken over from a server that is gone', p_server)::call_transition
    WHERE a.owner = ANY (v_dead)
    RETURNING a.call_id;
    DELETE FROM servers WHERE id = ANY (v_dead);
END
$$;
COMMENT ON FUNCTION adopt_orphans(uuid) IS
    'Takes over the calls of servers whose lease is over, and forgets those servers: dialing calls become unknown, the rest change owner. Returns those now held by p_server.';

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('settle', $x$        v_undone := ARRAY(
            SELECT a.item_id FROM active_calls a
            WHERE a.owner = p_server AND a.batch > p_answered AND a.item_id = ANY (p_disowned));
$x$, ''),
    ('settle', $x$        v_undone := v_undone || ARRAY(
            SELECT withdraw_items(p_disowned, 'cancelled', 'its caller was told that it was not accepted', p_server, v_now));
        DELETE FROM idempotency_keys WHERE item_id = ANY (v_undone) AND body IS NULL;$x$,
     $x$        DELETE FROM idempotency_keys WHERE item_id = ANY (p_disowned) AND body IS NULL;
        PERFORM withdraw_items(p_disowned, 'cancelled', 'its caller was told that it was not accepted', p_server, v_now);$x$),
    ('settle', $x$    v_disowned uuid[];
    v_undone uuid[];$x$, $x$    v_disowned uuid[];$x$)
    ) c (function, says, instead)
    LOOP
        v_was := pg_get_functiondef(v_change.function::regproc);
        v_found := (length(v_was) - length(replace(v_was, v_change.says, ''))) / length(v_change.says);
        IF v_found <> 1 THEN
            RAISE EXCEPTION '% says % times: %', v_change.function, v_found, v_change.says;
        END IF;
        EXECUTE replace(v_was, v_change.says, v_change.instead);
    END LOOP;
    EXECUTE 'ALTER FUNCTION adopt_orphans(uuid) SET plan_cache_mode = force_generic_plan';
    EXECUTE 'ALTER FUNCTION adopt_orphans(uuid) SET enable_seqscan = off';
    EXECUTE 'ALTER FUNCTION adopt_orphans(uuid) SET enable_bitmapscan = off';
    EXECUTE 'ALTER FUNCTION adopt_orphans(uuid) SET enable_mergejoin = off';
    EXECUTE 'ALTER FUNCTION adopt_orphans(uuid) SET jit = off';
END
$amend$;

DELETE FROM additive_migrations WHERE version = '20261125000001';
