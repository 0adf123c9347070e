//! What a run costs: WAL, transactions, processor time, memory.

use std::fs;

use anyhow::Context;
use callq_persistence::connect;
use diesel::PgConnection;
use serde::Serialize;

use crate::cluster::{BenchDatabase, Cluster};
use crate::sql;

/// The kernel's clock ticks a second in `/proc`, on every Linux that PostgreSQL runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads meters; keeps a connection of its own.
pub(crate) struct Meter {
    conn: PgConnection,
    postmaster: u32,
}

/// The meters at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    wal_bytes: f64,
    server_seconds: f64,
    postgres_seconds: f64,
}

/// What was used between two readings.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    pub wal_bytes: f64,
    /// Processor time of this process: engines, carrier and witness.
    pub server_cpu_seconds: f64,
    /// Processor time of PostgreSQL: backends and background processes.
    pub postgres_cpu_seconds: f64,
}

impl Meter {
    pub(crate) fn new(cluster: &Cluster, database: &BenchDatabase) -> anyhow::Result<Self> {
        Ok(Self {
            conn: connect(&database.url)?,
            postmaster: cluster.postmaster()?,
        })
    }

    pub(crate) fn read(&mut self) -> anyhow::Result<Reading> {
        self.read_with_server(std::process::id())
    }

    /// As [`Meter::read`], with callq in the process `server`.
    pub(crate) fn read_with_server(&mut self, server: u32) -> anyhow::Result<Reading> {
        Ok(Reading {
            wal_bytes: sql::wal_position(&mut self.conn)?,
            server_seconds: ProcessTimes::of(server)?.own,
            postgres_seconds: family_seconds(self.postmaster)?,
        })
    }

    /// Transactions committed in the database so far. Backends report theirs late, but at the
    /// latest when they end: ask before they are made and after they are gone.
    pub(crate) fn transactions(&mut self) -> anyhow::Result<f64> {
        Ok(sql::transactions(&mut self.conn)?)
    }

    /// Transactions since [`Meter::transactions`] said `before`. Gives backends that have just
    /// been let go a moment to report.
    pub(crate) fn transactions_since(&mut self, before: f64) -> anyhow::Result<f64> {
        std::thread::sleep(std::time::Duration::from_millis(200));
        Ok(self.transactions()? - before)
    }
}

impl Reading {
    pub(crate) fn until(&self, later: &Self) -> Usage {
        Usage {
            wal_bytes: later.wal_bytes - self.wal_bytes,
            server_cpu_seconds: later.server_seconds - self.server_seconds,
            postgres_cpu_seconds: later.postgres_seconds - self.postgres_seconds,
        }
    }
}

/// Processor time as `/proc/PID/stat` has it, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ProcessTimes {
    parent: u32,
    own: f64,
    /// Of children that have ended.
    ended_children: f64,
}

impl ProcessTimes {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).with_context(|| format!("/proc/{pid}/stat cannot be read"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name before it may hold spaces and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |nth: usize| fields.get(nth)?.parse::<f64>().ok();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            ended_children: (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND,
        })
    }
}

/// Processor time of a process and all its children, those that have ended included.
fn family_seconds(parent: u32) -> anyhow::Result<f64> {
    let head = ProcessTimes::of(parent)?;
    let mut sum = head.own + head.ended_children;
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|it| it.parse().ok());
        // One that ends meanwhile is counted among the ended ones the next time.
        if let Some(times) = pid.and_then(|pid| ProcessTimes::of(pid).ok())
            && times.parent == parent
        {
            sum += times.own;
        }
    }
    Ok(sum)
}

/// Memory of a process that is its own, in bytes: resident, less what is shared with files.
pub(crate) fn resident_bytes(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_times_are_read_behind_a_name_with_spaces_and_parentheses() {
        let line = "42 (postgres: a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0";
        assert_eq!(
            ProcessTimes::parse(line),
            Some(ProcessTimes {
                parent: 7,
                own: 2.0,
                ended_children: 0.5,
            })
        );
    }

    #[test]
    fn this_process_has_used_some_memory() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 1e6));
    }
}
