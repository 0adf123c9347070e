//! The simulated calls that are up: one small task each, and what is known of them meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use callq_domain::{
    Attempt, CallId, EventError, EventSink, ExecutionId, Outcome, ReportedStatus, StatusEvent,
};
use chrono::Utc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::plan::Course;

/// How long a call that a signed event ended is still known. Its sender may not have been able to
/// store the event yet, and a look-up in between must not find that there never was a call.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Pauses between tries to have an event stored.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The calls that are up. Cheap to clone.
#[derive(Clone)]
pub(super) struct LiveCalls(Arc<Shared>);

struct Shared {
    sink: Arc<dyn EventSink>,
    runtime: Handle,
    calls: Mutex<HashMap<CallId, Live>>,
}

struct Live {
    status: ReportedStatus,
    answered: Option<Instant>,
    /// Taken by whoever ends the call before its time.
    stop: Option<oneshot::Sender<Stop>>,
}

/// Why a call ends before its time.
enum Stop {
    /// callq hangs up, and wants to be told the end.
    HungUp,
    /// A signed event said so; callq was told by it.
    Reported,
}

impl LiveCalls {
    pub(super) fn new(sink: Arc<dyn EventSink>, runtime: Handle) -> Self {
        let calls = Mutex::default();
        Self(Arc::new(Shared {
            sink,
            runtime,
            calls,
        }))
    }

    /// Puts a call up, unless it is up already.
    pub(super) fn start(&self, attempt: Attempt, course: Course) {
        let (stop, stopped) = oneshot::channel();
        let now = Instant::now();
        // A clock that has not run as long as the call talked cannot say when it began.
        let answered = course
            .talked()
            .map(|talked| now.checked_sub(talked).unwrap_or(now));
        let status = match answered {
            Some(_) => ReportedStatus::InProgress,
            None => ReportedStatus::Initiated,
        };
        let mut calls = self.lock();
        if calls.contains_key(&attempt.call_id) {
            return;
        }
        let live = Live {
            status,
            answered,
            stop: Some(stop),
        };
        calls.insert(attempt.call_id, live);
        drop(calls);
        self.0
            .runtime
            .spawn(self.clone().live(attempt, course, now, stopped));
    }

    /// Where a call stands, while it is known.
    pub(super) fn status(&self, call_id: CallId) -> Option<ReportedStatus> {
        self.lock().get(&call_id).map(|live| live.status)
    }

    /// Ends a call that is up: `completed` if it was answered, else `cancelled`. False if it is not
    /// up.
    pub(super) fn hang_up(&self, call_id: CallId) -> bool {
        let mut calls = self.lock();
        let Some(live) = calls.get_mut(&call_id) else {
            return false;
        };
        let outcome = match live.status {
            ReportedStatus::InProgress => Outcome::Completed,
            _ => Outcome::Cancelled,
        };
        live.end(outcome, Stop::HungUp)
    }

