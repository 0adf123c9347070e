-- Lists of people: an import lays out calls to them behind those that a campaign has already.
--
-- Locks: contacts against changes for as long as their new index takes, some two seconds for a million;
-- campaigns for an instant. It only adds: servers of the version before go on.

ALTER TABLE campaigns ADD COLUMN country text
    CONSTRAINT campaigns_country_is_a_code CHECK (country ~ '^[A-Z]{2}$');
COMMENT ON COLUMN campaigns.country IS
    'Where its lists are from, an ISO 3166 code: numbers in national form are read as this country''s.';

-- Whom of the user's contacts a number on a list belongs to.
CREATE INDEX contacts_by_number ON contacts (user_id, phone_number text_pattern_ops, id);

CREATE TABLE import_errors (
    import_id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    csv text NOT NULL CONSTRAINT import_errors_are_bounded CHECK (octet_length(csv) <= 2097152)
);
COMMENT ON TABLE import_errors IS
    'What was wrong with the rows of a list, as CSV. Of each user the last twenty are kept.';
CREATE INDEX import_errors_by_user ON import_errors (user_id, import_id DESC);

INSERT INTO additive_migrations (version) VALUES ('20261127000000');
