//! What the model queue remembers: the system's and each user's slots and turns, the items, and
//! the lines in which those that are due stand.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::{
    CallId, CallStatus, CallType, CampaignId, ItemStatus, Origin, Priority, QueueItemId, UserId,
    Weight,
};

use super::{Fault, Queue};

/// The order within a lane: the smaller rank goes first.
pub(super) type Rank = (Reverse<Priority>, i64);

/// Queued items that are due, in the order in which they go.
pub(super) type Line = BTreeMap<Rank, QueueItemId>;

/// The one row about the system as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Slots there are.
    pub limit: u32,
    /// Slots taken.
    pub active: u32,
    /// Whether an operator stopped every start.
    pub dispatch_paused: bool,
    /// The turn at which a direct call last went.
    pub vtime_direct: i64,
    /// The turn at which a campaign call last went.
    pub vtime_campaign: i64,
    /// The position the next accepted item gets.
    pub next_position: i64,
    /// What `active` may be beyond a limit that was lowered under it.
    pub(super) ceiling: u32,
}

/// One user: its limits, its two lanes, its campaigns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// How many of its calls may be up at once.
    pub limit: u32,
    /// How many of the last of these campaigns may not use.
    pub direct_reserved_slots: u32,
    /// Its turns relative to others.
    pub weight: Weight,
    /// What it has left to pay with; none means it is not metered.
    pub credits: Option<i64>,
    /// So many of its direct calls may wait; none for any number.
    pub max_queued_direct: Option<u32>,
    /// Its direct calls.
    pub direct: Lane,
    /// Its campaign calls.
    pub campaign: Lane,
    /// Its campaigns.
    pub campaigns: BTreeMap<CampaignId, Campaign>,
    /// The turn at which one of its campaigns last went, where several were open.
    pub campaign_vtime: i64,
    pub(super) direct_line: Line,
    /// What its active calls may be beyond a limit that was lowered under them.
    pub(super) ceiling: u32,
}

/// One user's calls of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lane {
    /// Slots taken.
    pub active: u32,
    /// Its next turn in the class's virtual time.
    pub turn: i64,
    /// Nothing goes before this, in milliseconds: the provider had no room.
    pub hold_until: Option<i64>,
}

/// One campaign's place in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Whether its calls may go.
    pub open: bool,
    /// How many of its calls may be up at once; none for as many as its user may have.
    pub limit: Option<u32>,
    /// Its turns beside those of its user's other campaigns.
    pub weight: Weight,
    /// Slots taken.
    pub active: u32,
    /// Its next turn among its user's campaigns.
    pub turn: i64,
    pub(super) line: Line,
}

/// One accepted wish for a call. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its identifier.
    pub id: QueueItemId,
    /// Its owner.
    pub user_id: UserId,
    /// Direct or campaign.
    pub origin: Origin,
    /// Higher goes first within user and type.
    pub priority: Priority,
    /// Order within the priority; handed out when it was accepted, kept for life.
    pub position: i64,
    /// Where it stands.
    pub status: ItemStatus,
    /// Asleep until then: scheduled, or backing off. None once it is due.
    pub wakes_at: Option<i64>,
    /// Becomes `expired` if it has not started by then.
    pub expires_at: Option<i64>,
    /// Placements attempted so far.
    pub attempts: u32,
    /// Its call, once it has had a slot.
    pub call_id: Option<CallId>,
    /// Where that call stands; none while the item waits.
    pub call_status: Option<CallStatus>,
}

impl System {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit,
            active: 0,
            dispatch_paused: false,
            vtime_direct: 0,
            vtime_campaign: 0,
            next_position: 1,
            ceiling: 0,
        }
    }

    /// A position no item had before.
    pub(super) fn hand_out_position(&mut self) -> i64 {
        let position = self.next_position;
        self.next_position += 1;
        position
    }

    /// The virtual time of a class.
    #[must_use]
    pub const fn vtime(&self, class: CallType) -> i64 {
        match class {
            CallType::Direct => self.vtime_direct,
            CallType::Campaign => self.vtime_campaign,
        }
    }

    pub(super) fn vtime_mut(&mut self, class: CallType) -> &mut i64 {
        match class {
            CallType::Direct => &mut self.vtime_direct,
            CallType::Campaign => &mut self.vtime_campaign,
        }
    }
}

impl User {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit,
            direct_reserved_slots: 0,
            weight: Weight::ONE,
            credits: None,
            max_queued_direct: None,
            direct: Lane::default(),
            campaign: Lane::default(),
            campaigns: BTreeMap::new(),
            campaign_vtime: 0,
            direct_line: Line::new(),
            ceiling: 0,
        }
    }

    /// Slots taken by its calls of both types.
    #[must_use]
    pub const fn active(&self) -> u32 {
        self.direct.active + self.campaign.active
    }

    /// Its lane of a class.
    #[must_use]
    pub const fn lane(&self, class: CallType) -> &Lane {
        match class {
            CallType::Direct => &self.direct,
            CallType::Campaign => &self.campaign,
        }
    }

    pub(super) fn lane_mut(&mut self, class: CallType) -> &mut Lane {
        match class {
            CallType::Direct => &mut self.direct,
            CallType::Campaign => &mut self.campaign,
        }
    }

    /// The line in which an item of this origin stands while it is due.
    pub(super) fn line_mut(&mut self, origin: Origin) -> Option<&mut Line> {
        match origin {
            Origin::Direct => Some(&mut self.direct_line),
            Origin::Campaign(id) => self.campaigns.get_mut(&id).map(|found| &mut found.line),
        }
    }
}

impl Campaign {
    pub(super) const fn new(open: bool) -> Self {
        Self {
            open,
            limit: None,
            weight: Weight::ONE,
            active: 0,
            turn: 0,
            line: Line::new(),
        }
    }

    /// Whether it is open and below its limit.
    pub(super) fn may_go(&self) -> bool {
        self.open && self.limit.is_none_or(|limit| self.active < limit)
    }
}

impl Item {
    pub(super) const fn rank(&self) -> Rank {
        (Reverse(self.priority), self.position)
    }

    /// Whether it waits and no longer sleeps. Its campaign may still be closed.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.status == ItemStatus::Queued && self.wakes_at.is_none()
    }
}

impl Queue {
    /// Takes an accepted item in.
    pub(super) fn insert(&mut self, item: Item) {
        let id = item.id;
        self.items.insert(id, item);
        self.join_line(id);
    }

    /// Stands the item in its line, if it is due.
    pub(super) fn join_line(&mut self, id: QueueItemId) {
        let Some(item) = self.items.get(&id).filter(|item| item.is_due()) else {
            return;
        };
        let user = self.users.get_mut(&item.user_id);
        if let Some(line) = user.and_then(|user| user.line_mut(item.origin)) {
            line.insert(item.rank(), id);
        }
    }

    /// Takes the item out of its line, if it stands in one.
    pub(super) fn leave_line(&mut self, id: QueueItemId) {
        let Some(item) = self.items.get(&id) else {
            return;
        };
        let user = self.users.get_mut(&item.user_id);
        if let Some(line) = user.and_then(|user| user.line_mut(item.origin)) {
            line.remove(&item.rank());
        }
    }

    /// Every change of an item's status goes through here, and is held against the state machine.
    pub(super) fn set_status(&mut self, id: QueueItemId, to: ItemStatus) {
        let Some(item) = self.items.get_mut(&id) else {
            return;
        };
        let from = item.status;
        item.status = to;
        if !from.may_become(to) {
            self.faults.push(Fault::IllegalStep { item: id, from, to });
        }
    }
}
