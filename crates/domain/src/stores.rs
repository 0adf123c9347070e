//! Ports to what is stored, beside the engine's own: accounts, directory, campaigns, and the views
//! of queue and calls. Implemented by the persistence crate, used by controllers and the CLI.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    Agent, AgentFields, AgentId, Call, CallId, CallRate, CallStatus, CallStory, CallTransition,
    CallType, Campaign, CampaignFields, CampaignId, CampaignStatistics, CampaignStatus,
    CampaignSummary, ConcurrencyLimit, Contact, ContactFields, ContactId, HandEffect,
    HandSettlement, HeldCalls, Identity, ItemStatus, NewCampaign, NewToken, NewUser, ProviderName,
    QueueFull, QueueItem, QueueItemId, QueuePlace, QueueReason, SlotUse, TokenHash, TokenId, User,
    UserChange, UserId,
};

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or refuses work now. Try again later.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// There is no such thing, or it is another user's.
    #[error("not found")]
    NotFound,
    /// It cannot be done in the present state; a sentence for the client.
    #[error("{0}")]
    Conflict(String),
    /// The user has no room for as many waiting calls. Nothing was changed.
    #[error("the queue is full: {0}")]
    QueueFull(QueueFull),
    /// A cursor that this store did not make.
    #[error("the cursor is not one this server made")]
    BadCursor,
    /// A defect: the store answered something it never should.
    #[error("internal store error: {0}")]
    Internal(String),
}

/// A page of a longer list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Its entries.
    pub items: Vec<T>,
    /// Where the next page begins; none after the last.
    pub next_cursor: Option<String>,
}

/// Which page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// At most so many entries, 1 to 200.
    pub limit: u16,
    /// A cursor from the page before.
    pub cursor: Option<String>,
}

/// Users and their tokens.
#[async_trait]
pub trait AccountStore: Send + Sync {
    /// Who a token belongs to, if it is known, not revoked and not over.
    async fn authenticate(&self, hash: TokenHash) -> Result<Option<Identity>, StoreError>;
    /// Makes a user and its first token in one transaction. `Conflict` if the email is taken.
    async fn create_user(&self, user: NewUser, token: NewToken) -> Result<User, StoreError>;
    /// A user by email.
    async fn user_by_email(&self, email: &crate::Email) -> Result<Option<User>, StoreError>;
    /// A user by id.
    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;
    /// Stores a further token.
    async fn create_token(&self, token: NewToken) -> Result<(), StoreError>;
    /// Revokes a token. `NotFound` if there is none, or it was revoked before.
    async fn revoke_token(&self, id: TokenId) -> Result<(), StoreError>;
}

/// Agents and contacts.
#[async_trait]
pub trait DirectoryStore: Send + Sync {
    /// Makes an agent.
    async fn create_agent(
        &self,
        id: AgentId,
        user: UserId,
        fields: AgentFields,
    ) -> Result<Agent, StoreError>;
    /// The user's agents, newest first.
    async fn agents(&self, user: UserId, page: PageRequest) -> Result<Page<Agent>, StoreError>;
    /// One agent, if it is the user's.
    async fn agent(&self, user: UserId, id: AgentId) -> Result<Option<Agent>, StoreError>;
    /// Replaces what is said of an agent. `NotFound` if it is not the user's.
    async fn update_agent(
        &self,
        user: UserId,
        id: AgentId,
        fields: AgentFields,
    ) -> Result<Agent, StoreError>;
    /// Deletes an agent. `Conflict` while calls or campaigns of it are not over.
    async fn delete_agent(&self, user: UserId, id: AgentId) -> Result<(), StoreError>;
    /// Makes a contact.
    async fn create_contact(
        &self,
        id: ContactId,
        user: UserId,
        fields: ContactFields,
    ) -> Result<Contact, StoreError>;
    /// The user's contacts, newest first.
    async fn contacts(&self, user: UserId, page: PageRequest) -> Result<Page<Contact>, StoreError>;
    /// One contact, if it is the user's.
    async fn contact(&self, user: UserId, id: ContactId) -> Result<Option<Contact>, StoreError>;
    /// Replaces what is said of a contact. `NotFound` if it is not the user's.
    async fn update_contact(
        &self,
        user: UserId,
        id: ContactId,
        fields: ContactFields,
    ) -> Result<Contact, StoreError>;
    /// Deletes a contact. `Conflict` while calls to it are not over.
    async fn delete_contact(&self, user: UserId, id: ContactId) -> Result<(), StoreError>;
}

