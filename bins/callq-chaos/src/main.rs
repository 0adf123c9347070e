//! Breaks callq in every way a machine can break, and judges it by a witness that is not callq.
//!
//! Several servers share one PostgreSQL and one dialer. The dialer is a process of its own and
//! writes down what it was really asked for. Users ask for calls and run campaigns; meanwhile
//! servers are killed, stopped and put to sleep, PostgreSQL is killed, and the dialer loses
//! answers and events. Then it becomes quiet, and the ledger and the database are compared with
//! what callq had promised. `callq-chaos failover` does the same for two PostgreSQL nodes under
//! Patroni. `docs/reliability.md` lists the promises.

/// Prints a line. A reader that has gone away, such as `head`, is no reason to fail.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

mod campaigns;
mod cli;
mod client;
mod database;
mod dialer;
mod failover;
mod judge;
mod notes;
mod patroni;
mod people;
mod round;
mod server;
mod sql;
mod storm;
mod twin;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let outcome = match &cli.command {
        Some(Command::Dialer(options)) => dialer::run(options).map(|()| true),
        Some(Command::Failover(options)) => failover::run(options).map(|()| true),
        None => round::run_all(&cli),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("callq-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
