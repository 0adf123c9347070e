DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('return_calls', $x$    IF v_users IS NOT NULL AND EXISTS (SELECT FROM number_calls) THEN
        -- It reached nobody, and does not count against its number.
        DELETE FROM number_calls n
        USING unnest(v_items) i (id)
        CROSS JOIN LATERAL (SELECT c.call_id FROM call_queue c WHERE c.id = i.id OFFSET 0) q
        WHERE n.call_id = q.call_id;
    END IF;
$x$, $x$$x$),
    ('settle', $x$    IF cardinality(reserved) > 0 AND EXISTS (SELECT FROM sparing_users) THEN
        -- Before anything is told or tallied. What is put off makes room for the next, whose number may
        -- have been called as often; how long that goes on is bounded.
        v_fresh := reserved;
        reserved := '{}';
        LOOP
            SELECT s.kept, s.put_off INTO v_more, v_put_off FROM spare_numbers(p_server, v_fresh, v_now) s;
            reserved := reserved || v_more;
            EXIT WHEN v_put_off = 0;
            v_next := coalesce(v_next, v_now);
            v_rounds := v_rounds + 1;
            v_put_off_in_all := v_put_off_in_all + v_put_off;
            EXIT WHEN v_rounds = 16 OR v_put_off_in_all >= 500;
            SELECT h.reserved INTO v_fresh
            FROM hand_out(p_server, p_batch, p_provider, v_put_off, false, true, NULL, NULL, NULL, NULL, NULL, v_now) h;
        END LOOP;
    END IF;
$x$, $x$$x$),
    ('settle', $x$    IF v_put_off > 0 THEN
        -- It left off with slots free: once more, at once.
        v_next := v_now;
    END IF;
$x$, $x$$x$),
    -- Last: until then they are used.
    ('settle', $x$
    v_fresh reserved_call[];
    v_put_off integer := 0;
    v_put_off_in_all integer := 0;
    v_rounds integer := 0;$x$, $x$$x$)
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

DROP FUNCTION forget_number_calls();
DROP FUNCTION spare_numbers(uuid, reserved_call[], timestamptz);
DROP TRIGGER campaigns_number_limit_followed ON campaigns;
DROP TRIGGER users_number_limit_followed ON users;
DROP FUNCTION follow_number_limit();
DROP FUNCTION count_number_calls(uuid);
DROP TABLE number_calls;
DROP TABLE sparing_users;
ALTER TABLE campaigns DROP COLUMN max_calls_per_number_per_day;
ALTER TABLE users DROP COLUMN max_calls_per_number_per_day;
DELETE FROM additive_migrations WHERE version = '20261127000003';
