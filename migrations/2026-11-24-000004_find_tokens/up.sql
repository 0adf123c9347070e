-- Every request proves who asks. A function is planned once a connection; the same query sent as it
-- is was planned for each.
--
-- Locks: none.

CREATE FUNCTION find_tokens(p_hashes bytea[])
RETURNS TABLE (token_hash bytea, user_id uuid, role text, token_id uuid, expires_at timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    SELECT t.token_hash, u.id, u.role, t.id, t.expires_at
    FROM unnest(p_hashes) i (hash)
    CROSS JOIN LATERAL (
        SELECT k.* FROM api_tokens k
        WHERE k.token_hash = i.hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
        OFFSET 0
    ) t
    CROSS JOIN LATERAL (SELECT x.id, x.role FROM users x WHERE x.id = t.user_id OFFSET 0) u;
END
$$;
COMMENT ON FUNCTION find_tokens(bytea[]) IS
    'Whose the tokens with these SHA-256 hashes are. No row for one that is unknown, revoked or over.';
ALTER FUNCTION find_tokens(bytea[]) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION find_tokens(bytea[]) SET enable_seqscan = off;
ALTER FUNCTION find_tokens(bytea[]) SET enable_bitmapscan = off;
-- Everyone waits for one look-up: a lock on the table must not hold them all up for long.
ALTER FUNCTION find_tokens(bytea[]) SET lock_timeout = '2s';
