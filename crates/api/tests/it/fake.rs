//! The stores in memory, and the one state that they share with engine and provider.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use callq_concurrency::{EngineError, Initiated};
use callq_domain::*;
use chrono::Utc;
use tokio::sync::Notify;
use uuid::Uuid;

/// What the words of a broken database would give away.
pub(crate) const CAUSE: &str = "FATAL: password authentication failed for host db-7.internal";

#[derive(Default)]
pub(crate) struct State {
    pub(crate) tokens: HashMap<TokenHash, Identity>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) contacts: Vec<Contact>,
    pub(crate) campaigns: Vec<Campaign>,
    pub(crate) paces: Vec<ProviderPace>,
    /// Entries of lists, the newest last.
    pub(crate) do_not_call: Vec<(DoNotCallList, DoNotCallEntry)>,
    /// How many calls wait for whatever is listed next.
    pub(crate) waiting_for_listed: u64,
    pub(crate) deleted_campaigns: Vec<Campaign>,
    pub(crate) campaign_contacts: Vec<CampaignContact>,
    pub(crate) campaign_calls: Option<CampaignCalls>,
    pub(crate) items: Vec<PlacedItem>,
    pub(crate) calls: Vec<Call>,
    pub(crate) loads: Vec<UserLoad>,
    pub(crate) system_limit: u32,
    pub(crate) paused: bool,
    pub(crate) outcomes: VecDeque<Result<Initiated, EngineError>>,
    /// Holds the engine's answer back until it is notified.
    pub(crate) gate: Option<Arc<Notify>>,
    pub(crate) asked: Vec<NewDirectCall>,
    pub(crate) kept: Vec<KeptAnswer>,
    pub(crate) keeping_fails: bool,
    pub(crate) wakes: u32,
    /// Why the engine could admit nothing.
    pub(crate) engine_fault: Option<EngineError>,
    pub(crate) events: VecDeque<Result<EventEffect, EventError>>,
    pub(crate) accepted: Vec<StatusEvent>,
    pub(crate) hang_up: Option<HangUpError>,
    pub(crate) hung_up: Vec<ExecutionId>,
    pub(crate) is_down: bool,
    pub(crate) stories: Vec<CallStory>,
    pub(crate) hand_effects: VecDeque<HandEffect>,
    pub(crate) settled: Vec<(Uuid, HandSettlement)>,
    /// Imports asked for, with their good rows.
    pub(crate) imports: Vec<(NewImport, Vec<ListRow>)>,
    pub(crate) import_errors: Vec<(ImportId, UserId, String)>,
    /// Why the next import cannot be.
    pub(crate) import_fault: Option<StoreError>,
}

#[derive(Default)]
pub(crate) struct Fake(Mutex<State>);

impl Fake {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the database is down.
    pub(crate) fn up(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.is_down {
            return Err(StoreError::Unavailable(CAUSE.into()));
        }
        Ok(state)
    }
}

pub(crate) fn page_of<T>(all: Vec<T>, page: &PageRequest) -> Result<Page<T>, StoreError> {
    let start = match &page.cursor {
        None => 0,
        Some(text) => text.parse().map_err(|_| StoreError::BadCursor)?,
    };
    let end = start + usize::from(page.limit);
    let next_cursor = (end < all.len()).then(|| end.to_string());
    let items = all.into_iter().skip(start).take(page.limit.into());
    Ok(Page {
        items: items.collect(),
        next_cursor,
    })
}

