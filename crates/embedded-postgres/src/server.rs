//! The running cluster as its owner holds it, and how it ends.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::data_dir::{DataDir, SocketFolder};
use crate::initdb;
use crate::owner_lock::OwnerLock;
use crate::postmaster::{self, Answer, PATIENCE, POLL, PidFile};
use crate::start::Start;
use crate::{DATABASE, EmbeddedError, ROLE};

/// Longest wait for a fast shutdown, which writes a checkpoint.
const PATIENCE_WITH_SHUTDOWN: Duration = Duration::from_secs(30);
const PATIENCE_WITH_IMMEDIATE_SHUTDOWN: Duration = Duration::from_secs(5);

/// How the private cluster is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that holds the cluster; created if missing.
    pub data_dir: PathBuf,
    /// Whether a commit survives a crash of the server or the machine. Only tests say no.
    pub durable: bool,
    /// Most simultaneous connections.
    pub max_connections: u16,
    /// The database to connect to, created if missing.
    pub database: String,
    /// Further PostgreSQL settings by name and value; they win over the built-in ones.
    pub settings: Vec<(String, String)>,
}

impl Options {
    /// A durable cluster in `data_dir` with room for 100 connections and a database `callq`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durable: true,
            max_connections: 100,
            database: DATABASE.to_owned(),
            settings: Vec::new(),
        }
    }
}

/// A running private cluster, owned by this process alone.
///
/// Dropping it stops the server, as [`stop`](Self::stop) does, but only logs a failure. If the
/// process dies instead, the server runs on and the next [`start`](Self::start) adopts it.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    options: Options,
    account: Account,
    data_dir: DataDir,
    socket: SocketFolder,
    url: String,
    server: Server,
    adopted: bool,
    stopped: bool,
    // Dropped last of all, so that the next owner finds the server gone.
    _lock: OwnerLock,
}

/// The server process: a child of ours, or the child of a callq that is dead.
#[derive(Debug)]
pub(crate) enum Server {
    Child(Child),
    Orphan(u32),
}

impl EmbeddedPostgres {
    /// Starts the cluster, or adopts it if it was left running; returns once it takes connections.
    ///
    /// Takes under a second for an existing cluster and a few seconds the first time. Waits at most
    /// 30 seconds for a silent server, and 5 minutes for one that recovers from a crash. A server
    /// left running with other settings than these is restarted.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::InUse`] if another process owns the cluster, otherwise what the variant
    /// says. Whatever was started for the attempt is stopped again.
    pub fn start(options: Options) -> Result<Self, EmbeddedError> {
        let data_dir = DataDir::at(&options.data_dir)?;
        data_dir.create()?;
        let lock = OwnerLock::take(&data_dir.lock(), data_dir.path())?;
        let major = initdb::existing_major(&data_dir.cluster())?;
        let account = Account::choose(&data_dir.cluster())?;
        if major.is_none() {
            let binaries = Binaries::find(None)?;
            log::info!(data_dir:% = data_dir.path().display(); "creating the PostgreSQL cluster");
            initdb::create(&data_dir, &binaries, account, options.durable)?;
        }
        let socket = data_dir.socket(account)?;
        let started = Start::new(&options, &data_dir, account, &socket)?.run()?;
        Ok(Self {
            url: started.socket.url(ROLE, &options.database),
            options,
            account,
            data_dir,
            adopted: matches!(started.server, Server::Orphan(_)),
            server: started.server,
            socket: started.socket,
            stopped: false,
            _lock: lock,
        })
    }

    /// The URL of the cluster in `data_dir` if one runs and takes connections, for a command that
    /// wants to use the database while another process owns it. `None`: nothing runs there.
    ///
    /// # Errors
    ///
    /// If the cluster belongs to another user, or the server refuses the connection.
    pub fn connect_existing(data_dir: impl AsRef<Path>) -> Result<Option<String>, EmbeddedError> {
        let data_dir = DataDir::at(data_dir.as_ref())?;
        let cluster = data_dir.cluster();
        let began = Instant::now();
        loop {
            let file =
                PidFile::read(&cluster).map_err(EmbeddedError::data_dir("read", &cluster))?;
            let Some(setting) = file.and_then(|file| file.socket_folder) else {
                return Ok(None);
            };
            let socket = SocketFolder::reported(&setting, &cluster);
            match postmaster::ask(&socket.socket(), DATABASE) {
                Answer::Ready => return Ok(Some(socket.url(ROLE, DATABASE))),
                Answer::NotYet if began.elapsed() < PATIENCE => sleep(POLL),
                Answer::NotYet | Answer::Silence(_) => return Ok(None),
                Answer::Refused { code, message } => {
                    return Err(EmbeddedError::Refused {
                        path: cluster,
                        code,
                        message,
                    });
                }
            }
        }
    }

    /// Starts the server again if it has died, and says whether it had. The URL stays as it is.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start); the server is then still down, and this may be called again.
    pub fn revive(&mut self) -> Result<bool, EmbeddedError> {
        if self.stopped || !self.server.is_gone(&self.data_dir.cluster()) {
            return Ok(false);
        }
        log::error!(data_dir:% = self.data_dir.path().display(); "PostgreSQL has died and is started again");
        let start = Start::new(&self.options, &self.data_dir, self.account, &self.socket)?;
        self.server = start.run()?.server;
        Ok(true)
    }

    /// The libpq URL of the database, over the Unix socket.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the server was found running instead of being started.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Stops the server: ends its connections, writes everything down and waits for it to exit, at
    /// most 30 seconds, then less politely 5 more.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::DoesNotStop`] if it outlives even that.
    pub fn stop(mut self) -> Result<(), EmbeddedError> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), EmbeddedError> {
        if std::mem::replace(&mut self.stopped, true) {
            return Ok(());
        }
        self.server.shut_down(&self.data_dir)?;
        self.socket.discard();
        Ok(())
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            log::error!(error:% = error; "PostgreSQL was left running");
        }
    }
}

impl Server {
    /// Asks politely, then less so, and waits for the end.
    pub(crate) fn shut_down(&mut self, data_dir: &DataDir) -> Result<(), EmbeddedError> {
        let pid = self.pid();
        let cluster = data_dir.cluster();
        for (signal, patience) in [
            (Signal::INT, PATIENCE_WITH_SHUTDOWN),
            (Signal::QUIT, PATIENCE_WITH_IMMEDIATE_SHUTDOWN),
        ] {
            if !self.is_gone(&cluster) {
                postmaster::tell(pid, signal);
            }
            let began = Instant::now();
            while !self.is_gone(&cluster) && began.elapsed() < patience {
                sleep(POLL);
            }
            if self.is_gone(&cluster) {
                log::info!(pid; "PostgreSQL stopped");
                return Ok(());
            }
        }
        Err(EmbeddedError::DoesNotStop {
            path: data_dir.path().to_owned(),
            pid,
        })
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Child(child) => child.id(),
            Self::Orphan(pid) => *pid,
        }
    }

    /// Removing its pid file is the last thing a server does; a child is reaped besides.
    fn is_gone(&mut self, cluster: &Path) -> bool {
        match self {
            Self::Child(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            Self::Orphan(pid) => {
                let noted = PidFile::read(cluster).ok().flatten();
                !postmaster::is_alive(*pid) || noted.is_none_or(|file| file.pid != *pid)
            }
        }
    }
}
