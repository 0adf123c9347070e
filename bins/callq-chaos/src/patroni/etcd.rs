//! The etcd that Patroni keeps its lock in: one member, on two ports.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use callq_embedded_postgres::Account;

use super::process::{self, Started};

const PATIENCE: Duration = Duration::from_secs(30);

/// A running etcd.
pub(super) struct Etcd {
    process: Option<Started>,
    client: u16,
    log: PathBuf,
}

impl Etcd {
    pub(super) fn start(
        folder: &Path,
        account: Account,
        client: u16,
        peer: u16,
    ) -> anyhow::Result<Self> {
        let (client_url, peer_url) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let mut command = account.command("etcd");
        command
            .current_dir(folder)
            // Versions before 3.5 want to be told that this is meant.
            .env("ETCD_UNSUPPORTED_ARCH", architecture())
            .args(["--name", "drill", "--data-dir"])
            .arg(folder.join("etcd"))
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("drill={peer_url}")])
            .args(["--enable-v2", "--log-level", "warn"]);
        let log = folder.join("etcd.log");
        let process = Started::spawn(command, &log, folder.join("etcd.pid"))?;
        Ok(Self {
            process: Some(process),
            client,
            log,
        })
    }

    pub(super) fn wait_until_healthy(
        &self,
        http: &reqwest::blocking::Client,
    ) -> anyhow::Result<()> {
        let address = format!("http://127.0.0.1:{}/health", self.client);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = http.get(&address).send().and_then(|answer| answer.text());
            if health.is_ok_and(|text| text.contains(r#""health":"true""#)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("etcd does not come up: {}", self.last_words());
            }
            sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn last_words(&self) -> String {
        format!("etcd said: {}", process::last_words(&self.log))
    }

    pub(super) fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            if let Err(cause) = process::kill(&[process.pid()]) {
                log::warn!("etcd: {cause}");
            }
            process.bury();
        }
    }
}

/// This machine's architecture as Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
