//! Gets from a data directory with a cluster in it to a server that takes connections: adopts the
//! one left running, or starts one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::account::{Account, own_user_name};
use crate::binaries::Binaries;
use crate::data_dir::{DataDir, SocketFolder};
use crate::initdb::{self, is_disk_full, last_words};
use crate::postmaster::{self, Answer, PATIENCE, POLL, Running};
use crate::server::{Options, Server};
use crate::wire::{Session, WireError};
use crate::{EmbeddedError, ROLE, launch, settings};

/// A log larger than this is put aside at the next start.
const LOG_LIMIT: u64 = 4 << 20;
/// SQLSTATE of a server that does not have the database asked for.
const UNKNOWN_DATABASE: &str = "3D000";
/// SQLSTATE of `CREATE DATABASE` when another start was faster.
const DUPLICATE_DATABASE: &str = "42P04";
/// What a new server says when processes of a dead or unseen one are still about. They go away by
/// themselves, or turn out to be a server that can be adopted.
const OTHERS_ABOUT: [&str; 2] = [
    "pre-existing shared memory block",
    "\"postmaster.pid\" already exists",
];

/// One start in progress. The caller holds the owner's lock.
pub(crate) struct Start<'a> {
    options: &'a Options,
    data_dir: &'a DataDir,
    account: Account,
    socket: &'a SocketFolder,
    settings: String,
}

/// What a start leads to.
pub(crate) struct Started {
    pub(crate) server: Server,
    pub(crate) socket: SocketFolder,
}

impl<'a> Start<'a> {
    pub(crate) fn new(
        options: &'a Options,
        data_dir: &'a DataDir,
        account: Account,
        socket: &'a SocketFolder,
    ) -> Result<Self, EmbeddedError> {
        Ok(Self {
            settings: settings::render(options, socket)?,
            options,
            data_dir,
            account,
            socket,
        })
    }

    pub(crate) fn run(&self) -> Result<Started, EmbeddedError> {
        let mut started = self.find_or_spawn()?;
        match self.ensure_database(&started.socket) {
            Ok(()) => Ok(started),
            Err(error) => {
                started.server.shut_down(self.data_dir)?;
                Err(error)
            }
        }
    }

    fn find_or_spawn(&self) -> Result<Started, EmbeddedError> {
        let cluster = self.data_dir.cluster();
        let began = Instant::now();
        loop {
            if let Some(found) = postmaster::survey(&cluster, self.account)? {
                match self.adopt(found)? {
                    Some(adopted) => return Ok(adopted),
                    None => continue,
                }
            }
            if let Some(child) = self.spawn()? {
                return Ok(Started {
                    server: Server::Child(child),
                    socket: self.socket.clone(),
                });
            }
            if began.elapsed() > PATIENCE {
                return Err(self.not_ready(PATIENCE, 0));
            }
            sleep(10 * POLL);
        }
    }

    /// Takes over a server left running, or stops it if it was started otherwise than wanted now.
    fn adopt(&self, found: Running) -> Result<Option<Started>, EmbeddedError> {
        let pid = found.pid;
        let mut server = Server::Orphan(pid);
        if found.admits && settings::read(&self.data_dir.cluster()) == self.settings {
            log::info!(pid; "adopted the PostgreSQL that was left running");
            return Ok(Some(Started {
                server,
                socket: found.socket,
            }));
        }
        log::info!(pid; "restarting the PostgreSQL that was left running: settings have changed");
        server.shut_down(self.data_dir)?;
        found.socket.discard_unless(self.socket);
        Ok(None)
    }

    /// Starts a server and waits until it takes connections. `None`: it gave way to another.
    fn spawn(&self) -> Result<Option<Child>, EmbeddedError> {
        let cluster = self.data_dir.cluster();
        let binaries = Binaries::find(initdb::existing_major(&cluster)?)?;
        settings::write(&cluster, self.account, &self.settings, &own_user_name()?)?;
        let log_path = self.data_dir.log();
        let (log, log_start) =
            open_log(&log_path).map_err(EmbeddedError::data_dir("write", &log_path))?;
        let mut child = launch::command(&binaries.postgres(), &cluster, self.account)
            .and_then(|mut command| {
                command
                    .stdout(log.try_clone()?)
                    .stderr(log)
                    // Ctrl-C is for callq, which stops the server once it has no more use for it.
                    .process_group(0)
                    .spawn()
            })
            .map_err(|error| self.failed(error.to_string()))?;
        let outcome = self.until_ready(&mut child, log_start);
        match outcome {
            Ok(true) => {
                log::info!(pid = child.id(), data_dir:% = self.data_dir.path().display(); "PostgreSQL started");
                Ok(Some(child))
            }
            Ok(false) => Ok(None),
            Err(error) => {
                abandon(&mut child);
                Err(error)
            }
        }
    }

