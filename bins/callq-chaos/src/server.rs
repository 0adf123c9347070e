//! One `callq serve`, and whoever starts it again when it has ended, as an init system does.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chrono::Utc;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::notes::{Notes, Promise, Span};

/// What it prints before its address.
const ANNOUNCEMENT: &str = "callq is serving on ";

/// Longest wait for a server that starts, its database's recovery included.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two starts.
const RESTART: Duration = Duration::from_millis(300);

/// How long placements in flight may take when a server is stopped, and how much longer the server
/// as a whole.
pub(crate) const GRACE_SECONDS: u64 = 5;
const LAST_WORDS: Duration = Duration::from_secs(20);

/// A server with a port of its own, which it keeps.
pub(crate) struct Server {
    pub name: String,
    pub address: String,
    pub log: PathBuf,
    program: PathBuf,
    settings: Vec<(String, String)>,
    notes: Arc<Notes>,
    child: Mutex<Option<Child>>,
}

impl Server {
    pub(crate) fn new(
        index: usize,
        program: &Path,
        folder: &Path,
        settings: &[(&str, String)],
        notes: &Arc<Notes>,
    ) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut settings: Vec<(String, String)> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        settings.push(("PORT".into(), port.to_string()));
        Ok(Self {
            name: format!("server {}", index + 1),
            address: format!("http://127.0.0.1:{port}"),
            log: folder.join(format!("server-{}.log", index + 1)),
            program: program.to_owned(),
            settings,
            notes: Arc::clone(notes),
            child: Mutex::new(None),
        })
    }

    /// Starts it, again and again until it serves.
    pub(crate) async fn start(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        *child = Some(self.serving().await?);
        Ok(())
    }

    async fn serving(&self) -> anyhow::Result<Child> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(child) = self.start_once().await? {
                return Ok(child);
            }
            self.notes
                .count("starts that failed, the database being away");
            tokio::time::sleep(RESTART).await;
        }
        bail!("{} does not serve; see {}", self.name, self.log.display());
    }

    /// `None`: it ended before it served.
    async fn start_once(&self) -> anyhow::Result<Option<Child>> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log)?;
        let mut child = Command::new(&self.program)
            .arg("serve")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            // Where no `.env` lies.
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", self.program.display()))?;
        let output = child.stdout.take().context("no output")?;
        let mut lines = BufReader::new(output).lines();
        let serves = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with(ANNOUNCEMENT) {
                    return Ok(true);
                }
            }
            anyhow::Ok(false)
        });
        if !serves.await.context("it neither serves nor ends")?? {
            child.wait().await?;
            return Ok(None);
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Some(child))
    }

    /// Kills it with -9 and starts it again after `away`.
    pub(crate) async fn kill(&self, away: Duration) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        if let Some(mut it) = child.take() {
            it.kill().await?;
        }
        tokio::time::sleep(away).await;
        *child = Some(self.serving().await?);
        Ok(())
    }

    /// Asks it to stop, sees that it does, and starts it again after `away`.
    pub(crate) async fn stop(&self, away: Duration) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        if let Some(it) = child.take() {
            self.end(it).await?;
        }
        tokio::time::sleep(away).await;
        *child = Some(self.serving().await?);
        Ok(())
    }

    /// Stops it for good.
    pub(crate) async fn retire(&self) -> anyhow::Result<()> {
        match self.child.lock().await.take() {
            Some(it) => self.end(it).await,
            None => Ok(()),
        }
    }

    async fn end(&self, mut child: Child) -> anyhow::Result<()> {
        signal(&child, Signal::TERM)?;
        let bound = Duration::from_secs(GRACE_SECONDS) + LAST_WORDS;
        match tokio::time::timeout(bound, child.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    let how = format!("{}, asked to stop, ended with {status}", self.name);
                    self.notes.broken(Promise::ServersLive, how);
                }
            }
            Err(_) => {
                let how = format!("{} did not stop within {bound:?}", self.name);
                self.notes.broken(Promise::ServersLive, how);
                child.kill().await?;
            }
        }
        Ok(())
    }

    /// Puts it to sleep, as a machine or a debugger might.
    pub(crate) async fn pause(&self, time: Duration) -> anyhow::Result<()> {
        let child = self.child.lock().await;
        let Some(it) = child.as_ref() else {
            return Ok(());
        };
        let from = Utc::now();
        signal(it, Signal::STOP)?;
        tokio::time::sleep(time).await;
        signal(it, Signal::CONT)?;
        self.notes.asleep(Span {
            server: self.address.clone(),
            from,
            to: Utc::now(),
        });
        Ok(())
    }

    /// Whether it has ended without being asked to. It is started again then.
    pub(crate) async fn look(&self) -> anyhow::Result<()> {
        // Whoever holds it knows how it is.
        let Ok(mut child) = self.child.try_lock() else {
            return Ok(());
        };
        let status = match child.as_mut() {
            Some(it) => it.try_wait()?,
            None => None,
        };
        if let Some(status) = status {
            let how = format!("{} ended by itself with {status}", self.name);
            self.notes.broken(Promise::ServersLive, how);
            *child = Some(self.serving().await?);
        }
        Ok(())
    }
}

fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let pid = child.id().context("it has ended")?;
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no pid")?;
    kill_process(pid, signal)?;
    Ok(())
}

/// A port that is free now; nothing on this machine is likely to take it before the server does.
fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// Runs a command of callq and reads the JSON that it prints.
pub(crate) async fn run<T: serde::de::DeserializeOwned>(
    program: &Path,
    url: &str,
    arguments: &[&str],
) -> anyhow::Result<T> {
    let output = command(program, url).args(arguments).output().await?;
    ensure!(
        output.status.success(),
        "callq {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A command of callq that knows nothing of its surroundings but the database.
pub(crate) fn command(program: &Path, url: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("DATABASE_URL", url)
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
