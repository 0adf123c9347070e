//! The engine's port to its store: everything that moves a slot, in batches.
//!
//! Each method is one transaction. The store keeps the rules of `docs/ARCHITECTURE.md` (limits,
//! order, turns, exactly-once release) whatever calls it and from however many servers; the engine
//! decides only when to ask and what to put into a batch.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Admission, Attempt, Call, CallId, EventError, ExecutionId, NewDirectCall, Outcome, QueueItemId,
    Queued, ReservedCall, SavedAnswer, ServerId, StatusEvent, StoreError, UserId,
};

/// Work that takes or frees slots, in the order in which the store settles it: endings and
/// returns free slots, waiting direct calls take them, then newcomers, then campaign calls.
#[derive(Debug, Default, Clone)]
pub struct SlotBatch {
    /// Set to the number of the last settlement that was answered once a later one was not. What
    /// those took that nobody was told of goes back, and admissions may be known already, or even
    /// be over.
    pub answered: Option<u64>,
    /// Items of earlier admissions whose answer was lost and whose callers were told no: cancelled
    /// if they were kept after all, unless another server dials them already.
    pub disowned: Vec<QueueItemId>,
    /// Calls that are over.
    pub endings: Vec<Ending>,
    /// Attempts that provably reached nobody.
    pub returns: Vec<Return>,
    /// Direct calls at the door, in order of arrival.
    pub admissions: Vec<NewDirectCall>,
    /// The most calls this server can place now, over and above `admissions`.
    pub reserve: u32,
}

/// A call that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The call.
    pub call_id: CallId,
    /// Set when the end follows from this server's own attempt: it then takes effect only while
    /// that attempt is current and still this server's.
    pub attempt: Option<u32>,
    /// How it ended.
    pub outcome: Outcome,
    /// The provider's name for it, if it was said.
    pub execution_id: Option<ExecutionId>,
    /// Why.
    pub reason: Option<String>,
    /// Talk time in whole seconds, where the provider says.
    pub duration_seconds: Option<u32>,
}

/// An attempt that provably reached nobody: the call goes back to its place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// The attempt, which must be current and this server's.
    pub attempt: Attempt,
    /// How long the user's calls of this type wait before the next try.
    pub delay: Duration,
    /// Why.
    pub reason: String,
    /// Take effect only while the call is still `unknown`: for a proof that may be older than an
    /// event that speaks against it.
    pub if_unknown: bool,
}

/// What became of a [`SlotBatch`], each list in the order it was given.
#[derive(Debug, Default, Clone)]
pub struct SlotOutcome {
    /// The settlement's number, which grows from one to the next of a server.
    pub number: u64,
    /// One for each ending.
    pub endings: Vec<EndingEffect>,
    /// One for each return; none where the attempt was no longer this server's.
    pub returns: Vec<Option<Queued>>,
    /// One for each admission.
    pub admissions: Vec<Admission>,
    /// Waiting calls that got a slot.
    pub reserved: Vec<ReservedCall>,
    /// Whether calls are left that could have gone had `reserve` been larger.
    pub more: bool,
    /// How long until something becomes due by itself.
    pub next_timer: Option<Duration>,
}

/// What an ending did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndingEffect {
    /// The call ended now and its slot is free.
    Ended,
    /// It was over already, or is no longer this server's to end.
    Ignored,
    /// No call has this id.
    UnknownCall,
}

/// Work that moves no slot.
#[derive(Debug, Default, Clone)]
pub struct ProgressBatch {
    /// Attempts the provider took.
    pub placed: Vec<(Attempt, ExecutionId)>,
    /// Attempts whose answer was lost, and what was seen.
    pub unknown: Vec<(Attempt, String)>,
    /// Status events other than terminal ones.
    pub events: Vec<StatusEvent>,
    /// Answers to keep for requests that are repeated.
    pub answers: Vec<KeptAnswer>,
}

/// An answer to keep under a client's idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Whose key.
    pub user_id: UserId,
    /// The key.
    pub key: String,
    /// The answer.
    pub answer: SavedAnswer,
}

/// What became of a [`ProgressBatch`], each list in the order it was given.
#[derive(Debug, Default, Clone)]
pub struct ProgressOutcome {
    /// Whether each placement was news. It is not when an event came first, or the call is over.
    pub placed: Vec<bool>,
    /// Whether each attempt is now unknown. It is not when an event proved it, or it is over.
    pub unknown: Vec<bool>,
    /// What each event did.
    pub events: Vec<EndingEffect>,
}

/// The store the engine settles its batches in.
///
/// # Errors
/// Every method may fail with [`StoreError::Unavailable`]. The transaction may then have committed
/// or not; each batch may be sent again as it is and takes effect once: admissions are recognised
/// by their item id, all else by its attempt.
#[async_trait]
pub trait EngineStore: Send + Sync {
    /// Settles a batch that moves slots. Also expires and wakes what is due.
    ///
    /// A call that it starts is this server's to send, once: no other authority is needed, and an
    /// answer that is lost is not one. Nothing starts while the server's lease is over.
    async fn settle(&self, server: ServerId, batch: &SlotBatch) -> Result<SlotOutcome, StoreError>;

    /// Records progress that moves no slot.
    async fn record_progress(
        &self,
        server: ServerId,
        batch: &ProgressBatch,
    ) -> Result<ProgressOutcome, StoreError>;
}

/// The store's side of ownership: which servers live, and what the dead ones left.
#[async_trait]
pub trait OwnershipStore: Send + Sync {
    /// Proves that this server lives for `lease` from now, by the database's clock.
    async fn renew_lease(&self, server: ServerId, lease: Duration) -> Result<(), StoreError>;

    /// Ends this server's lease at once, so that others need not wait for it.
    async fn retire(&self, server: ServerId) -> Result<(), StoreError>;

    /// Ends the lease of every server but this one. Only for a caller that knows it is alone,
    /// as on the embedded database.
    async fn retire_others(&self, server: ServerId) -> Result<u64, StoreError>;

    /// Takes over the calls of servers whose lease is over: what was being dialled becomes
    /// `unknown`, all else changes owner. Returns the calls that are now this server's.
    async fn adopt_orphans(&self, server: ServerId) -> Result<Vec<Call>, StoreError>;

    /// This server's calls in the status `unknown`, and those that have held a slot for longer
    /// than `max_age`. The latter takes a look at every call that is up; `Duration::MAX` spares it.
    async fn doubtful_calls(
        &self,
        server: ServerId,
        max_age: Duration,
    ) -> Result<Vec<DoubtfulCall>, StoreError>;

    /// Notes that a call of this server was given up for its length: however its end is reported
    /// from now on, it ends as failed with the reason `timed_out`.
    async fn mark_overdue(&self, server: ServerId, attempt: Attempt) -> Result<(), StoreError>;

    /// Withdraws calls that came back to the queue after their campaign was cancelled.
    async fn withdraw_left_over(&self) -> Result<(), StoreError>;

    /// Housekeeping: prepares history partitions, drops idempotency keys older than a day, withdraws
    /// what waits of cancelled campaigns, and forgets calls that no longer count against their
    /// numbers and what no place depends on any more.
    async fn maintain(&self) -> Result<(), StoreError>;
}

/// A call whose state must be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoubtfulCall {
    /// The call.
    pub call: Call,
    /// Its current attempt.
    pub attempt: Attempt,
    /// How long it has held its slot.
    pub age: Duration,
}

impl From<StoreError> for EventError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
