//! The engine when its store is silent, away or breaks: how long anyone waits, what is in doubt, and
//! that neither loop ends unnoticed.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_silent_store_keeps_nobody_waiting_for_longer_than_a_batch_may_take() {
    let store = FakeStore::held(echo);
    let (engine, _reservations) = spawn(&store, |_| {});
    settle_down().await;
    // The engine's own look at the store hangs, and these come behind it.
    let asked = Instant::now();
    let admission = tokio::spawn({
        let engine = engine.clone();
        async move { engine.initiate(call(1)).await }
    });
    let event = engine.accept(ended_event()).await;

    assert!(
        matches!(event, Err(EventError::Unavailable(_))),
        "{event:?}"
    );
    let admission = admission.await.expect("no panic");
    assert!(
        matches!(admission, Err(EngineError::Unavailable(_))),
        "{admission:?}"
    );
    let longest = EngineOptions::default().longest_batch;
    assert!(asked.elapsed() <= longest + Duration::from_millis(10));
    assert!(engine.ready().is_err(), "and it knows");
    store.may_settle.add_permits(100);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(engine.ready(), Ok(()));
    let answer = engine.initiate(call(2)).await;
    assert!(answer.is_ok(), "{answer:?}");
}

fn ended_event() -> StatusEvent {
    StatusEvent {
        event_id: "e".into(),
        call_id: CallId::new(),
        execution_id: None,
        status: ReportedStatus::Ended(Outcome::Completed),
        occurred_at: chrono::DateTime::UNIX_EPOCH,
        duration_seconds: None,
        reason: None,
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_no_more_than_one_batch_is_in_doubt() {
    let away = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_away = away.clone();
    let store = FakeStore::new(move |batch| {
        if is_away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::Unavailable("gone".into()));
        }
        echo(batch)
    });
    let (engine, _reservations) = spawn(&store, |options| options.patience = Duration::ZERO);
    for n in 0..50 {
        assert!(engine.initiate(call(n)).await.is_err());
    }

    away.store(false, std::sync::atomic::Ordering::Relaxed);

    assert!(engine.initiate(call(50)).await.is_ok());
    let most = store.batches().iter().map(|it| it.disowned.len()).max();
    assert!(most <= Some(1), "{most:?} disowned");
}

#[tokio::test(start_paused = true)]
async fn an_event_for_which_there_is_no_room_is_to_be_sent_again_at_once() {
    let store = FakeStore::held(echo);
    let (engine, _reservations) = spawn(&store, |options| options.max_waiting = 1);
    settle_down().await;
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.accept(ended_event()).await }
    });
    settle_down().await;
    let asked = Instant::now();

    let turned_away = engine.accept(ended_event()).await;

    assert!(
        matches!(turned_away, Err(EventError::Unavailable(_))),
        "{turned_away:?}"
    );
    assert_eq!(asked.elapsed(), Duration::ZERO);
    store.may_settle.add_permits(100);
    assert_eq!(waiting.await.expect("no panic"), Ok(EventEffect::Applied));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_fails_its_batch_and_neither_loop() {
    let store = FakeStore::new(|batch| {
        let broken = |call: &NewDirectCall| call.contact_name.as_deref() == Some("3");
        assert!(
            !batch.admissions.iter().any(broken),
            "a defect of the store"
        );
        echo(batch)
    });
    let (engine, _reservations) = spawn(&store, |_| {});
    let attempt = reserved().request.attempt;
    store
        .answers
        .lock()
        .expect("no panic while held")
        .push_back(Err(StoreError::Internal(PANIC.into())));

    let failed = engine.initiate(call(3)).await;
    let unrecorded = engine.record_unknown(attempt, "lost".into()).await;

    assert!(
        matches!(failed, Err(EngineError::Internal(_))),
        "{failed:?}"
    );
    assert!(
        matches!(unrecorded, Err(EngineError::Internal(_))),
        "{unrecorded:?}"
    );
    assert!(engine.initiate(call(4)).await.is_ok());
    let execution = callq_domain::ExecutionId::new("x").expect("an id");
    assert_eq!(engine.record_placed(attempt, execution).await, Ok(true));
    assert_eq!(engine.ready(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_loop_ends_by_a_defect_says_so_and_one_that_is_closed_does_not() {
    let store = FakeStore::new(echo);
    let (broken, _reservations) = spawn(&store, |_| {});
    let (closed, _others) = spawn(&store, |_| {});

    broken.end_a_loop();
    closed.close().await;

    broken.failed().await;
    assert!(matches!(broken.ready(), Err(EngineError::Internal(_))));
    let told = tokio::time::timeout(Duration::from_secs(1), closed.failed()).await;
    assert!(told.is_err(), "closing is no failure");
    assert_eq!(closed.ready(), Err(EngineError::ShuttingDown));
}
