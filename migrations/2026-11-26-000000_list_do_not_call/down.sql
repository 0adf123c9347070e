-- The lists are lost.

DO $amend$
DECLARE
    v_change record;
    v_was text;
    v_found integer;
BEGIN
    FOR v_change IN SELECT * FROM (VALUES
    ('judge_admissions', $x$            ELSE coalesce(
                'do_not_call_' || do_not_call_list(i.user_id, coalesce(i.phone_number, c.phone_number)),
                CASE WHEN u.credits <= 0 THEN 'no_credits' ELSE 'accepted' END)
        END,$x$, $x$            WHEN u.credits <= 0 THEN 'no_credits'
            ELSE 'accepted'
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

DROP FUNCTION list_do_not_call(uuid, text[], text, integer);
DROP FUNCTION withdraw_listed(uuid[], uuid, timestamptz);
DROP FUNCTION do_not_call_list(uuid, text);
DROP INDEX call_queue_by_number;
DROP TABLE do_not_call;

DELETE FROM additive_migrations WHERE version = '20261126000000';
