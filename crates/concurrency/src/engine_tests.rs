//! The engine on a store that does as it is told: what is batched, who is answered what, and what
//! happens when the store is slow, away or broken.

mod faults;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use callq_domain::{
    Admission, AgentId, Attempt, CallId, Ending, EndingEffect, EngineStore, EventEffect,
    EventError, EventSink, Fence, NewDirectCall, Origin, Outcome, PhoneNumber, PlacementReport,
    PlacementRequest, ProgressBatch, ProgressOutcome, ProviderName, QueueItemId, Refusal,
    ReportedStatus, ReservedCall, ServerId, SlotBatch, SlotOutcome, StatusEvent, StoreError,
    Target, UserId,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::{Engine, EngineError, EngineOptions, Initiated, Reservations};

type Script = Box<dyn FnMut(&SlotBatch) -> Result<SlotOutcome, StoreError> + Send>;

/// The answer for which the store panics.
const PANIC: &str = "panic";

/// A store whose settlements wait for permission and answer by a script.
struct FakeStore {
    may_settle: Semaphore,
    script: Mutex<Script>,
    seen: Mutex<Vec<(Instant, SlotBatch)>>,
    answers: Mutex<VecDeque<Result<(), StoreError>>>,
}

impl FakeStore {
    fn new(
        script: impl FnMut(&SlotBatch) -> Result<SlotOutcome, StoreError> + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            may_settle: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            script: Mutex::new(Box::new(script)),
            seen: Mutex::new(Vec::new()),
            answers: Mutex::new(VecDeque::new()),
        })
    }

    /// A store that must be let settle, batch by batch.
    fn held(
        script: impl FnMut(&SlotBatch) -> Result<SlotOutcome, StoreError> + Send + 'static,
    ) -> Arc<Self> {
        let store = Self::new(script);
        store.may_settle.forget_permits(Semaphore::MAX_PERMITS / 2);
        store
    }

    fn batches(&self) -> Vec<SlotBatch> {
        let seen = self.seen.lock().expect("no panic while held");
        seen.iter().map(|(_, batch)| batch.clone()).collect()
    }

    fn looks(&self) -> Vec<Instant> {
        let seen = self.seen.lock().expect("no panic while held");
        seen.iter().map(|(at, _)| *at).collect()
    }
}

#[async_trait]
impl EngineStore for FakeStore {
    async fn settle(&self, _: ServerId, batch: &SlotBatch) -> Result<SlotOutcome, StoreError> {
        self.may_settle
            .acquire()
            .await
            .expect("never closed")
            .forget();
        self.seen
            .lock()
            .expect("no panic while held")
            .push((Instant::now(), batch.clone()));
        // A script that panics is part of the play.
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script(batch)
    }

    async fn record_progress(
        &self,
        _: ServerId,
        batch: &ProgressBatch,
    ) -> Result<ProgressOutcome, StoreError> {
        if let Some(answer) = self
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
        {
            if answer == Err(StoreError::Internal(PANIC.into())) {
                panic!("a defect of the store");
            }
            answer?;
        }
        Ok(ProgressOutcome {
            placed: vec![true; batch.placed.len()],
            ..ProgressOutcome::default()
        })
    }
}

/// Refuses each admission with its own number of credits, taken from its name, and ends each call.
fn echo(batch: &SlotBatch) -> Result<SlotOutcome, StoreError> {
    let number = |call: &NewDirectCall| {
        call.contact_name
            .as_deref()
            .and_then(|name| name.parse().ok())
    };
    Ok(SlotOutcome {
        admissions: batch
            .admissions
            .iter()
            .map(|call| {
                Admission::Refused(Refusal::NoCredits {
                    credits: number(call).unwrap_or(-1),
                })
            })
            .collect(),
        endings: vec![EndingEffect::Ended; batch.endings.len()],
        ..SlotOutcome::default()
    })
}

fn call(number: usize) -> NewDirectCall {
    NewDirectCall {
        item_id: QueueItemId::new(),
        user_id: UserId::new(),
        agent_id: AgentId::new(),
        target: Target::Number(PhoneNumber::from_trusted("+14155550100")),
        contact_name: Some(number.to_string()),
        user_data: None,
        caller_id: None,
        scheduled_for: None,
        expires_in: None,
        idempotency: None,
    }
}

fn reserved() -> ReservedCall {
    ReservedCall {
        item_id: QueueItemId::new(),
        provider: ProviderName::new("fake").expect("a name"),
        request: PlacementRequest {
            attempt: Attempt {
                call_id: CallId::new(),
                number: 1,
            },
            to: PhoneNumber::from_trusted("+14155550100"),
            from: None,
            origin: Origin::Direct,
            user_id: UserId::new(),
            agent_id: AgentId::new(),
            provider_agent_id: None,
            settings: None,
            contact_name: None,
            user_data: None,
            fence: Fence::default(),
        },
    }
}

