//! The command line, as clap reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::twin::Twin;

/// Breaks callq and counts the promises it breaks.
#[derive(Debug, Parser)]
#[command(name = "callq-chaos", version, about, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub plan: Plan,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be the dialer (started by callq-chaos itself)
    #[command(hide = true)]
    Dialer(Dialer),
    /// Lose PostgreSQL nodes instead: two under Patroni, under load
    Failover(crate::failover::Options),
}

/// What is done to callq, and how often.
#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// What decides every fault and every request; printed, so that a run can be repeated
    /// [default: the time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// So many rounds, each with the next seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rounds: u64,
    /// How long the storm lasts; coming to rest and judging come after it
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub seconds: u64,
    /// Servers on one database
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub servers: usize,
    /// Users who ask for calls; every other one runs campaigns besides
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub users: usize,
    /// Calls at once, in all
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub system_limit: u32,
    /// Calls at once of one user
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub user_limit: u32,
    /// Kills of servers with -9
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub server_kills: usize,
    /// Kills of all servers at the same moment
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub power_cuts: usize,
    /// Orderly stops of servers, as in a rolling restart
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub server_stops: usize,
    /// Servers put to sleep, every other one for longer than its lease
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub pauses: usize,
    /// Kills and immediate stops of PostgreSQL
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub database_kills: usize,
    /// Break callq on purpose: the run succeeds if that is found out
    #[arg(long, value_enum)]
    pub twin: Option<Twin>,
    /// After the run, see that both broken twins are found out, in shorter runs
    #[arg(long)]
    pub twins: bool,
    /// The binaries of callq, one server each in turn [default: callq beside this program]
    #[arg(long, value_name = "PATH")]
    pub callq: Vec<PathBuf>,
    /// Where logs, ledger and database lie, in a folder for each round, and stay [default: a temporary
    /// folder, kept if the round fails]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

impl Plan {
    pub(crate) fn storm(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What the dialer's process is told.
#[derive(Debug, Args)]
pub(crate) struct Dialer {
    /// Where it listens
    #[arg(long)]
    pub listen: std::net::SocketAddr,
    /// Where its ledger goes
    #[arg(long)]
    pub ledger: PathBuf,
    /// The secret it shares with callq
    #[arg(long)]
    pub secret: String,
    /// What decides how it misbehaves
    #[arg(long)]
    pub seed: u64,
    /// Take most of a second over most answers and say nothing before, so that servers die while
    /// they know nothing of a call that is up
    #[arg(long)]
    pub slow: bool,
    /// The servers that it brings events to, in turn
    #[arg(long, value_delimiter = ',')]
    pub servers: Vec<String>,
}
