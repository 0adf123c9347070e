//! Placement: each reserved call is sent to its provider once, and its result recorded.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use callq_concurrency::{Engine, EngineError, Reservation, Reservations};
use callq_domain::{
    Attempt, CallProvider, Ending, EndingEffect, Fence, Outcome, Placement, PlacementReport,
    PlacementRequest, Providers, Return,
};
use futures_util::FutureExt as _;
use log::{error, info, warn};
use tokio::sync::{Notify, oneshot};
use tokio_util::task::TaskTracker;

use crate::backoff::pause_after;
use crate::lease::{Lease, since_boot};

/// What every placement needs.
pub(crate) struct Dispatcher {
    pub engine: Engine,
    pub providers: Providers,
    pub lease: Arc<Lease>,
    /// The longest wait for a provider's answer.
    pub placement_bound: Duration,
    /// Told when an answer was lost, so that the look-up begins at once.
    pub doubt: Arc<Notify>,
    /// The placements in flight.
    pub in_flight: TaskTracker,
}

/// Whoever waits at the door for what becomes of a placement, if anyone does. Told once.
struct Door {
    report: Option<oneshot::Sender<PlacementReport>>,
    unknown: PlacementReport,
}

impl Door {
    fn tell(&mut self, what: PlacementReport) {
        if let Some(report) = self.report.take() {
            // Nobody may be waiting any more: what was decided stands.
            let _ = report.send(what);
        }
    }

    fn tell_unknown(&mut self) {
        self.tell(self.unknown.clone());
    }
}

/// How long a result that cannot be recorded is kept from the one who waits at the door.
const DOOR_PATIENCE: Duration = Duration::from_secs(5);

/// Between attempts to record a result while the database is away.
const RECORD_AGAIN: Duration = Duration::from_millis(500);

/// The same, at most, for a result on which the store fails.
const LONGEST_RECORD_PAUSE: Duration = Duration::from_secs(60);

/// Takes reservations until the engine is gone, each placed by a task of its own.
pub(crate) async fn run(this: Arc<Dispatcher>, mut reservations: Reservations) {
    while let Some(reservation) = reservations.recv().await {
        let dispatcher = Arc::clone(&this);
        this.in_flight.spawn(async move {
            let attempt = reservation.call.request.attempt;
            let placing = AssertUnwindSafe(dispatcher.place(reservation)).catch_unwind();
            if placing.await.is_err() {
                // Whether anything was sent is not known, so its provider is asked.
                let reason = "its placement broke off by a defect".to_owned();
                error!(call_id:% = attempt.call_id, attempt = attempt.number; "a placement panicked");
                record_however_long(|| dispatcher.engine.record_unknown(attempt, reason.clone()))
                    .await;
                dispatcher.doubt.notify_one();
            }
        });
    }
}

impl Dispatcher {
    async fn place(&self, mut reservation: Reservation) {
        let call = &reservation.call;
        let attempt = call.request.attempt;
        let mut door = Door {
            report: reservation.report.take(),
            unknown: PlacementReport::Unknown {
                call_id: attempt.call_id,
                item_id: call.item_id,
            },
        };
        let Some(provider) = self.providers.get(&call.provider).cloned() else {
            // A server set up wrong must not fail what another, or this one set right, can place.
            let reason = format!(
                "The provider {} is not configured on this server",
                call.provider
            );
            let delay = pause_after(attempt.number, None);
            self.put_back(attempt, delay, &reason, &mut door).await;
            return;
        };
        // Before the lease is looked at: whatever stops this server from here on, it stops in time.
        let fence = fence(&self.lease, self.placement_bound);
        if !self.lease.leaves(self.placement_bound) {
            // Nothing was sent, and nothing will be: that is proof enough to put it back. The
            // pause keeps a server that cannot prove its life from going round in circles.
            let reason = "the server's lease was too short to dial";
            let delay = pause_after(attempt.number, None);
            self.put_back(attempt, delay, reason, &mut door).await;
            return;
        }
        info!(
            call_id:% = attempt.call_id, attempt = attempt.number, user_id:% = call.request.user_id,
            queue_id:% = call.item_id, provider:% = call.provider, call_type:% = call.request.origin.call_type(),
            to:% = call.request.to.masked();
            "dialing"
        );
        let request = PlacementRequest {
            fence,
            ..call.request.clone()
        };
        let placement = ask(provider, request, self.placement_bound).await;
        self.conclude(attempt, placement, &mut door).await;
    }

