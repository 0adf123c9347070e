//! What can go wrong with the private cluster, each as one line that says what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why the private cluster could not be used. `Display` is one line fit for an operator and
/// already includes the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The data directory or something in it could not be created, read or written.
    #[error(
        "CALLQ_DATA_DIR: cannot {action} {}: {cause}; choose a directory this user may write, or set DATABASE_URL",
        path.display()
    )]
    DataDir {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process runs the cluster in this data directory.
    #[error(
        "CALLQ_DATA_DIR: {} is in use by another callq ({}); stop it or choose another directory",
        path.display(),
        pid.map_or_else(|| "pid unknown".to_owned(), |pid| format!("pid {pid}"))
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The owner, if it has written its pid yet.
        pid: Option<u32>,
    },
    /// The cluster belongs to another operating-system user.
    #[error(
        "CALLQ_DATA_DIR: {} belongs to {owner}; run callq as that user or choose another directory",
        path.display()
    )]
    WrongOwner {
        /// The cluster.
        path: PathBuf,
        /// Its owner.
        owner: String,
    },
    /// The directory where the cluster should be holds something else.
    #[error(
        "CALLQ_DATA_DIR: {} is not empty and holds no PostgreSQL cluster; move it away or choose another directory",
        path.display()
    )]
    NotACluster {
        /// The directory.
        path: PathBuf,
    },
    /// No usable server binaries were found.
    #[error(
        "{problem}; install them ({install}), or set CALLQ_PG_BIN to their folder, or set DATABASE_URL to use another PostgreSQL"
    )]
    Binaries {
        /// What was looked for and not found.
        problem: String,
        /// The command that installs them here.
        install: &'static str,
    },
    /// Run as root on a machine that has no account to drop to.
    #[error(
        "PostgreSQL refuses to run as root and there is neither an account postgres nor nobody to drop to; run callq as an ordinary user or set DATABASE_URL"
    )]
    NoAccount,
    /// The user running callq has no name, and PostgreSQL needs one.
    #[error(
        "user id {uid} has no name in the user database, which PostgreSQL needs; add one to /etc/passwd or set DATABASE_URL"
    )]
    NamelessUser {
        /// The effective user id.
        uid: u32,
    },
    /// The disk filled up.
    #[error("CALLQ_DATA_DIR: no space left on the device of {}; free some", path.display())]
    DiskFull {
        /// The data directory.
        path: PathBuf,
    },
    /// The folder for the socket is someone else's or open to others.
    #[error(
        "the socket folder {} is not private to this user; remove it, or set CALLQ_DATA_DIR to a shorter path",
        path.display()
    )]
    SocketDir {
        /// The folder.
        path: PathBuf,
    },
    /// A setting's name is not one PostgreSQL could have.
    #[error("{name:?} is not the name of a PostgreSQL setting")]
    Setting {
        /// The offending name.
        name: String,
    },
    /// A server binary could not be run or reported a failure.
    #[error("{program} failed: {detail}")]
    Program {
        /// Which binary.
        program: &'static str,
        /// Its last words, or why it did not run.
        detail: String,
    },
    /// The server did not accept connections in time.
    #[error("PostgreSQL in {} is not ready after {seconds} s: {detail}", path.display())]
    NotReady {
        /// The cluster.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
        /// The last lines of its log.
        detail: String,
    },
    /// The server answered, and refused.
    #[error("PostgreSQL in {} refused: {message} (SQLSTATE {code})", path.display())]
    Refused {
        /// The cluster.
        path: PathBuf,
        /// The SQLSTATE.
        code: String,
        /// Its message.
        message: String,
    },
    /// The server outlived every request to stop.
    #[error("PostgreSQL (pid {pid}) in {} does not stop; see its log there", path.display())]
    DoesNotStop {
        /// The data directory.
        path: PathBuf,
        /// The server's process.
        pid: u32,
    },
}

impl EmbeddedError {
    /// For `map_err`: the system refused `action` on `path`.
    pub(crate) fn data_dir(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| {
            if cause.kind() == io::ErrorKind::StorageFull {
                Self::DiskFull { path }
            } else {
                Self::DataDir {
                    action,
                    path,
                    cause,
                }
            }
        }
    }
}
