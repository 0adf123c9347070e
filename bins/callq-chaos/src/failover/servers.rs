//! Two `callq serve`, and the commands that make users.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use callq_testing::FakeDialer;
use serde_json::{Value, json};

/// What a server prints before its address.
const ANNOUNCEMENT: &str = "callq is serving on ";

/// A user with a token and an agent.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub id: String,
    pub token: String,
    pub agent: String,
}

/// A shell that kills the process `$0` should this one be killed first.
const GUARD: &str =
    r#"trap '' HUP INT TERM; while read -r _; do :; done; kill -KILL "$0" 2>/dev/null"#;

/// A running server, killed with this value or with this process.
pub(super) struct Server {
    child: Child,
    guard: Child,
    pub address: String,
}

/// Two servers on one database.
pub(super) struct Servers {
    all: Vec<Server>,
    url: String,
}

impl Servers {
    pub(super) fn start(
        url: &str,
        dialer: &FakeDialer,
        system_limit: usize,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let all = (1..=2)
            .map(|number| {
                let mut command = callq(url)?;
                command
                    .arg("serve")
                    .env("PORT", "0")
                    .env("SYSTEM_CONCURRENT_CALLS_LIMIT", system_limit.to_string())
                    .env("CALL_PROVIDER", "http")
                    .env("HTTP_PROVIDER_URL", dialer.url())
                    .env("HTTP_PROVIDER_SECRET", dialer.secret())
                    .env("PROVIDER_TIMEOUT_MS", "3000")
                    .env(
                        "RUST_LOG",
                        std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()),
                    );
                Server::start(command, &folder.join(format!("callq-{number}.log")))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            all,
            url: url.to_owned(),
        })
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.all
            .iter()
            .map(|server| server.address.clone())
            .collect()
    }

    /// Makes users, each with this limit and an agent.
    pub(super) fn create_callers(&self, count: usize, limit: usize) -> anyhow::Result<Vec<Caller>> {
        let address = &self.all.first().context("no server")?.address;
        let http = client()?;
        (1..=count)
            .map(|number| {
                let email = format!("caller{number}@drill.invalid");
                let limit = limit.to_string();
                let mut command = callq(&self.url)?;
                command.args(["user", "create", "--json", "--email", &email]);
                command.args(["--concurrent-calls-limit", &limit]);
                let user: Value = serde_json::from_str(&output_of(command)?)?;
                let token = text(&user, "token")?;
                let agent: Value = http
                    .post(format!("{address}/api/agents"))
                    .bearer_auth(&token)
                    .json(&json!({"name": "drill"}))
                    .send()?
                    .error_for_status()?
                    .json()?;
                Ok(Caller {
                    id: text(&user, "id")?,
                    token,
                    agent: text(&agent, "id")?,
                })
            })
            .collect()
    }

    /// What `callq audit` has to say; `None` if all is well.
    pub(super) fn audit(&self) -> anyhow::Result<Option<String>> {
        let output = callq(&self.url)?.arg("audit").output()?;
        let words = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((!output.status.success()).then_some(words))
    }

    /// Ends all of them.
    pub(super) fn stop(&mut self) {
        self.all.clear();
    }
}

impl Server {
    fn start(mut command: Command, log: &PathBuf) -> anyhow::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("callq cannot be started")?;
        let output = child.stdout.take().context("callq has no output")?;
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD, &child.id().to_string()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let mut server = Self {
            child,
            guard,
            address: String::new(),
        };
        for line in BufReader::new(output).lines() {
            if let Some(address) = line?.strip_prefix(ANNOUNCEMENT) {
                server.address = address.trim().to_owned();
                return Ok(server);
            }
        }
        bail!("callq ended before it served");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guard first: the number would be anybody's soon. Either may be gone already.
        for process in [&mut self.guard, &mut self.child] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Brings the database's schema up to date.
pub(super) fn migrate(url: &str) -> anyhow::Result<()> {
    let mut command = callq(url)?;
    command.args(["migrate", "up"]);
    output_of(command).map(drop)
}

/// A client for talking to servers.
pub(super) fn client() -> anyhow::Result<reqwest::blocking::Client> {
    let client = reqwest::blocking::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30));
    Ok(client.build()?)
}

/// `callq` from beside this program, knowing nothing of its surroundings but the database.
fn callq(url: &str) -> anyhow::Result<Command> {
    let program: PathBuf = std::env::current_exe()?.with_file_name("callq");
    ensure!(
        program.is_file(),
        "{} is not there; build both: cargo build --bin callq --bin callq-chaos",
        program.display()
    );
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // Where no `.env` lies.
        .current_dir("/")
        .env("DATABASE_URL", url)
        .stdin(Stdio::null());
    Ok(command)
}

fn output_of(mut command: Command) -> anyhow::Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "callq: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    let text = value[field].as_str();
    text.map(str::to_owned)
        .with_context(|| format!("no {field} in {value}"))
}