/// Campaigns.
#[async_trait]
pub trait CampaignStore: Send + Sync {
    /// Makes a draft. `NotFound` if its agent is not the user's; `Conflict` naming the first
    /// contact that is not.
    async fn create_campaign(&self, campaign: NewCampaign) -> Result<Campaign, StoreError>;
    /// The user's campaigns, newest first.
    async fn campaigns(
        &self,
        user: UserId,
        page: PageRequest,
    ) -> Result<Page<Campaign>, StoreError>;
    /// One campaign, if it is the user's.
    async fn campaign(&self, user: UserId, id: CampaignId) -> Result<Option<Campaign>, StoreError>;
    /// Moves a campaign to a status: `Active` starts a draft (queueing every contact) or resumes a
    /// paused one, `Paused` holds its waiting calls, `Cancelled` withdraws them. Calls in progress
    /// go on. `Conflict` where its present status does not allow it.
    async fn set_campaign_status(
        &self,
        user: UserId,
        id: CampaignId,
        status: CampaignStatus,
    ) -> Result<Campaign, StoreError>;
    /// Replaces what is said of a campaign that is not over. `NotFound` if it or its agent is not
    /// the user's; `Conflict` if it is over, or names another agent and is no draft.
    async fn update_campaign(
        &self,
        user: UserId,
        id: CampaignId,
        fields: CampaignFields,
    ) -> Result<Campaign, StoreError>;
    /// Deletes a draft, or a campaign that is over: it is listed and found no more, its calls and
    /// figures are kept. `Conflict` while it may still call.
    async fn delete_campaign(&self, user: UserId, id: CampaignId) -> Result<(), StoreError>;
    /// A campaign in figures, if it is the user's, deleted or not.
    async fn campaign_statistics(
        &self,
        user: UserId,
        id: CampaignId,
    ) -> Result<Option<CampaignStatistics>, StoreError>;
    /// The user's campaigns together.
    async fn campaign_summary(&self, user: UserId) -> Result<CampaignSummary, StoreError>;
}

/// Which queue items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemFilter {
    /// Only of this status.
    pub status: Option<ItemStatus>,
    /// Only of this type.
    pub call_type: Option<CallType>,
    /// Only of this campaign.
    pub campaign_id: Option<CampaignId>,
}

/// A queue item, and its place while it waits.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedItem {
    /// The item.
    pub item: QueueItem,
    /// Its place, while it waits.
    pub place: Option<QueuePlace>,
    /// Why it waits, while it waits and that is known.
    pub waiting_reason: Option<QueueReason>,
}

/// Waiting and running calls of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TypeCount {
    /// Waiting, due or not.
    pub queued: u64,
    /// Holding a slot.
    pub processing: u64,
}

/// A user's queue at a glance.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueStatus {
    /// Direct calls.
    pub direct: TypeCount,
    /// Campaign calls.
    pub campaign: TypeCount,
    /// The direct call that goes next, with its place.
    pub next_direct: Option<QueueItem>,
    /// Limits and use.
    pub concurrency: Concurrency,
}

/// A user's limit and the system's, with their use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// The user's.
    pub user: SlotUse,
    /// The system's.
    pub system: SlotUse,
    /// How many of the user's last slots campaigns may not use.
    pub direct_reserved_slots: u32,
}

/// Counts over a user's queue, and how long calls waited lately.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueStatistics {
    /// Items by type and status; those that ended count for the last 24 hours.
    pub counts: Vec<(CallType, ItemStatus, u64)>,
    /// Seconds between due and started over the last hour: p50, p90, p99; none without a start.
    pub wait_seconds: Option<[f64; 3]>,
    /// Calls started in the last hour, a minute.
    pub started_per_minute: f64,
    /// Calls finished in the last hour, a minute.
    pub finished_per_minute: f64,
}

/// The queue as its owner sees it.
#[async_trait]
pub trait QueueStore: Send + Sync {
    /// The user's queue at a glance.
    async fn queue_status(&self, user: UserId) -> Result<QueueStatus, StoreError>;
    /// Limits and use.
    async fn concurrency(&self, user: UserId) -> Result<Concurrency, StoreError>;
    /// The user's items, direct before campaign, newest due first.
    async fn items(
        &self,
        user: UserId,
        filter: ItemFilter,
        page: PageRequest,
    ) -> Result<Page<QueueItem>, StoreError>;
    /// One item with its place, if it is the user's.
    async fn item(&self, user: UserId, id: QueueItemId) -> Result<Option<PlacedItem>, StoreError>;
    /// Counts and waits.
    async fn queue_statistics(&self, user: UserId) -> Result<QueueStatistics, StoreError>;
    /// Withdraws a waiting item. `Err(NotFound)` if it is not the user's; `Ok(Err(status))` if it
    /// no longer waits.
    async fn cancel_item(
        &self,
        user: UserId,
        id: QueueItemId,
    ) -> Result<Result<QueueItem, ItemStatus>, StoreError>;
}

