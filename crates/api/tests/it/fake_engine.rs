//! The in-memory ports beside the stores of a user's things: operators, engine and provider.

use async_trait::async_trait;
use callq_api::Door;
use callq_concurrency::{EngineError, Initiated};
use callq_domain::*;
use chrono::Utc;
use uuid::Uuid;

use crate::fake::{CAUSE, Fake, State, page_of};
use crate::world::held_call;

impl State {
    fn system(&self) -> SystemState {
        SystemState {
            slots: SlotUse {
                limit: self.system_limit,
                active: 4,
            },
            dispatch_paused: self.paused,
        }
    }
}

#[async_trait]
impl OperatorStore for Fake {
    async fn system_state(&self) -> Result<SystemState, StoreError> {
        Ok(self.up()?.system())
    }
    async fn set_system_limit(&self, limit: ConcurrencyLimit) -> Result<SystemState, StoreError> {
        let mut state = self.up()?;
        state.system_limit = limit.get();
        Ok(state.system())
    }
    async fn set_dispatch_paused(&self, paused: bool) -> Result<SystemState, StoreError> {
        let mut state = self.up()?;
        state.paused = paused;
        Ok(state.system())
    }
    async fn user_loads(&self, page: PageRequest) -> Result<Page<UserLoad>, StoreError> {
        page_of(self.up()?.loads.clone(), &page)
    }
    async fn user_load(&self, id: UserId) -> Result<Option<UserLoad>, StoreError> {
        let state = self.up()?;
        Ok(state.loads.iter().find(|it| it.user.id == id).cloned())
    }
    async fn update_user(&self, id: UserId, change: UserChange) -> Result<User, StoreError> {
        let mut state = self.up()?;
        let mut loads = state.loads.iter_mut();
        let load = loads.find(|it| it.user.id == id);
        let user = &mut load.ok_or(StoreError::NotFound)?.user;
        user.weight = change.weight.unwrap_or(user.weight);
        user.credits = change.credits.unwrap_or(user.credits);
        user.campaign_calls_per_second = change
            .campaign_calls_per_second
            .unwrap_or(user.campaign_calls_per_second);
        user.max_queued_direct_calls = change
            .max_queued_direct_calls
            .unwrap_or(user.max_queued_direct_calls);
        user.max_calls_per_number_per_day = change
            .max_calls_per_number_per_day
            .unwrap_or(user.max_calls_per_number_per_day);
        user.max_queued_campaign_calls = change
            .max_queued_campaign_calls
            .unwrap_or(user.max_queued_campaign_calls);
        user.concurrent_calls_limit = change
            .concurrent_calls_limit
            .unwrap_or(user.concurrent_calls_limit);
        user.direct_reserved_slots = change
            .direct_reserved_slots
            .unwrap_or(user.direct_reserved_slots);
        Ok(user.clone())
    }
    async fn provider_paces(&self) -> Result<Vec<ProviderPace>, StoreError> {
        Ok(self.up()?.paces.clone())
    }
    async fn set_provider_pace(
        &self,
        provider: ProviderName,
        calls_per_second: Option<CallRate>,
    ) -> Result<(), StoreError> {
        let paces = &mut self.up()?.paces;
        paces.retain(|pace| pace.provider != provider);
        paces.extend(calls_per_second.map(|calls_per_second| ProviderPace {
            provider,
            calls_per_second,
        }));
        Ok(())
    }
    async fn held_calls(
        &self,
        status: Option<CallStatus>,
        limit: Option<u32>,
    ) -> Result<HeldCalls, StoreError> {
        let state = self.up()?;
        let held = state.calls.iter().filter(|it| {
            !it.status.is_terminal() && status.is_none_or(|status| status == it.status)
        });
        let mut items: Vec<_> = held.cloned().map(held_call).collect();
        let total = items.len() as u64;
        items.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
        Ok(HeldCalls { items, total })
    }
    async fn call_story(&self, id: Uuid) -> Result<Option<CallStory>, StoreError> {
        let state = self.up()?;
        let mut stories = state.stories.iter();
        Ok(stories.find(|it| it.item.id.as_uuid() == id).cloned())
    }
    async fn settle_by_hand(
        &self,
        id: Uuid,
        settlement: HandSettlement,
    ) -> Result<HandEffect, StoreError> {
        let mut state = self.up()?;
        state.settled.push((id, settlement));
        let effect = state.hand_effects.pop_front();
        Ok(effect.unwrap_or(HandEffect::UnknownCall))
    }
    async fn audit(&self) -> Result<Vec<AuditDifference>, StoreError> {
        Ok(Vec::new())
    }
    async fn ready(&self) -> Result<(), StoreError> {
        self.up().map(drop)
    }
    async fn gauges(&self) -> Result<SystemGauges, StoreError> {
        let state = self.up()?;
        Ok(SystemGauges {
            slots: state.system().slots,
            direct: TypeCount {
                queued: 3,
                processing: 2,
            },
            campaign: TypeCount::default(),
            unknown: 1,
            priority_violations: 0,
            oldest_snapshot: std::time::Duration::from_millis(1500),
            at: Utc::now(),
        })
    }
}

