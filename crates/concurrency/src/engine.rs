//! The engine's handle: what the rest of a server calls, each caller answered by its own result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use callq_domain::{
    Attempt, Ending, EndingEffect, EngineStore, EventEffect, EventError, EventSink, ExecutionId,
    KeptAnswer, NewDirectCall, PlacementReport, Queued, ReportedStatus, Return, ServerId,
    StatusEvent,
};
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::progress::{self, ProgressRequest};
use crate::slots::{self, SlotRequest};
use crate::{EngineError, Initiated, Reservations};

/// How much an engine takes on.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The most requests settled in one transaction.
    pub max_batch: usize,
    /// The most requests that wait to be settled; beyond that callers are told to come back.
    pub max_waiting: usize,
    /// The most calls taken from the queue that are being placed at once. Calls that start at the
    /// door come on top.
    pub max_placing: usize,
    /// How long a request waits for a database that is away before it is given up.
    pub patience: Duration,
    /// The longest that a batch may take in all, should the store say nothing. Whoever comes while it
    /// is under way waits for it first: nobody waits longer than twice this.
    pub longest_batch: Duration,
    /// The longest pause without a look at the store. Repairs only: nothing waits for it.
    pub sweep_interval: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_batch: 500,
            max_waiting: 10_000,
            max_placing: 1_000,
            patience: Duration::from_secs(3),
            longest_batch: Duration::from_secs(4),
            sweep_interval: Duration::from_secs(10),
        }
    }
}

/// A handle on a running engine: cheap to clone, usable from any task.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    slots: mpsc::Sender<SlotRequest>,
    progress: mpsc::Sender<ProgressRequest>,
    pub(crate) wake: Notify,
    pub(crate) stopping: AtomicBool,
    pub(crate) suspended: AtomicBool,
    /// Whether the last settlement failed.
    pub(crate) troubled: AtomicBool,
    pub(crate) placing: Arc<Semaphore>,
    closed: watch::Sender<bool>,
    /// Whether one of the loops is over.
    ended: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Tells when the loop that holds it is over, in whatever way.
struct TellsItsEnd(Arc<Shared>);

impl Drop for TellsItsEnd {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

/// Where a request's result goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

impl Engine {
    /// Starts an engine on `store` in the present tokio runtime, the only one under this server's
    /// id: two would take each other's calls for lost. It runs until
    /// [`Engine::close`], and gives out what it reserves through the second value.
    #[must_use]
    pub fn spawn(
        store: Arc<dyn EngineStore>,
        server: ServerId,
        options: EngineOptions,
    ) -> (Self, Reservations) {
        let (slots, slot_requests) = mpsc::channel(options.max_waiting);
        let (progress, progress_requests) = mpsc::channel(options.max_waiting);
        let (reserved, reservations) = mpsc::unbounded_channel();
        let (closed, _) = watch::channel(false);
        let (ended, _) = watch::channel(false);
        let shared = Arc::new(Shared {
            slots,
            progress,
            wake: Notify::new(),
            stopping: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            troubled: AtomicBool::new(false),
            placing: Arc::new(Semaphore::new(options.max_placing)),
            closed,
            ended,
            tasks: Mutex::default(),
        });
        let recording = shared.spawn(progress::run(
            Arc::clone(&store),
            server,
            options.clone(),
            progress_requests,
            shared.closed.subscribe(),
        ));
        let settling = shared.spawn(slots::run(slots::SlotLoop {
            store,
            server,
            options,
            requests: slot_requests,
            reserved,
            closed: shared.closed.subscribe(),
            shared: Arc::clone(&shared),
            disowned: Vec::new(),
            answered: 0,
            lost: false,
        }));
        // Nobody else holds the lock yet.
        if let Ok(mut tasks) = shared.tasks.try_lock() {
            tasks.extend([settling, recording]);
        }
        (Self { shared }, reservations)
    }

