-- A server must be able to start again while its successors, with a newer schema, already run beside
-- it. It does not know the newer migrations, so these say of themselves that it need not.

CREATE TABLE additive_migrations (
    version text PRIMARY KEY
);
COMMENT ON TABLE additive_migrations IS
    'Migrations that only add: servers of the version before work on the schema they leave. Each such migration inserts its own version here.';

INSERT INTO additive_migrations (version) VALUES ('20261124000005');