    /// Waits until `child` takes connections (`true`) or has given way to another (`false`).
    fn until_ready(&self, child: &mut Child, log_start: u64) -> Result<bool, EmbeddedError> {
        let began = Instant::now();
        loop {
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                let words = self.log_since(log_start);
                if OTHERS_ABOUT.iter().any(|sign| words.contains(sign)) {
                    return Ok(false);
                }
                return Err(self.failed(words));
            }
            let answer = postmaster::ask(&self.socket.socket(), "postgres");
            let patience = postmaster::patience(&answer);
            match answer {
                Answer::Ready => return Ok(true),
                Answer::Refused { code, message } => {
                    return Err(self.refused(WireError::Server { code, message }));
                }
                Answer::NotYet | Answer::Silence(_) if began.elapsed() < patience => sleep(POLL),
                Answer::NotYet | Answer::Silence(_) => {
                    return Err(self.not_ready(patience, log_start));
                }
            }
        }
    }

    fn ensure_database(&self, socket: &SocketFolder) -> Result<(), EmbeddedError> {
        let name = &self.options.database;
        let socket = socket.socket();
        match postmaster::ask(&socket, name) {
            Answer::Ready | Answer::NotYet => return Ok(()),
            Answer::Refused { code, .. } if code == UNKNOWN_DATABASE => {}
            Answer::Refused { code, message } => {
                return Err(self.refused(WireError::Server { code, message }));
            }
            Answer::Silence(error) => return Err(self.refused(WireError::Io(error))),
        }
        let name = name.replace('"', "\"\"");
        let created = Session::connect(&socket, ROLE, "postgres")
            .and_then(|mut session| session.execute(&format!("CREATE DATABASE \"{name}\"")));
        match created {
            Err(WireError::Server { code, .. }) if code == DUPLICATE_DATABASE => Ok(()),
            created => created.map_err(|error| self.refused(error)),
        }
    }

    fn log_since(&self, start: u64) -> String {
        let mut text = Vec::new();
        let read = File::open(self.data_dir.log()).and_then(|mut log| {
            log.seek(SeekFrom::Start(start))?;
            log.take(1 << 16).read_to_end(&mut text)
        });
        match read {
            Ok(_) => last_words(&text),
            Err(error) => format!("its log cannot be read: {error}"),
        }
    }

    fn failed(&self, words: String) -> EmbeddedError {
        if is_disk_full(&words) {
            return EmbeddedError::DiskFull {
                path: self.data_dir.path().to_owned(),
            };
        }
        EmbeddedError::Program {
            program: "postgres",
            detail: words,
        }
    }

    fn not_ready(&self, waited: Duration, log_start: u64) -> EmbeddedError {
        EmbeddedError::NotReady {
            path: self.data_dir.cluster(),
            seconds: waited.as_secs(),
            detail: self.log_since(log_start),
        }
    }

    fn refused(&self, error: WireError) -> EmbeddedError {
        let (code, message) = match error {
            WireError::Server { code, message } => (code, message),
            WireError::Io(error) => ("08006".to_owned(), error.to_string()),
        };
        EmbeddedError::Refused {
            path: self.data_dir.cluster(),
            code,
            message,
        }
    }
}

/// Opens the log for the server to append to, and says where its new lines begin.
fn open_log(path: &PathBuf) -> io::Result<(File, u64)> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let length = log.metadata()?.len();
    Ok((log, length))
}

/// Ends a server that never became ready.
fn abandon(child: &mut Child) {
    postmaster::tell(child.id(), Signal::QUIT);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        sleep(POLL);
    }
    // Its other processes notice and follow.
    if child.kill().and_then(|()| child.wait()).is_err() {
        log::warn!(pid = child.id(); "PostgreSQL did not become ready and does not stop either");
    }
}
