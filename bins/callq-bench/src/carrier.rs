//! The bench's own carrier: it takes every call at once, ends it at once, and has all of it seen by
//! the witness. Ends are told by other tasks than the placement's, to the servers in turn, as a
//! carrier's webhooks reach the servers behind one address.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use callq_concurrency::Engine;
use callq_domain::{
    CallId, CallProvider, EventEffect, EventError, EventHeaders, EventRejection, EventSink,
    ExecutionId, HangUpError, LookUp, Outcome, Placement, PlacementRequest, ProviderName,
    ReportedStatus, StatusEvent,
};
use chrono::Utc;
use tokio::sync::mpsc;

use crate::latency::Latencies;
use crate::numbering;
use crate::witness::Witness;

/// A provider that says yes.
pub(crate) struct Carrier {
    name: ProviderName,
    witness: Arc<Witness>,
    up: mpsc::UnboundedSender<CallId>,
}

/// Calls that are up, in the order in which they came up.
pub(crate) type CallsUp = mpsc::UnboundedReceiver<CallId>;

impl Carrier {
    pub(crate) fn new(name: ProviderName, witness: Arc<Witness>) -> (Arc<Self>, CallsUp) {
        let (up, calls) = mpsc::unbounded_channel();
        (Arc::new(Self { name, witness, up }), calls)
    }
}

#[async_trait]
impl CallProvider for Carrier {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    async fn place(&self, request: &PlacementRequest) -> Placement {
        let call = request.attempt.call_id;
        match (
            numbering::number_of_user(request.user_id),
            numbering::number_of_phone(&request.to),
        ) {
            (Some(user), Some(contact)) => {
                self.witness
                    .placed(call, user, contact, request.origin.call_type());
            }
            _ => self.witness.stranger(format!("call {call}")),
        }
        // The receiver goes only when the measurement is over.
        let _ = self.up.send(call);
        match execution_of(call) {
            Some(execution_id) => Placement::Placed { execution_id },
            None => Placement::Refused {
                reason: "no execution id".into(),
            },
        }
    }

    async fn look_up(&self, _call_id: CallId) -> LookUp {
        LookUp::Unclear {
            reason: "the bench answers every placement".into(),
        }
    }

    async fn hang_up(&self, _execution_id: &ExecutionId) -> Result<(), HangUpError> {
        Err(HangUpError::NotFound)
    }

    fn read_event(
        &self,
        _headers: &dyn EventHeaders,
        _body: &[u8],
    ) -> Result<StatusEvent, EventRejection> {
        Err(EventRejection::Unauthentic("no webhooks here".into()))
    }
}

fn execution_of(call: CallId) -> Option<ExecutionId> {
    ExecutionId::new(call.as_uuid().simple().to_string())
}

/// Tells the servers that calls are over.
pub(crate) struct Courier {
    engines: Vec<Engine>,
    witness: Arc<Witness>,
    /// From telling an end to its being durable.
    latencies: Mutex<Latencies>,
}

impl Courier {
    pub(crate) fn new(engines: Vec<Engine>, witness: Arc<Witness>) -> Arc<Self> {
        Arc::new(Self {
            engines,
            witness,
            latencies: Mutex::default(),
        })
    }

    /// Ends every call as soon as it is up.
    pub(crate) async fn end_at_once(self: Arc<Self>, mut calls: CallsUp) {
        let mut turn = 0;
        while let Some(call) = calls.recv().await {
            self.end(call, turn);
            turn += 1;
        }
    }

    /// Ends a call, in a task of its own, at the server whose turn it is.
    pub(crate) fn end(self: &Arc<Self>, call: CallId, turn: usize) {
        let this = Arc::clone(self);
        tokio::spawn(async move { this.tell(call, turn).await });
    }

    async fn tell(&self, call: CallId, turn: usize) {
        let Some(engine) = self.engines.get(turn % self.engines.len()) else {
            return;
        };
        self.witness.hung_up(call);
        let event = StatusEvent {
            event_id: format!("end-{}", call.as_uuid().simple()),
            call_id: call,
            execution_id: execution_of(call),
            status: ReportedStatus::Ended(Outcome::Completed),
            occurred_at: Utc::now(),
            duration_seconds: Some(0),
            reason: None,
        };
        let told = Instant::now();
        loop {
            match engine.accept(event.clone()).await {
                Ok(effect) => {
                    self.latencies().record(told.elapsed());
                    self.witness.confirmed(call, effect == EventEffect::Applied);
                    return;
                }
                Err(EventError::UnknownCall(_)) => {
                    self.witness.confirmed(call, false);
                    return;
                }
                Err(EventError::Unavailable(cause)) => {
                    log::warn!("an end is told again: {cause}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn latencies(&self) -> std::sync::MutexGuard<'_, Latencies> {
        self.latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The latencies since this was last asked.
    pub(crate) fn take_latencies(&self) -> Latencies {
        std::mem::take(&mut *self.latencies())
    }
}
