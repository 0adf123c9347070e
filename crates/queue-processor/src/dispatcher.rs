//! Placement: each reserved call is marked, sent to its provider once, and its result recorded.

use std::sync::Arc;
use std::time::Duration;

use callq_concurrency::{Engine, EngineError, Reservation, Reservations};
use callq_domain::{
    Attempt, CallProvider, Ending, Outcome, Placement, PlacementReport, PlacementRequest,
    Providers, Return,
};
use log::{error, info, warn};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::backoff::pause_after;
use crate::lease::Lease;

/// What every placement needs.
pub(crate) struct Dispatcher {
    pub engine: Engine,
    pub providers: Providers,
    pub lease: Arc<Lease>,
    /// The longest wait for a provider's answer.
    pub placement_bound: Duration,
    /// Told when an answer was lost, so that the look-up begins at once.
    pub doubt: Arc<Notify>,
    /// One permit a placement in flight; all of them free means none.
    pub in_flight: Arc<Semaphore>,
}

/// More placements than can ever be in flight at once.
pub(crate) const IN_FLIGHT_PERMITS: u32 = 1_000_000;

/// How long a result that cannot be recorded is kept from the one who waits at the door.
const DOOR_PATIENCE: Duration = Duration::from_secs(10);

/// Takes reservations until the engine is gone, each placed by a task of its own.
pub(crate) async fn run(this: Arc<Dispatcher>, mut reservations: Reservations) {
    while let Some(reservation) = reservations.recv().await {
        let dispatcher = Arc::clone(&this);
        let Ok(permit) = Arc::clone(&this.in_flight).acquire_owned().await else {
            return;
        };
        tokio::spawn(async move {
            dispatcher.place(reservation).await;
            drop(permit);
        });
    }
}

impl Dispatcher {
    async fn place(&self, mut reservation: Reservation) {
        let mut report = reservation.report.take();
        let call = &reservation.call;
        let attempt = call.request.attempt;
        let unknown = PlacementReport::Unknown {
            call_id: attempt.call_id,
            item_id: call.item_id,
        };

        let Some(provider) = self.providers.get(&call.provider).cloned() else {
            // A server set up wrong must not fail what another, or this one set right, can place.
            let reason = format!(
                "The provider {} is not configured on this server",
                call.provider
            );
            let delay = pause_after(attempt.number, None);
            self.put_back(attempt, delay, &reason, &mut report).await;
            return;
        };
        match self.engine.mark_dialing(attempt).await {
            Ok(true) if self.lease.leaves(self.placement_bound) => {}
            Ok(false) => {
                // Taken over, ended by an early event, or settled otherwise: not ours to send.
                warn!(call_id:% = attempt.call_id, attempt = attempt.number; "attempt not authorised");
                tell(&mut report, unknown);
                return;
            }
            // Nothing was sent, and nothing will be: that is proof enough to put it back.
            Ok(true) => {
                self.put_back(
                    attempt,
                    Duration::ZERO,
                    "the server's lease was too short to dial",
                    &mut report,
                )
                .await;
                return;
            }
            Err(cause) => {
                let reason = format!("could not be marked before dialing: {cause}");
                self.put_back(attempt, Duration::ZERO, &reason, &mut report)
                    .await;
                return;
            }
        }
        info!(
            call_id:% = attempt.call_id, attempt = attempt.number, user_id:% = call.request.user_id,
            queue_id:% = call.item_id, provider:% = call.provider, call_type:% = call.request.origin.call_type(),
            to:% = call.request.to.masked();
            "dialing"
        );
        let placement = ask(provider, call.request.clone(), self.placement_bound).await;
        self.conclude(attempt, placement, &mut report, unknown)
            .await;
    }

