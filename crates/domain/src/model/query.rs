//! What can be asked of the model queue without changing it.

use crate::{CallType, CampaignId, ItemStatus, Origin, QueueItemId, UserId};

use super::{Item, PriorityViolation, Queue, System, User};

/// Where a waiting item stands in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// 1 for the next to go among the user's waiting calls of the same type.
    pub position: u64,
    /// How many of the user's calls of the same type wait, this one included.
    pub total_in_queue: u64,
}

/// How many items of a user and type stand in each status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemCounts {
    /// Waiting, due or not.
    pub queued: u64,
    /// Of those, the ones that are due and whose campaign, if any, is open.
    pub due: u64,
    /// Holding a slot.
    pub processing: u64,
    /// Call took place.
    pub completed: u64,
    /// Call did not take place.
    pub failed: u64,
    /// Withdrawn.
    pub cancelled: u64,
    /// Not started in time.
    pub expired: u64,
}

impl Queue {
    /// The system's row.
    #[must_use]
    pub const fn system(&self) -> &System {
        &self.system
    }

    /// One user.
    #[must_use]
    pub fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id)
    }

    /// Every user, by id.
    pub fn users(&self) -> impl Iterator<Item = (UserId, &User)> {
        self.users.iter().map(|(id, user)| (*id, user))
    }

    /// One item.
    #[must_use]
    pub fn item(&self, id: QueueItemId) -> Option<&Item> {
        self.items.get(&id)
    }

    /// Every item there ever was, by id.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    /// Where a waiting item stands among its user's waiting calls of the same type; none for an
    /// item that does not wait. Those that are due come first, in the order in which they go if no
    /// limit of a campaign holds any back; then those that sleep, by `(wakes_at, position)`. An item
    /// of a closed campaign is told where it would stand were its campaign open; nobody else waits
    /// for it.
    #[must_use]
    pub fn place(&self, id: QueueItemId) -> Option<Place> {
        let own = self.items.get(&id)?;
        if own.status != ItemStatus::Queued {
            return None;
        }
        let same_lane = |other: &&Item| {
            other.status == ItemStatus::Queued
                && other.user_id == own.user_id
                && other.origin.call_type() == own.origin.call_type()
        };
        let total_in_queue = self.items.values().filter(same_lane).count() as u64;
        let due = self.users.get(&own.user_id)?.due_in_order(own.origin);
        let ahead = match own.wakes_at {
            None => due.iter().take_while(|item| **item != id).count(),
            Some(wakes_at) => {
                let asleep = self.items.values().filter(same_lane).filter(|other| {
                    other
                        .wakes_at
                        .is_some_and(|at| (at, other.position) < (wakes_at, own.position))
                });
                due.len() + asleep.count()
            }
        };
        Some(Place {
            position: ahead as u64 + 1,
            total_in_queue,
        })
    }

    fn is_open(&self, item: &Item) -> bool {
        let campaign_open = |id: CampaignId| {
            let user = self.users.get(&item.user_id);
            user.and_then(|user| user.campaigns.get(&id))
                .is_some_and(|campaign| campaign.open)
        };
        item.origin.campaign_id().is_none_or(campaign_open)
    }

    /// A recount of a user's items of one type.
    #[must_use]
    pub fn counts(&self, user_id: UserId, class: CallType) -> ItemCounts {
        let mut counts = ItemCounts::default();
        let lane = self
            .items
            .values()
            .filter(|item| item.user_id == user_id && item.origin.call_type() == class);
        for item in lane {
            let count = match item.status {
                ItemStatus::Queued => &mut counts.queued,
                ItemStatus::Processing => &mut counts.processing,
                ItemStatus::Completed => &mut counts.completed,
                ItemStatus::Failed => &mut counts.failed,
                ItemStatus::Cancelled => &mut counts.cancelled,
                ItemStatus::Expired => &mut counts.expired,
            };
            *count += 1;
            counts.due += u64::from(item.is_due() && self.is_open(item));
        }
        counts
    }

    /// Campaign calls that started while a direct call should have gone first. Always empty.
    #[must_use]
    pub fn priority_violations(&self) -> &[PriorityViolation] {
        &self.violations
    }

    /// Milliseconds from `now_ms` until a waiting item wakes or expires, or a lane's hold ends; 0
    /// if that is overdue, none if nothing waits for time.
    #[must_use]
    pub fn next_timer(&self, now_ms: i64) -> Option<i64> {
        let queued = self
            .items
            .values()
            .filter(|i| i.status == ItemStatus::Queued);
        let items = queued.flat_map(|item| [item.wakes_at, item.expires_at]);
        let holds = self
            .users
            .values()
            .flat_map(|user| [user.direct.hold_until, user.campaign.hold_until]);
        let next = items.chain(holds).flatten().min()?;
        Some(next.saturating_sub(now_ms).max(0))
    }
}

impl User {
    /// The due items of the type of `origin` in the order in which they go: those of its open
    /// campaigns, and of the campaign asked about.
    fn due_in_order(&self, origin: Origin) -> Vec<QueueItemId> {
        let Some(asked) = origin.campaign_id() else {
            return self.direct_line.values().copied().collect();
        };
        let mut user = self.clone();
        for (id, campaign) in &mut user.campaigns {
            campaign.open |= *id == asked;
            campaign.limit = None;
        }
        let mut order = Vec::new();
        while let Some((campaign, item)) = user.next_campaign_call() {
            user.campaign_went(campaign);
            if let Some(found) = user.campaigns.get_mut(&campaign) {
                found.line.pop_first();
            }
            order.push(item);
        }
        order
    }
}
