//! Measures callq against the disk and the PostgreSQL under it, and counts what must be zero.
//!
//! Everything runs on a private, durable cluster made for the occasion. `docs/benchmarks.md` says
//! what each figure means.

/// Prints a line. A reader that has gone away, such as `head`, is no reason to fail.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

mod campaign;
mod carrier;
mod cli;
mod cluster;
mod compare;
mod dialer;
mod door;
mod drain;
mod endurance;
mod feeder;
mod fleet;
mod floor;
mod handoff;
mod http;
mod judge;
mod latency;
mod load;
mod machine;
mod meter;
mod numbering;
mod pace;
mod plot;
mod plots;
mod report;
mod seed;
mod server;
mod sql;
mod status;
mod table;
mod witness;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Cli, Part};
use crate::cluster::Cluster;
use crate::report::Report;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One line a call would be most of what is measured.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("callq-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let cluster = Cluster::start(cli)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(until_stopped(measure(cli, &cluster)));
    // Servers left over by a failure end before their database does.
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

/// Runs `work` to its end, or until this process is asked to stop.
async fn until_stopped(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = work => done,
        _ = terminate.recv() => bail!("stopped"),
        _ = interrupt.recv() => bail!("stopped"),
    }
}

async fn measure(cli: &Cli, cluster: &Cluster) -> anyhow::Result<()> {
    let mut report = Report::new(cli, cluster)?;
    let outcome = measure_parts(cli, cluster, &mut report).await;
    report.failure = outcome.as_ref().err().map(|error| format!("{error:#}"));
    // What was measured before a failure is still worth reading.
    table::print(&report);
    if let Some(path) = &cli.compare {
        compare::print(&report, path)?;
    }
    report.write_json(cli)?;
    if let Some(folder) = &cli.plots {
        plots::write(&report, folder)?;
        table::write_markdown(&report, folder)?;
    }
    outcome
}

async fn measure_parts(cli: &Cli, cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    floor::measure(cli, cluster, report).await?;
    if cli.wants(Part::Drain) {
        drain::measure(cli, cluster, report).await?;
    }
    if cli.wants(Part::Door) {
        door::measure(cli, cluster, report).await?;
    }
    if cli.wants(Part::HandOff) {
        handoff::measure(cli, cluster, report).await?;
    }
    if cli.wants(Part::Status) {
        status::measure(cli, cluster, report).await?;
    }
    if cli.wants(Part::Campaign) {
        campaign::measure(cli, cluster, report).await?;
    }
    if cli.wants(Part::Endurance) {
        endurance::measure(cli, cluster, report).await?;
    }
    Ok(())
}
