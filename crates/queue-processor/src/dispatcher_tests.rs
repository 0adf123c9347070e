//! The dispatcher with a provider and a store that do as they are told: nothing is sent without a
//! lease, nothing is sent twice, and every result is recorded for what it proves.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use callq_concurrency::{Engine, EngineOptions};
use callq_domain::{
    Attempt, CallId, CallProvider, EndingEffect, EngineStore, EventHeaders, EventRejection,
    ExecutionId, Fence, HangUpError, LookUp, Origin, Outcome, PhoneNumber, Placement,
    PlacementRequest, ProgressBatch, ProgressOutcome, ProviderName, Providers, QueueItemId,
    ReservedCall, ServerId, SlotBatch, SlotOutcome, StatusEvent, StoreError, UserId,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;

use crate::dispatcher::{self, Dispatcher};
use crate::lease::{Lease, since_boot};

/// What the store was told, in order.
#[derive(Debug, PartialEq)]
enum Told {
    Placed(Attempt),
    Unknown(Attempt, String),
    Ended(Outcome, String),
    Returned(Duration, String),
}

/// Gives out one call, then records what it is told.
struct FakeStore {
    calls: Mutex<Vec<ReservedCall>>,
    /// How often it fails to record a placement, as if by a defect, before it does.
    fails: AtomicU32,
    told: mpsc::UnboundedSender<Told>,
}

#[async_trait]
impl EngineStore for FakeStore {
    async fn settle(&self, _: ServerId, batch: &SlotBatch) -> Result<SlotOutcome, StoreError> {
        for ending in &batch.endings {
            let _ = self.told.send(Told::Ended(
                ending.outcome,
                ending.reason.clone().unwrap_or_default(),
            ));
        }
        for back in &batch.returns {
            let _ = self
                .told
                .send(Told::Returned(back.delay, back.reason.clone()));
        }
        Ok(SlotOutcome {
            endings: vec![EndingEffect::Ended; batch.endings.len()],
            returns: vec![None; batch.returns.len()],
            reserved: self
                .calls
                .lock()
                .expect("no panic while held")
                .drain(..)
                .collect(),
            ..SlotOutcome::default()
        })
    }

    async fn record_progress(
        &self,
        _: ServerId,
        batch: &ProgressBatch,
    ) -> Result<ProgressOutcome, StoreError> {
        let fail = |left: u32| left.checked_sub(1);
        if self
            .fails
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fail)
            .is_ok()
        {
            return Err(StoreError::Internal("a message not understood".into()));
        }
        let mut outcome = ProgressOutcome::default();
        for (attempt, _) in &batch.placed {
            let _ = self.told.send(Told::Placed(*attempt));
            outcome.placed.push(true);
        }
        for (attempt, reason) in &batch.unknown {
            let _ = self.told.send(Told::Unknown(*attempt, reason.clone()));
            outcome.unknown.push(true);
        }
        Ok(outcome)
    }
}

/// What the fake provider does when it is asked to place.
#[derive(Clone)]
enum Act {
    Answer(Placement),
    Panic,
    Never,
}

struct FakeProvider {
    name: ProviderName,
    act: Act,
    asked: Mutex<u32>,
}

#[async_trait]
impl CallProvider for FakeProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    async fn place(&self, _: &PlacementRequest) -> Placement {
        *self.asked.lock().expect("no panic while held") += 1;
        match self.act.clone() {
            Act::Answer(placement) => placement,
            Act::Panic => panic!("a provider's defect"),
            Act::Never => std::future::pending().await,
        }
    }

    async fn look_up(&self, _: CallId) -> LookUp {
        LookUp::NotPlaced
    }

    async fn hang_up(&self, _: &ExecutionId) -> Result<(), HangUpError> {
        Err(HangUpError::NotFound)
    }

    fn read_event(&self, _: &dyn EventHeaders, _: &[u8]) -> Result<StatusEvent, EventRejection> {
        Err(EventRejection::Malformed("none".into()))
    }
}

/// What the store was told of one call, and how often the provider was asked.
struct Story {
    told: Vec<Told>,
    asked: u32,
}

/// Plays one reserved call through the dispatcher.
async fn play(act: Act, lease: Duration, provider: &str) -> Story {
    play_with(act, lease, provider, 0).await
}

