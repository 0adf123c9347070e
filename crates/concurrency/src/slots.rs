//! The loop that moves slots: one batch at a time, each one transaction.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use callq_domain::{
    Admission, CallId, Ending, EndingEffect, EngineStore, NewDirectCall, PlacementReport,
    QueueItemId, Queued, Refusal, Repeat, Return, ServerId, SlotBatch, SlotOutcome, StoreError,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::Reservation;
use crate::batch::{gather, settle_patiently, too_long};
use crate::engine::{EngineOptions, Reply, Shared};

/// Something that moves a slot, and where its result goes.
pub(crate) enum SlotRequest {
    Admit(Box<NewDirectCall>, Reply<Admitted>),
    End(Ending, Reply<EndingEffect>),
    Return(Return, Reply<Option<Queued>>),
}

/// What a caller at the door is told.
pub(crate) enum Admitted {
    Started {
        call_id: CallId,
        item_id: QueueItemId,
        report: oneshot::Receiver<PlacementReport>,
    },
    Queued(Queued),
    Refused(Refusal),
    Repeated(Repeat),
}

pub(crate) struct SlotLoop {
    pub store: Arc<dyn EngineStore>,
    pub server: ServerId,
    pub options: EngineOptions,
    pub requests: mpsc::Receiver<SlotRequest>,
    pub reserved: mpsc::UnboundedSender<Reservation>,
    pub closed: watch::Receiver<bool>,
    pub shared: Arc<Shared>,
    /// Admissions refused because the database did not answer. A commit may have kept them.
    pub disowned: Vec<QueueItemId>,
    /// The number of the last settlement that was answered.
    pub answered: u64,
    /// Whether one was sent since then that was not.
    pub lost: bool,
}

pub(crate) async fn run(mut this: SlotLoop) {
    let mut next_look = Instant::now();
    let mut requests = Vec::new();
    loop {
        tokio::select! {
            request = this.requests.recv() => match request {
                Some(request) => requests.push(request),
                None => return,
            },
            () = this.shared.wake.notified() => {}
            () = tokio::time::sleep_until(next_look) => {}
            _ = this.closed.wait_for(|closed| *closed), if this.requests.is_empty() => return,
        }
        // Calls that end together are reported together: as long as more comes while others run,
        // it is waited for, which costs an idle engine nothing.
        loop {
            let gathered = requests.len();
            gather(&mut this.requests, &mut requests, this.options.max_batch);
            if requests.len() <= gathered.max(1) || requests.len() >= this.options.max_batch {
                break;
            }
            tokio::task::yield_now().await;
        }
        if this.shared.stopping.load(Ordering::Acquire) {
            // What waited when the stop was asked must not start behind it.
            requests = turn_away_admissions(requests);
        }
        let pause = this.settle(std::mem::take(&mut requests)).await;
        next_look = Instant::now() + pause;
    }
}

impl SlotLoop {
    /// Settles requests and hands out what was reserved. Returns how long nothing needs doing
    /// unless something new is asked.
    async fn settle(&mut self, requests: Vec<SlotRequest>) -> Duration {
        // After a failure nothing new is sent into doubt before the store has answered once: what is
        // in doubt is one batch, however long the store is away.
        if self.lost && !requests.is_empty() {
            match self.try_settle(&[]).await {
                Ok(outcome) => drop(self.conclude(Vec::new(), outcome)),
                Err(error) => return self.give_up(requests, &error),
            }
        }
        match self.try_settle(&requests).await {
            Ok(outcome) => self.conclude(requests, outcome),
            // One request the store chokes on must not take its whole batch along.
            Err(StoreError::Internal(cause)) if requests.len() > 1 => {
                log::error!(
                    "a batch of {} is settled one by one: {cause}",
                    requests.len()
                );
                let end = Instant::now() + self.options.longest_batch;
                for request in requests {
                    let alone = vec![request];
                    if Instant::now() >= end {
                        // They were in the batch that failed, and may have been kept by it.
                        self.disown(&alone);
                        refuse(alone, &too_long());
                        continue;
                    }
                    match self.try_settle(&alone).await {
                        Ok(outcome) => drop(self.conclude(alone, outcome)),
                        Err(error) => {
                            self.disown(&alone);
                            refuse(alone, &error);
                        }
                    }
                }
                Duration::ZERO
            }
            Err(error) => {
                self.disown(&requests);
                self.give_up(requests, &error)
            }
        }
    }

    /// Refuses requests, and with them what waited behind them: it was not sent, and has waited long
    /// enough. Returns when to try again.
    fn give_up(&mut self, requests: Vec<SlotRequest>, error: &StoreError) -> Duration {
        refuse(requests, error);
        if matches!(error, StoreError::Unavailable(_)) {
            let mut waiting = Vec::new();
            gather(&mut self.requests, &mut waiting, self.options.max_waiting);
            refuse(waiting, error);
        }
        self.options.sweep_interval.min(Duration::from_secs(1))
    }

