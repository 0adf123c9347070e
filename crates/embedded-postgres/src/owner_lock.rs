//! Lets one process at a time run the cluster of a data directory.
//!
//! The kernel drops the lock with its holder however that ends, so `kill -9` leaves nothing to
//! clean up. The server itself does not inherit it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::EmbeddedError;

/// Held for as long as it lives.
#[derive(Debug)]
pub(crate) struct OwnerLock {
    _file: File,
}

impl OwnerLock {
    /// Takes the lock at `path` for the data directory `data_dir`, or says who has it.
    pub(crate) fn take(path: &Path, data_dir: &Path) -> Result<Self, EmbeddedError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(EmbeddedError::data_dir("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Without the pid the refusal still stands.
                let _ = file.read_to_string(&mut owner);
                return Err(EmbeddedError::InUse {
                    path: data_dir.to_owned(),
                    pid: owner.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(cause)) => {
                return Err(EmbeddedError::data_dir("lock", path)(cause));
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(EmbeddedError::data_dir("write", path))?;
        Ok(Self { _file: file })
    }
}
