//! One PostgreSQL and the Patroni that runs it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use callq_embedded_postgres::Account;
use rustix::process::Signal;

use super::NodeName;
use super::process::{self, Started};
use super::settings::Settings;

/// How long PostgreSQL may take to stop when it is told to drop everything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node, running or not.
pub(super) struct Node {
    name: NodeName,
    account: Account,
    api: u16,
    folder: PathBuf,
    settings_file: PathBuf,
    pid_file: PathBuf,
    patroni: Option<Started>,
}

impl Node {
    /// A node that is not running yet: its folder and Patroni's settings for it.
    pub(super) fn prepare(
        name: NodeName,
        account: Account,
        port: u16,
        api: u16,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let folder = settings.folder.join(name.as_str());
        fs::create_dir(&folder)?;
        let settings_file = folder.join("patroni.json");
        let text = serde_json::to_string_pretty(&settings.of_node(name, port, api, &folder))?;
        fs::write(&settings_file, text)?;
        // It holds the password.
        fs::set_permissions(&settings_file, fs::Permissions::from_mode(0o600))?;
        for path in [&folder, &settings_file] {
            chown(path, Some(account.uid), Some(account.gid))?;
        }
        Ok(Self {
            name,
            account,
            api,
            settings_file,
            pid_file: settings.folder.join(format!("patroni-{name}.pid")),
            folder,
            patroni: None,
        })
    }

    /// Starts Patroni, which starts PostgreSQL. It must not be running.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.patroni.is_none(), "node {} runs already", self.name);
        let mut command = self.account.command("patroni");
        command.current_dir(&self.folder).arg(&self.settings_file);
        let log = self.folder.join("patroni.log");
        self.patroni = Some(Started::spawn(command, &log, self.pid_file.clone())?);
        Ok(())
    }

    /// Whether Patroni answers 200 to a question of its REST API, such as `primary`.
    pub(super) fn answers_yes(&self, http: &reqwest::blocking::Client, question: &str) -> bool {
        self.patroni.is_some()
            && http
                .get(format!("http://127.0.0.1:{}/{question}", self.api))
                .send()
                .is_ok_and(|answer| answer.status().is_success())
    }

    /// Whether Patroni ended by itself.
    pub(super) fn has_failed(&self) -> bool {
        let patroni = self.patroni.as_ref();
        patroni.is_some_and(|patroni| !process::runs(patroni.pid()))
    }

    /// Ends every process of the node at once and without a word. Does nothing if none runs.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        let killed = process::kill(&self.roots());
        if let Some(patroni) = self.patroni.take() {
            patroni.bury();
        }
        killed
    }

    /// Stops every process of the node where it is.
    pub(super) fn freeze(&mut self) -> anyhow::Result<()> {
        let frozen = process::freeze(&self.roots());
        ensure!(!frozen.is_empty(), "node {} does not run", self.name);
        Ok(())
    }

    /// Lets every process of a frozen node go on.
    pub(super) fn thaw(&self) {
        for pid in process::freeze(&self.roots()) {
            process::signal(pid, Signal::CONT);
        }
    }

    /// Stops the receiver of the leader's log where it is.
    pub(super) fn hold_receiver(&self) -> anyhow::Result<()> {
        self.signal_receiver(Signal::STOP)
    }

    /// Lets it go on.
    pub(super) fn resume_receiver(&self) -> anyhow::Result<()> {
        self.signal_receiver(Signal::CONT)
    }

    /// Has a receiver that is held end without a look at what came in meanwhile.
    pub(super) fn drop_receiver(&self) -> anyhow::Result<()> {
        self.signal_receiver(Signal::TERM)?;
        self.signal_receiver(Signal::CONT)
    }

    fn signal_receiver(&self, signal: Signal) -> anyhow::Result<()> {
        let postmaster = self.postmaster().context("PostgreSQL does not run")?;
        let receivers = process::children_named(postmaster, "walreceiver");
        ensure!(!receivers.is_empty(), "node {} receives no log", self.name);
        for receiver in receivers {
            process::signal(receiver, signal);
        }
        Ok(())
    }

    /// Ends the node for good: Patroni at once, PostgreSQL so that it leaves nothing behind.
    pub(super) fn stop(&mut self) {
        let running = self.postmaster();
        if let Some(patroni) = self.patroni.take() {
            if let Err(cause) = process::kill(&[patroni.pid()]) {
                log::warn!("Patroni of node {}: {cause}", self.name);
            }
            patroni.bury();
        }
        match running {
            Some(postmaster) => {
                // One that was stopped where it is hears nothing.
                self.thaw();
                process::signal(postmaster, Signal::QUIT);
                let gone = process::wait_until_gone(&[postmaster], PATIENCE);
                if let Err(cause) = gone.or_else(|_| process::kill(&[postmaster])) {
                    log::warn!("PostgreSQL of node {}: {cause}", self.name);
                }
            }
            None => self.forget_shared_memory(),
        }
    }

    /// What to say when the node does not do what it should.
    pub(super) fn last_words(&self) -> String {
        let log = process::last_words(&self.folder.join("patroni.log"));
        format!("Patroni of node {} said: {log}", self.name)
    }

    fn roots(&self) -> Vec<u32> {
        let patroni = self.patroni.as_ref().map(Started::pid);
        patroni.into_iter().chain(self.postmaster()).collect()
    }

    /// The node's PostgreSQL, if it runs.
    fn postmaster(&self) -> Option<u32> {
        let pid = self
            .postmaster_file()?
            .lines()
            .next()?
            .trim()
            .parse()
            .ok()?;
        // After a kill the file stays, and the number may be another's by now.
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let folder = self.folder.to_string_lossy();
        let is_ours = String::from_utf8_lossy(&line).contains(&*folder);
        (is_ours && process::runs(pid)).then_some(pid)
    }

    fn postmaster_file(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()
    }

    /// Removes the segment of shared memory that a killed PostgreSQL leaves behind until it is
    /// started again: the second number of the last line but one of `postmaster.pid`.
    fn forget_shared_memory(&self) {
        let file = self.postmaster_file().unwrap_or_default();
        let line = file.lines().nth(6).unwrap_or_default();
        if let Some(segment) = line.split_whitespace().nth(1) {
            let _ = Command::new("ipcrm")
                .args(["-m", segment])
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}
