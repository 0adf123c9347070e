//! Makes the cluster, all of it or nothing.
//!
//! `initdb` killed half-way leaves a directory that neither starts nor can be initialised again. So
//! it works beside the final place, and only a finished cluster is renamed into it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::data_dir::DataDir;
use crate::{EmbeddedError, ROLE, launch, settings};

const UNFINISHED: &str = "postgres.new-";

/// The major version of the cluster there is, if there is one.
pub(crate) fn existing_major(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    let version = cluster.join("PG_VERSION");
    match fs::read_to_string(&version) {
        Ok(text) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| not_a_cluster(cluster)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // An empty folder, say a fresh mount, is as good as none.
            if !cluster.exists() || fs::remove_dir(cluster).is_ok() {
                Ok(None)
            } else {
                Err(not_a_cluster(cluster))
            }
        }
        Err(error) => Err(EmbeddedError::data_dir("read", &version)(error)),
    }
}

/// Creates the cluster. The caller holds the owner's lock.
pub(crate) fn create(
    data_dir: &DataDir,
    binaries: &Binaries,
    account: Account,
    durable: bool,
) -> Result<(), EmbeddedError> {
    clear_unfinished(data_dir);
    // The name is new each time: an initdb orphaned by a killed callq may still be at work.
    let nonce = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_nanos());
    let fresh = data_dir.path().join(format!("{UNFINISHED}{nonce:x}"));
    let made = fill(&fresh, binaries, account, durable)
        .and_then(|()| put_in_place(&fresh, data_dir, durable));
    if made.is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    match made {
        Err(EmbeddedError::Program { detail, .. }) if is_disk_full(&detail) => {
            Err(EmbeddedError::DiskFull {
                path: data_dir.path().to_owned(),
            })
        }
        made => made,
    }
}

/// Whether a server binary's last words say that the disk is full.
pub(crate) fn is_disk_full(words: &str) -> bool {
    words.contains("No space left on device")
}

fn fill(
    fresh: &Path,
    binaries: &Binaries,
    account: Account,
    durable: bool,
) -> Result<(), EmbeddedError> {
    DirBuilder::new()
        .mode(0o700)
        .create(fresh)
        .map_err(EmbeddedError::data_dir("create", fresh))?;
    if account.dropped {
        chown(fresh, Some(account.uid), Some(account.gid))
            .map_err(EmbeddedError::data_dir("give away", fresh))?;
    }
    let failed = |detail| EmbeddedError::Program {
        program: "initdb",
        detail,
    };
    let mut command = launch::command(&binaries.initdb(), fresh, account)
        .map_err(|error| failed(error.to_string()))?;
    command
        .args(["-U", ROLE, "--auth=peer", "--no-instructions"])
        .args(["--encoding=UTF8", "--locale=C"]);
    if !durable {
        command.arg("--no-sync");
    }
    let output = command
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(last_words(&output.stderr)));
    }
    let conf = fresh.join("postgresql.conf");
    OpenOptions::new()
        .append(true)
        .open(&conf)
        .and_then(|mut file| file.write_all(settings::INCLUDE.as_bytes()))
        .map_err(EmbeddedError::data_dir("write", &conf))
}

fn put_in_place(fresh: &Path, data_dir: &DataDir, durable: bool) -> Result<(), EmbeddedError> {
    let cluster = data_dir.cluster();
    fs::rename(fresh, &cluster).map_err(EmbeddedError::data_dir("create", &cluster))?;
    if durable {
        File::open(data_dir.path())
            .and_then(|folder| folder.sync_all())
            .map_err(EmbeddedError::data_dir("flush", data_dir.path()))?;
    }
    Ok(())
}

fn clear_unfinished(data_dir: &DataDir) {
    for entry in fs::read_dir(data_dir.path())
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(UNFINISHED.as_bytes())
        {
            // An orphan may be filling it still; what is left goes at a later start.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn not_a_cluster(cluster: &Path) -> EmbeddedError {
    EmbeddedError::NotACluster {
        path: cluster.to_owned(),
    }
}

/// The last lines of a program's output, as one.
pub(crate) fn last_words(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.is_empty() {
        return "it said nothing".to_owned();
    }
    lines[lines.len().saturating_sub(4)..].join(" | ")
}