    /// Admits a direct call and, if it starts, waits for its placement.
    ///
    /// The call goes on even if this future is dropped. Every answer but a refusal is durable
    /// before it is given.
    ///
    /// # Errors
    /// [`EngineError`]; nothing was accepted. Should the database have gone away during the commit
    /// and kept the call all the same, it is cancelled as soon as the database is back.
    pub async fn initiate(&self, call: NewDirectCall) -> Result<Initiated, EngineError> {
        if self.shared.stopping.load(Ordering::Acquire) {
            return Err(EngineError::ShuttingDown);
        }
        if self.shared.suspended.load(Ordering::Acquire) {
            return Err(EngineError::Unavailable(
                "this server's lease is over".into(),
            ));
        }
        let admitted = ask_at_once(&self.shared.slots, |reply| {
            SlotRequest::Admit(Box::new(call), reply)
        });
        match admitted.await? {
            slots::Admitted::Started {
                call_id,
                item_id,
                report,
            } => {
                let report = report.await;
                // Without a report the placement's task is gone: the call's fate is looked up.
                Ok(Initiated::Started(
                    report.unwrap_or(PlacementReport::Unknown { call_id, item_id }),
                ))
            }
            slots::Admitted::Queued(queued) => Ok(Initiated::Queued(queued)),
            slots::Admitted::Refused(refusal) => Ok(Initiated::Refused(refusal)),
            slots::Admitted::Repeated(repeat) => Ok(Initiated::Repeated(repeat)),
        }
    }

    /// Keeps an answer for repeats of its request; durable on return.
    ///
    /// # Errors
    /// [`EngineError`]; the answer was not kept.
    pub async fn keep_answer(&self, answer: KeptAnswer) -> Result<(), EngineError> {
        self.progress(|reply| ProgressRequest::Answer(answer, reply))
            .await
    }

    /// Ends a call and frees its slot.
    ///
    /// # Errors
    /// [`EngineError`]; safe to repeat.
    pub async fn end_call(&self, ending: Ending) -> Result<EndingEffect, EngineError> {
        self.slot(|reply| SlotRequest::End(ending, reply)).await
    }

    /// Puts an attempt that provably reached nobody back into its place. `None` if it was no
    /// longer this server's.
    ///
    /// # Errors
    /// [`EngineError`]; safe to repeat.
    pub async fn return_call(&self, back: Return) -> Result<Option<Queued>, EngineError> {
        self.slot(|reply| SlotRequest::Return(back, reply)).await
    }

    /// Notes that the provider took an attempt. `false` if that was known already.
    ///
    /// # Errors
    /// [`EngineError`]; safe to repeat.
    pub async fn record_placed(
        &self,
        attempt: Attempt,
        execution_id: ExecutionId,
    ) -> Result<bool, EngineError> {
        self.progress(|reply| ProgressRequest::Placed(attempt, execution_id, reply))
            .await
    }

    /// Notes that an attempt's answer was lost. `false` if an event proved it meanwhile.
    ///
    /// # Errors
    /// [`EngineError`]; safe to repeat.
    pub async fn record_unknown(
        &self,
        attempt: Attempt,
        reason: String,
    ) -> Result<bool, EngineError> {
        self.progress(|reply| ProgressRequest::Unknown(attempt, reason, reply))
            .await
    }

    /// Says that something may have become ready by another way than the engine's own: a limit
    /// raised, a campaign started, calls taken over.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Admits and reserves nothing while `suspended`: this server cannot prove that it lives, so it
    /// may not place.
    pub fn suspend(&self, suspended: bool) {
        let before = self.shared.suspended.swap(suspended, Ordering::AcqRel);
        if before && !suspended {
            self.wake();
        }
    }

    /// Admits and reserves nothing from now on; endings and results are still settled.
    pub fn stop_admitting(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }

    /// Settles what was asked so far and ends the engine's tasks; on return they are over.
    pub async fn close(&self) {
        self.stop_admitting();
        self.shared.closed.send_replace(true);
        let tasks = std::mem::take(&mut *self.shared.tasks.lock().await);
        for task in tasks {
            // A task that failed is over too.
            let _ = task.await;
        }
    }

