//! Where things lie in the data directory, and where the socket goes when that path is too long.

use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::{EmbeddedError, PORT};

/// The kernel takes 103 bytes for a socket's path on macOS and 107 on Linux; the rest is margin.
const LONGEST_SOCKET_PATH: usize = 100;

/// The data directory by its absolute path.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

impl DataDir {
    /// Names the directory without touching it.
    pub(crate) fn at(path: &Path) -> Result<Self, EmbeddedError> {
        let path = std::path::absolute(path).map_err(EmbeddedError::data_dir("resolve", path))?;
        Ok(Self { path })
    }

    /// Makes sure it exists. What callq creates is for its own user alone; what was there stays as
    /// it is.
    pub(crate) fn create(&self) -> Result<(), EmbeddedError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(EmbeddedError::data_dir("create", &self.path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.path.join("postgres")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.path.join("callq.lock")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("postgres.log")
    }

    /// Where a server for this directory, run by `account`, has its socket.
    ///
    /// Normally in the cluster itself, which nobody else may enter.
    pub(crate) fn socket(&self, account: Account) -> Result<SocketFolder, EmbeddedError> {
        let cluster = self.cluster();
        if socket_file(&cluster).as_os_str().len() <= LONGEST_SOCKET_PATH {
            return Ok(SocketFolder {
                path: cluster,
                // Relative to the server's working directory: it may not be able to walk the path.
                setting: ".".to_owned(),
            });
        }
        let mut hasher = DefaultHasher::new();
        self.path.hash(&mut hasher);
        let name = format!("callq-{:016x}", hasher.finish());
        let path = private_folder(&short_parent(account).join(name), account)?;
        let setting = path.display().to_string();
        Ok(SocketFolder { path, setting })
    }
}

/// Where the socket is, for us and for the server.
#[derive(Clone, Debug)]
pub(crate) struct SocketFolder {
    path: PathBuf,
    /// The value of `unix_socket_directories`.
    pub(crate) setting: String,
}

impl SocketFolder {
    /// The folder a running server says it uses in `postmaster.pid`.
    pub(crate) fn reported(setting: &str, cluster: &Path) -> Self {
        Self {
            // An absolute path replaces the cluster's, a relative one extends it.
            path: if setting == "." {
                cluster.to_owned()
            } else {
                cluster.join(setting)
            },
            setting: setting.to_owned(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_file(&self.path)
    }

    /// Removes the folder if it was made for the socket alone and is empty by now.
    pub(crate) fn discard(&self) {
        if self.setting != "." {
            // It costs nothing to leave behind, and the next start takes it over.
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// As [`discard`](Self::discard), unless `wanted` is the same folder.
    pub(crate) fn discard_unless(&self, wanted: &Self) {
        if self.path != wanted.path {
            self.discard();
        }
    }

    /// The libpq URL of `database` there. The port is spelt out because `PGPORT` would change it.
    pub(crate) fn url(&self, role: &str, database: &str) -> String {
        format!(
            "postgresql:///{}?host={}&port={PORT}&user={role}",
            percent_encoded(database.as_bytes()),
            percent_encoded(self.path.as_os_str().as_bytes()),
        )
    }
}

fn socket_file(folder: &Path) -> PathBuf {
    folder.join(format!(".s.PGSQL.{PORT}"))
}

/// A folder with a short path in which `account` may own something. The per-user and the system's
/// runtime folders come first: nobody else can take a name there, and nothing in them is aged away.
fn short_parent(account: Account) -> PathBuf {
    let runtime = if account.dropped {
        Some(PathBuf::from("/run"))
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
    };
    runtime
        .filter(|folder| folder.is_dir() && folder.is_absolute())
        .filter(|folder| folder.as_os_str().len() + 50 <= LONGEST_SOCKET_PATH)
        .unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// Creates `path` for `account` alone, or accepts it if it is exactly that already.
fn private_folder(path: &Path, account: Account) -> Result<PathBuf, EmbeddedError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) if account.dropped => chown(path, Some(account.uid), Some(account.gid))
            .map_err(EmbeddedError::data_dir("give away", path))?,
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(EmbeddedError::data_dir("create", path)(error)),
    }
    // A link or a folder planted by someone else would let them answer in the server's place.
    let found = fs::symlink_metadata(path).map_err(EmbeddedError::data_dir("examine", path))?;
    if !found.is_dir() || found.uid() != account.uid || found.mode() & 0o077 != 0 {
        return Err(EmbeddedError::SocketDir {
            path: path.to_owned(),
        });
    }
    Ok(path.to_owned())
}

fn percent_encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn me() -> Account {
        Account {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            dropped: false,
        }
    }

    #[test]
    fn the_url_survives_any_path() {
        let folder = SocketFolder::reported(".", Path::new("/srv/a b/ü?&"));

        assert_eq!(
            folder.url("callq", "callq"),
            "postgresql:///callq?host=%2Fsrv%2Fa%20b%2F%C3%BC%3F%26&port=5432&user=callq"
        );
    }

    #[test]
    fn a_private_folder_is_made_once_and_taken_over_the_next_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");

        private_folder(&path, me()).unwrap();
        private_folder(&path, me()).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_open_to_others_or_a_planted_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let target = root.path().join("target");
        private_folder(&target, me()).unwrap();
        let link = root.path().join("link");
        symlink(&target, &link).unwrap();

        for path in [open, link] {
            let refused = private_folder(&path, me());

            assert!(matches!(refused, Err(EmbeddedError::SocketDir { .. })));
        }
    }

    #[test]
    fn a_folder_that_belongs_to_someone_else_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        private_folder(&path, me()).unwrap();
        let someone_else = Account {
            uid: me().uid + 1,
            ..me()
        };

        let refused = private_folder(&path, someone_else);

        assert!(matches!(refused, Err(EmbeddedError::SocketDir { .. })));
    }
}
