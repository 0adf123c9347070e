//! The cluster behind all test databases of one process.
//!
//! A test process can end by `exit`, by a panic while panicking or by `kill -9`, and statics are
//! never dropped. So the end is watched for from outside: a small shell holds the other end of a
//! pipe, and when the kernel closes ours it stops the server and removes its files.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use callq_embedded_postgres::{EmbeddedPostgres, Options};
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, QueryResult};
use diesel_migrations::{FileBasedMigrations, MigrationHarness};

/// Read when the tests run rather than compiled in: a new migration needs no rebuild.
const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
const TEMPLATE: &str = "callq_template";
/// Many tests at once, each with a pool or two.
const MAX_CONNECTIONS: u16 = 400;

/// `$0` is the data directory. Signals meant for the tests must not stop the clean-up.
const GUARDIAN: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
read -r server < "$0/postgres/postmaster.pid" && kill -QUIT "$server"
tries=0
while [ -n "$server" ] && kill -0 "$server" && [ "$tries" -lt 200 ]; do
    tries=$((tries + 1)); sleep 0.05
done
tries=0
until rm -rf "$0" || [ "$tries" -ge 50 ]; do
    tries=$((tries + 1)); sleep 0.1
done
"#;

/// The cluster of this process.
pub(crate) struct Cluster {
    url: String,
    /// Its lock also keeps two databases from being made at once.
    connection: Mutex<PgConnection>,
    template: OnceLock<()>,
    // Never dropped, like all statics: the guardian sees to their end.
    _server: EmbeddedPostgres,
    _guardian: Child,
}

impl Cluster {
    /// Starts the cluster at the first call. Panics if that is impossible: no test could go on.
    pub(crate) fn get() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(|| {
            Self::start().unwrap_or_else(|error| panic!("no PostgreSQL for the tests: {error}"))
        })
    }

    fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let data_dir = tempfile::Builder::new()
            .prefix("callq-test-")
            .tempdir_in(scratch())?
            .keep();
        // Before the server, so that there is no moment in which nobody would clean up.
        let guardian = guard(&data_dir)?;
        let server = EmbeddedPostgres::start(Options {
            durable: false,
            max_connections: MAX_CONNECTIONS,
            database: "postgres".to_owned(),
            settings: vec![
                // It may lie in memory, so it must not grow for the sake of rare checkpoints.
                ("max_wal_size".to_owned(), "512MB".to_owned()),
                // Inside the data directory, where the guardian's clean-up reaches.
                ("dynamic_shared_memory_type".to_owned(), "mmap".to_owned()),
            ],
            ..Options::new(data_dir)
        })?;
        Ok(Self {
            url: server.url().to_owned(),
            connection: Mutex::new(PgConnection::establish(server.url())?),
            template: OnceLock::new(),
            _server: server,
            _guardian: guardian,
        })
    }

    /// The URL of the database `name` in this cluster.
    pub(crate) fn url(&self, name: &str) -> String {
        let parameters = self.url.split_once('?').map_or("", |(_, rest)| rest);
        format!("postgresql:///{name}?{parameters}")
    }

    /// The name of the database with every migration applied, made at the first call.
    pub(crate) fn migrated_template(&self) -> &'static str {
        self.template.get_or_init(|| {
            self.execute(&format!("DROP DATABASE IF EXISTS {TEMPLATE}"));
            self.execute(&format!("CREATE DATABASE {TEMPLATE}"));
            if let Err(error) = migrate(&self.url(TEMPLATE)) {
                panic!("the template of the test databases cannot be migrated: {error}");
            }
            // A template can be cloned only while nobody is connected to it.
            self.execute(&format!(
                "ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false"
            ));
        });
        TEMPLATE
    }

    /// Runs `sql` as the cluster's administrator; panics if it fails.
    pub(crate) fn execute(&self, sql: &str) {
        if let Err(error) = self.try_execute(sql) {
            panic!("{sql}: {error}");
        }
    }

    /// Runs `sql` as the cluster's administrator.
    pub(crate) fn try_execute(&self, sql: &str) -> QueryResult<()> {
        // A panic of another test here left the connection as usable as it was.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .batch_execute(sql)
    }
}

fn migrate(url: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let migrations = FileBasedMigrations::from_path(MIGRATIONS)?;
    PgConnection::establish(url)?.run_pending_migrations(migrations)?;
    Ok(())
}

/// Where the files go: into memory where there is plenty, because making a database creates some
/// 300 files, which was measured five times faster there than on a disk. `TMPDIR` overrides it.
pub(crate) fn scratch() -> PathBuf {
    const ENOUGH_KIB: u64 = 4 << 20;
    let memory = PathBuf::from("/dev/shm");
    if env::var_os("TMPDIR").is_none() && free_kib(&memory).is_some_and(|free| free >= ENOUGH_KIB) {
        return memory;
    }
    env::temp_dir()
}

fn free_kib(path: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(path).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

/// The pipe stays with the returned value; it is not inherited by other children.
pub(crate) fn guard(data_dir: &Path) -> std::io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", GUARDIAN])
        .arg(data_dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
}
