//! Users who ask for calls, steadily, of either server, and note what they were told.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::blocking::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use super::servers::{Caller, client};

/// Between two calls of a user, in milliseconds; 500 on average.
const PAUSE: std::ops::Range<u64> = 200..800;

/// What a request for a call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200 or 202, and the id of the call.
    Accepted(Uuid),
    /// 202 for a call that was accepted, and whose placement's result is not known: also what is
    /// said when the database does not take the result for five seconds.
    InDoubt(Uuid),
    /// Another status: not accepted.
    Refused(u16),
    /// Nothing that can be understood: accepted or not.
    Silence(String),
}

impl Answer {
    /// The call, if it was accepted.
    pub(super) fn accepted(&self) -> Option<Uuid> {
        match self {
            Self::Accepted(id) | Self::InDoubt(id) => Some(*id),
            Self::Refused(_) | Self::Silence(_) => None,
        }
    }
}

/// One request for a call. Each is for another number.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub number: String,
    pub user: usize,
    pub server: usize,
    pub sent: Instant,
    pub answered: Instant,
    pub answer: Answer,
}

/// Users at it.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    requests: Mutex<Vec<Request>>,
    numbers: AtomicU32,
    over: AtomicBool,
}

impl Load {
    /// Has every caller begin.
    pub(super) fn start(addresses: Vec<String>, callers: Vec<Caller>, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            numbers: AtomicU32::new(0),
            over: AtomicBool::new(false),
        });
        let threads = (0_u64..)
            .zip(callers)
            .map(|(user, caller)| {
                let (shared, addresses) = (Arc::clone(&shared), addresses.clone());
                let random = StdRng::seed_from_u64(seed.wrapping_add(user));
                thread::spawn(move || {
                    let user = usize::try_from(user).unwrap_or(usize::MAX);
                    shared.ask_until_over(user, &caller, &addresses, random);
                })
            })
            .collect();
        Self { shared, threads }
    }

    /// What was answered so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.shared.lock().clone()
    }

    /// Has everybody come to an end, and returns all that was asked.
    pub(super) fn stop(mut self) -> Vec<Request> {
        self.end();
        self.requests()
    }

    fn end(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a caller came to grief");
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_until_over(
        &self,
        user: usize,
        caller: &Caller,
        addresses: &[String],
        mut random: StdRng,
    ) {
        let Ok(http) = client() else {
            return log::error!("no HTTP client for a caller");
        };
        while !self.over.load(Ordering::Relaxed) {
            let server = random.random_range(0..addresses.len());
            let n = self.numbers.fetch_add(1, Ordering::Relaxed);
            let number = format!("+14152{n:06}");
            let sent = Instant::now();
            let answer = ask(&http, &addresses[server], caller, &number);
            let refused = answer.accepted().is_none();
            self.lock().push(Request {
                number,
                user,
                server,
                sent,
                answered: Instant::now(),
                answer,
            });
            // Whoever was refused tries again soon.
            let pause = random.random_range(PAUSE) / if refused { 10 } else { 1 };
            sleep(Duration::from_millis(pause));
        }
    }
}

fn ask(http: &Client, address: &str, caller: &Caller, number: &str) -> Answer {
    let sent = http
        .post(format!("{address}/api/calls/initiate"))
        .bearer_auth(&caller.token)
        .json(&json!({"agentId": caller.agent, "phoneNumber": number}))
        .send();
    let answer = match sent {
        Ok(answer) => answer,
        Err(cause) => return Answer::Silence(cause.to_string()),
    };
    let status = answer.status().as_u16();
    if !matches!(status, 200 | 202) {
        return Answer::Refused(status);
    }
    match answer.json::<Value>() {
        Ok(body) => match id_in(&body) {
            Some(id) if body["status"] == "unknown" => Answer::InDoubt(id),
            Some(id) => Answer::Accepted(id),
            None => Answer::Silence(format!("no id in {body}")),
        },
        Err(cause) => Answer::Silence(cause.to_string()),
    }
}

/// The call's id, which is its queue item's.
fn id_in(body: &Value) -> Option<Uuid> {
    let id = body["callId"].as_str().or(body["queue"]["id"].as_str());
    id?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn started_and_queued_calls_both_tell_their_id() {
        let id = Uuid::now_v7();

        assert_eq!(id_in(&json!({"callId": id})), Some(id));
        assert_eq!(id_in(&json!({"queue": {"id": id}})), Some(id));
        assert_eq!(id_in(&json!({"message": "?"})), None);
    }
}
