//! The bench's dialer: the far side of the `http` provider. It takes every call at once, and
//! reports ends as signed webhooks over connections of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use callq_domain::{CallId, CallType, PhoneNumber};
use callq_providers::WebhookSecret;
use chrono::Utc;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::drain::all_down;
use crate::http::{Connection, answer, request_with};
use crate::latency::Latencies;
use crate::numbering;
use crate::witness::Witness;

/// Shared with callq; good for nothing else.
pub(crate) const SECRET: &str = "whsec_Y2FsbHEtYmVuY2gtY2FsbHEtYmVuY2gtY2FsbHE=";

/// A server closes connections that say nothing for a few seconds; one idle for so long is not
/// used again.
const STALE: Duration = Duration::from_secs(2);

/// Ends that may be on their way to callq at once.
const REPORTERS: usize = 64;

/// Pairs each end that leaves with the next placement that arrives, first with first. With every
/// slot taken and calls waiting, that is how long a slot stood empty as the carrier sees it.
#[derive(Debug, Default)]
pub(crate) struct HandOffs {
    left: VecDeque<Instant>,
    latencies: Latencies,
}

impl HandOffs {
    fn end_leaves(&mut self, at: Instant) {
        self.left.push_back(at);
    }

    fn placement_arrives(&mut self, at: Instant) {
        // The calls that fill the slots at first follow no end.
        if let Some(left) = self.left.pop_front() {
            self.latencies.record(at.duration_since(left));
        }
    }

    /// The latencies since this was last asked.
    pub(crate) fn take(&mut self) -> Latencies {
        std::mem::take(&mut self.latencies)
    }
}

/// How long direct calls that were asked for meanwhile take to come here.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<(HashMap<u32, Instant>, Latencies)>);

impl Waits {
    fn lock(&self) -> MutexGuard<'_, (HashMap<u32, Instant>, Latencies)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call to this contact is being asked for.
    pub(crate) fn asked(&self, contact: u32) {
        self.lock().0.insert(contact, Instant::now());
    }

    fn arrives(&self, contact: u32, at: Instant) {
        let (asked, latencies) = &mut *self.lock();
        if let Some(asked) = asked.remove(&contact) {
            latencies.record(at.duration_since(asked));
        }
    }

    /// The latencies since this was last asked.
    pub(crate) fn take(&self) -> Latencies {
        std::mem::take(&mut self.lock().1)
    }
}

struct Shared {
    witness: Arc<Witness>,
    waits: Arc<Waits>,
    hand_offs: Mutex<HandOffs>,
    up: mpsc::UnboundedSender<CallId>,
}

/// A listening dialer. Its tasks end with it.
pub(crate) struct Dialer {
    shared: Arc<Shared>,
    calls: mpsc::UnboundedReceiver<CallId>,
    pub address: String,
    tasks: JoinSet<anyhow::Result<()>>,
    ends: Option<mpsc::UnboundedSender<CallId>>,
}

/// What a placement says, as far as the bench cares.
#[derive(Deserialize)]
struct Placement {
    call_id: Uuid,
    user_id: Uuid,
    to: String,
    call_type: String,
}

impl Dialer {
    pub(crate) async fn listen(witness: Arc<Witness>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (up, calls) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            witness,
            waits: Arc::default(),
            hand_offs: Mutex::default(),
            up,
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(take_connections(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            calls,
            address,
            tasks,
            ends: None,
        })
    }

    /// From now on ends are reported to callq at `address`.
    pub(crate) fn report_to(&mut self, address: &str) -> anyhow::Result<()> {
        let secret: WebhookSecret = SECRET.parse()?;
        let (sender, ends) = mpsc::unbounded_channel();
        let ends = Arc::new(tokio::sync::Mutex::new(ends));
        for _ in 0..REPORTERS {
            let reporter = Reporter {
                address: address.to_owned(),
                connection: None,
                secret: secret.clone(),
                shared: Arc::clone(&self.shared),
            };
            self.tasks.spawn(reporter.run(Arc::clone(&ends)));
        }
        self.ends = Some(sender);
        Ok(())
    }

    /// Ends a call: the event leaves on the next free connection.
    pub(crate) fn end(&self, call: CallId) {
        if let Some(ends) = &self.ends {
            // A reporter that failed is told by `next_call`.
            let _ = ends.send(call);
        }
    }

    /// Ends these calls, and what still comes, until nothing does.
    pub(crate) async fn end_all(
        &mut self,
        up: impl IntoIterator<Item = CallId>,
    ) -> anyhow::Result<()> {
        for call in up {
            self.end(call);
        }
        let witness = Arc::clone(&self.shared.witness);
        let down = all_down(&witness);
        tokio::pin!(down);
        loop {
            tokio::select! {
                ended = &mut down => return ended,
                call = self.next_call() => self.end(call?),
            }
        }
    }

