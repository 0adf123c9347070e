DROP FUNCTION settle_by_hand(uuid, integer, text, text, boolean);
DELETE FROM additive_migrations WHERE version = '20261125000000';
