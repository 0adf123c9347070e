-- The queue as deployments knew it before direct calls: campaigns only.

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text NOT NULL UNIQUE CHECK (email = lower(email) AND strpos(email, '@') > 1),
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    concurrent_calls_limit integer NOT NULL DEFAULT 2
        CHECK (concurrent_calls_limit BETWEEN 0 AND 1000000),
    time_zone text NOT NULL DEFAULT 'UTC',
    credits bigint CHECK (credits >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN users.credits IS 'Calls paid for; null for users without metering.';

CREATE TABLE agents (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name text NOT NULL,
    provider text CHECK (provider ~ '^[a-z0-9_-]{1,32}$'),
    provider_agent_id text,
    caller_id text,
    settings jsonb CHECK (jsonb_typeof(settings) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN agents.provider IS 'Null for the default provider of the server that places the call.';
CREATE INDEX agents_by_user ON agents (user_id, id DESC);

CREATE TABLE contacts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    phone_number text NOT NULL CHECK (phone_number ~ '^\+[1-9][0-9]{4,14}$'),
    name text,
    time_zone text,
    user_data jsonb CHECK (jsonb_typeof(user_data) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX contacts_by_user ON contacts (user_id, id DESC);

CREATE TABLE campaigns (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    agent_id uuid NOT NULL REFERENCES agents (id),
    name text NOT NULL,
    next_action text NOT NULL,
    first_call_time time NOT NULL,
    last_call_time time NOT NULL,
    start_date date NOT NULL,
    end_date date,
    campaign_timezone text,
    use_custom_timezone boolean NOT NULL DEFAULT false,
    max_retries integer NOT NULL DEFAULT 0 CHECK (max_retries BETWEEN 0 AND 100),
    retry_interval_minutes integer NOT NULL DEFAULT 60 CHECK (retry_interval_minutes BETWEEN 1 AND 43200),
    status text NOT NULL DEFAULT 'draft'
        CHECK (status IN ('draft', 'active', 'paused', 'completed', 'cancelled')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    CHECK (end_date >= start_date),
    CHECK (NOT use_custom_timezone OR campaign_timezone IS NOT NULL)
);
CREATE INDEX campaigns_by_user ON campaigns (user_id, id DESC);

CREATE TABLE call_queue (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users (id),
    agent_id uuid NOT NULL REFERENCES agents (id),
    contact_id uuid NOT NULL REFERENCES contacts (id),
    campaign_id uuid NOT NULL REFERENCES campaigns (id),
    priority integer NOT NULL DEFAULT 0,
    position bigint NOT NULL,
    status text NOT NULL DEFAULT 'queued'
        CHECK (status IN ('queued', 'processing', 'completed', 'failed', 'cancelled', 'expired')),
    reason text,
    scheduled_for timestamptz,
    queued_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz
);
COMMENT ON COLUMN call_queue.position IS 'Order within user and priority; kept for life.';
CREATE INDEX call_queue_next ON call_queue (user_id, priority DESC, position) WHERE status = 'queued';
