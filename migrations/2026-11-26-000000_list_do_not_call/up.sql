-- Numbers that must not be called: a list for each user, and one for all.
--
-- What enters call_queue is looked up under the engine's lock; who adds a number takes that lock,
-- adds it and withdraws what waits for it. So nothing listed waits, and what waits may be dialled
-- without another look.
--
-- Locks: call_queue against changes while its index is built, some two seconds for a million
-- waiting rows. It only adds: servers of the version before go on. They answer a request to call a
-- listed number with 500, and call nobody.

CREATE TABLE do_not_call (
    id uuid PRIMARY KEY DEFAULT uuid_v7(),
    user_id uuid REFERENCES users (id) ON DELETE CASCADE,
    phone_number text NOT NULL CHECK (phone_number ~ '^\+[1-9][0-9]{4,14}$'),
    reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    nth bigint NOT NULL GENERATED ALWAYS AS IDENTITY
);
COMMENT ON TABLE do_not_call IS 'Numbers that must not be called. Added to by list_do_not_call.';
COMMENT ON COLUMN do_not_call.user_id IS 'Whose calls; null for everybody''s.';
COMMENT ON COLUMN do_not_call.nth IS
    'Grows in the order in which entries come into effect, as they are added under the engine''s lock: whoever has seen all up to one need look only for larger ones.';
-- Compared byte by byte, which is cheaper than by the rules of a language.
CREATE UNIQUE INDEX do_not_call_own ON do_not_call (user_id, phone_number text_pattern_ops) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX do_not_call_global ON do_not_call (phone_number text_pattern_ops) WHERE user_id IS NULL;
CREATE INDEX do_not_call_of ON do_not_call (user_id, id DESC);
CREATE UNIQUE INDEX do_not_call_nth ON do_not_call (nth);

-- The user too: a number that another user has queued a million times costs nobody else a look.
CREATE INDEX call_queue_by_number ON call_queue (phone_number text_pattern_ops, user_id);

CREATE FUNCTION do_not_call_list(p_user uuid, p_number text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE
        -- With an OFFSET it stays a look-up by key, and is never made a hash of the whole table.
        WHEN EXISTS (SELECT FROM do_not_call d WHERE d.user_id IS NULL AND d.phone_number = p_number OFFSET 0) THEN 'global'
        WHEN EXISTS (SELECT FROM do_not_call d WHERE d.user_id = p_user AND d.phone_number = p_number OFFSET 0) THEN 'own'
    END;
END
$$;
COMMENT ON FUNCTION do_not_call_list(uuid, text) IS
    'Which list keeps this user from calling this number: global, own, or null for none. For functions that are planned as the engine''s are.';

CREATE FUNCTION withdraw_listed(p_items uuid[], p_server uuid, p_now timestamptz) RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_listed uuid[];
BEGIN
    SELECT array_agg(q.id) INTO v_listed
    FROM unnest(p_items) i (id)
    CROSS JOIN LATERAL (SELECT c.id, c.user_id, c.phone_number FROM call_queue c WHERE c.id = i.id OFFSET 0) q
    WHERE do_not_call_list(q.user_id, q.phone_number) IS NOT NULL;
    IF v_listed IS NULL THEN
        RETURN 0;
    END IF;
    RETURN (SELECT count(*)::integer FROM withdraw_items(v_listed, 'cancelled', 'do-not-call', p_server, p_now));
END
$$;
COMMENT ON FUNCTION withdraw_listed(uuid[], uuid, timestamptz) IS
    'Ends as cancelled, do-not-call, those of these waiting items whose number is on a list that applies; returns how many. For whatever enters the queue. Needs lock_engine.';

CREATE FUNCTION list_do_not_call(
    p_user uuid, p_numbers text[], p_reason text, p_limit integer,
    OUT added bigint, OUT withdrawn bigint, OUT more boolean
) LANGUAGE plpgsql VOLATILE SET lock_timeout = '8s' AS $$
DECLARE
    v_now timestamptz := lock_engine();
    v_waiting uuid[];
BEGIN
    WITH news AS (
        INSERT INTO do_not_call (user_id, phone_number, reason, created_at)
        SELECT p_user, i.number, p_reason, v_now FROM unnest(p_numbers) WITH ORDINALITY i (number, nth) ORDER BY i.nth
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    SELECT count(*) INTO added FROM news;
    SELECT array_agg(w.id) INTO v_waiting FROM (
        SELECT q.id FROM unnest(p_numbers) i (number)
        CROSS JOIN LATERAL (
            SELECT c.id FROM call_queue c WHERE p_user IS NULL AND c.phone_number = i.number
            UNION ALL
            SELECT c.id FROM call_queue c WHERE c.phone_number = i.number AND c.user_id = p_user
        ) q
        LIMIT p_limit
    ) w;
    more := coalesce(cardinality(v_waiting), 0) = p_limit;
    withdrawn := coalesce(withdraw_listed(v_waiting, NULL, v_now), 0);
END
$$;
COMMENT ON FUNCTION list_do_not_call(uuid, text[], text, integer) IS
    'Adds these numbers to the list of a user, or to the global one, where they are not on it yet, and withdraws up to p_limit of the calls that wait for them. True for more if some may be left: call it again with the same numbers. Takes the engine''s lock.';

-- Asked before credits, and after what is not there.
DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('judge_admissions', $x$            WHEN u.credits <= 0 THEN 'no_credits'
            ELSE 'accepted'
        END,$x$, $x$            ELSE coalesce(
                'do_not_call_' || do_not_call_list(i.user_id, coalesce(i.phone_number, c.phone_number)),
                CASE WHEN u.credits <= 0 THEN 'no_credits' ELSE 'accepted' END)
        END,$x$)
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

-- Planned as the engine's functions are. Not do_not_call_list, which runs inside of these: to set and
-- reset all this for each call would cost many times its look-ups.
DO $$
DECLARE
    v_function text;
BEGIN
    FOREACH v_function IN ARRAY ARRAY['withdraw_listed', 'list_do_not_call'] LOOP
        EXECUTE format('ALTER FUNCTION %I SET plan_cache_mode = force_generic_plan', v_function);
        EXECUTE format('ALTER FUNCTION %I SET enable_seqscan = off', v_function);
        EXECUTE format('ALTER FUNCTION %I SET enable_bitmapscan = off', v_function);
        EXECUTE format('ALTER FUNCTION %I SET enable_mergejoin = off', v_function);
        EXECUTE format('ALTER FUNCTION %I SET jit = off', v_function);
    END LOOP;
END
$$;

INSERT INTO additive_migrations (version) VALUES ('20261126000000');