    async fn conclude(&self, attempt: Attempt, placement: Placement, door: &mut Door) {
        match placement {
            Placement::Placed { execution_id } => {
                info!(call_id:% = attempt.call_id, attempt = attempt.number, execution_id:% = execution_id; "placed");
                let recorded = self
                    .record(door, || {
                        self.engine.record_placed(attempt, execution_id.clone())
                    })
                    .await;
                if recorded.is_some() {
                    door.tell(PlacementReport::Placed {
                        call_id: attempt.call_id,
                        execution_id,
                    });
                }
            }
            Placement::Refused { reason } => {
                warn!(call_id:% = attempt.call_id, attempt = attempt.number, reason = reason.as_str(); "refused by the provider");
                self.end(attempt, reason, door).await;
            }
            Placement::Busy {
                retry_after,
                reason,
            } => {
                let delay = pause_after(attempt.number, retry_after);
                self.put_back(attempt, delay, &reason, door).await;
            }
            Placement::Unreachable { reason } => {
                let delay = pause_after(attempt.number, None);
                self.put_back(attempt, delay, &reason, door).await;
            }
            Placement::Unknown { reason } => {
                error!(call_id:% = attempt.call_id, attempt = attempt.number, reason = reason.as_str(); "placement answer lost");
                self.record(door, || self.engine.record_unknown(attempt, reason.clone()))
                    .await;
                self.doubt.notify_one();
                door.tell_unknown();
            }
        }
    }

    async fn end(&self, attempt: Attempt, reason: String, door: &mut Door) {
        let ending = Ending {
            call_id: attempt.call_id,
            attempt: Some(attempt.number),
            outcome: Outcome::Failed,
            execution_id: None,
            reason: Some(reason.clone()),
            duration_seconds: None,
        };
        let ended = self
            .record(door, || self.engine.end_call(ending.clone()))
            .await;
        match ended {
            Some(EndingEffect::Ended) => door.tell(PlacementReport::Refused {
                call_id: attempt.call_id,
                reason,
            }),
            // An event said otherwise before.
            Some(_) => door.tell_unknown(),
            None => {}
        }
    }

    async fn put_back(&self, attempt: Attempt, delay: Duration, reason: &str, door: &mut Door) {
        warn!(
            call_id:% = attempt.call_id, attempt = attempt.number, delay_ms = delay.as_millis() as u64, reason = reason;
            "not placed, back in the queue"
        );
        let back = Return {
            attempt,
            delay,
            reason: reason.to_owned(),
            if_unknown: false,
        };
        let returned = self
            .record(door, || self.engine.return_call(back.clone()))
            .await;
        if let Some(Some(queued)) = returned {
            door.tell(PlacementReport::Returned(queued));
        }
    }

    /// Records a result, however long the database is away. Whoever waits at the door is told that
    /// it is unknown if that takes long.
    async fn record<T, F>(&self, door: &mut Door, attempt: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        let recording = record_however_long(attempt);
        tokio::pin!(recording);
        tokio::select! {
            recorded = &mut recording => return recorded,
            () = tokio::time::sleep(DOOR_PATIENCE) => door.tell_unknown(),
        }
        recording.await
    }
}

/// A result that is lost would leave its call in its slot, and nobody asking about it: so it is kept
/// for as long as the server runs, even if the store takes it for a defect. That may be a fault it
/// does not know.
async fn record_however_long<T, F>(attempt: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, EngineError>>,
{
    let mut pause = RECORD_AGAIN;
    loop {
        match attempt().await {
            Ok(value) => return Some(value),
            // The call stays owned by this server and is taken over when its lease ends.
            Err(EngineError::ShuttingDown) => return None,
            Err(EngineError::Internal(cause)) => {
                error!("a placement's result could not be recorded: {cause}");
                pause = (pause * 2).min(LONGEST_RECORD_PAUSE);
            }
            Err(EngineError::Unavailable(_) | EngineError::Overloaded) => pause = RECORD_AGAIN,
        }
        tokio::time::sleep(pause).await;
    }
}

/// Open for the time of one placement that begins now, and no longer than the lease lasts. A server
/// that wakes up after that finds it closed.
pub(crate) fn fence(lease: &Arc<Lease>, placement_bound: Duration) -> Fence {
    let (lease, end) = (Arc::clone(lease), since_boot() + placement_bound);
    Fence::new(move || since_boot() < end && !lease.left().is_zero())
}

/// Asks the provider, for at most `timeout`. A provider that panics answered nothing.
async fn ask(
    provider: Arc<dyn CallProvider>,
    request: PlacementRequest,
    timeout: Duration,
) -> Placement {
    let mut asking = tokio::spawn(async move { provider.place(&request).await });
    match tokio::time::timeout(timeout, &mut asking).await {
        Ok(Ok(placement)) => placement,
        Ok(Err(panic)) => Placement::Unknown {
            reason: format!("the provider failed: {panic}"),
        },
        Err(_) => {
            asking.abort();
            Placement::Unknown {
                reason: format!("no answer within {} ms", timeout.as_millis()),
            }
        }
    }
}