#[async_trait]
impl EventSink for Fake {
    async fn accept(&self, event: StatusEvent) -> Result<EventEffect, EventError> {
        let mut state = self.state();
        state.accepted.push(event);
        state.events.pop_front().unwrap_or(Ok(EventEffect::Applied))
    }
}

#[async_trait]
impl Door for Fake {
    async fn initiate(&self, call: NewDirectCall) -> Result<Initiated, EngineError> {
        let (outcome, gate) = {
            let mut state = self.state();
            state.asked.push(call);
            (state.outcomes.pop_front(), state.gate.clone())
        };
        if let Some(gate) = gate {
            gate.notified().await;
        }
        outcome.unwrap_or(Err(EngineError::ShuttingDown))
    }
    async fn keep_answer(&self, answer: KeptAnswer) -> Result<(), EngineError> {
        let mut state = self.state();
        if state.keeping_fails {
            return Err(EngineError::Unavailable(CAUSE.into()));
        }
        state.kept.push(answer);
        Ok(())
    }
    fn wake(&self) {
        self.state().wakes += 1;
    }
    fn ready(&self) -> Result<(), EngineError> {
        self.state().engine_fault.clone().map_or(Ok(()), Err)
    }
}

/// A provider named `fake`. An event is signed if its header `signature` says `good`; its body is
/// a call id.
pub(crate) struct FakeProvider {
    pub(crate) name: ProviderName,
    pub(crate) fake: std::sync::Arc<Fake>,
}

#[async_trait]
impl CallProvider for FakeProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }
    async fn place(&self, _: &PlacementRequest) -> Placement {
        Placement::Unknown {
            reason: "not asked for here".into(),
        }
    }
    async fn look_up(&self, _: CallId) -> LookUp {
        LookUp::NotPlaced
    }
    async fn hang_up(&self, execution_id: &ExecutionId) -> Result<(), HangUpError> {
        let mut state = self.fake.state();
        state.hung_up.push(execution_id.clone());
        state.hang_up.clone().map_or(Ok(()), Err)
    }
    fn read_event(
        &self,
        headers: &dyn EventHeaders,
        body: &[u8],
    ) -> Result<StatusEvent, EventRejection> {
        if headers.get("Signature") != Some("good") {
            return Err(EventRejection::Unauthentic("no good signature".into()));
        }
        let text = String::from_utf8_lossy(body);
        let call_id = text
            .parse()
            .map_err(|_| EventRejection::Malformed("the body is no call id".into()))?;
        Ok(StatusEvent {
            event_id: "e1".into(),
            call_id,
            execution_id: None,
            status: ReportedStatus::Ringing,
            occurred_at: Utc::now(),
            duration_seconds: None,
            reason: None,
        })
    }
}
