//! A PostgreSQL for one test alone, which may be stopped, crashed, filled or otherwise ill-treated:
//! what the test of a fault needs, and other tests must not see.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use callq_embedded_postgres::{EmbeddedPostgres, Options};
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};

use crate::cluster::{guard, scratch};

/// How long the server may take to stop or to start. Only reached when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A running PostgreSQL of one test's own, with an empty database `callq` in it. A commit survives a
/// crash of the server; of the machine it need not.
///
/// Gone with this value, or with the process, however that ends.
pub struct OwnCluster {
    url: String,
    directory: PathBuf,
    server: Mutex<Option<EmbeddedPostgres>>,
    guardian: Child,
}

impl OwnCluster {
    /// A cluster with PostgreSQL's settings as callq's private one has them, and these.
    ///
    /// # Panics
    /// If there is no PostgreSQL to run.
    #[must_use]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(&scratch(), settings)
    }

    /// The same in a folder of `parent`.
    ///
    /// # Panics
    /// As [`OwnCluster::start`].
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test that cannot start must fail")]
    pub fn start_in(parent: &Path, settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("callq-own-")
            .tempdir_in(parent)
            .expect("a folder for the cluster")
            .keep();
        let guardian = guard(&directory).expect("a shell that cleans up");
        // Copying one that was made before takes a tenth of the time.
        let copied = Command::new("cp")
            .args(["-a".as_ref(), template().as_os_str(), directory.as_os_str()])
            .status()
            .expect("cp runs");
        assert!(copied.success(), "the cluster could not be copied");
        let small = [
            // `durable: false` would switch this off, and with it what a crash has to be survived by.
            ("synchronous_commit", "on"),
            ("shared_buffers", "32MB"),
            ("max_wal_size", "64MB"),
            ("min_wal_size", "32MB"),
            ("superuser_reserved_connections", "0"),
            ("dynamic_shared_memory_type", "mmap"),
        ];
        let settings = small.iter().chain(settings);
        let server = EmbeddedPostgres::start(Options {
            durable: false,
            settings: settings
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Options::new(&directory)
        })
        .expect("a PostgreSQL that starts");
        Self {
            url: server.url().to_owned(),
            directory,
            server: Mutex::new(Some(server)),
            guardian,
        }
    }

    /// The libpq URL of the database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the server keeps its files, its socket among them.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    /// The number of the server's first process; none while it is stopped.
    #[must_use]
    pub fn postmaster(&self) -> Option<u32> {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// A connection as the cluster's administrator.
    ///
    /// # Panics
    /// If there is none to be had.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
    pub fn connect(&self) -> PgConnection {
        PgConnection::establish(&self.url).expect("a connection")
    }

    /// Runs `sql` as the cluster's administrator.
    ///
    /// # Panics
    /// If it fails.
    pub fn execute(&self, sql: &str) {
        if let Err(error) = self.connect().batch_execute(sql) {
            panic!("{sql}: {error}");
        }
    }

    /// Stops the server as a crash would: no connection is ended in good order, nothing is written
    /// down. Returns once it is gone.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn crash(&self) {
        self.stop_by("QUIT");
    }

    /// Stops the server as an administrator does who cannot wait: connections are ended, then
    /// everything is written down. Returns once it is gone.
    ///
    /// # Panics
    /// As [`OwnCluster::crash`].
    pub fn stop(&self) {
        self.stop_by("INT");
    }

    fn stop_by(&self, signal: &str) {
        if let Some(pid) = self.postmaster() {
            tell(pid, signal);
        }
        wait_until("the server is gone", || self.postmaster().is_none());
    }

    /// Starts the server again after it was stopped or died; returns once it takes connections.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_again(&self) {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(server) = server.as_mut() else {
            return;
        };
        let mut failure = String::new();
        wait_until("the server is started again", || match server.revive() {
            Ok(revived) => revived,
            Err(error) => {
                failure = error.to_string();
                false
            }
        });
        if !failure.is_empty() {
            eprintln!("PostgreSQL was started again after: {failure}");
        }
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        // Nobody wants anything of it any more.
        if let Some(pid) = self.postmaster() {
            tell(pid, "QUIT");
        }
        let server = self.server.get_mut();
        drop(server.unwrap_or_else(PoisonError::into_inner).take());
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// The files of a cluster that was never used, made at the first call.
#[expect(clippy::expect_used, reason = "a test that cannot start must fail")]
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (folder, _guardian) = TEMPLATE.get_or_init(|| {
        let directory = tempfile::Builder::new()
            .prefix("callq-own-")
            .tempdir_in(scratch())
            .expect("a folder for the cluster")
            .keep();
        let guardian = guard(&directory).expect("a shell that cleans up");
        let server = EmbeddedPostgres::start(Options {
            durable: false,
            ..Options::new(&directory)
        });
        let stopped = server.and_then(EmbeddedPostgres::stop);
        stopped.expect("a PostgreSQL that starts and stops");
        (directory.join("postgres"), guardian)
    });
    folder
}

fn tell(pid: u32, signal: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(POLL);
    }
}
