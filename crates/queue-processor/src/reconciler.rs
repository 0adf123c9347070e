//! Calls whose state is in doubt: asked about until there is proof, never dialled on a guess.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use callq_concurrency::Engine;
use callq_domain::{
    DoubtfulCall, Ending, EventSink, LookUp, Outcome, OwnershipStore, Providers, ReportedStatus,
    Return, ServerId, StatusEvent,
};
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use log::{error, info, warn};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::inquiry::{Doubt, Inquiries};

/// Asks providers about doubtful calls.
pub(crate) struct Reconciler {
    pub engine: Engine,
    pub store: Arc<dyn OwnershipStore>,
    pub providers: Providers,
    pub server: ServerId,
    pub max_call: Duration,
    pub provider_timeout: Duration,
    pub doubt: Arc<Notify>,
}

/// Between looks at the store while nothing is known to be in doubt.
const IDLE_LOOK: Duration = Duration::from_secs(5);

/// Between looks for calls that are up for long.
const LONG_LOOK: Duration = Duration::from_secs(15);

/// Look-ups under way at once.
const AT_ONCE: usize = 16;

pub(crate) async fn run(this: Arc<Reconciler>) {
    let mut inquiries = Inquiries::new(this.max_call);
    // A look at every call that is up is for now and then.
    let rest = (inquiries.long() / 2).clamp(Duration::from_millis(250), LONG_LOOK);
    let mut long_look: Option<Instant> = None;
    loop {
        let all = long_look.is_none_or(|at| at.elapsed() >= rest);
        let older_than = if all { inquiries.long() } else { Duration::MAX };
        let pause = match this.store.doubtful_calls(this.server, older_than).await {
            Ok(calls) => {
                let now = Instant::now();
                if all {
                    long_look = Some(now);
                }
                let due = inquiries.due(calls, all, now);
                this.inquire(due, &mut inquiries).await;
                let next = inquiries.next().map_or(IDLE_LOOK, |next| {
                    next.saturating_duration_since(Instant::now())
                });
                next.clamp(Duration::from_millis(50), IDLE_LOOK.min(rest))
            }
            Err(cause) => {
                warn!("doubtful calls cannot be listed: {cause}");
                IDLE_LOOK
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = this.doubt.notified() => {}
        }
    }
}

impl Reconciler {
    /// Asks about calls, several at once: one mute provider must not keep the calls of the others
    /// waiting.
    async fn inquire(&self, due: Vec<DoubtfulCall>, inquiries: &mut Inquiries) {
        let mut answers = stream::iter(due)
            .map(|doubtful| async move {
                let answer = self.look_up(&doubtful).await;
                (doubtful, answer)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((doubtful, answer)) = answers.next().await {
            self.conclude(&doubtful, answer, inquiries).await;
        }
    }

    /// Acts on what the provider said.
    async fn conclude(&self, doubtful: &DoubtfulCall, answer: LookUp, inquiries: &mut Inquiries) {
        let id = doubtful.call.id;
        if !matches!(answer, LookUp::NotPlaced) {
            inquiries.is_not_absent(doubtful.attempt);
        }
        match (answer, inquiries.doubt(doubtful)) {
            (
                LookUp::Found {
                    execution_id,
                    status: ReportedStatus::Ended(outcome),
                },
                doubt,
            ) => {
                let ending = Ending {
                    call_id: id,
                    attempt: Some(doubtful.attempt.number),
                    outcome,
                    // Too long is too long, whatever the provider calls it.
                    execution_id: (doubt != Doubt::Overlong).then_some(execution_id),
                    reason: Some("the provider was asked".into()),
                    duration_seconds: None,
                };
                self.end(ending).await;
            }
            (LookUp::Found { execution_id, .. }, Doubt::Overlong) => {
                if let Err(cause) = self.store.mark_overdue(self.server, doubtful.attempt).await {
                    warn!(call_id:% = id; "could not be given up yet: {cause}");
                    return;
                }
                if let Some(provider) = self.providers.get(&doubtful.call.provider) {
                    let hung_up = self.bounded(provider.hang_up(&execution_id)).await;
                    let cause = match hung_up {
                        Ok(answer) => answer.err().map(|cause| cause.to_string()),
                        Err(why) => Some(why.to_owned()),
                    };
                    if let Some(cause) = cause {
                        warn!(call_id:% = id; "an overlong call could not be hung up: {cause}");
                    }
                }
                self.time_out(doubtful).await;
            }
            (
                LookUp::Found {
                    execution_id,
                    status,
                },
                Doubt::Lost,
            ) => {
                info!(call_id:% = id, execution_id:% = execution_id; "adopted: the provider has it");
                let recorded = self
                    .engine
                    .record_placed(doubtful.attempt, execution_id.clone())
                    .await;
                if recorded.is_ok() && status != ReportedStatus::Initiated {
                    self.report(doubtful, execution_id, status).await;
                }
            }
            (
                LookUp::Found {
                    execution_id,
                    status,
                },
                Doubt::Long,
            ) => {
                // An event was missed, perhaps; one that is older than what is known changes
                // nothing.
                if status.as_call_status() != doubtful.call.status {
                    self.report(doubtful, execution_id, status).await;
                }
            }
            (LookUp::NotPlaced, Doubt::Lost) => {
                if inquiries.is_absent(doubtful.attempt, Instant::now()) {
                    self.put_back(doubtful).await;
                }
            }
            (_, Doubt::Overlong) => self.time_out(doubtful).await,
            (LookUp::NotPlaced, Doubt::Long) => {
                // That it does not know the call any more does not say that it is over.
                warn!(call_id:% = id, age_seconds = doubtful.age.as_secs(); "the provider does not know a call that it took; it keeps its slot until an event, an operator or MAX_CALL_SECONDS ends it");
            }
            (LookUp::Unclear { reason }, _) => {
                warn!(call_id:% = id, reason = reason.as_str(); "the provider could not say");
            }
        }
    }

    async fn look_up(&self, doubtful: &DoubtfulCall) -> LookUp {
        let Some(provider) = self.providers.get(&doubtful.call.provider) else {
            return LookUp::Unclear {
                reason: "its provider is not configured on this server".into(),
            };
        };
        match self.bounded(provider.look_up(doubtful.call.id)).await {
            Ok(answer) => answer,
            Err(why) => LookUp::Unclear { reason: why.into() },
        }
    }

    /// What a provider says, or why it says nothing. One that panics must not keep those from being
    /// asked whose calls are in doubt beside its own.
    async fn bounded<T>(&self, asking: impl Future<Output = T>) -> Result<T, &'static str> {
        let asking = AssertUnwindSafe(asking).catch_unwind();
        match tokio::time::timeout(self.provider_timeout, asking).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err("the provider's module failed"),
            Err(_) => Err("no answer in time"),
        }
    }

    async fn put_back(&self, doubtful: &DoubtfulCall) {
        info!(call_id:% = doubtful.call.id, attempt = doubtful.attempt.number; "not placed after all, back in the queue");
        let back = Return {
            attempt: doubtful.attempt,
            delay: Duration::ZERO,
            reason: "the provider does not have it".into(),
            if_unknown: true,
        };
        if let Err(cause) = self.engine.return_call(back).await {
            warn!(call_id:% = doubtful.call.id; "could not be put back yet: {cause}");
        }
    }

    async fn time_out(&self, doubtful: &DoubtfulCall) {
        error!(call_id:% = doubtful.call.id, age_seconds = doubtful.age.as_secs(); "call without an end is given up");
        let ending = Ending {
            call_id: doubtful.call.id,
            attempt: Some(doubtful.attempt.number),
            outcome: Outcome::Failed,
            execution_id: None,
            reason: Some("timed_out".into()),
            duration_seconds: None,
        };
        self.end(ending).await;
    }

    async fn end(&self, ending: Ending) {
        let call_id = ending.call_id;
        if let Err(cause) = self.engine.end_call(ending).await {
            warn!(call_id:% = call_id; "could not be ended yet: {cause}");
        }
    }

    async fn report(
        &self,
        doubtful: &DoubtfulCall,
        execution_id: callq_domain::ExecutionId,
        status: ReportedStatus,
    ) {
        let event = StatusEvent {
            event_id: format!("look-up of {}", doubtful.call.id),
            call_id: doubtful.call.id,
            execution_id: Some(execution_id),
            status,
            occurred_at: chrono::Utc::now(),
            duration_seconds: None,
            reason: None,
        };
        if let Err(cause) = self.engine.accept(event).await {
            warn!(call_id:% = doubtful.call.id; "what the provider said could not be recorded: {cause}");
        }
    }
}