/// The same with a store that fails to record so often before it does.
async fn play_with(act: Act, lease: Duration, provider: &str, fails: u32) -> Story {
    let name = ProviderName::new("fake").expect("a name");
    let call = ReservedCall {
        item_id: QueueItemId::new(),
        provider: ProviderName::new(provider).expect("a name"),
        request: PlacementRequest {
            attempt: Attempt {
                call_id: CallId::new(),
                number: 1,
            },
            to: PhoneNumber::from_trusted("+14155550100"),
            from: None,
            origin: Origin::Direct,
            user_id: UserId::new(),
            agent_id: callq_domain::AgentId::new(),
            provider_agent_id: None,
            settings: None,
            contact_name: None,
            user_data: None,
            fence: Fence::default(),
        },
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    let store = Arc::new(FakeStore {
        calls: Mutex::new(vec![call]),
        fails: AtomicU32::new(fails),
        told: tell,
    });
    let (engine, reservations) = Engine::spawn(store, ServerId::new(), EngineOptions::default());
    let fake = Arc::new(FakeProvider {
        name,
        act,
        asked: Mutex::new(0),
    });
    let held = Lease::over();
    held.renewed(since_boot(), lease);
    let in_flight = TaskTracker::new();
    let dispatcher = Arc::new(Dispatcher {
        engine: engine.clone(),
        providers: Providers::new([fake.clone() as Arc<dyn CallProvider>]),
        lease: Arc::new(held),
        placement_bound: Duration::from_secs(5),
        doubt: Arc::new(Notify::new()),
        in_flight: in_flight.clone(),
    });
    let running = tokio::spawn(dispatcher::run(dispatcher, reservations));
    // Time is paused: it moves on only when nothing else can.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(in_flight.is_empty(), "the placement is over");
    running.abort();
    let mut seen = Vec::new();
    while let Ok(one) = told.try_recv() {
        seen.push(one);
    }
    let asked = *fake.asked.lock().expect("no panic while held");
    Story { told: seen, asked }
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_placed_call_is_asked_for_once_and_recorded() {
    let placed = Placement::Placed {
        execution_id: ExecutionId::new("x").expect("an id"),
    };
    let story = play(Act::Answer(placed), LONG, "fake").await;

    assert!(
        matches!(story.told[..], [Told::Placed(_)]),
        "{:?}",
        story.told
    );
    assert_eq!(story.asked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_shorter_than_a_placement_puts_the_call_back_unsent() {
    let story = play(Act::Never, Duration::from_secs(4), "fake").await;

    assert!(
        matches!(story.told[..], [Told::Returned(..)]),
        "{:?}",
        story.told
    );
    assert_eq!(story.asked, 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_mute_or_breaks_leaves_the_call_unknown() {
    for act in [Act::Never, Act::Panic] {
        let story = play(act, LONG, "fake").await;

        assert!(
            matches!(story.told[..], [Told::Unknown(..)]),
            "{:?}",
            story.told
        );
        assert_eq!(story.asked, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn proof_that_nothing_was_dialled_puts_the_call_back_after_a_pause() {
    let busy = Placement::Busy {
        retry_after: Some(Duration::from_secs(7)),
        reason: "full".into(),
    };
    let unreachable = Placement::Unreachable {
        reason: "refused".into(),
    };
    let story = play(Act::Answer(busy), LONG, "fake").await;
    let other = play(Act::Answer(unreachable), LONG, "fake").await;

    let expected = Told::Returned(Duration::from_secs(7), "full".into());
    assert_eq!(story.told[0], expected);
    assert!(matches!(&other.told[0], Told::Returned(pause, why)
        if *pause >= Duration::from_millis(700) && why == "refused"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_call_and_a_provider_this_server_lacks_puts_it_back() {
    let refused = Placement::Refused {
        reason: "no such agent".into(),
    };
    let story = play(Act::Answer(refused), LONG, "fake").await;
    let nobody = play(Act::Never, LONG, "telegraph").await;

    assert_eq!(
        story.told[0],
        Told::Ended(Outcome::Failed, "no such agent".into())
    );
    assert!(
        matches!(&nobody.told[..], [Told::Returned(pause, why)]
            if why.contains("telegraph") && !pause.is_zero()),
        "{:?}",
        nobody.told
    );
}

#[tokio::test(start_paused = true)]
async fn a_result_on_which_the_store_fails_is_kept_and_recorded_in_the_end() {
    let placed = Placement::Placed {
        execution_id: ExecutionId::new("x").expect("an id"),
    };
    let story = play_with(Act::Answer(placed), LONG, "fake", 4).await;

    assert!(
        matches!(story.told[..], [Told::Placed(_)]),
        "{:?}",
        story.told
    );
    assert_eq!(story.asked, 1);
}

#[test]
fn a_fence_is_closed_once_its_time_or_the_lease_is_over() {
    let lease = Arc::new(Lease::over());
    assert!(!dispatcher::fence(&lease, LONG).is_open(), "no lease");
    lease.renewed(since_boot(), LONG);
    let open = dispatcher::fence(&lease, LONG);
    assert!(open.is_open());
    assert!(!dispatcher::fence(&lease, Duration::ZERO).is_open());

    lease.end();

    assert!(!open.is_open());
}
