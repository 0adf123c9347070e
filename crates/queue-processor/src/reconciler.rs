//! Calls whose state is in doubt: asked about until there is proof, never dialled on a guess.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use callq_concurrency::Engine;
use callq_domain::{
    CallId, CallStatus, DoubtfulCall, Ending, EventSink, LookUp, Outcome, OwnershipStore,
    Providers, ReportedStatus, Return, ServerId, StatusEvent,
};
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use log::{error, info, warn};
use tokio::sync::Notify;
use tokio::time::Instant;

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

/// When a call is asked about next, and what was learned so far.
struct Inquiry {
    next: Instant,
    pause: Duration,
    absent_since: Option<Instant>,
}

/// A provider that does not know a call may only not know it *yet*: its own "no" counts as proof
/// once it has said so twice, this far apart.
const PROOF_OF_ABSENCE: Duration = Duration::from_secs(2);

/// Between looks at the store while nothing is known to be in doubt.
const IDLE_LOOK: Duration = Duration::from_secs(5);

/// Between looks for calls that are up for too long, while none is known.
const OVERLONG_LOOK: Duration = Duration::from_secs(15);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Look-ups under way at once.
const AT_ONCE: usize = 16;

pub(crate) async fn run(this: Arc<Reconciler>) {
    let mut inquiries: HashMap<CallId, Inquiry> = HashMap::new();
    let mut overlong_at: Option<Instant> = None;
    let mut some_overlong = false;
    loop {
        // A look at every call that is up is for now and then, and for when one was found.
        let rest = overlong_at.is_some_and(|at| at.elapsed() < OVERLONG_LOOK);
        let max_age = if rest && !some_overlong {
            Duration::MAX
        } else {
            overlong_at = Some(Instant::now());
            this.max_call
        };
        let pause = match this.store.doubtful_calls(this.server, max_age).await {
            Ok(calls) => {
                some_overlong = calls.iter().any(|doubtful| doubtful.age >= this.max_call);
                inquiries.retain(|id, _| calls.iter().any(|doubtful| doubtful.call.id == *id));
                this.inquire_all(&calls, &mut inquiries).await;
                let next = inquiries.values().map(|inquiry| inquiry.next).min();
                next.map_or(IDLE_LOOK, |next| {
                    next.saturating_duration_since(Instant::now())
                        .clamp(Duration::from_millis(50), IDLE_LOOK)
                })
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

/// Whether a call is to be asked about now; if so, notes when it will be again.
fn is_due(doubtful: &DoubtfulCall, inquiries: &mut HashMap<CallId, Inquiry>) -> bool {
    let now = Instant::now();
    let inquiry = inquiries.entry(doubtful.call.id).or_insert(Inquiry {
        // The provider may still be at work on the request whose answer was lost.
        next: now + FIRST_PAUSE,
        pause: FIRST_PAUSE,
        absent_since: None,
    });
    if now < inquiry.next {
        return false;
    }
    inquiry.pause = (inquiry.pause * 2).min(LONGEST_PAUSE);
    inquiry.next = now + inquiry.pause;
    true
}

impl Reconciler {
    /// Asks about those whose time has come, several at once: one mute provider must not keep the
    /// calls of the others waiting.
    async fn inquire_all(&self, calls: &[DoubtfulCall], inquiries: &mut HashMap<CallId, Inquiry>) {
        let due: Vec<DoubtfulCall> = calls
            .iter()
            .filter(|doubtful| is_due(doubtful, inquiries))
            .cloned()
            .collect();
        let mut answers = stream::iter(due)
            .map(|doubtful| async move {
                let answer = self.look_up(&doubtful).await;
                (doubtful, answer)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((doubtful, answer)) = answers.next().await {
            if let Some(inquiry) = inquiries.get_mut(&doubtful.call.id) {
                self.conclude(&doubtful, answer, inquiry).await;
            }
        }
    }

    /// Acts on what the provider said.
    async fn conclude(&self, doubtful: &DoubtfulCall, answer: LookUp, inquiry: &mut Inquiry) {
        let now = Instant::now();
        let too_long = doubtful.age >= self.max_call;
        match (answer, doubtful.call.status) {
            (
                LookUp::Found {
                    execution_id,
                    status: ReportedStatus::Ended(outcome),
                },
                _,
            ) => {
                let ending = Ending {
                    call_id: doubtful.call.id,
                    attempt: Some(doubtful.attempt.number),
                    outcome,
                    // Too long is too long, whatever the provider calls it.
                    execution_id: (!too_long).then_some(execution_id),
                    reason: Some("the provider was asked".into()),
                    duration_seconds: None,
                };
                self.end(ending).await;
            }
            (LookUp::Found { execution_id, .. }, _) if too_long => {
                if let Err(cause) = self.store.mark_overdue(self.server, doubtful.attempt).await {
                    warn!(call_id:% = doubtful.call.id; "could not be given up yet: {cause}");
                    return;
                }
                if let Some(provider) = self.providers.get(&doubtful.call.provider) {
                    let hung_up = self.bounded(provider.hang_up(&execution_id)).await;
                    let cause = match hung_up {
                        Ok(answer) => answer.err().map(|cause| cause.to_string()),
                        Err(why) => Some(why.to_owned()),
                    };
                    if let Some(cause) = cause {
                        warn!(call_id:% = doubtful.call.id; "an overlong call could not be hung up: {cause}");
                    }
                }
                self.time_out(doubtful).await;
            }
            (
                LookUp::Found {
                    execution_id,
                    status,
                },
                CallStatus::Unknown,
            ) => {
                info!(call_id:% = doubtful.call.id, execution_id:% = execution_id; "adopted: the provider has it");
                let recorded = self
                    .engine
                    .record_placed(doubtful.attempt, execution_id.clone())
                    .await;
                if recorded.is_ok() && status != ReportedStatus::Initiated {
                    self.report(doubtful, execution_id, status).await;
                }
            }
            (LookUp::NotPlaced, CallStatus::Unknown) => {
                let since = *inquiry.absent_since.get_or_insert(now);
                if now.duration_since(since) >= PROOF_OF_ABSENCE {
                    self.put_back(doubtful).await;
                } else {
                    inquiry.next = since + PROOF_OF_ABSENCE;
                }
            }
            (_, _) if too_long => self.time_out(doubtful).await,
            (LookUp::Unclear { reason }, _) => {
                inquiry.absent_since = None;
                warn!(call_id:% = doubtful.call.id, reason = reason.as_str(); "the provider could not say");
            }
            (LookUp::Found { .. } | LookUp::NotPlaced, _) => {}
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
