//! Brings the events of calls that end by themselves to callq, when they are due, until they are
//! taken: a callq that was killed in between gets them when it is back.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::behaviour::Telling;
use super::carrier::Carrier;
use super::wire::Client;

/// How many events are under way at once: some may be with a server that does not answer.
const COURIERS: usize = 24;

/// How long callq may take over an event before it is brought again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause before an event that was not taken is brought again.
const PAUSE: Duration = Duration::from_millis(200);

/// A signed event and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) call_id: Uuid,
    pub(super) execution_id: String,
    pub(super) status: String,
    pub(super) callback: String,
}

impl Event {
    pub(super) fn body(&self) -> String {
        json!({
            "event_id": self.id,
            "call_id": self.call_id,
            "execution_id": self.execution_id,
            "status": self.status,
            "occurred_at": chrono::Utc::now().to_rfc3339(),
        })
        .to_string()
    }
}

/// What is to be done at its time.
pub(super) enum Errand {
    /// Bring the news of a call on its way, if it is still up, once.
    Report {
        execution_id: String,
        status: &'static str,
    },
    /// End a call, if it is still up, and bring the news.
    End {
        execution_id: String,
        status: &'static str,
        telling: Telling,
    },
    /// Bring an event again, and then so many times more.
    Bring(Event, u8),
}

/// Errands by the time they are due, in order of their making within the same time.
#[derive(Default)]
struct Agenda {
    errands: BTreeMap<(Instant, u64), Errand>,
    made: u64,
    closed: bool,
}

/// The errands of one dialer.
#[derive(Default)]
pub(super) struct Courier {
    agenda: Mutex<Agenda>,
    changed: Condvar,
}

impl Courier {
    pub(super) fn add(&self, after: Duration, errand: Errand) {
        let mut agenda = self.lock();
        agenda.made += 1;
        let key = (Instant::now() + after, agenda.made);
        agenda.errands.insert(key, errand);
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next errand once it is due; `None` when there will be no more.
    fn next(&self) -> Option<Errand> {
        let mut agenda = self.lock();
        loop {
            if agenda.closed {
                return None;
            }
            let due = agenda.errands.first_key_value().map(|(key, _)| key.0);
            let wait = match due {
                Some(due) => due.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3_600),
            };
            if due.is_some() && wait.is_zero() {
                return agenda.errands.pop_first().map(|(_, errand)| errand);
            }
            let waited = self.changed.wait_timeout(agenda, wait);
            agenda = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Sets the couriers of a dialer to work.
pub(super) fn start(carrier: &Arc<Carrier>) -> io::Result<()> {
    for _ in 0..COURIERS {
        let (courier, carrier) = (Arc::clone(&carrier.courier), Arc::downgrade(carrier));
        thread::Builder::new()
            .name("fake-dialer-courier".into())
            .spawn(move || work(&courier, &carrier))?;
    }
    Ok(())
}

fn work(courier: &Courier, carrier: &Weak<Carrier>) {
    let mut client = Client::patient(PATIENCE);
    while let Some(errand) = courier.next() {
        let Some(carrier) = carrier.upgrade() else {
            return;
        };
        let (event, more) = match errand {
            Errand::Bring(event, more) => (event, more),
            Errand::Report {
                execution_id,
                status,
            } => {
                if let Some(event) = carrier.report_execution(&execution_id, status) {
                    let _ = carrier.deliver_with(&mut client, &event);
                }
                continue;
            }
            Errand::End {
                execution_id,
                status,
                telling,
            } => match (carrier.end_execution(&execution_id, status), telling) {
                (None, _) | (_, Telling::Never) => continue,
                (Some(event), Telling::Once) => (event, 0),
                (Some(event), Telling::Twice) => (event, 1),
            },
        };
        // A call that callq does not know will not be known later either.
        let taken = matches!(
            carrier.deliver_with(&mut client, &event),
            Ok(200..=299 | 404)
        );
        match (taken, more) {
            (true, 0) => {}
            (true, more) => courier.add(PAUSE, Errand::Bring(event, more - 1)),
            (false, more) => courier.add(PAUSE, Errand::Bring(event, more)),
        }
    }
}
