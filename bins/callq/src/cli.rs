//! The command line, as clap reads it.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::Settings;

/// Decides whose phone call goes next.
#[derive(Debug, Parser)]
#[command(name = "callq", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub settings: Settings,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Apply pending migrations, serve HTTP and dispatch calls (the default)
    Serve(Serve),
    /// Apply, revert or list migrations
    Migrate(Migrate),
    /// Manage users
    #[command(subcommand)]
    User(User),
    /// Manage bearer tokens
    #[command(subcommand)]
    Token(Token),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the product at work on a fresh private database
    Demo(Demo),
    /// Recount every counter from its rows and print each difference
    Audit(Audit),
}

#[derive(Debug, Default, Args)]
pub(crate) struct Serve {
    /// Refuse to start on a schema that is older or unknown instead of migrating it
    #[arg(long)]
    pub no_migrate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// What to do
    #[arg(value_enum, default_value_t = Direction::Up)]
    pub direction: Direction,
    /// Print the record as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Direction {
    /// Apply everything pending
    Up,
    /// Revert the newest
    Down,
    /// List what is applied and what is pending
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Make a user and print its token, which is shown only this once
    Create(UserCreate),
}

#[derive(Debug, Args)]
pub(crate) struct UserCreate {
    /// The user's name; no two users share one
    #[arg(long)]
    pub email: String,
    /// Its limit on calls at once [default: DEFAULT_USER_CONCURRENT_CALLS_LIMIT]
    #[arg(long, value_name = "N")]
    pub concurrent_calls_limit: Option<String>,
    /// What it may do
    #[arg(long, default_value = "user", value_parser = ["user", "admin"])]
    pub role: String,
    /// Its home time zone, an IANA name
    #[arg(long, default_value = "UTC", value_name = "Z")]
    pub time_zone: String,
    /// Credits; direct calls are refused while there are none left, and nothing spends them yet.
    /// Without this the user is not metered
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub credits: Option<i64>,
    /// Print the record as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a further token for a user; it is shown only this once
    Create(TokenCreate),
    /// Revoke a token
    Revoke(TokenRevoke),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// Whose token
    #[arg(long)]
    pub email: String,
    /// How long it is good for, such as 90d, 12h, 30m or 45s [default: until revoked]
    #[arg(long, value_name = "D")]
    pub expires_in: Option<String>,
    /// Print the record as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRevoke {
    /// The token's id, as printed when it was made
    pub id: String,
    /// Print the record as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the effective configuration, secrets masked; exit 2 if it is invalid
    Check {
        /// Print the record as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Print plain lines instead of progress bars
    #[arg(long)]
    pub plain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Print the record as JSON
    #[arg(long)]
    pub json: bool,
}
