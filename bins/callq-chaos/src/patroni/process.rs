//! Processes of other programs: started with their output in a file, and ended with everything that
//! descends from them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process started here, whose number stands in a file for the guardian as long as it runs.
pub(super) struct Started {
    child: Child,
    pid_file: PathBuf,
}

impl Started {
    /// Starts `command` in a group of its own, its output added to `log`.
    pub(super) fn spawn(
        mut command: Command,
        log: &Path,
        pid_file: PathBuf,
    ) -> anyhow::Result<Self> {
        let program = command.get_program().to_owned();
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        fs::write(&pid_file, format!("{}\n", child.id()))?;
        Ok(Self { child, pid_file })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// To be called once it was killed: takes note of its end.
    pub(super) fn bury(mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
    }
}

/// Stops these processes and all that descend from them where they are, and returns them all.
pub(super) fn freeze(roots: &[u32]) -> Vec<u32> {
    let mut frozen = Vec::new();
    loop {
        // Until nothing new is found: one that still ran may have had a child meanwhile.
        let all = with_descendants(roots, &parents());
        let new: Vec<u32> = all
            .into_iter()
            .filter(|pid| !frozen.contains(pid))
            .collect();
        if new.is_empty() {
            return frozen;
        }
        for pid in new {
            signal(pid, Signal::STOP);
            frozen.push(pid);
        }
    }
}

/// Ends these processes and all that descend from them, at one instant as far as they can tell.
pub(super) fn kill(roots: &[u32]) -> anyhow::Result<()> {
    let all = freeze(roots);
    for pid in &all {
        signal(*pid, Signal::KILL);
    }
    wait_until_gone(&all, PATIENCE)
}

/// Waits until none of these runs any more.
pub(super) fn wait_until_gone(pids: &[u32], patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while let Some(pid) = pids.iter().find(|pid| runs(**pid)) {
        if Instant::now() >= deadline {
            bail!("process {pid} does not end");
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Sends a signal. A process that is gone needs none.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process is there and not merely unburied.
pub(super) fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// The children of a process whose name, as PostgreSQL's processes give themselves, holds `words`.
pub(super) fn children_named(parent: u32, words: &str) -> Vec<u32> {
    let is_named = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(words))
    };
    let parents = parents().into_iter();
    let children = parents.filter_map(|(pid, of)| (of == parent).then_some(pid));
    children.filter(is_named).collect()
}

/// Everything's parent.
fn parents() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect()
}

fn with_descendants(roots: &[u32], parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut all: Vec<u32> = roots
        .iter()
        .copied()
        .filter(|pid| parents.contains_key(pid))
        .collect();
    let mut looked_at = 0;
    while let Some(parent) = all.get(looked_at).copied() {
        looked_at += 1;
        let children = parents.iter().filter(|(_, of)| **of == parent);
        let new: Vec<u32> = children
            .map(|(pid, _)| *pid)
            .filter(|pid| !all.contains(pid))
            .collect();
        all.extend(new);
    }
    all
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    stat_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn stat_of(line: &str) -> Option<(char, u32)> {
    // The name, in brackets, may hold anything.
    let (_, rest) = line.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The last lines of a log, as one.
pub(super) fn last_words(log: &Path) -> String {
    let text = File::open(log)
        .and_then(io::read_to_string)
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_parent_are_read_whatever_the_process_is_called() {
        let line = "77 (a) Z 1 (b)) S 4 77 77 0 -1 4194304";

        assert_eq!(stat_of(line), Some(('S', 4)));
    }

    #[test]
    fn descendants_are_found_at_any_depth_and_strangers_are_not() {
        let parents = BTreeMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 4)]);

        assert_eq!(with_descendants(&[2, 9], &parents), [2, 3, 4, 6]);
    }

    #[test]
    fn a_process_is_killed_with_the_one_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 60 & wait"]);
        let log = folder.path().join("log");
        let started = Started::spawn(command, &log, folder.path().join("pid")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let both = loop {
            let both = with_descendants(&[started.pid()], &parents());
            if both.len() == 2 {
                break both;
            }
            assert!(Instant::now() < deadline, "{both:?}");
        };

        kill(&[started.pid()]).unwrap();

        assert!(both.iter().all(|pid| !runs(*pid)));
        started.bury();
        assert!(!folder.path().join("pid").exists());
    }
}