    fn disown(&mut self, refused: &[SlotRequest]) {
        for request in refused {
            if let SlotRequest::Admit(call, _) = request {
                self.disowned.push(call.item_id);
            }
        }
    }

    async fn try_settle(&mut self, requests: &[SlotRequest]) -> Result<SlotOutcome, StoreError> {
        let mut batch = SlotBatch {
            disowned: self.disowned.clone(),
            answered: self.lost.then_some(self.answered),
            reserve: self.budget(),
            ..SlotBatch::default()
        };
        for request in requests {
            match request {
                SlotRequest::Admit(call, _) => batch.admissions.push((**call).clone()),
                SlotRequest::End(ending, _) => batch.endings.push(ending.clone()),
                SlotRequest::Return(back, _) => batch.returns.push(back.clone()),
            }
        }
        let settled = settle_patiently(&self.options, "settling a batch", |resent| {
            let mut batch = batch.clone();
            if resent {
                batch.answered = Some(self.answered);
            }
            let (store, server) = (&self.store, self.server);
            async move { store.settle(server, &batch).await }
        })
        .await;
        if let Ok(outcome) = &settled {
            self.disowned.clear();
            self.answered = outcome.number;
        }
        // Whatever went wrong, it may have been committed before.
        self.lost = settled.is_err();
        self.shared.troubled.store(self.lost, Ordering::Release);
        settled
    }

    fn budget(&self) -> u32 {
        let shared = &self.shared;
        if shared.stopping.load(Ordering::Acquire) || shared.suspended.load(Ordering::Acquire) {
            return 0;
        }
        let free = self
            .shared
            .placing
            .available_permits()
            .min(self.options.max_batch);
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    fn conclude(&self, requests: Vec<SlotRequest>, outcome: SlotOutcome) -> Duration {
        let took_some = !outcome.reserved.is_empty();
        for call in outcome.reserved {
            // The receiver is gone only when the process ends; the reservation is then taken over.
            let _ = self
                .reserved
                .send(Reservation::from_queue(call, &self.shared));
        }
        let mut admissions = outcome.admissions.into_iter();
        let mut endings = outcome.endings.into_iter();
        let mut returns = outcome.returns.into_iter();
        for request in requests {
            // A reply nobody waits for any more is dropped: what was decided stands.
            match request {
                SlotRequest::Admit(_, reply) => {
                    let admitted = admissions.next().map(|admission| self.admitted(admission));
                    let _ = reply.send(admitted.ok_or_else(|| missing("admission")));
                }
                SlotRequest::End(_, reply) => {
                    let _ = reply.send(endings.next().ok_or_else(|| missing("ending")));
                }
                SlotRequest::Return(_, reply) => {
                    let _ = reply.send(returns.next().ok_or_else(|| missing("return")));
                }
            }
        }
        // With calls left and room to place them the next look is at once. Without room, a place
        // becoming free wakes the loop.
        if outcome.more && took_some && self.budget() > 0 {
            Duration::ZERO
        } else {
            let timer = outcome.next_timer.unwrap_or(self.options.sweep_interval);
            timer.min(self.options.sweep_interval)
        }
    }

    fn admitted(&self, admission: Admission) -> Admitted {
        match admission {
            Admission::Started(call) => {
                let (report, told) = oneshot::channel();
                let (call_id, item_id) = (call.request.attempt.call_id, call.item_id);
                let _ = self.reserved.send(Reservation::at_the_door(*call, report));
                Admitted::Started {
                    call_id,
                    item_id,
                    report: told,
                }
            }
            Admission::Queued(queued) => Admitted::Queued(queued),
            Admission::Refused(refusal) => Admitted::Refused(refusal),
            Admission::Repeated(repeat) => Admitted::Repeated(repeat),
        }
    }
}

/// Refuses admissions, and leaves the rest.
fn turn_away_admissions(requests: Vec<SlotRequest>) -> Vec<SlotRequest> {
    let mut others = Vec::with_capacity(requests.len());
    for request in requests {
        match request {
            SlotRequest::Admit(_, reply) => {
                let _ = reply.send(Err(crate::EngineError::ShuttingDown));
            }
            other => others.push(other),
        }
    }
    others
}

fn missing(what: &str) -> crate::EngineError {
    crate::EngineError::Internal(format!("the store left out an {what}"))
}

fn refuse(requests: Vec<SlotRequest>, error: &StoreError) {
    if let StoreError::Internal(cause) = error {
        log::error!("a batch could not be settled: {cause}");
    }
    for request in requests {
        match request {
            SlotRequest::Admit(_, reply) => drop(reply.send(Err(error.clone().into()))),
            SlotRequest::End(_, reply) => drop(reply.send(Err(error.clone().into()))),
            SlotRequest::Return(_, reply) => drop(reply.send(Err(error.clone().into()))),
        }
    }
}
