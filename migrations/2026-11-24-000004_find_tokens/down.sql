DO $$
BEGIN
    IF EXISTS (SELECT FROM servers WHERE lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'a server is running; stop it first';
    END IF;
END
$$;

DROP FUNCTION find_tokens(bytea[]);
