//! What meets what.

use std::time::Duration;

use callq_domain::{
    Admission, Attempt, CampaignStatus, CampaignStore, ConcurrencyLimit, Ending, EngineStore,
    ExecutionId, HandSettlement, OperatorStore, OperatorWord, Outcome, OwnershipStore,
    ProgressBatch, QueueItemId, QueueStore, ReportedStatus, Return, SlotBatch, SlotOutcome,
    StatusEvent, StoreError, Target, UserChange,
};

use super::world::World;
use crate::scene::{direct_call, phone_number};

/// An operation on the world's user, call, waiting item, campaign, or the system's row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    Admit,
    Dispatch,
    End,
    EndOwn,
    GiveBack,
    AnswerLost,
    Cancel,
    UserDown,
    UserUp,
    SystemDown,
    SystemUp,
    Pause,
    StartCampaign,
    PauseCampaign,
    CancelCampaign,
    Placed,
    Lost,
    Ringing,
    GiveUp,
    Adopt,
    EndByHand,
    PutBackByHand,
}

/// What an operation did.
#[derive(Default)]
pub(crate) struct Does {
    /// Attempts it authorised.
    pub(crate) starts: Vec<Attempt>,
    /// Items it accepted.
    pub(crate) accepts: Vec<QueueItemId>,
    /// What it should not have answered.
    pub(crate) fault: Option<String>,
}

impl Operation {
    pub(crate) const ALL: [Self; 22] = [
        Self::Admit,
        Self::Dispatch,
        Self::End,
        Self::EndOwn,
        Self::GiveBack,
        Self::AnswerLost,
        Self::Cancel,
        Self::UserDown,
        Self::UserUp,
        Self::SystemDown,
        Self::SystemUp,
        Self::Pause,
        Self::StartCampaign,
        Self::PauseCampaign,
        Self::CancelCampaign,
        Self::Placed,
        Self::Lost,
        Self::Ringing,
        Self::GiveUp,
        Self::Adopt,
        Self::EndByHand,
        Self::PutBackByHand,
    ];

    /// Performs it on one of the two servers.
    pub(crate) async fn perform(self, world: &World, server: usize) -> Does {
        match self.attempt(world, server).await {
            Ok(does) => does,
            // A campaign that is over, or so already.
            Err(StoreError::Conflict(_)) => Does::default(),
            Err(error) => Does {
                fault: Some(format!("server {server} was answered {error:?}")),
                ..Does::default()
            },
        }
    }

    async fn attempt(self, world: &World, server: usize) -> Result<Does, StoreError> {
        let store = &world.scene.store;
        let id = world.servers[server];
        if let Some(batch) = self.batch(world) {
            return store.settle(id, &batch).await.map(Does::of);
        }
        if let Some(batch) = self.progress(world) {
            store.record_progress(id, &batch).await?;
            return Ok(Does::default());
        }
        let limit = |calls| ConcurrencyLimit::new(calls).unwrap();
        let user_limit = |calls| UserChange {
            concurrent_calls_limit: Some(limit(calls)),
            ..UserChange::default()
        };
        let campaign = |status| store.set_campaign_status(world.user, world.campaign, status);
        match self {
            Self::Cancel => drop(store.cancel_item(world.user, world.waiting).await?),
            Self::UserDown => drop(store.update_user(world.user, user_limit(1)).await?),
            Self::UserUp => drop(store.update_user(world.user, user_limit(3)).await?),
            Self::SystemDown => drop(store.set_system_limit(limit(1)).await?),
            Self::SystemUp => drop(store.set_system_limit(limit(5)).await?),
            Self::Pause => drop(store.set_dispatch_paused(true).await?),
            Self::StartCampaign => drop(campaign(CampaignStatus::Active).await?),
            Self::PauseCampaign => drop(campaign(CampaignStatus::Paused).await?),
            Self::CancelCampaign => drop(campaign(CampaignStatus::Cancelled).await?),
            Self::GiveUp => store.mark_overdue(id, world.call).await?,
            Self::Adopt => drop(store.adopt_orphans(id).await?),
            Self::EndByHand => {
                let (outcome, force) = (Outcome::Busy, true);
                by_hand(world, OperatorWord::Ended { outcome, force }).await?;
            }
            Self::PutBackByHand => by_hand(world, OperatorWord::NotPlaced).await?,
            other => unreachable!("{other:?} is a batch"),
        }
        Ok(Does::default())
    }

    fn batch(self, world: &World) -> Option<SlotBatch> {
        let mut batch = SlotBatch {
            reserve: 2,
            ..SlotBatch::default()
        };
        match self {
            Self::Admit => {
                let number = Target::Number(phone_number(world.scene.number()).parse().unwrap());
                batch.admissions = vec![direct_call(world.user, world.agent, number)];
            }
            Self::Dispatch => batch.reserve = 5,
            Self::End | Self::EndOwn => {
                batch.endings = vec![Ending {
                    call_id: world.call.call_id,
                    attempt: matches!(self, Self::EndOwn).then_some(world.call.number),
                    outcome: Outcome::Completed,
                    execution_id: None,
                    reason: None,
                    duration_seconds: None,
                }];
            }
            Self::GiveBack => {
                batch.returns = vec![Return {
                    attempt: world.call,
                    delay: Duration::ZERO,
                    reason: "no room".into(),
                    if_unknown: false,
                }];
            }
            Self::AnswerLost => batch.answered = Some(world.before),
            _ => return None,
        }
        Some(batch)
    }

    fn progress(self, world: &World) -> Option<ProgressBatch> {
        let mut batch = ProgressBatch::default();
        match self {
            Self::Placed => batch.placed = vec![(world.call, ExecutionId::new("x").unwrap())],
            Self::Lost => batch.unknown = vec![(world.call, "timed out".into())],
            Self::Ringing => {
                batch.events = vec![StatusEvent {
                    event_id: "e".into(),
                    call_id: world.call.call_id,
                    execution_id: ExecutionId::new("x"),
                    status: ReportedStatus::Ringing,
                    occurred_at: chrono::Utc::now(),
                    duration_seconds: None,
                    reason: None,
                }];
            }
            _ => return None,
        }
        Some(batch)
    }
}

/// An operator's word on the world's call, whatever comes of it.
async fn by_hand(world: &World, word: OperatorWord) -> Result<(), StoreError> {
    let settlement = HandSettlement {
        word,
        reason: None,
        attempt: None,
    };
    let id = world.call.call_id.as_uuid();
    let store = &world.scene.store;
    store.settle_by_hand(id, settlement).await.map(drop)
}

impl Does {
    pub(crate) fn of(outcome: SlotOutcome) -> Self {
        let mut does = Self::default();
        let reserved = outcome.reserved.iter();
        does.starts
            .extend(reserved.map(|call| call.request.attempt));
        for admission in outcome.admissions {
            match admission {
                Admission::Started(call) => {
                    does.starts.push(call.request.attempt);
                    does.accepts.push(call.item_id);
                }
                Admission::Queued(queued) => does.accepts.push(queued.item_id),
                other => does.fault = Some(format!("a call was told {other:?}")),
            }
        }
        does
    }
}