    async fn conclude(
        &self,
        attempt: Attempt,
        placement: Placement,
        report: &mut Option<oneshot::Sender<PlacementReport>>,
        unknown: PlacementReport,
    ) {
        match placement {
            Placement::Placed { execution_id } => {
                info!(call_id:% = attempt.call_id, attempt = attempt.number, execution_id:% = execution_id; "placed");
                let recorded = self
                    .record(report, &unknown, || {
                        self.engine.record_placed(attempt, execution_id.clone())
                    })
                    .await;
                if recorded.is_some() {
                    tell(
                        report,
                        PlacementReport::Placed {
                            call_id: attempt.call_id,
                            execution_id,
                        },
                    );
                }
            }
            Placement::Refused { reason } => {
                warn!(call_id:% = attempt.call_id, attempt = attempt.number, reason = reason.as_str(); "refused by the provider");
                self.end(attempt, reason, report).await;
            }
            Placement::Busy {
                retry_after,
                reason,
            } => {
                let delay = pause_after(attempt.number, retry_after);
                self.put_back(attempt, delay, &reason, report).await;
            }
            Placement::Unreachable { reason } => {
                let delay = pause_after(attempt.number, None);
                self.put_back(attempt, delay, &reason, report).await;
            }
            Placement::Unknown { reason } => {
                error!(call_id:% = attempt.call_id, attempt = attempt.number, reason = reason.as_str(); "placement answer lost");
                self.record(report, &unknown, || {
                    self.engine.record_unknown(attempt, reason.clone())
                })
                .await;
                self.doubt.notify_one();
                tell(report, unknown);
            }
        }
    }

    async fn end(
        &self,
        attempt: Attempt,
        reason: String,
        report: &mut Option<oneshot::Sender<PlacementReport>>,
    ) {
        let call_id = attempt.call_id;
        let refused = PlacementReport::Refused {
            call_id,
            reason: reason.clone(),
        };
        let ending = Ending {
            call_id,
            attempt: Some(attempt.number),
            outcome: Outcome::Failed,
            execution_id: None,
            reason: Some(reason),
            duration_seconds: None,
        };
        if self
            .record(report, &refused, || self.engine.end_call(ending.clone()))
            .await
            .is_some()
        {
            tell(report, refused);
        }
    }

    async fn put_back(
        &self,
        attempt: Attempt,
        delay: Duration,
        reason: &str,
        report: &mut Option<oneshot::Sender<PlacementReport>>,
    ) {
        warn!(
            call_id:% = attempt.call_id, attempt = attempt.number, delay_ms = delay.as_millis() as u64, reason = reason;
            "not placed, back in the queue"
        );
        let back = Return {
            attempt,
            delay,
            reason: reason.to_owned(),
        };
        let returned = self
            .record_quietly(|| self.engine.return_call(back.clone()))
            .await;
        if let Some(Some(queued)) = returned {
            tell(report, PlacementReport::Returned(queued));
        }
    }

    /// Records a result, however long the database is away. Whoever waits at the door is told
    /// `meanwhile` if that takes long.
    async fn record<T, F>(
        &self,
        report: &mut Option<oneshot::Sender<PlacementReport>>,
        meanwhile: &PlacementReport,
        attempt: impl Fn() -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        let recording = self.record_quietly(&attempt);
        tokio::pin!(recording);
        tokio::select! {
            recorded = &mut recording => return recorded,
            () = tokio::time::sleep(DOOR_PATIENCE) => tell(report, meanwhile.clone()),
        }
        recording.await
    }

    async fn record_quietly<T, F>(&self, attempt: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        loop {
            match attempt().await {
                Ok(value) => return Some(value),
                // The call stays owned by this server and is taken over when its lease ends.
                Err(EngineError::ShuttingDown) => return None,
                Err(EngineError::Internal(cause)) => {
                    error!("a placement's result could not be recorded: {cause}");
                    return None;
                }
                Err(EngineError::Unavailable(_) | EngineError::Overloaded) => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }
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

/// Tells whoever waits at the door, once; nobody may be waiting any more.
fn tell(report: &mut Option<oneshot::Sender<PlacementReport>>, what: PlacementReport) {
    if let Some(report) = report.take() {
        let _ = report.send(what);
    }
}
