//! The real thing: `callq serve` as a process of its own, on the bench's cluster, and the commands
//! that make its users.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cluster::BenchDatabase;
use crate::http::{Connection, request};

/// What it prints before its address.
const ANNOUNCEMENT: &str = "callq is serving on http://";

/// Longest wait for a server that was asked to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server, killed with this value unless it was stopped.
pub(crate) struct Server {
    child: Child,
    pub address: String,
    /// From its start to its readiness.
    pub start_up: Duration,
    url: String,
}

/// A user as the command line makes it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct User {
    pub token: String,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

#[derive(Deserialize)]
struct Created {
    id: uuid::Uuid,
}

impl Server {
    /// Starts it with these settings, and waits until it serves.
    pub(crate) async fn start(
        database: &BenchDatabase,
        settings: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut command = command(&database.url)?;
        command
            .arg("serve")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped());
        let url = database.url.clone();
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let mut child = command.spawn().context("callq cannot be started")?;
            let output = child.stdout.take().context("callq has no output")?;
            let mut server = Self {
                child,
                address: String::new(),
                start_up: Duration::ZERO,
                url,
            };
            for line in BufReader::new(output).lines() {
                if let Some(address) = line?.strip_prefix(ANNOUNCEMENT) {
                    server.address = address.trim().to_owned();
                    server.start_up = began.elapsed();
                    return Ok(server);
                }
            }
            bail!("callq ended before it served");
        })
        .await?
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.address).await
    }

    /// Makes users, each with the same limit.
    pub(crate) async fn create_users(
        &self,
        prefix: &str,
        count: usize,
        limit: u32,
    ) -> anyhow::Result<Vec<User>> {
        let (url, prefix) = (self.url.clone(), prefix.to_owned());
        tokio::task::spawn_blocking(move || {
            let user = |n| {
                let email = format!("{prefix}{n}@bench.invalid");
                let limit = limit.to_string();
                let limit = ["--concurrent-calls-limit", &limit];
                let arguments = ["user", "create", "--json", "--email", &email];
                run(&url, &[&arguments[..], &limit[..]].concat())
            };
            (0..count).map(user).collect()
        })
        .await?
    }

    /// A token of a user that is there.
    pub(crate) async fn token_of(&self, email: &str) -> anyhow::Result<String> {
        let (url, email) = (self.url.clone(), email.to_owned());
        let arguments = ["token", "create", "--json", "--email"];
        tokio::task::spawn_blocking(move || {
            let token: Token = run(&url, &[&arguments[..], &[&email]].concat())?;
            Ok(token.token)
        })
        .await?
    }

    /// Makes an agent of a user, with these settings.
    pub(crate) async fn create_agent(
        &self,
        user: &User,
        settings: &str,
    ) -> anyhow::Result<uuid::Uuid> {
        let body = format!(r#"{{"name": "bench", "settings": {settings}}}"#);
        let request = request("POST", "/api/agents", &user.token, &body);
        let created: Created = self.connect().await?.json(&request).await?;
        Ok(created.id)
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        tokio::task::spawn_blocking(move || {
            let asked = Command::new("kill").arg(self.pid().to_string()).status()?;
            ensure!(asked.success(), "callq cannot be asked to stop");
            let began = Instant::now();
            while began.elapsed() < PATIENCE {
                if let Some(status) = self.child.try_wait()? {
                    ensure!(status.success(), "callq ended with {status}");
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            bail!("callq does not stop");
        })
        .await?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `callq` from beside this program, knowing nothing of its surroundings but the database.
fn command(url: &str) -> anyhow::Result<Command> {
    let program: PathBuf = std::env::current_exe()?.with_file_name("callq");
    ensure!(
        program.is_file(),
        "{} is not there; build both: cargo build --release --bin callq --bin callq-bench",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // Where no `.env` lies.
        .current_dir("/")
        .env("DATABASE_URL", url)
        .env("PORT", "0")
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null());
    Ok(command)
}

/// Runs a command of callq and reads the JSON that it prints.
fn run<T: DeserializeOwned>(url: &str, arguments: &[&str]) -> anyhow::Result<T> {
    let output = command(url)?.args(arguments).output()?;
    ensure!(
        output.status.success(),
        "callq {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}