/// Calls, live and ended.
#[async_trait]
pub trait CallStore: Send + Sync {
    /// The user's calls, newest first.
    async fn calls(&self, user: UserId, page: PageRequest) -> Result<Page<Call>, StoreError>;
    /// One call with its history, if it is the user's.
    async fn call(
        &self,
        user: UserId,
        id: CallId,
    ) -> Result<Option<(Call, Vec<CallTransition>)>, StoreError>;
}

/// The whole system, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemState {
    /// The system's limit and use.
    pub slots: SlotUse,
    /// Whether all dispatch is paused.
    pub dispatch_paused: bool,
}

/// A user with its queue, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLoad {
    /// The user.
    pub user: User,
    /// Its direct calls.
    pub direct: TypeCount,
    /// Its campaign calls.
    pub campaign: TypeCount,
}

/// A kept count that differs from a recount of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditDifference {
    /// Which count: a table and column.
    pub counter: String,
    /// Whose: a user or campaign id, or empty for the system.
    pub subject: String,
    /// What was kept.
    pub kept: i64,
    /// What the rows say.
    pub counted: i64,
}

/// What operators see and change.
#[async_trait]
pub trait OperatorStore: Send + Sync {
    /// Limits, use and pause.
    async fn system_state(&self) -> Result<SystemState, StoreError>;
    /// Changes the system's limit. Lowering it ends no call.
    async fn set_system_limit(&self, limit: ConcurrencyLimit) -> Result<SystemState, StoreError>;
    /// Pauses or resumes all dispatch.
    async fn set_dispatch_paused(&self, paused: bool) -> Result<SystemState, StoreError>;
    /// Users with their load, newest first.
    async fn user_loads(&self, page: PageRequest) -> Result<Page<UserLoad>, StoreError>;
    /// One user with its load.
    async fn user_load(&self, id: UserId) -> Result<Option<UserLoad>, StoreError>;
    /// Changes a user. `NotFound` if there is none.
    async fn update_user(&self, id: UserId, change: UserChange) -> Result<User, StoreError>;
    /// The providers that keep a pace, by name.
    async fn provider_paces(&self) -> Result<Vec<ProviderPace>, StoreError>;
    /// Has a provider sent at most so many calls in a second, by all servers together, from now on;
    /// none for any number.
    async fn set_provider_pace(
        &self,
        provider: ProviderName,
        calls_per_second: Option<CallRate>,
    ) -> Result<(), StoreError>;
    /// Calls that hold a slot, oldest first: of one status or all, at most so many. Those that are
    /// `unknown` are as old as their doubt.
    async fn held_calls(
        &self,
        status: Option<CallStatus>,
        limit: Option<u32>,
    ) -> Result<HeldCalls, StoreError>;
    /// Everything there is to tell of a call, named by its id or its item's.
    async fn call_story(&self, id: Uuid) -> Result<Option<CallStory>, StoreError>;
    /// Settles a call, named by its id or its item's, by an operator's word. What it frees is given
    /// on by the next settlement of a server: wake one.
    async fn settle_by_hand(
        &self,
        id: Uuid,
        settlement: HandSettlement,
    ) -> Result<HandEffect, StoreError>;
    /// Recounts every kept counter inside one transaction.
    async fn audit(&self) -> Result<Vec<AuditDifference>, StoreError>;
    /// Whether the database answers and its schema is the one this build needs.
    async fn ready(&self) -> Result<(), StoreError>;
    /// Figures for the metrics page, each a snapshot.
    async fn gauges(&self) -> Result<SystemGauges, StoreError>;
}

/// How fast a provider may be sent calls of either type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderPace {
    /// Which.
    pub provider: ProviderName,
    /// Calls a second, by all servers together.
    pub calls_per_second: CallRate,
}

/// Snapshot figures of the whole system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemGauges {
    /// Limit and use.
    pub slots: SlotUse,
    /// Direct calls, all users.
    pub direct: TypeCount,
    /// Campaign calls, all users.
    pub campaign: TypeCount,
    /// Calls in the status `unknown`.
    pub unknown: u64,
    /// Rows of the view `priority_violations`; anything but 0 is a defect.
    pub priority_violations: u64,
    /// Age of the oldest snapshot any connection holds.
    pub oldest_snapshot: Duration,
    /// When this was read.
    pub at: DateTime<Utc>,
}
