//! The floor: what PostgreSQL does on this machine without callq, measured in the same run, so that
//! figures can be compared across machines and days.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use callq_persistence::connect;
use diesel::connection::SimpleConnection;

use crate::cli::Cli;
use crate::cluster::Cluster;
use crate::latency::Latencies;
use crate::report::{Figure, Floor, Report};

const CLIENTS: [u32; 3] = [1, 8, 32];
const DATABASE: &str = "bench_floor";
/// Commits measured one by one.
const COMMITS: u32 = 500;

/// Measures `pgbench -N -M prepared` at 1, 8 and 32 clients, and single commits.
pub(crate) async fn measure(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    let pgbench = find_pgbench()?;
    let url = cluster.plain_database(DATABASE)?;
    let (runs, seconds) = (cli.runs(), cli.pick(10, 3));
    let rates = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        output_of(Command::new(&pgbench).args(["-i", "-s", "20", "-q", &url]))?;
        let mut rates = Vec::new();
        for clients in CLIENTS {
            let run = || pgbench_rate(&pgbench, &url, clients, seconds);
            rates.push(
                (0..runs)
                    .map(|_| run())
                    .collect::<anyhow::Result<Vec<_>>>()?,
            );
        }
        let commits = (0..runs)
            .map(|_| single_commits(&url))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok((rates, commits))
    })
    .await??;
    cluster.drop_database(DATABASE)?;

    let (rates, commits) = rates;
    for (clients, rates) in CLIENTS.iter().zip(&rates) {
        report.add(Figure::rate(
            &format!("floor.pgbench.{clients}"),
            &format!("pgbench -N, {clients} clients"),
            rates,
        ));
    }
    report.add(Figure::milliseconds(
        "floor.commit",
        "one commit at a time, p50",
        &commits,
    ));
    report.set_floor(Floor::of(&rates, &commits));
    Ok(())
}

fn pgbench_rate(pgbench: &Path, url: &str, clients: u32, seconds: u32) -> anyhow::Result<f64> {
    let output = output_of(Command::new(pgbench).args([
        "-n",
        "-N",
        "-M",
        "prepared",
        "-c",
        &clients.to_string(),
        "-j",
        "2",
        "-T",
        &seconds.to_string(),
        url,
    ]))?;
    rate_in(&output).with_context(|| format!("no rate in what pgbench says: {output}"))
}

fn rate_in(output: &str) -> Option<f64> {
    let line = output.lines().find(|line| line.starts_with("tps = "))?;
    line.split_whitespace().nth(2)?.parse().ok()
}

/// The median time of a small commit on one connection, in milliseconds.
fn single_commits(url: &str) -> anyhow::Result<f64> {
    let mut conn = connect(url)?;
    conn.batch_execute(
        "CREATE TABLE IF NOT EXISTS commits (n integer PRIMARY KEY); TRUNCATE commits",
    )?;
    let mut latencies = Latencies::default();
    for n in 0..COMMITS {
        let began = Instant::now();
        conn.batch_execute(&format!("INSERT INTO commits VALUES ({n})"))?;
        latencies.record(began.elapsed());
    }
    Ok(latencies.percentiles().p50)
}

fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            command.get_program().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `pgbench` on `PATH`, else in the folder of the newest PostgreSQL that Debian or Homebrew put
/// beside it.
fn find_pgbench() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("CALLQ_PG_BIN").filter(|it| !it.is_empty());
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = named.into_iter().map(PathBuf::from).collect();
    folders.extend(std::env::split_paths(&on_path));
    for parent in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"] {
        let mut versions: Vec<PathBuf> = std::fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin"))
            .collect();
        versions.sort();
        folders.extend(versions.into_iter().rev());
    }
    folders
        .into_iter()
        .map(|folder| folder.join("pgbench"))
        .find(|file| file.is_file())
        .context("no pgbench on PATH or beside PostgreSQL's server binaries; on Debian: apt-get install postgresql-contrib postgresql")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_pgbench_prints() {
        let output = "number of clients: 32\ntps = 6543.25 (without initial connection time)\n";
        assert_eq!(rate_in(output), Some(6543.25));
        assert_eq!(rate_in("tps"), None);
    }
}
