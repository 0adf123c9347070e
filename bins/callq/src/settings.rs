//! What the environment, a `.env` file and flags say, before anyone has judged it.

use std::path::PathBuf;

use clap::Args;

/// Every setting as text. Flags win over the environment, which wins over `.env`.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Settings (flags win over the environment and .env)")]
pub(crate) struct Settings {
    /// PostgreSQL 14 or newer; unset, callq runs a private cluster of its own
    #[arg(
        long,
        env = "DATABASE_URL",
        global = true,
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// Where the private cluster lives [default: ./data]
    #[arg(long, env = "CALLQ_DATA_DIR", global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen address [default: 127.0.0.1]
    #[arg(long, env = "HOST", global = true)]
    pub host: Option<String>,
    /// Listen port; 0 picks one and prints it [default: 3001]
    #[arg(long, env = "PORT", global = true)]
    pub port: Option<String>,
    /// System-wide limit on calls at once, at first start [default: 10]
    #[arg(
        long,
        env = "SYSTEM_CONCURRENT_CALLS_LIMIT",
        global = true,
        value_name = "N"
    )]
    pub system_concurrent_calls_limit: Option<String>,
    /// Limit on calls at once of a new user [default: 2]
    #[arg(
        long,
        env = "DEFAULT_USER_CONCURRENT_CALLS_LIMIT",
        global = true,
        value_name = "N"
    )]
    pub default_user_concurrent_calls_limit: Option<String>,
    /// Direct calls of a user that may wait, unless an admin says otherwise [default: 10000]
    #[arg(
        long,
        env = "DEFAULT_MAX_QUEUED_DIRECT_CALLS",
        global = true,
        value_name = "N"
    )]
    pub default_max_queued_direct_calls: Option<String>,
    /// Campaign calls of a user that may wait, unless an admin says otherwise [default: 2000000]
    #[arg(
        long,
        env = "DEFAULT_MAX_QUEUED_CAMPAIGN_CALLS",
        global = true,
        value_name = "N"
    )]
    pub default_max_queued_campaign_calls: Option<String>,
    /// When a direct call without `expires_in` gives up [default: never]
    #[arg(long, env = "DIRECT_CALL_TTL_SECONDS", global = true, value_name = "S")]
    pub direct_call_ttl_seconds: Option<String>,
    /// When a campaign call gives up, counted from when it is laid out [default: never]
    #[arg(
        long,
        env = "CAMPAIGN_CALL_TTL_SECONDS",
        global = true,
        value_name = "S"
    )]
    pub campaign_call_ttl_seconds: Option<String>,
    /// Milliseconds between safety-net sweeps; hand-off does not wait for them [default: 10000]
    #[arg(
        long,
        env = "QUEUE_PROCESSOR_INTERVAL",
        global = true,
        value_name = "MS"
    )]
    pub queue_processor_interval: Option<String>,
    /// Provider of agents that name none [default: simulator]
    #[arg(long, env = "CALL_PROVIDER", global = true, value_name = "NAME")]
    pub call_provider: Option<String>,
    /// Address of your dialer, for the provider `http`
    #[arg(long, env = "HTTP_PROVIDER_URL", global = true, value_name = "URL")]
    pub http_provider_url: Option<String>,
    /// Secret shared with your dialer; also signs events for the simulator
    #[arg(
        long,
        env = "HTTP_PROVIDER_SECRET",
        global = true,
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub http_provider_secret: Option<String>,
    /// Base of the callback addresses given to providers [default: http://HOST:PORT]
    #[arg(long, env = "PUBLIC_URL", global = true, value_name = "URL")]
    pub public_url: Option<String>,
    /// Longest wait for a provider's answer to one placement, milliseconds [default: 10000]
    #[arg(long, env = "PROVIDER_TIMEOUT_MS", global = true, value_name = "MS")]
    pub provider_timeout_ms: Option<String>,
    /// A call without an end for this long is looked up and ended [default: 7200]
    #[arg(long, env = "MAX_CALL_SECONDS", global = true, value_name = "S")]
    pub max_call_seconds: Option<String>,
    /// Database connections [default: 16]
    #[arg(long, env = "DATABASE_POOL_SIZE", global = true, value_name = "N")]
    pub database_pool_size: Option<String>,
    /// Longest wait for placements in flight when stopping [default: 20]
    #[arg(long, env = "SHUTDOWN_GRACE_SECONDS", global = true, value_name = "S")]
    pub shutdown_grace_seconds: Option<String>,
    /// API requests a second for each user, beyond which it answers 429 [default: no limit]
    #[arg(
        long,
        env = "API_RATE_LIMIT_PER_SECOND",
        global = true,
        value_name = "N"
    )]
    pub api_rate_limit_per_second: Option<String>,
}
