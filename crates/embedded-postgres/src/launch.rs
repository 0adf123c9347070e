//! Runs a server binary on the cluster directory, as the server's account.
//!
//! The hard case is root with the data directory below a folder the account may not enter, such as
//! `/root`. Opening up somebody's folders is not ours to do. Nor is it enough to hand down a working
//! directory: up to version 15 every PostgreSQL binary looks for itself by leaving its working
//! directory and coming back by path. What does survive is an open file descriptor: root opens the
//! directory, a shell moves it out of the way of stdin, and the server is told that its data lies in
//! `/proc/self/fd/9`, which the kernel resolves without walking any parent.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::account::Account;

/// The descriptor the directory is kept on, and its name for whoever inherits it. A shell can name
/// only single digits, and the server itself never closes one it does not know.
const BY_DESCRIPTOR: &str = "/proc/self/fd/9";
const KEEP_AND_EXEC: &str = r#"exec 9<&0 0</dev/null; exec "$0" "$@""#;

/// What the server may see of callq's environment. Everything else stays out: it holds secrets, and
/// the account the server runs as can read the server's environment.
const ENVIRONMENT: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZDIR"];

/// A command that runs `program` as `account` with `-D` naming `cluster`.
pub(crate) fn command(program: &Path, cluster: &Path, account: Account) -> io::Result<Command> {
    let mut command = if account.dropped && Path::new("/proc/self/fd").exists() {
        let mut command = as_account(OsStr::new("/bin/sh"), account);
        command
            .args(["-c", KEEP_AND_EXEC])
            .arg(program)
            .args(["-D", BY_DESCRIPTOR])
            .stdin(File::open(cluster)?);
        command
    } else {
        let mut command = as_account(program.as_os_str(), account);
        command.arg("-D").arg(cluster).stdin(Stdio::null());
        command
    };
    // Not the caller's: a long-lived server must not pin the folder callq was started in.
    command.current_dir("/");
    Ok(command)
}

/// Whether the process `pid` works in `cluster`, asked with the eyes of `account`: a root without
/// the capability to trace, as in most containers, may not look at other users' processes.
pub(crate) fn works_in(pid: u32, cluster: &Path, account: Account) -> io::Result<bool> {
    let status = as_account(OsStr::new("/bin/sh"), account)
        .args(["-c", r#"test "$0" -ef /proc/self/fd/0"#])
        .arg(format!("/proc/{pid}/cwd"))
        .stdin(File::open(cluster)?)
        .stderr(Stdio::null())
        .current_dir("/")
        .status()?;
    Ok(status.success())
}

pub(crate) fn as_account(program: &OsStr, account: Account) -> Command {
    let mut command = Command::new(program);
    if account.dropped {
        command.uid(account.uid).gid(account.gid);
    }
    command.env_clear();
    for name in ENVIRONMENT {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    // English messages: some are looked for in the log.
    command.env("LC_ALL", "C");
    command
}
