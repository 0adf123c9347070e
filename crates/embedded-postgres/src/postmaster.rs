//! Finds out whether a server runs on a cluster, and which process it is.
//!
//! `postmaster.pid` outlives a crash. Its number may by then belong to nobody, or to a stranger:
//! in a container, where numbers start over at each boot, that is the rule. PostgreSQL takes a
//! stranger of the same account for itself and refuses to start; so the process is examined here.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::account::Account;
use crate::data_dir::SocketFolder;
use crate::wire::{Session, WireError};
use crate::{EmbeddedError, PORT, ROLE, launch};

/// Longest wait for a server that says nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for one that says it is busy: after a crash it replays up to a checkpoint's worth
/// of log, which takes minutes on a slow disk.
const PATIENCE_WHILE_BUSY: Duration = Duration::from_secs(300);
/// How often a server is asked whether it is ready, or a process whether it is gone.
pub(crate) const POLL: Duration = Duration::from_millis(10);
/// SQLSTATE of a server that is starting, recovering or shutting down.
const CANNOT_CONNECT_NOW: &str = "57P03";
/// SQLSTATEs of a server that runs, but has no room for one more connection.
const FULL: [&str; 2] = ["53300", "53400"];

/// What `postmaster.pid` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    pub(crate) pid: u32,
    /// Where the server put its socket, as configured; unknown in its first moments.
    pub(crate) socket_folder: Option<String>,
}

impl PidFile {
    /// Reads the file of the cluster. `None`: there is none, or none that makes sense.
    pub(crate) fn read(cluster: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(cluster.join("postmaster.pid")) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok().filter(|pid| *pid > 0)?;
        let socket_folder = lines.nth(3).map(str::to_owned).filter(|l| !l.is_empty());
        Some(Self { pid, socket_folder })
    }
}

/// What a server says when asked for a connection to `database`.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It takes statements.
    Ready,
    /// It runs, and will be ready or gone before long.
    NotYet,
    /// Nothing answers.
    Silence(io::Error),
    /// It runs, and refuses for another reason.
    Refused { code: String, message: String },
}

/// Asks the server at `socket`.
pub(crate) fn ask(socket: &Path, database: &str) -> Answer {
    match Session::connect(socket, ROLE, database) {
        Ok(_) => Answer::Ready,
        Err(WireError::Io(error)) => Answer::Silence(error),
        Err(WireError::Server { code, .. }) if FULL.contains(&&*code) => Answer::Ready,
        Err(WireError::Server { code, .. }) if code == CANNOT_CONNECT_NOW => Answer::NotYet,
        Err(WireError::Server { code, message }) => Answer::Refused { code, message },
    }
}

/// Whether `pid` is the server of `cluster`.
pub(crate) fn serves(pid: u32, cluster: &Path, account: Account) -> bool {
    if !is_alive(pid) {
        return false;
    }
    if !Path::new("/proc/self/cwd").exists() {
        return command_names(pid, cluster);
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if !name.starts_with("postgres") && !name.starts_with("postmaster") {
        return false;
    }
    match (
        fs::metadata(format!("/proc/{pid}/cwd")),
        fs::metadata(cluster),
    ) {
        (Ok(its), Ok(ours)) => (its.dev(), its.ino()) == (ours.dev(), ours.ino()),
        // Whoever may not look may not own it either, except root without all its powers.
        _ => account.dropped && launch::works_in(pid, cluster, account).unwrap_or(false),
    }
}

/// Where there is no `/proc`: the server was told its directory on the command line.
fn command_names(pid: u32, cluster: &Path) -> bool {
    let output = Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output();
    output.is_ok_and(|output| {
        let command = String::from_utf8_lossy(&output.stdout);
        command.contains("postgres") && command.contains(&*cluster.to_string_lossy())
    })
}

pub(crate) fn is_alive(pid: u32) -> bool {
    // Not permitted to signal it means it is there.
    process(pid).is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// Sends `signal`; a process that is gone already is as good as told.
pub(crate) fn tell(pid: u32, signal: Signal) {
    if let Some(process) = process(pid)
        && let Err(error) = kill_process(process, signal)
        && error != Errno::SRCH
    {
        log::warn!(pid, error:% = error; "cannot signal PostgreSQL");
    }
}

fn process(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// How long a server in the state `answer` is waited for.
pub(crate) fn patience(answer: &Answer) -> Duration {
    match answer {
        Answer::NotYet => PATIENCE_WHILE_BUSY,
        Answer::Ready | Answer::Silence(_) | Answer::Refused { .. } => PATIENCE,
    }
}

/// A server found running.
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) socket: SocketFolder,
    /// Whether it lets us in. It does not if it was started for another user.
    pub(crate) admits: bool,
}

/// The server that runs on `cluster`, waiting for one that is about to take connections, or about
/// to stop. `None`: no server runs, and whatever a dead one left that would keep a new one from
/// starting is removed. The caller holds the owner's lock.
pub(crate) fn survey(cluster: &Path, account: Account) -> Result<Option<Running>, EmbeddedError> {
    let began = Instant::now();
    loop {
        let file = PidFile::read(cluster).map_err(EmbeddedError::data_dir("read", cluster))?;
        let Some(file) = file.filter(|file| serves(file.pid, cluster, account)) else {
            return clear_leftovers(cluster).map(|()| None);
        };
        let socket = SocketFolder::reported(file.socket_folder.as_deref().unwrap_or("."), cluster);
        let answer = ask(&socket.socket(), "postgres");
        let patience = patience(&answer);
        match answer {
            Answer::Ready | Answer::Refused { .. } => {
                return Ok(Some(Running {
                    pid: file.pid,
                    socket,
                    admits: matches!(answer, Answer::Ready),
                }));
            }
            Answer::NotYet | Answer::Silence(_) if began.elapsed() < patience => sleep(POLL),
            Answer::NotYet | Answer::Silence(_) => {
                return Err(EmbeddedError::NotReady {
                    path: cluster.to_owned(),
                    seconds: patience.as_secs(),
                    detail: format!("its process {} runs, but takes no connections", file.pid),
                });
            }
        }
    }
}

fn clear_leftovers(cluster: &Path) -> Result<(), EmbeddedError> {
    let socket_lock = format!(".s.PGSQL.{PORT}.lock");
    for name in ["postmaster.pid", &socket_lock] {
        let path = cluster.join(name);
        match fs::remove_file(&path) {
            Ok(()) => log::info!(file:% = path.display(); "removed what a dead server left"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(EmbeddedError::data_dir("remove", &path)(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_is_read_in_every_state_it_can_be_found_in() {
        let whole = "42\n/data/postgres\n1795355980\n5432\n.\n\n  10117126  4\nready   \n";

        let parsed = PidFile::parse(whole).unwrap();

        assert_eq!(
            (parsed.pid, parsed.socket_folder.as_deref()),
            (42, Some("."))
        );
        assert_eq!(PidFile::parse("42\n").unwrap().socket_folder, None);
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("0\n"), None);
    }

    #[test]
    fn a_stranger_with_the_number_of_the_server_is_not_taken_for_it() {
        let cluster = tempfile::tempdir().unwrap();
        let account = Account::choose(&cluster.path().join("postgres")).unwrap();

        assert!(!serves(std::process::id(), cluster.path(), account));
    }
}