    /// Whether a call could be admitted now, as far as is known without asking the store.
    ///
    /// # Errors
    /// [`EngineError`]: what stands in the way.
    pub fn ready(&self) -> Result<(), EngineError> {
        let shared = &self.shared;
        if *shared.closed.borrow() || shared.stopping.load(Ordering::Acquire) {
            return Err(EngineError::ShuttingDown);
        }
        if *shared.ended.borrow() {
            return Err(EngineError::Internal("a loop of the engine ended".into()));
        }
        if shared.suspended.load(Ordering::Acquire) {
            return Err(EngineError::Unavailable(
                "this server's lease is over".into(),
            ));
        }
        if shared.troubled.load(Ordering::Acquire) {
            return Err(EngineError::Unavailable(
                "the last settlement did not get through".into(),
            ));
        }
        Ok(())
    }

    /// Waits until a loop of the engine is over though nobody closed it: a defect, after which it can
    /// settle nothing any more and has to be started anew, with its process. Otherwise for ever.
    pub async fn failed(&self) {
        let mut ended = self.shared.ended.subscribe();
        // The sender is held by `self`.
        let _ = ended.wait_for(|ended| *ended).await;
        if *self.shared.closed.borrow() {
            std::future::pending().await
        }
    }

    /// Has a loop end as if by a defect.
    #[cfg(test)]
    pub(crate) fn end_a_loop(&self) {
        drop(
            self.shared
                .spawn(async { panic!("a defect of the engine") }),
        );
    }

    async fn slot<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> SlotRequest,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.shared
            .slots
            .send(request(reply))
            .await
            .map_err(|_| EngineError::ShuttingDown)?;
        answer.await.map_err(|_| EngineError::ShuttingDown)?
    }

    async fn progress<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> ProgressRequest,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.shared
            .progress
            .send(request(reply))
            .await
            .map_err(|_| EngineError::ShuttingDown)?;
        answer.await.map_err(|_| EngineError::ShuttingDown)?
    }
}

impl Shared {
    /// Runs one of the loops, and tells when it is over.
    fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let tells = TellsItsEnd(Arc::clone(self));
        tokio::spawn(async move {
            let _tells = tells;
            work.await;
        })
    }
}

/// Asks a loop that has room for one more request now.
async fn ask_at_once<R, T>(
    queue: &mpsc::Sender<R>,
    request: impl FnOnce(Reply<T>) -> R,
) -> Result<T, EngineError> {
    let (reply, answer) = oneshot::channel();
    queue
        .try_send(request(reply))
        .map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => EngineError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => EngineError::ShuttingDown,
        })?;
    answer.await.map_err(|_| EngineError::ShuttingDown)?
}

#[async_trait]
impl EventSink for Engine {
    async fn accept(&self, event: StatusEvent) -> Result<EventEffect, EventError> {
        let call_id = event.call_id;
        // A provider sends its event again: it is told to rather than kept waiting.
        let effect = match event.status {
            ReportedStatus::Ended(outcome) => {
                let ending = Ending {
                    call_id,
                    attempt: None,
                    outcome,
                    execution_id: event.execution_id,
                    reason: event.reason,
                    duration_seconds: event.duration_seconds,
                };
                ask_at_once(&self.shared.slots, |reply| SlotRequest::End(ending, reply)).await
            }
            _ => {
                ask_at_once(&self.shared.progress, |reply| {
                    ProgressRequest::Event(Box::new(event), reply)
                })
                .await
            }
        };
        match effect {
            Ok(EndingEffect::Ended) => Ok(EventEffect::Applied),
            Ok(EndingEffect::Ignored) => Ok(EventEffect::Ignored),
            Ok(EndingEffect::UnknownCall) => Err(EventError::UnknownCall(call_id)),
            Err(error) => Err(EventError::Unavailable(error.to_string())),
        }
    }
}
