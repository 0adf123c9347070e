DROP FUNCTION find_tokens(bytea[]);
