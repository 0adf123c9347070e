DO $amend$
DECLARE
    v_was text := pg_get_functiondef('settle'::regproc);
    v_says constant text := $x$        DELETE FROM idempotency_keys WHERE item_id = ANY (v_undone) AND body IS NULL;
        -- What is left was begun by another server. Its caller waits for no answer: whoever asks again
        -- is told how the call stands.
        UPDATE idempotency_keys SET server = '00000000-0000-0000-0000-000000000000'
        WHERE item_id = ANY (p_disowned) AND body IS NULL;$x$;
BEGIN
    IF (length(v_was) - length(replace(v_was, v_says, ''))) / length(v_says) <> 1 THEN
        RAISE EXCEPTION 'settle does not say once: %', v_says;
    END IF;
    EXECUTE replace(v_was, v_says, $x$        DELETE FROM idempotency_keys WHERE item_id = ANY (v_undone) AND body IS NULL;$x$);
END
$amend$;
DELETE FROM additive_migrations WHERE version = '20261126000003';
