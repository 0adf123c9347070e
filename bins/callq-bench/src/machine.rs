//! What the figures were measured on.

use std::fs;
use std::process::Command;

use callq_persistence::connect;
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use serde::Serialize;

use crate::cluster::{Cluster, SETTINGS};

/// The machine, the system and PostgreSQL.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub system: String,
    pub postgres: String,
    pub settings: Vec<(String, String)>,
    /// The one-minute load average before anything was measured.
    pub load_before: f64,
    pub commit: String,
}

/// Settings that decide what a figure means, as the server has them.
const TOLD: [&str; 6] = [
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "wal_level",
    "max_connections",
];

impl Machine {
    pub(crate) fn look(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut conn = connect(&cluster.url("postgres"))?;
        let names = TOLD.iter().copied().chain(SETTINGS.iter().map(|it| it.0));
        let settings = names
            .map(|name| {
                let value = text(
                    &mut conn,
                    &format!("SELECT current_setting('{name}') AS text"),
                )?;
                Ok((name.to_owned(), value))
            })
            .collect::<anyhow::Result<_>>()?;
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            processor: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: field(&memory, "MemTotal")
                .and_then(|it| it.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            system: output("uname", &["-sr"]),
            postgres: text(
                &mut conn,
                "SELECT current_setting('server_version') AS text",
            )?,
            settings,
            load_before: load
                .split(' ')
                .next()
                .and_then(|it| it.parse().ok())
                .unwrap_or(0.0),
            commit: output("git", &["describe", "--always", "--dirty"]),
        })
    }
}

fn text(conn: &mut diesel::PgConnection, query: &str) -> anyhow::Result<String> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        text: String,
    }
    Ok(sql_query(query).get_result::<Row>(conn)?.text)
}

/// The value behind `name` and a colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output
        .ok()
        .filter(|it| it.status.success())
        .map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
        .unwrap_or_else(|| "unknown".into())
}
