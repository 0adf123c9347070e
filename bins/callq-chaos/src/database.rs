//! PostgreSQL, and ways to end it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use callq_embedded_postgres::{EmbeddedPostgres, Options};
use rand::Rng;
use rand::seq::IndexedRandom as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Mutex;

/// How PostgreSQL ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Every process of it is killed with -9.
    Kill,
    /// `pg_ctl stop -m immediate`.
    Immediate,
    /// `pg_ctl stop -m fast`, as for a restart.
    Fast,
}

impl End {
    pub(crate) fn any(dice: &mut impl Rng) -> Self {
        *[Self::Kill, Self::Immediate, Self::Fast]
            .choose(dice)
            .unwrap_or(&Self::Kill)
    }
}

/// A durable cluster of this round's own.
pub(crate) struct Database {
    pub url: String,
    pid_file: PathBuf,
    postgres: Mutex<Option<EmbeddedPostgres>>,
}

impl Database {
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let data = folder.join("database");
        let postgres = EmbeddedPostgres::start(Options {
            max_connections: 200,
            ..Options::new(&data)
        })?;
        Ok(Self {
            url: postgres.url().to_owned(),
            pid_file: data.join("postgres/postmaster.pid"),
            postgres: Mutex::new(Some(postgres)),
        })
    }

    /// Ends PostgreSQL, and starts it again after `away`; returns when it takes connections.
    pub(crate) async fn end_and_start(&self, end: End, away: Duration) -> anyhow::Result<()> {
        let mut postgres = self.postgres.lock().await;
        let Some(mut it) = postgres.take() else {
            bail!("PostgreSQL is stopped");
        };
        let pid_file = self.pid_file.clone();
        let (it, revived) = tokio::task::spawn_blocking(move || {
            let revived = end_now(&pid_file, end).and_then(|()| {
                std::thread::sleep(away);
                revive(&mut it)
            });
            (it, revived)
        })
        .await?;
        *postgres = Some(it);
        revived
    }

    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        if let Some(postgres) = self.postgres.lock().await.take() {
            tokio::task::spawn_blocking(|| postgres.stop()).await??;
        }
        Ok(())
    }
}

fn end_now(pid_file: &Path, end: End) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(pid_file).context("PostgreSQL has no pid file")?;
    let postmaster: i32 = text.lines().next().context("an empty pid file")?.parse()?;
    let signal = match end {
        End::Kill => Signal::KILL,
        End::Immediate => Signal::QUIT,
        End::Fast => Signal::INT,
    };
    let backends = match end {
        End::Kill => children_of(postmaster),
        End::Immediate | End::Fast => Vec::new(),
    };
    for pid in std::iter::once(postmaster).chain(backends) {
        if let Some(pid) = Pid::from_raw(pid) {
            // A backend may be gone already.
            let _ = kill_process(pid, signal);
        }
    }
    Ok(())
}

fn children_of(parent: i32) -> Vec<i32> {
    let file = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Starts it again once it has ended.
fn revive(postgres: &mut EmbeddedPostgres) -> anyhow::Result<()> {
    // A fast stop writes a checkpoint first.
    for _ in 0..3_000 {
        if postgres.revive()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("PostgreSQL does not end");
}
