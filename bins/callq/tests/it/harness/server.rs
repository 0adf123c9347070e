//! A `callq serve` as a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{PATIENCE, callq};

/// A running `callq serve`.
pub(crate) struct Server {
    child: Child,
    pub address: String,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(settings: &BTreeMap<&'static str, String>) -> Self {
        let mut child = callq()
            .envs(settings)
            .arg("serve")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("callq starts");
        let (found, address) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("callq is serving on ") {
                    let _ = found.send(address.to_owned());
                }
            }
        });
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("piped");
        let into = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|n| n > 0) {
                into.lock().expect("no panic while held").push_str(&line);
                line.clear();
            }
        });
        match address.recv_timeout(PATIENCE) {
            Ok(address) => Self {
                child,
                address,
                log,
                reader: Some(reader),
            },
            Err(_) => {
                let _ = child.kill();
                panic!(
                    "callq did not start:\n{}",
                    log.lock().expect("no panic while held")
                );
            }
        }
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The status of a page that needs no token.
    pub(crate) async fn open_page(&self, path: &str) -> u16 {
        let answer = reqwest::get(format!("{}{path}", self.address)).await;
        answer.expect("an answer").status().as_u16()
    }

    /// Waits until `/readyz` says so, and returns how long that took.
    pub(crate) async fn until_ready(&self, ready: bool) -> Duration {
        let begun = Instant::now();
        let wanted = if ready { 200 } else { 503 };
        while self.open_page("/readyz").await != wanted {
            assert!(begun.elapsed() < PATIENCE, "not {wanted}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic while held").clone()
    }

    /// Kill -9; returns everything it logged.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        self.finish_reading()
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(sent.success());
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        let status = self.child.wait().expect("it ends");
        (status, self.finish_reading())
    }

    fn finish_reading(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.log()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.address, self.log());
        }
    }
}