fn spawn(
    store: &Arc<FakeStore>,
    change: impl FnOnce(&mut EngineOptions),
) -> (Engine, Reservations) {
    let mut options = EngineOptions {
        sweep_interval: Duration::from_secs(3600),
        ..EngineOptions::default()
    };
    change(&mut options);
    Engine::spawn(store.clone(), ServerId::new(), options)
}

/// Lets every task that can run do so. Time is paused, so this takes none.
async fn settle_down() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_batch_commits_is_settled_together_and_answered_each_its_own() {
    let store = FakeStore::held(echo);
    let (engine, _reservations) = spawn(&store, |_| {});
    // The engine's first look at the store is under way and not let through yet.
    settle_down().await;
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.initiate(call(n)).await })
        })
        .collect();
    settle_down().await;

    store.may_settle.add_permits(2);

    for (n, call) in (0..50).zip(calls) {
        let answer = call.await.expect("no panic");
        assert!(
            matches!(answer, Ok(Initiated::Refused(Refusal::NoCredits { credits })) if credits == n),
            "{answer:?}"
        );
    }
    let sizes: Vec<_> = store
        .batches()
        .iter()
        .map(|batch| batch.admissions.len())
        .collect();
    assert_eq!(sizes, [0, 50]);
}

#[tokio::test(start_paused = true)]
async fn a_request_the_store_chokes_on_does_not_take_its_batch_along() {
    let store = FakeStore::held(|batch| {
        if batch
            .admissions
            .iter()
            .any(|call| call.contact_name.as_deref() == Some("3"))
        {
            return Err(StoreError::Internal("cannot read it".into()));
        }
        echo(batch)
    });
    let (engine, _reservations) = spawn(&store, |_| {});
    let calls: Vec<_> = (0..6)
        .map(|n| {
            tokio::spawn({
                let engine = engine.clone();
                async move { engine.initiate(call(n)).await }
            })
        })
        .collect();
    settle_down().await;

    store.may_settle.add_permits(100);

    for (n, call) in calls.into_iter().enumerate() {
        let answer = call.await.expect("no panic");
        assert_eq!(
            matches!(answer, Err(EngineError::Internal(_))),
            n == 3,
            "{n}: {answer:?}"
        );
        assert_eq!(answer.is_ok(), n != 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_moment_is_waited_for_and_one_that_stays_away_is_not() {
    let mut away = 3;
    let store = FakeStore::new(move |batch| {
        if !batch.admissions.is_empty() && away > 0 {
            away -= 1;
            return Err(StoreError::Unavailable("restarting".into()));
        }
        echo(batch)
    });
    let (engine, _reservations) = spawn(&store, |_| {});
    assert!(engine.initiate(call(1)).await.is_ok());

    let gone = FakeStore::new(|_| Err(StoreError::Unavailable("gone".into())));
    let (engine, _reservations) = spawn(&gone, |options| options.patience = Duration::from_secs(3));
    let asked = Instant::now();
    let answer = engine.initiate(call(1)).await;
    assert!(
        matches!(answer, Err(EngineError::Unavailable(_))),
        "{answer:?}"
    );
    assert!(
        asked.elapsed() <= Duration::from_secs(7),
        "bounded: {:?}",
        asked.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_refused_while_the_store_was_away_is_disowned_when_it_is_back() {
    let away = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_away = away.clone();
    let store = FakeStore::new(move |batch| {
        if is_away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::Unavailable("lost".into()));
        }
        echo(batch)
    });
    let (engine, _reservations) = spawn(&store, |_| {});
    let refused = call(1);
    let item = refused.item_id;
    assert!(engine.initiate(refused).await.is_err());

    away.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(engine.initiate(call(2)).await.is_ok());
    assert!(engine.initiate(call(3)).await.is_ok());

    let disowned: Vec<_> = store
        .batches()
        .iter()
        .rev()
        .take(3)
        .map(|b| (b.disowned.len(), b.admissions.len()))
        .collect();
    assert_eq!(
        disowned,
        [(0, 1), (0, 1), (1, 0)],
        "once, with the first batch that gets through, which holds nothing new"
    );
    assert!(store.batches().iter().any(|batch| batch.disowned == [item]));
}

#[tokio::test(start_paused = true)]
async fn more_than_the_engine_holds_is_told_to_come_back() {
    let store = FakeStore::held(echo);
    let (engine, _reservations) = spawn(&store, |options| options.max_waiting = 4);
    settle_down().await;
    let waiting: Vec<_> = (0..20)
        .map(|n| {
            tokio::spawn({
                let engine = engine.clone();
                async move { engine.initiate(call(n)).await }
            })
        })
        .collect();
    settle_down().await;

    store.may_settle.add_permits(100);

    let mut turned_away = 0;
    for call in waiting {
        turned_away += usize::from(matches!(
            call.await.expect("no panic"),
            Err(EngineError::Overloaded)
        ));
    }
    assert!((1..20).contains(&turned_away), "{turned_away}");
}

#[tokio::test(start_paused = true)]
async fn a_stopping_engine_admits_and_reserves_nothing_but_still_ends_calls() {
    let store = FakeStore::new(echo);
    let (engine, _reservations) = spawn(&store, |_| {});
    engine.stop_admitting();

    assert_eq!(
        engine.initiate(call(1)).await.err(),
        Some(EngineError::ShuttingDown)
    );
    let ending = Ending {
        call_id: CallId::new(),
        attempt: None,
        outcome: Outcome::Completed,
        execution_id: None,
        reason: None,
        duration_seconds: None,
    };
    assert_eq!(
        engine.end_call(ending.clone()).await,
        Ok(EndingEffect::Ended)
    );
    assert_eq!(store.batches().last().map(|batch| batch.reserve), Some(0));
    engine.close().await;
    assert_eq!(
        engine.end_call(ending).await,
        Err(EngineError::ShuttingDown)
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_is_reserved_than_can_be_placed_and_each_place_freed_asks_for_the_next() {
    let mut waiting = 5;
    let store = FakeStore::new(move |batch| {
        let taken = batch.reserve.min(waiting);
        waiting -= taken;
        Ok(SlotOutcome {
            reserved: (0..taken).map(|_| reserved()).collect(),
            more: waiting > 0,
            ..SlotOutcome::default()
        })
    });
    let (engine, mut reservations) = spawn(&store, |options| options.max_placing = 2);
    engine.wake();
    settle_down().await;

    let first = reservations.try_recv().expect("reserved");
    let second = reservations.try_recv().expect("reserved");
    assert!(reservations.try_recv().is_err(), "two places, two calls");
    drop(first);
    settle_down().await;
    let third = reservations.try_recv().expect("the place went on");
    assert!(reservations.try_recv().is_err());
    drop((second, third));
    settle_down().await;
    assert!(reservations.try_recv().is_ok() && reservations.try_recv().is_ok());
    assert!(reservations.try_recv().is_err(), "nothing waits any more");
}

#[tokio::test(start_paused = true)]
async fn the_next_look_is_when_something_becomes_due_and_a_sweep_at_the_latest() {
    let mut timers = VecDeque::from([Some(Duration::from_secs(7)), None]);
    let store = FakeStore::new(move |_| {
        Ok(SlotOutcome {
            next_timer: timers.pop_front().flatten(),
            ..SlotOutcome::default()
        })
    });
    let (_engine, _reservations) = spawn(&store, |options| {
        options.sweep_interval = Duration::from_secs(60)
    });

    tokio::time::sleep(Duration::from_secs(80)).await;

    let looks = store.looks();
    let gaps: Vec<_> = looks
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs())
        .collect();
    assert_eq!(gaps, [7, 60]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_starts_at_the_door_is_given_out_and_its_caller_told_what_became_of_it() {
    let given = reserved();
    let attempt = given.request.attempt;
    let store = FakeStore::new(move |batch| {
        Ok(SlotOutcome {
            admissions: batch
                .admissions
                .iter()
                .map(|_| Admission::Started(Box::new(given.clone())))
                .collect(),
            ..SlotOutcome::default()
        })
    });
    let (engine, mut reservations) = spawn(&store, |_| {});
    let told = tokio::spawn({
        let engine = engine.clone();
        async move { engine.initiate(call(1)).await }
    });
    let abandoned = tokio::spawn({
        let engine = engine.clone();
        async move { engine.initiate(call(2)).await }
    });

    let report = PlacementReport::Refused {
        call_id: attempt.call_id,
        reason: "no".into(),
    };
    let mut first = reservations.recv().await.expect("given out");
    first
        .report
        .take()
        .expect("someone waits")
        .send(report.clone())
        .expect("still waits");
    let second = reservations.recv().await.expect("given out");
    drop(second);

    let answer = told.await.expect("no panic");
    assert!(
        matches!(answer, Ok(Initiated::Started(ref said)) if *said == report),
        "{answer:?}"
    );
    let answer = abandoned.await.expect("no panic");
    assert!(
        matches!(answer, Ok(Initiated::Started(PlacementReport::Unknown { call_id, .. })) if call_id == attempt.call_id),
        "a placement that vanished is unknown: {answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_the_store_is_told_which_settlement_was_the_last_answered() {
    let mut number = 0;
    let store = FakeStore::new(move |batch| {
        number += 1;
        if number == 2 {
            return Err(StoreError::Unavailable("gone".into()));
        }
        Ok(SlotOutcome {
            number,
            ..echo(batch)?
        })
    });
    let (engine, _reservations) = spawn(&store, |options| options.patience = Duration::ZERO);
    settle_down().await;

    let lost = engine.initiate(call(0)).await;
    let _ = engine.initiate(call(1)).await;
    let _ = engine.initiate(call(2)).await;

    assert!(matches!(lost, Err(EngineError::Unavailable(_))), "{lost:?}");
    let said: Vec<_> = store
        .batches()
        .iter()
        .skip(1)
        .map(|batch| (batch.admissions.len(), batch.answered, batch.disowned.len()))
        .collect();
    assert_eq!(
        said,
        [(1, None, 0), (0, Some(1), 1), (1, None, 0), (1, None, 0)]
    );
}
