-- The calls that imports laid out are calls like any others, and stay.
DROP TABLE import_errors;
DROP INDEX contacts_by_number;
ALTER TABLE campaigns DROP COLUMN country;
DELETE FROM additive_migrations WHERE version = '20261127000000';
