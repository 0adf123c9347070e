//! What must always hold, counted anew from the items rather than trusted.

use std::collections::{BTreeMap, BTreeSet};

use crate::{CallStatus, CallType, CampaignId, ItemStatus, Origin, QueueItemId, UserId};

use super::Queue;
use super::state::{Item, Line};

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A kept counter differs from a recount.
    #[error("{whose} counts {kept} active, its items {counted}")]
    WrongCounter {
        /// The system, or a user's lane.
        whose: String,
        /// The counter.
        kept: u32,
        /// The recount.
        counted: u32,
    },
    /// More calls hold slots than a limit allows, and not because it was lowered under them.
    #[error("{whose} has {active} active calls over a limit of {limit}")]
    OverLimit {
        /// The system, or a user.
        whose: String,
        /// Slots taken.
        active: u32,
        /// Slots there are.
        limit: u32,
    },
    /// A lane was ready and a slot free after everything had been handed out.
    #[error("a slot is idle while {class} calls of user {user} wait")]
    IdleSlot {
        /// Whose lane.
        user: UserId,
        /// Which lane.
        class: CallType,
    },
    /// A ready lane is filed before the virtual time of its class.
    #[error("the ready {class} lane of user {user} is filed in the past")]
    FiledInThePast {
        /// Whose lane.
        user: UserId,
        /// Which lane.
        class: CallType,
    },
    /// A line differs from the due items that should stand in it.
    #[error("a line of user {user} differs from its due items")]
    WrongLine {
        /// Whose line.
        user: UserId,
    },
    /// A position was handed out twice, or not by the counter.
    #[error("item {0} has a position that is not its own")]
    WrongPosition(QueueItemId),
    /// An item and its call do not fit together.
    #[error("item {0} and its call contradict each other")]
    Contradiction(QueueItemId),
    /// A status changed in a way the state machine does not have.
    #[error("item {item} went from {from} to {to}")]
    IllegalStep {
        /// The item.
        item: QueueItemId,
        /// What it was.
        from: ItemStatus,
        /// What it became.
        to: ItemStatus,
    },
    /// An item started with no slot free for it.
    #[error("item {0} started without a free slot")]
    StartWithoutSlot(QueueItemId),
    /// An item started that was not the head of its lane.
    #[error("item {0} started out of order")]
    OutOfOrder(QueueItemId),
    /// A campaign call went before a direct one.
    #[error("{0}")]
    Priority(PriorityViolation),
}

/// A campaign call that started while a direct call should have gone first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("campaign item {campaign_item} went before direct item {direct_item}")]
pub struct PriorityViolation {
    /// What started.
    pub campaign_item: QueueItemId,
    /// What waited.
    pub direct_item: QueueItemId,
}

impl Queue {
    /// Every broken invariant, now or at any earlier moment. Always empty.
    #[must_use]
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        faults.extend(self.violations.iter().copied().map(Fault::Priority));
        self.check_counters(&mut faults);
        self.check_limits(&mut faults);
        self.check_lanes(&mut faults);
        self.check_lines(&mut faults);
        self.check_items(&mut faults);
        faults
    }

    fn check_counters(&self, faults: &mut Vec<Fault>) {
        let mut held: BTreeMap<(UserId, CallType), u32> = BTreeMap::new();
        for item in self.items.values().filter(|item| holds_slot(item)) {
            *held
                .entry((item.user_id, item.origin.call_type()))
                .or_default() += 1;
        }
        let mut compare = |whose: String, kept: u32, counted: u32| {
            if kept != counted {
                faults.push(Fault::WrongCounter {
                    whose,
                    kept,
                    counted,
                });
            }
        };
        compare("the system".into(), self.system.active, held.values().sum());
        for (id, user) in &self.users {
            for class in CallType::ALL {
                let counted = held.get(&(*id, class)).copied().unwrap_or(0);
                compare(
                    format!("the {class} lane of user {id}"),
                    user.lane(class).active,
                    counted,
                );
            }
        }
    }

    fn check_limits(&self, faults: &mut Vec<Fault>) {
        let mut compare = |whose: String, active: u32, limit: u32, ceiling: u32| {
            if active > limit.max(ceiling) {
                faults.push(Fault::OverLimit {
                    whose,
                    active,
                    limit,
                });
            }
        };
        let system = &self.system;
        compare(
            "the system".into(),
            system.active,
            system.limit,
            system.ceiling,
        );
        for (id, user) in &self.users {
            compare(
                format!("user {id}"),
                user.active(),
                user.limit,
                user.ceiling,
            );
        }
    }

    fn check_lanes(&self, faults: &mut Vec<Fault>) {
        let must_be_busy = self.drained && self.has_free_slot();
        for class in CallType::ALL {
            let ready = self.users.iter().filter(|(_, user)| user.is_ready(class));
            for (id, lane) in ready.map(|(id, user)| (*id, user.lane(class))) {
                if must_be_busy {
                    faults.push(Fault::IdleSlot { user: id, class });
                }
                if lane.turn < self.system.vtime(class) {
                    faults.push(Fault::FiledInThePast { user: id, class });
                }
            }
        }
    }

    fn check_lines(&self, faults: &mut Vec<Fault>) {
        let mut expected: BTreeMap<(UserId, Option<CampaignId>), Line> = BTreeMap::new();
        for item in self.items.values().filter(|item| item.is_due()) {
            let line = expected.entry((item.user_id, item.origin.campaign_id()));
            line.or_default().insert(item.rank(), item.id);
        }
        for (id, user) in &self.users {
            let campaigns = user.campaigns.iter();
            let lines =
                campaigns.map(|(campaign, found)| (Origin::Campaign(*campaign), &found.line));
            for (origin, line) in lines.chain([(Origin::Direct, &user.direct_line)]) {
                let due = expected
                    .remove(&(*id, origin.campaign_id()))
                    .unwrap_or_default();
                if *line != due {
                    faults.push(Fault::WrongLine { user: *id });
                }
            }
        }
        let stray = expected.into_keys();
        faults.extend(stray.map(|(user, _)| Fault::WrongLine { user }));
    }

    fn check_items(&self, faults: &mut Vec<Fault>) {
        let mut taken = BTreeSet::new();
        for item in self.items.values() {
            let handed_out = (1..self.system.next_position).contains(&item.position);
            if !handed_out || !taken.insert(item.position) {
                faults.push(Fault::WrongPosition(item.id));
            }
            if !is_consistent(item) {
                faults.push(Fault::Contradiction(item.id));
            }
        }
    }
}

/// A slot is held from its reservation until the call's terminal state, or its return.
fn holds_slot(item: &Item) -> bool {
    item.call_status.is_some_and(|status| !status.is_terminal())
}

/// Whether an item's status, its call's, its attempts and its sleep tell the same story.
fn is_consistent(item: &Item) -> bool {
    let call_fits = match (item.status, item.call_status) {
        (ItemStatus::Processing, Some(call)) => !call.is_terminal(),
        (status, Some(CallStatus::Ended(outcome))) => status == outcome.into(),
        (status, None) => matches!(
            status,
            ItemStatus::Queued | ItemStatus::Cancelled | ItemStatus::Expired
        ),
        (_, Some(_)) => false,
    };
    let attempted = item.attempts > 0;
    let awake = item.status != ItemStatus::Processing || item.wakes_at.is_none();
    call_fits
        && awake
        && attempted == item.call_id.is_some()
        && (attempted || item.call_status.is_none())
}