#[async_trait]
impl AccountStore for Fake {
    async fn authenticate(&self, hash: TokenHash) -> Result<Option<Identity>, StoreError> {
        let state = self.up()?;
        Ok(state.tokens.get(&hash).copied())
    }
    async fn create_user(&self, _: NewUser, _: NewToken) -> Result<User, StoreError> {
        Err(StoreError::Internal("not asked for here".into()))
    }
    async fn user_by_email(&self, _: &Email) -> Result<Option<User>, StoreError> {
        Ok(None)
    }
    async fn user(&self, _: UserId) -> Result<Option<User>, StoreError> {
        Ok(None)
    }
    async fn create_token(&self, _: NewToken) -> Result<(), StoreError> {
        Ok(())
    }
    async fn revoke_token(&self, _: TokenId) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl DirectoryStore for Fake {
    async fn create_agent(
        &self,
        id: AgentId,
        user_id: UserId,
        fields: AgentFields,
    ) -> Result<Agent, StoreError> {
        let now = Utc::now();
        let agent = Agent {
            id,
            user_id,
            fields,
            created_at: now,
            updated_at: now,
        };
        self.up()?.agents.push(agent.clone());
        Ok(agent)
    }
    async fn agents(&self, user: UserId, page: PageRequest) -> Result<Page<Agent>, StoreError> {
        let state = self.up()?;
        let mine = state.agents.iter().filter(|it| it.user_id == user);
        page_of(mine.cloned().collect(), &page)
    }
    async fn agent(&self, user: UserId, id: AgentId) -> Result<Option<Agent>, StoreError> {
        let state = self.up()?;
        let mut mine = state.agents.iter().filter(|it| it.user_id == user);
        Ok(mine.find(|it| it.id == id).cloned())
    }
    async fn update_agent(
        &self,
        user: UserId,
        id: AgentId,
        fields: AgentFields,
    ) -> Result<Agent, StoreError> {
        let mut state = self.up()?;
        let mut mine = state.agents.iter_mut().filter(|it| it.user_id == user);
        let agent = mine.find(|it| it.id == id).ok_or(StoreError::NotFound)?;
        agent.fields = fields;
        Ok(agent.clone())
    }
    async fn delete_agent(&self, user: UserId, id: AgentId) -> Result<(), StoreError> {
        let mut state = self.up()?;
        if state.items.iter().any(|it| it.item.agent_id == id) {
            return Err(StoreError::Conflict("The agent has calls.".into()));
        }
        let mut all = state.agents.iter();
        let index = all.position(|it| it.id == id && it.user_id == user);
        state.agents.remove(index.ok_or(StoreError::NotFound)?);
        Ok(())
    }
    async fn create_contact(
        &self,
        id: ContactId,
        user_id: UserId,
        fields: ContactFields,
    ) -> Result<Contact, StoreError> {
        let now = Utc::now();
        let contact = Contact {
            id,
            user_id,
            fields,
            created_at: now,
            updated_at: now,
        };
        self.up()?.contacts.push(contact.clone());
        Ok(contact)
    }
    async fn contacts(&self, user: UserId, page: PageRequest) -> Result<Page<Contact>, StoreError> {
        let state = self.up()?;
        let mine = state.contacts.iter().filter(|it| it.user_id == user);
        page_of(mine.cloned().collect(), &page)
    }
    async fn contact(&self, user: UserId, id: ContactId) -> Result<Option<Contact>, StoreError> {
        let state = self.up()?;
        let mut mine = state.contacts.iter().filter(|it| it.user_id == user);
        Ok(mine.find(|it| it.id == id).cloned())
    }
    async fn update_contact(
        &self,
        user: UserId,
        id: ContactId,
        fields: ContactFields,
    ) -> Result<Contact, StoreError> {
        let mut state = self.up()?;
        let mut mine = state.contacts.iter_mut().filter(|it| it.user_id == user);
        let contact = mine.find(|it| it.id == id).ok_or(StoreError::NotFound)?;
        contact.fields = fields;
        Ok(contact.clone())
    }
    async fn delete_contact(&self, user: UserId, id: ContactId) -> Result<(), StoreError> {
        let mut state = self.up()?;
        let mut all = state.contacts.iter();
        let index = all.position(|it| it.id == id && it.user_id == user);
        state.contacts.remove(index.ok_or(StoreError::NotFound)?);
        Ok(())
    }
}

#[async_trait]
impl QueueStore for Fake {
    async fn queue_status(&self, user: UserId) -> Result<QueueStatus, StoreError> {
        let concurrency = self.concurrency(user).await?;
        let state = self.up()?;
        let mine = |it: &&PlacedItem| it.item.user_id == user;
        let waiting = state.items.iter().filter(mine);
        let next = waiting
            .filter(|it| it.item.status == ItemStatus::Queued)
            .min_by_key(|it| it.item.position);
        Ok(QueueStatus {
            direct: TypeCount {
                queued: 3,
                processing: 2,
            },
            campaign: TypeCount {
                queued: 5,
                processing: 0,
            },
            next_direct: next.map(|it| it.item.clone()),
            concurrency,
        })
    }
    async fn concurrency(&self, _: UserId) -> Result<Concurrency, StoreError> {
        let state = self.up()?;
        Ok(Concurrency {
            user: SlotUse {
                limit: 2,
                active: 2,
            },
            system: SlotUse {
                limit: state.system_limit,
                active: 4,
            },
            direct_reserved_slots: 0,
        })
    }
    async fn items(
        &self,
        user: UserId,
        filter: ItemFilter,
        page: PageRequest,
    ) -> Result<Page<QueueItem>, StoreError> {
        let state = self.up()?;
        let items = state.items.iter().map(|it| &it.item);
        let mine = items.filter(|it| {
            it.user_id == user
                && filter.status.is_none_or(|status| status == it.status)
                && filter
                    .call_type
                    .is_none_or(|it_is| it_is == it.origin.call_type())
        });
        page_of(mine.cloned().collect(), &page)
    }
    async fn item(&self, user: UserId, id: QueueItemId) -> Result<Option<PlacedItem>, StoreError> {
        let state = self.up()?;
        let mut mine = state.items.iter().filter(|it| it.item.user_id == user);
        Ok(mine.find(|it| it.item.id == id).cloned())
    }
    async fn queue_statistics(&self, _: UserId) -> Result<QueueStatistics, StoreError> {
        drop(self.up()?);
        Ok(QueueStatistics {
            counts: vec![(CallType::Direct, ItemStatus::Completed, 7)],
            wait_seconds: Some([1.0, 2.0, 3.0]),
            started_per_minute: 0.5,
            finished_per_minute: 0.25,
        })
    }
    async fn cancel_item(
        &self,
        user: UserId,
        id: QueueItemId,
    ) -> Result<Result<QueueItem, ItemStatus>, StoreError> {
        let mut state = self.up()?;
        let mut mine = state.items.iter_mut().filter(|it| it.item.user_id == user);
        let placed = mine
            .find(|it| it.item.id == id)
            .ok_or(StoreError::NotFound)?;
        if placed.item.status != ItemStatus::Queued {
            return Ok(Err(placed.item.status));
        }
        placed.item.status = ItemStatus::Cancelled;
        Ok(Ok(placed.item.clone()))
    }
}

#[async_trait]
impl CallStore for Fake {
    async fn calls(&self, user: UserId, page: PageRequest) -> Result<Page<Call>, StoreError> {
        let state = self.up()?;
        let mine = state.calls.iter().filter(|it| it.user_id == user);
        page_of(mine.cloned().collect(), &page)
    }
    async fn call(
        &self,
        user: UserId,
        id: CallId,
    ) -> Result<Option<(Call, Vec<CallTransition>)>, StoreError> {
        let state = self.up()?;
        let mut mine = state.calls.iter().filter(|it| it.user_id == user);
        Ok(mine.find(|it| it.id == id).map(|call| {
            let reserved = CallTransition {
                status: "reserved".into(),
                at: call.reserved_at,
                reason: None,
                attempt: Some(1),
                server: None,
            };
            (call.clone(), vec![reserved])
        }))
    }
}
