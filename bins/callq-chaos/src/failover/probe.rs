//! When the database accepts writes, seen by a client that knows nothing of callq: each time a new
//! connection to whichever node accepts writes, and one small commit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::bail;
use diesel::connection::SimpleConnection;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks under way at once: one that hangs on a silent node must not keep the others waiting.
const AT_ONCE: usize = 8;

/// A write that succeeded: when it was begun, and when it was done.
#[derive(Debug, Clone, Copy)]
struct Success {
    begun: Instant,
    done: Instant,
}

/// Looks again and again, until it is dropped.
pub(super) struct Probe {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    successes: Mutex<Vec<Success>>,
    over: AtomicBool,
}

impl Probe {
    pub(super) fn start(url: &str) -> anyhow::Result<Self> {
        let mut conn = callq_persistence::connect(url)?;
        conn.batch_execute("CREATE TABLE probe (at timestamptz NOT NULL)")?;
        let shared = Arc::<Shared>::default();
        let threads = (0..AT_ONCE)
            .map(|_| {
                let (shared, url) = (Arc::clone(&shared), url.to_owned());
                thread::spawn(move || shared.look_until_over(&url))
            })
            .collect();
        Ok(Self { shared, threads })
    }

    /// Waits for the first write that was begun after `moment`, and says how long after.
    pub(super) fn first_after(
        &self,
        moment: Instant,
        timeout: Duration,
    ) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + timeout;
        loop {
            let first = self.shared.first_after(moment);
            if let Some(first) = first {
                return Ok(first);
            }
            if Instant::now() >= deadline {
                bail!("the database accepts no writes again");
            }
            sleep(PAUSE);
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn look_until_over(&self, url: &str) {
        while !self.over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            if write(url) {
                let done = Instant::now();
                let mut successes = self
                    .successes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                successes.push(Success { begun, done });
            }
            sleep(PAUSE);
        }
    }

    fn first_after(&self, moment: Instant) -> Option<Duration> {
        let successes = self
            .successes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let later = successes.iter().filter(|success| success.begun > moment);
        later.map(|success| success.done - moment).min()
    }
}

fn write(url: &str) -> bool {
    callq_persistence::connect(url).is_ok_and(|mut conn| {
        conn.batch_execute("INSERT INTO probe VALUES (now())")
            .is_ok()
    })
}
