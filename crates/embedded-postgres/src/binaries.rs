//! Finds the PostgreSQL server binaries of this machine.
//!
//! Debian keeps them off `PATH`, Homebrew and the PostgreSQL project's own packages in folders by
//! version, so `PATH` alone is not enough.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{EmbeddedError, OLDEST_MAJOR};

/// Folders whose children are one PostgreSQL each: the parent, how a child's name begins, and where
/// in the child the binaries are.
const BY_VERSION: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/usr/local", "pgsql", "bin"),
];

/// A folder with `initdb` and `postgres` of one major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    folder: PathBuf,
    major: u32,
}

impl Binaries {
    /// Finds binaries of exactly `major` (what an existing cluster needs), or of any version callq
    /// supports, first by `CALLQ_PG_BIN`, then on `PATH`, then in the usual folders, newest first.
    pub(crate) fn find(major: Option<u32>) -> Result<Self, EmbeddedError> {
        let explicit = env::var_os("CALLQ_PG_BIN").filter(|folder| !folder.is_empty());
        Search {
            explicit: explicit.map(PathBuf::from),
            path: env::var_os("PATH").unwrap_or_default(),
            root: PathBuf::from("/"),
        }
        .find(major)
    }

    pub(crate) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        if !folder.join("initdb").is_file() || !folder.join("postgres").is_file() {
            return None;
        }
        let output = Command::new(folder.join("postgres"))
            .arg("--version")
            .output()
            .ok()?;
        Some(Self {
            folder: folder.to_owned(),
            major: major_of(&String::from_utf8_lossy(&output.stdout))?,
        })
    }
}

/// The folder with the PostgreSQL server binaries that this crate would use for a new cluster, for
/// programs that start PostgreSQL by other means. Links are followed to where the version's other
/// programs lie too.
///
/// # Errors
///
/// [`EmbeddedError::Binaries`] if there are none.
pub fn server_binaries() -> Result<PathBuf, EmbeddedError> {
    let found = Binaries::find(None)?;
    let postgres = found.postgres().canonicalize().ok();
    let beside = postgres
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_owned);
    Ok(beside.unwrap_or(found.folder))
}

/// Where to look; apart from the environment so that tests can say.
struct Search {
    explicit: Option<PathBuf>,
    path: OsString,
    root: PathBuf,
}

impl Search {
    fn find(&self, major: Option<u32>) -> Result<Binaries, EmbeddedError> {
        let fits = |found: &Binaries| match major {
            Some(major) => found.major == major,
            None => found.major >= OLDEST_MAJOR,
        };
        let mut unfit = Vec::new();
        for folder in self.folders() {
            match Binaries::in_folder(&folder) {
                Some(found) if fits(&found) => return Ok(found),
                Some(found) => unfit.push(format!("{} in {}", found.major, folder.display())),
                None => {}
            }
        }
        Err(EmbeddedError::Binaries {
            problem: self.problem(major, &unfit),
            install: install_command(),
        })
    }

    fn problem(&self, major: Option<u32>, unfit: &[String]) -> String {
        let wanted = major.map_or_else(
            || format!("PostgreSQL {OLDEST_MAJOR} or newer"),
            |major| format!("PostgreSQL {major}, which made the cluster in CALLQ_DATA_DIR"),
        );
        let place = self.explicit.as_ref().map_or_else(String::new, |folder| {
            format!(" in CALLQ_PG_BIN={}", folder.display())
        });
        let found = if unfit.is_empty() {
            String::new()
        } else {
            format!(" (only version {})", unfit.join(", "))
        };
        format!("no server binaries (initdb, postgres) of {wanted}{place}{found}")
    }

