//! Answers and states in one form for both sides, with numbers where the sides have ids.

use std::time::Duration;

use callq_domain::{
    CallStatus, CallType, CampaignProgress, CampaignStatus, EndingEffect, ItemStatus, QueueFull,
    QueueReason, Refusal, Repeat, ServerId, SlotUse,
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
    /// It would have to wait, and so many wait of as many as may.
    Full {
        limit: u32,
        waiting: u64,
        pace: Pace,
    },
    /// It had come before, or another by its key: as this item.
    Before(usize),
    /// Its key is known.
    Repeated(Repeat),
}

impl Door {
    pub(crate) fn full(full: &QueueFull, holds: Holds) -> Self {
        Self::Full {
            limit: full.limit,
            waiting: full.waiting,
            pace: Pace {
                slots: full.pace.slots,
                holds,
            },
        }
    }
}

/// A slot given to an item.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Start {
    pub(crate) item: usize,
    pub(crate) of: usize,
    pub(crate) call_type: CallType,
    pub(crate) attempt: u32,
    pub(crate) who: Who,
    pub(crate) provider: String,
    /// The caller id that is shown.
    pub(crate) from: Option<String>,
}

/// Who is called.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Who {
    pub(crate) number: String,
    pub(crate) name: Option<String>,
    pub(crate) data: Option<String>,
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
    pub(crate) pace: Pace,
}

/// What its wait is estimated from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) slots: u32,
    pub(crate) holds: Holds,
}

/// How many calls of a user were measured, and the mean of the milliseconds that they held a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Holds {
    pub(crate) samples: u32,
    pub(crate) mean_ms: f64,
}

impl PartialEq for Pace {
    /// But for what two ways to compute a mean may differ by.
    fn eq(&self, other: &Self) -> bool {
        self.slots == other.slots
            && self.holds.samples == other.holds.samples
            && (self.holds.mean_ms - other.holds.mean_ms).abs() < 0.001
    }
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
    pub(crate) who: Who,
    pub(crate) reason: Option<String>,
    pub(crate) times: Times,
}

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Times {
    pub(crate) scheduled_for: Option<i64>,
    pub(crate) wakes_at: Option<i64>,
    pub(crate) expires_at: Option<i64>,
    /// None for a campaign's: it is laid out by the machine's own clock.
    pub(crate) due_at: Option<i64>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
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

/// A user's queue at a glance.
#[derive(Debug, PartialEq)]
pub(crate) struct Glance {
    pub(crate) counts: UserState,
    pub(crate) next_direct: Option<usize>,
    pub(crate) own: SlotUse,
    pub(crate) system: SlotUse,
    pub(crate) direct_reserved_slots: u32,
}

/// A user's queue in figures.
#[derive(Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) counts: Vec<(CallType, ItemStatus, u64)>,
    pub(crate) started: u64,
    pub(crate) finished: u64,
}

/// A call as its owner finds it on record.
#[derive(Debug, PartialEq)]
pub(crate) struct OnRecord {
    pub(crate) item: usize,
    pub(crate) status: CallStatus,
    pub(crate) attempts: u32,
    pub(crate) who: Who,
    pub(crate) provider: String,
    pub(crate) record: Record,
    /// How many entries its history has.
    pub(crate) history: usize,
}

/// What is noted of a call.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Record {
    pub(crate) execution: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) duration: Option<u32>,
    /// Milliseconds since the Unix epoch.
    pub(crate) reserved_at: i64,
    pub(crate) answered_at: Option<i64>,
    pub(crate) ended_at: Option<i64>,
}

/// An entry of an item's history. Those of one millisecond have no order among them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    /// None for what is noted by the machine's own clock.
    pub(crate) at: Option<i64>,
    pub(crate) attempt: Option<u32>,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) server: Option<ServerId>,
}
