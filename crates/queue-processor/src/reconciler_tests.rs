//! The reconciler with a provider that breaks when it is asked about some of its calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use callq_concurrency::{Engine, EngineOptions};
use callq_domain::{
    AgentId, Attempt, Call, CallId, CallProvider, CallStatus, DoubtfulCall, EndingEffect,
    EngineStore, EventHeaders, EventRejection, ExecutionId, HangUpError, LookUp, Origin,
    OwnershipStore, PhoneNumber, Placement, PlacementRequest, ProgressBatch, ProgressOutcome,
    ProviderName, Providers, QueueItemId, ReportedStatus, ServerId, SlotBatch, SlotOutcome,
    StatusEvent, StoreError, UserId,
};
use tokio::sync::Notify;

use crate::reconciler::{self, Reconciler};

/// Calls in doubt, and those that were recorded as placed or ended.
#[derive(Default)]
struct FakeStore {
    doubtful: Vec<DoubtfulCall>,
    placed: Mutex<Vec<CallId>>,
    ended: Mutex<Vec<CallId>>,
}

#[async_trait]
impl OwnershipStore for FakeStore {
    async fn renew_lease(&self, _: ServerId, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
    async fn retire(&self, _: ServerId) -> Result<(), StoreError> {
        Ok(())
    }
    async fn retire_others(&self, _: ServerId) -> Result<u64, StoreError> {
        Ok(0)
    }
    async fn adopt_orphans(&self, _: ServerId) -> Result<Vec<Call>, StoreError> {
        Ok(Vec::new())
    }
    async fn doubtful_calls(
        &self,
        _: ServerId,
        _: Duration,
    ) -> Result<Vec<DoubtfulCall>, StoreError> {
        Ok(self.doubtful.clone())
    }
    async fn mark_overdue(&self, _: ServerId, _: Attempt) -> Result<(), StoreError> {
        Ok(())
    }
    async fn withdraw_left_over(&self) -> Result<(), StoreError> {
        Ok(())
    }
    async fn maintain(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl EngineStore for FakeStore {
    async fn settle(&self, _: ServerId, batch: &SlotBatch) -> Result<SlotOutcome, StoreError> {
        let calls = batch.endings.iter().map(|ending| ending.call_id);
        self.ended
            .lock()
            .expect("no panic while held")
            .extend(calls);
        Ok(SlotOutcome {
            endings: vec![EndingEffect::Ended; batch.endings.len()],
            ..SlotOutcome::default()
        })
    }
    async fn record_progress(
        &self,
        _: ServerId,
        batch: &ProgressBatch,
    ) -> Result<ProgressOutcome, StoreError> {
        let calls = batch.placed.iter().map(|(attempt, _)| attempt.call_id);
        self.placed
            .lock()
            .expect("no panic while held")
            .extend(calls);
        Ok(ProgressOutcome {
            placed: vec![true; batch.placed.len()],
            ..ProgressOutcome::default()
        })
    }
}

/// Panics when it is asked about one call, and whenever it has to hang up; has all others.
struct Breaking {
    name: ProviderName,
    at: CallId,
}

#[async_trait]
impl CallProvider for Breaking {
    fn name(&self) -> &ProviderName {
        &self.name
    }
    async fn place(&self, _: &PlacementRequest) -> Placement {
        Placement::Unknown {
            reason: "not asked for here".into(),
        }
    }
    async fn look_up(&self, call: CallId) -> LookUp {
        assert_ne!(call, self.at, "a provider's defect");
        LookUp::Found {
            execution_id: ExecutionId::new("x").expect("an id"),
            status: ReportedStatus::Initiated,
        }
    }
    async fn hang_up(&self, _: &ExecutionId) -> Result<(), HangUpError> {
        panic!("a provider's defect")
    }
    fn read_event(&self, _: &dyn EventHeaders, _: &[u8]) -> Result<StatusEvent, EventRejection> {
        Err(EventRejection::Malformed("none".into()))
    }
}

fn doubtful(status: CallStatus, age: Duration) -> DoubtfulCall {
    let id = CallId::new();
    DoubtfulCall {
        attempt: Attempt {
            call_id: id,
            number: 1,
        },
        age,
        call: Call {
            id,
            item_id: QueueItemId::new(),
            user_id: UserId::new(),
            agent_id: AgentId::new(),
            contact_id: None,
            origin: Origin::Direct,
            phone_number: PhoneNumber::from_trusted("+14155550100"),
            contact_name: None,
            provider: ProviderName::new("fake").expect("a name"),
            execution_id: None,
            status,
            reason: None,
            attempts: 1,
            reserved_at: chrono::DateTime::UNIX_EPOCH,
            answered_at: None,
            ended_at: None,
            duration_seconds: None,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_breaks_over_one_call_is_asked_about_the_others() {
    let max_call = Duration::from_secs(3_600);
    let broken = doubtful(CallStatus::Unknown, Duration::ZERO);
    let found = doubtful(CallStatus::Unknown, Duration::ZERO);
    let overlong = doubtful(CallStatus::InProgress, 2 * max_call);
    let store = Arc::new(FakeStore {
        doubtful: vec![broken.clone(), found.clone(), overlong.clone()],
        ..FakeStore::default()
    });
    let server = ServerId::new();
    let (engine, _reservations) = Engine::spawn(store.clone(), server, EngineOptions::default());
    let provider: Arc<dyn CallProvider> = Arc::new(Breaking {
        name: ProviderName::new("fake").expect("a name"),
        at: broken.call.id,
    });
    let running = tokio::spawn(reconciler::run(Arc::new(Reconciler {
        engine,
        store: store.clone(),
        providers: Providers::new([provider]),
        server,
        max_call,
        provider_timeout: Duration::from_secs(5),
        doubt: Arc::new(Notify::new()),
    })));

    tokio::time::sleep(Duration::from_secs(3)).await;

    assert!(!running.is_finished());
    running.abort();
    let placed = store.placed.lock().expect("no panic while held").clone();
    assert!(placed.contains(&found.call.id) && !placed.contains(&broken.call.id));
    let ended = store.ended.lock().expect("no panic while held").clone();
    assert!(ended.contains(&overlong.call.id));
}
