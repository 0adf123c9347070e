//! The loop for what moves no slot: placements, unknown answers, events, kept answers.
//!
//! It has its own transaction beside the slots' one, so that none of it waits for the engine's lock.

use std::sync::Arc;

use callq_domain::{
    Attempt, EndingEffect, EngineStore, ExecutionId, KeptAnswer, ProgressBatch, ProgressOutcome,
    ServerId, StatusEvent, StoreError,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::EngineError;
use crate::batch::{gather, settle_patiently, too_long};
use crate::engine::{EngineOptions, Reply};

/// Something to note about a call that holds a slot, and where its result goes.
pub(crate) enum ProgressRequest {
    Placed(Attempt, ExecutionId, Reply<bool>),
    Unknown(Attempt, String, Reply<bool>),
    Event(Box<StatusEvent>, Reply<EndingEffect>),
    Answer(KeptAnswer, Reply<()>),
}

pub(crate) async fn run(
    store: Arc<dyn EngineStore>,
    server: ServerId,
    options: EngineOptions,
    mut queue: mpsc::Receiver<ProgressRequest>,
    mut closed: watch::Receiver<bool>,
) {
    loop {
        let first = tokio::select! {
            request = queue.recv() => match request {
                Some(request) => request,
                None => return,
            },
            _ = closed.wait_for(|closed| *closed), if queue.is_empty() => return,
        };
        let mut requests = vec![first];
        gather(&mut queue, &mut requests, options.max_batch);
        match try_record(&*store, server, &options, &requests).await {
            Ok(outcome) => conclude(requests, outcome),
            Err(StoreError::Internal(cause)) if requests.len() > 1 => {
                log::error!(
                    "a batch of {} is recorded one by one: {cause}",
                    requests.len()
                );
                let end = Instant::now() + options.longest_batch;
                for request in requests {
                    let alone = vec![request];
                    if Instant::now() >= end {
                        refuse(alone, &too_long());
                        continue;
                    }
                    match try_record(&*store, server, &options, &alone).await {
                        Ok(outcome) => conclude(alone, outcome),
                        Err(error) => refuse(alone, &error),
                    }
                }
            }
            Err(error) => {
                refuse(requests, &error);
                if matches!(error, StoreError::Unavailable(_)) {
                    // What waited behind it has waited long enough.
                    let mut waiting = Vec::new();
                    gather(&mut queue, &mut waiting, options.max_waiting);
                    refuse(waiting, &error);
                }
            }
        }
    }
}

async fn try_record(
    store: &dyn EngineStore,
    server: ServerId,
    options: &EngineOptions,
    requests: &[ProgressRequest],
) -> Result<ProgressOutcome, StoreError> {
    let mut batch = ProgressBatch::default();
    for request in requests {
        match request {
            ProgressRequest::Placed(attempt, id, _) => batch.placed.push((*attempt, id.clone())),
            ProgressRequest::Unknown(attempt, why, _) => {
                batch.unknown.push((*attempt, why.clone()))
            }
            ProgressRequest::Event(event, _) => batch.events.push((**event).clone()),
            ProgressRequest::Answer(answer, _) => batch.answers.push(answer.clone()),
        }
    }
    settle_patiently(options, "recording progress", |_resent| {
        store.record_progress(server, &batch)
    })
    .await
}

fn conclude(requests: Vec<ProgressRequest>, outcome: ProgressOutcome) {
    let missing = || EngineError::Internal("the store left out a result".into());
    let mut placed = outcome.placed.into_iter();
    let mut unknown = outcome.unknown.into_iter();
    let mut events = outcome.events.into_iter();
    for request in requests {
        match request {
            ProgressRequest::Placed(_, _, reply) => {
                drop(reply.send(placed.next().ok_or_else(missing)));
            }
            ProgressRequest::Unknown(_, _, reply) => {
                drop(reply.send(unknown.next().ok_or_else(missing)));
            }
            ProgressRequest::Event(_, reply) => {
                drop(reply.send(events.next().ok_or_else(missing)));
            }
            ProgressRequest::Answer(_, reply) => drop(reply.send(Ok(()))),
        }
    }
}

fn refuse(requests: Vec<ProgressRequest>, error: &StoreError) {
    if let StoreError::Internal(cause) = error {
        log::error!("progress could not be recorded: {cause}");
    }
    let error = || EngineError::from(error.clone());
    for request in requests {
        match request {
            ProgressRequest::Placed(_, _, reply) | ProgressRequest::Unknown(_, _, reply) => {
                drop(reply.send(Err(error())))
            }
            ProgressRequest::Event(_, reply) => drop(reply.send(Err(error()))),
            ProgressRequest::Answer(_, reply) => drop(reply.send(Err(error()))),
        }
    }
}
