//! The command line, as clap reads it.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

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
    /// Look at single calls, and settle one whose end will never come
    #[command(subcommand)]
    Call(Call),
    /// Bring lists of people into campaigns
    #[command(subcommand)]
    Campaign(CampaignCommand),
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
pub(crate) enum Call {
    /// Tell the whole story of a call
    Show(CallShow),
    /// List calls that hold a slot, oldest first
    List(CallList),
    /// End a call whose end will never come, or put back one that was never dialled
    Settle(CallSettle),
}

#[derive(Debug, Args)]
pub(crate) struct CallShow {
    /// The id of the call, or of its queue item
    pub id: String,
    /// Print the record as JSON, the number in full
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["parked", "active"])))]
pub(crate) struct CallList {
    /// Only those that are unknown: their provider cannot say what became of them
    #[arg(long)]
    pub parked: bool,
    /// All that hold a slot
    #[arg(long)]
    pub active: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Print the record as JSON, numbers in full
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("word").required(true).args(["outcome", "not_placed"])))]
pub(crate) struct CallSettle {
    /// The id of the call, or of its queue item
    pub id: String,
    /// It is over, and ended like this
    #[arg(long, value_parser = ["completed", "busy", "no-answer", "failed", "cancelled"])]
    pub outcome: Option<String>,
    /// Its carrier never dialled it: back to its place in the queue, to be tried again. Only while
    /// it is unknown
    #[arg(long)]
    pub not_placed: bool,
    /// How you know; kept in its history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// End it though it is not unknown. Nothing is hung up, and its slot is given on
    #[arg(long, conflicts_with = "not_placed")]
    pub force: bool,
    /// The attempt you mean; a later one is then left alone
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Print the record as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CampaignCommand {
    /// Import a list: CSV in UTF-8 whose first row names its columns, one of them phone_number
    Import(CampaignImport),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true).args(["campaign_id", "campaign"])))]
pub(crate) struct CampaignImport {
    /// The list
    pub file: PathBuf,
    /// Whose campaign
    #[arg(long)]
    pub email: String,
    /// A campaign that is there and not over
    #[arg(long, value_name = "ID")]
    pub campaign_id: Option<String>,
    /// A campaign to be made, as a draft: what POST /api/campaigns takes, without contact_ids
    #[arg(long, value_name = "JSON")]
    pub campaign: Option<String>,
    /// Where the list is from, two letters such as DE: numbers in national form are read as this
    /// country's [default: the campaign's]
    #[arg(long, value_name = "CC")]
    pub country: Option<String>,
    /// Import good rows though others fail
    #[arg(long)]
    pub partial: bool,
    /// Report only; change nothing
    #[arg(long)]
    pub dry_run: bool,
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