    pub(crate) fn waits(&self) -> Arc<Waits> {
        Arc::clone(&self.shared.waits)
    }

    pub(crate) fn take_hand_offs(&self) -> Latencies {
        self.shared.hand_offs().take()
    }

    /// The next call that comes up.
    ///
    /// # Errors
    /// As soon as anything of the dialer fails.
    pub(crate) async fn next_call(&mut self) -> anyhow::Result<CallId> {
        tokio::select! {
            call = self.calls.recv() => call.context("the dialer ended"),
            ended = self.tasks.join_next() => {
                ended.context("the dialer ended")???;
                bail!("a connection of the dialer ended")
            }
        }
    }
}

impl Shared {
    fn hand_offs(&self) -> MutexGuard<'_, HandOffs> {
        self.hand_offs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A placement has arrived: notes it and answers with the execution's name.
    fn placed(&self, body: &[u8], at: Instant) -> anyhow::Result<String> {
        let placement: Placement = serde_json::from_slice(body)?;
        self.hand_offs().placement_arrives(at);
        let call = CallId::from(placement.call_id);
        let kind = match placement.call_type.as_str() {
            "direct" => CallType::Direct,
            _ => CallType::Campaign,
        };
        let user = numbering::number_of_user(placement.user_id.into());
        let contact = numbering::number_of_phone(&PhoneNumber::from_trusted(placement.to));
        match (user, contact) {
            (Some(user), Some(contact)) => {
                self.waits.arrives(contact, at);
                self.witness.placed(call, user, contact, kind);
            }
            _ => self.witness.stranger(format!("call {call}")),
        }
        // Nobody listens any more when the measurement is over.
        let _ = self.up.send(call);
        Ok(format!(
            r#"{{"execution_id": "{}"}}"#,
            placement.call_id.simple()
        ))
    }
}

async fn take_connections(listener: TcpListener, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(converse(accepted?.0, Arc::clone(&shared)));
            }
            Some(ended) = connections.join_next() => ended??,
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut connection = Connection::over(stream)?;
    loop {
        let Some(message) = connection.read().await? else {
            return Ok(());
        };
        let at = Instant::now();
        let answer = if message.first_line().starts_with("POST /calls ") {
            answer("200 OK", &shared.placed(message.body(), at)?)
        } else {
            // A look-up. Saying nothing about a call proves nothing about it.
            answer("500 Internal Server Error", "{}")
        };
        connection.write(&answer).await?;
    }
}

/// One connection on which ends are reported.
struct Reporter {
    address: String,
    /// With when it was last used.
    connection: Option<(Connection, Instant)>,
    secret: WebhookSecret,
    shared: Arc<Shared>,
}

impl Reporter {
    async fn run(
        mut self,
        ends: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<CallId>>>,
    ) -> anyhow::Result<()> {
        loop {
            let next = ends.lock().await.recv().await;
            let Some(call) = next else { return Ok(()) };
            self.report(call).await?;
        }
    }

    async fn report(&mut self, call: CallId) -> anyhow::Result<()> {
        let id = format!("end-{}", call.as_uuid().simple());
        let body = format!(
            r#"{{"event_id": "{id}", "call_id": "{call}", "execution_id": "{}", "status": "completed", "occurred_at": "{}", "duration_seconds": 0}}"#,
            call.as_uuid().simple(),
            Utc::now().to_rfc3339()
        );
        let headers = self.secret.signed_headers(&id, &body);
        let request = request_with("POST", "/api/webhooks/http", &headers, &body);
        let kept = self.connection.take();
        let mut connection = match kept.filter(|(_, used)| used.elapsed() < STALE) {
            Some((connection, _)) => connection,
            None => Connection::open(&self.address).await?,
        };
        self.shared.witness.hung_up(call);
        self.shared.hand_offs().end_leaves(Instant::now());
        let answer = connection.exchange(&request).await?;
        match answer.status().context("an answer without a status")? {
            200 => self.shared.witness.confirmed(call, true),
            404 => self.shared.witness.confirmed(call, false),
            status => bail!(
                "an end was answered {status}: {}",
                String::from_utf8_lossy(answer.body())
            ),
        }
        self.connection = Some((connection, Instant::now()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_placements_are_paired_in_their_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut hand_offs = HandOffs::default();

        hand_offs.placement_arrives(at(0));
        hand_offs.end_leaves(at(10));
        hand_offs.end_leaves(at(12));
        hand_offs.placement_arrives(at(15));
        hand_offs.placement_arrives(at(20));

        let found = hand_offs.take().percentiles();
        assert_eq!((found.count, found.max), (2, 8.0));
        assert_eq!(hand_offs.take().percentiles().count, 0);
    }
}
