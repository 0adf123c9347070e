//! Answers and states in one form for both sides, with numbers where the sides have ids.

use std::time::Duration;

use callq_domain::{
    CallType, CampaignProgress, CampaignStatus, EndingEffect, ItemStatus, QueueReason, Refusal,
    SlotUse,
};

/// What a settlement answered.
#[derive(Debug, PartialEq)]
pub(crate) struct Settled {
    pub(crate) endings: Vec<EndingEffect>,
    pub(crate) returns: Vec<Option<Wait>>,
    pub(crate) admissions: Vec<Door>,
    pub(crate) reserved: Vec<Start>,
    pub(crate) more: bool,
    pub(crate) next_timer: Option<Duration>,
}

/// What became of a call at the door.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Door {
    Started(Start),
    Waits(Wait),
    Refused(Refusal),
    /// It had come before, and is over.
    Over,
    /// Something that no batch of ours can be told.
    Strange(String),
}

/// A slot given to an item.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Start {
    pub(crate) item: usize,
    pub(crate) of: usize,
    pub(crate) call_type: CallType,
    pub(crate) attempt: u32,
}

/// An item that waits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wait {
    pub(crate) item: usize,
    pub(crate) reason: String,
    pub(crate) place: Place,
    /// Milliseconds since the Unix epoch.
    pub(crate) expires_at: Option<i64>,
}

/// Where it waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) total: u64,
    /// The slots its wait is estimated with.
    pub(crate) slots: u32,
}

/// What recorded progress answered.
#[derive(Debug, PartialEq)]
pub(crate) struct Progressed {
    pub(crate) placed: Vec<bool>,
    pub(crate) unknown: Vec<bool>,
    /// For each call that events spoke of: its number, none if it is no call, and whether any of
    /// them moved it.
    pub(crate) events: Vec<(Option<usize>, bool)>,
}

/// What became of a cancellation: withdrawn, too late, or nothing of this user's.
pub(crate) type Cancelled = Option<Result<(), ItemStatus>>;

/// All that stands written.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) items: Vec<ItemState>,
    pub(crate) users: Vec<UserState>,
    pub(crate) system: SlotUse,
    pub(crate) dispatch_paused: bool,
    pub(crate) campaigns: Vec<(CampaignStatus, CampaignProgress)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ItemState {
    pub(crate) item: usize,
    pub(crate) of: usize,
    pub(crate) call_type: CallType,
    pub(crate) status: ItemStatus,
    pub(crate) attempts: u32,
    /// Its place, while it waits.
    pub(crate) position: Option<u64>,
    /// Whether it ever had a call.
    pub(crate) called: bool,
    /// How its call stands or ended, where that is on record.
    pub(crate) call: Option<String>,
}

/// Calls of a user: waiting and up, by type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UserState {
    pub(crate) direct: (u64, u64),
    pub(crate) campaign: (u64, u64),
}

/// One item as its owner sees it.
#[derive(Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) item: usize,
    pub(crate) status: ItemStatus,
    pub(crate) place: Option<Place>,
    pub(crate) waiting_reason: Option<QueueReason>,
}
