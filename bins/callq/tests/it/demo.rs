//! `callq demo` as a first-time user meets it: it shows the product at work, counts its promises
//! from the database and leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::callq;

/// A demo is over in under a minute; a busy machine gets half as much again.
const PATIENCE: Duration = Duration::from_secs(90);

/// A demo under way, its output line by line.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    began: Instant,
}

impl Demo {
    fn start(temporary: &Path) -> Self {
        let mut child = callq()
            .args(["demo", "--plain"])
            .env("TMPDIR", temporary)
            .current_dir(temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("callq starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| send.send(line))
        });
        Self {
            child,
            lines,
            began: Instant::now(),
        }
    }

    /// The next line; none once it has closed its output.
    fn line(&mut self) -> Option<String> {
        match self
            .lines
            .recv_timeout(PATIENCE.saturating_sub(self.began.elapsed()))
        {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("not over after {PATIENCE:?}"),
        }
    }

    /// What is left of its output, and how it ended.
    fn rest(mut self) -> (String, ExitStatus) {
        let mut output = String::new();
        while let Some(line) = self.line() {
            output.push_str(&line);
            output.push('\n');
        }
        (output, self.child.wait().expect("it can be waited for"))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Already over, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder)
        .expect("it is there")
        .next()
        .is_none()
}

#[test]
fn the_demo_shows_direct_calls_cutting_in_and_every_promise_held() {
    let temporary = tempfile::tempdir().expect("a temporary folder");

    let (output, status) = Demo::start(temporary.path()).rest();

    assert_eq!(status.code(), Some(0), "{output}");
    for shown in [
        "Ada imports contacts.csv and starts a campaign over its 30 contacts",
        "200, a slot is free, dialling",
        "202, position 1",
        "User has reached concurrency limit (2/2 active calls)",
        "System has reached concurrency limit (6/6 active calls)",
        "same answer, no second call",
        "waiting campaign calls",
    ] {
        assert!(output.contains(shown), "{shown:?} is missing in\n{output}");
    }
    for promise in [
        "every accepted call ended",
        "no user went over its limit",
        "nor did the system",
        "direct calls went first",
        "priority_violations is empty",
        "nobody was dialled twice",
        "counters equal a recount",
    ] {
        let line = format!("✓ {promise} ");
        assert!(
            output.contains(&line),
            "{promise:?} is not kept in\n{output}"
        );
    }
    assert!(output.contains("All 7 promises held."), "{output}");
    assert!(is_empty(temporary.path()), "the database was left behind");
}

#[test]
fn an_interrupted_demo_takes_its_database_away() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let mut demo = Demo::start(temporary.path());
    while !demo
        .line()
        .expect("it is under way")
        .contains("Ada imports")
    {}

    let asked = Command::new("kill")
        .args(["-INT", &demo.child.id().to_string()])
        .status();
    assert!(asked.expect("kill is there").success());
    let (output, status) = demo.rest();

    assert_eq!(status.code(), Some(130), "{output}");
    assert!(output.contains("The demo's database is gone."), "{output}");
    assert!(is_empty(temporary.path()), "the database was left behind");
}