    /// Takes note of what a signed event says of a call.
    pub(super) fn note(&self, call_id: CallId, status: ReportedStatus) {
        let mut calls = self.lock();
        let Some(live) = calls.get_mut(&call_id) else {
            return;
        };
        match status {
            ReportedStatus::Ended(outcome) => {
                live.end(outcome, Stop::Reported);
            }
            status => live.advance(status),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CallId, Live>> {
        // Nothing that can panic runs under the lock, and if it did the map would still be whole.
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one call.
    async fn live(
        self,
        attempt: Attempt,
        course: Course,
        start: Instant,
        mut stopped: oneshot::Receiver<Stop>,
    ) {
        let call_id = attempt.call_id;
        let stop = tokio::select! {
            biased;
            stop = &mut stopped => stop.ok(),
            outcome = self.follow(attempt, course, start) => {
                self.end_in_time(call_id, outcome);
                // Somebody may have ended it this very moment; then it is their end.
                stopped.try_recv().ok()
            }
        };
        if let Some(Stop::Reported) = stop {
            sleep(REMEMBERED).await;
        } else if let Some((outcome, talked)) = self.ended(call_id) {
            let reason = match (&stop, outcome) {
                (Some(Stop::HungUp), _) => Some("hung up".to_owned()),
                (_, Outcome::Completed) => None,
                _ => Some(format!("simulated {}", outcome.as_str())),
            };
            let status = ReportedStatus::Ended(outcome);
            self.report(attempt, status, talked, reason).await;
        }
        self.lock().remove(&call_id);
    }

    /// Waits for what is planned and reports it, up to the end, which it returns unreported.
    async fn follow(&self, attempt: Attempt, course: Course, start: Instant) -> Outcome {
        match course {
            Course::Manual { .. } => std::future::pending().await,
            Course::Talking { talk_left, .. } => {
                sleep_until(start + talk_left).await;
                Outcome::Completed
            }
            Course::Ringing {
                audible,
                answer_in,
                talk,
                outcome,
            } => {
                if audible {
                    self.reach(attempt, ReportedStatus::Ringing).await;
                }
                let answer = start + answer_in;
                sleep_until(answer).await;
                if outcome == Outcome::Completed {
                    self.reach(attempt, ReportedStatus::InProgress).await;
                    sleep_until(answer + talk).await;
                }
                outcome
            }
        }
    }

    async fn reach(&self, attempt: Attempt, status: ReportedStatus) {
        if let Some(live) = self.lock().get_mut(&attempt.call_id) {
            live.advance(status);
        }
        self.report(attempt, status, None, None).await;
    }

    /// Marks the planned end, unless the call was ended before it.
    fn end_in_time(&self, call_id: CallId, outcome: Outcome) {
        if let Some(live) = self.lock().get_mut(&call_id)
            && live.stop.take().is_some()
        {
            live.status = ReportedStatus::Ended(outcome);
        }
    }

    /// How the call ended, and how many seconds it talked.
    fn ended(&self, call_id: CallId) -> Option<(Outcome, Option<u32>)> {
        let calls = self.lock();
        let live = calls.get(&call_id)?;
        let ReportedStatus::Ended(outcome) = live.status else {
            return None;
        };
        let talked = live.answered.map(|answered| answered.elapsed().as_secs());
        Some((outcome, talked.and_then(|seconds| seconds.try_into().ok())))
    }

    /// Reports until it is stored, however long that takes: a call whose end is never told would
    /// hold its slot until `MAX_CALL_SECONDS`.
    async fn report(
        &self,
        attempt: Attempt,
        status: ReportedStatus,
        duration_seconds: Option<u32>,
        reason: Option<String>,
    ) {
        let Attempt { call_id, number } = attempt;
        let event = StatusEvent {
            // The same event has the same id, also when another process reports it again.
            event_id: format!("sim-{call_id}-{number}-{}", status.as_str()),
            call_id,
            execution_id: execution_id(call_id),
            status,
            occurred_at: Utc::now(),
            duration_seconds,
            reason,
        };
        let pauses = ExponentialBuilder::default()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter();
        let stored = (|| self.0.sink.accept(event.clone()))
            .retry(pauses)
            .when(|error| matches!(error, EventError::Unavailable(_)))
            .notify(|error, pause| {
                log::warn!(call_id:% = call_id, status = status.as_str();
                    "a simulated call's event is not stored yet, next try in {pause:?}: {error}");
            })
            .await;
        if let Err(error) = stored {
            log::warn!(call_id:% = call_id, status = status.as_str();
                "a simulated call's event was given up: {error}");
        }
    }
}

impl Live {
    /// Ends it for `stop`, if nothing ended it before.
    fn end(&mut self, outcome: Outcome, stop: Stop) -> bool {
        let Some(sender) = self.stop.take() else {
            return false;
        };
        self.status = ReportedStatus::Ended(outcome);
        // Its task is there to take it: it leaves only after taking the call off the map.
        let _ = sender.send(stop);
        true
    }

    /// Moves on to `status`; never back, and never on from an end.
    fn advance(&mut self, status: ReportedStatus) {
        let moves_on = self
            .status
            .as_call_status()
            .may_become(status.as_call_status());
        if moves_on {
            self.status = status;
            if status == ReportedStatus::InProgress {
                self.answered = Some(Instant::now());
            }
        }
    }
}

/// The simulator's name for a call, which says what it is.
pub(super) fn execution_id(call_id: CallId) -> Option<ExecutionId> {
    ExecutionId::new(format!("sim-{call_id}"))
}
