//! What cleans up should this process be killed before it can.
//!
//! A small shell holds the other end of a pipe. When the kernel closes ours, it ends what is still
//! there of the cluster and removes its files. Patroni goes first: it would start PostgreSQL again.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$0` is the folder. A process is ours if its command line names the folder: the number alone
/// may be a stranger's by now.
const WATCH: &str = r#"
trap '' HUP INT TERM
while read -r _; do :; done
cd "$0" || exit 0
ours() { tr '\0' ' ' </proc/"$1"/cmdline | grep -qF "$0"; }
for file in patroni-*.pid etcd.pid; do
    read -r pid <"$file" && ours "$pid" && kill -KILL "$pid"
done
servers=""
for file in */data/postmaster.pid; do
    read -r pid <"$file" && ours "$pid" && kill -CONT "$pid" && kill -QUIT "$pid" && servers="$servers $pid"
done
tries=0
for pid in $servers; do
    while kill -0 "$pid" && [ "$tries" -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
    ours "$pid" && kill -KILL "$pid"
done
cd /
tries=0
until rm -rf "$0" || [ "$tries" -ge 50 ]; do tries=$((tries + 1)); sleep 0.1; done
"#;

/// Watches as long as this process lives, and while this value does.
pub(super) struct Guardian(Child);

impl Guardian {
    pub(super) fn over(folder: &Path) -> std::io::Result<Self> {
        let child = Command::new("/bin/sh")
            .args(["-c", WATCH])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Usually nothing is left for it to do; either way it is done when this returns.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