    fn folders(&self) -> Vec<PathBuf> {
        // Whoever names a folder means that folder: another version must not slip in behind it.
        if let Some(folder) = &self.explicit {
            return vec![folder.clone()];
        }
        let mut folders: Vec<_> = env::split_paths(&self.path)
            .filter(|folder| folder.is_absolute())
            .collect();
        for (parent, prefix, below) in BY_VERSION {
            let parent = self.root.join(parent.trim_start_matches('/'));
            folders.extend(by_version(&parent, prefix).map(|child| child.join(below)));
        }
        folders
    }
}

/// The children of `parent` named `prefix` and a version, newest first.
fn by_version(parent: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let mut children: Vec<_> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?;
            // `/usr/local/pgsql` bears no version.
            let version: f64 = if version.is_empty() {
                0.0
            } else {
                version.parse().ok()?
            };
            Some((version, entry.path()))
        })
        .collect();
    children.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    children.into_iter().map(|(_, path)| path)
}

/// From `postgres (PostgreSQL) 15.18 (Debian ...)`, `postgres (PostgreSQL) 18beta1` and the like.
fn major_of(version: &str) -> Option<u32> {
    let digits = version.split_whitespace().nth(2)?;
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

fn install_command() -> &'static str {
    let present = |path: &str| Path::new(path).exists();
    if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if present("/usr/bin/apt-get") {
        "apt-get install postgresql"
    } else if present("/usr/bin/dnf") {
        "dnf install postgresql-server"
    } else {
        "package postgresql-server or postgresql"
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder with binaries that only know their version.
    fn install(folder: &Path, version: &str) {
        fs::create_dir_all(folder).unwrap();
        for name in ["initdb", "postgres"] {
            let file = folder.join(name);
            fs::write(
                &file,
                format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n"),
            )
            .unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn search(root: &Path) -> Search {
        Search {
            explicit: None,
            path: OsString::from(root.join("on-path")),
            root: root.to_owned(),
        }
    }

    #[test]
    fn the_newest_version_folder_wins_by_number_not_by_spelling() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9.6", "14", "100"] {
            let folder = root.path().join("usr/lib/postgresql").join(version);
            install(&folder.join("bin"), version);
        }

        let found = search(root.path()).find(None).unwrap();

        assert_eq!(found.major, 100);
    }

    #[test]
    fn path_comes_before_the_version_folders_but_an_existing_cluster_gets_its_own_version() {
        let root = tempfile::tempdir().unwrap();
        install(&root.path().join("on-path"), "15.2 (Debian 15.2-1)");
        install(&root.path().join("usr/lib/postgresql/17/bin"), "17.1");

        let any = search(root.path()).find(None).unwrap();
        let seventeen = search(root.path()).find(Some(17)).unwrap();

        assert_eq!((any.major, seventeen.major), (15, 17));
    }

    #[test]
    fn a_named_folder_is_the_only_one_looked_at() {
        let root = tempfile::tempdir().unwrap();
        install(&root.path().join("on-path"), "15.2");
        let mut search = search(root.path());
        search.explicit = Some(root.path().join("nowhere"));

        let error = search.find(None).unwrap_err().to_string();

        assert!(error.contains("CALLQ_PG_BIN="), "{error}");
        assert!(error.contains("nowhere"), "{error}");
    }

    #[test]
    fn missing_binaries_are_one_line_that_names_the_package_and_both_variables() {
        let root = tempfile::tempdir().unwrap();

        let error = search(root.path()).find(None).unwrap_err().to_string();

        assert!(!error.contains('\n'), "{error}");
        for part in [
            "PostgreSQL 14 or newer",
            "install",
            "CALLQ_PG_BIN",
            "DATABASE_URL",
        ] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }

    #[test]
    fn a_version_too_old_is_named_in_the_error() {
        let root = tempfile::tempdir().unwrap();
        install(&root.path().join("on-path"), "13.9");

        let error = search(root.path()).find(None).unwrap_err().to_string();

        assert!(error.contains("only version 13 in"), "{error}");
    }

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        assert_eq!(
            major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("something else"), None);
    }
}
