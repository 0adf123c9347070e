//! The rules of the queue as a small pure model: the executable statement of what the database
//! engine must do.
//!
//! There is no I/O, no clock and no chance in it: the same operations give the same answers. It is
//! written to be read; it scans where the engine has an index.
//!
//! # Words
//!
//! * A *lane* is one user's calls of one type. Its *line* holds the queued items that are due, in
//!   order: priority descending, then position. A sleeping item (scheduled, or backing off) stands
//!   in no line, and the line of a closed campaign is out of reach.
//! * A user's open campaigns take turns in a virtual time of their own: the highest priority goes
//!   first, whosever it is; among campaigns whose next calls have the same, the smallest turn (ties:
//!   the smaller campaign id). A campaign at its limit is passed over.
//! * A lane is *ready* when its head could go were a system slot free. [`Queue::is_ready`] has
//!   the exact rule.
//! * *Turns* are points in a class's virtual time. When a lane becomes ready it is filed at its own
//!   turn or at the class's virtual time, the later. The ready lane with the smallest turn goes
//!   first (ties: the smaller user id); virtual time moves to that turn, and the lane's own turn
//!   moves on by its weight's stride.
//! * Time is noticed by [`Queue::settle`] alone: only there do items wake or expire and holds end.
//! * A call bears its item's UUID here. The database makes its own call ids; a comparison has to
//!   translate them.
//!
//! # Using it
//!
//! ```
//! use callq_domain::model::{Admission, Batch, Newcomer, Queue};
//! use callq_domain::{ConcurrencyLimit, Ending, Outcome, QueueItemId, UserId};
//!
//! let ada = UserId::new();
//! let mut queue = Queue::new(ConcurrencyLimit::new(10)?);
//! queue.add_user(ada, ConcurrencyLimit::new(1)?)?;
//!
//! // Two direct calls at once, one slot: the first starts, the second waits at position 1.
//! let (first, second) = (QueueItemId::new(), QueueItemId::new());
//! let settled = queue.settle(0, &Batch {
//!     admissions: vec![Newcomer::now(first, ada), Newcomer::now(second, ada)],
//!     reserve: u32::MAX,
//!     ..Batch::default()
//! });
//! let Admission::Started(start) = &settled.admissions[0] else { panic!("a slot was free") };
//! let Admission::Queued(waiting) = &settled.admissions[1] else { panic!("no slot was free") };
//! assert_eq!(waiting.place.position, 1);
//! assert_eq!(waiting.reason.to_string(), "User has reached concurrency limit (1/1 active calls)");
//!
//! // The first ends, and the same settlement hands its slot to the second.
//! let settled = queue.settle(1_000, &Batch {
//!     endings: vec![Ending {
//!         call_id: start.attempt.call_id,
//!         attempt: None,
//!         outcome: Outcome::Completed,
//!         execution_id: None,
//!         reason: None,
//!         duration_seconds: None,
//!     }],
//!     reserve: u32::MAX,
//!     ..Batch::default()
//! });
//! assert_eq!(settled.reserved[0].item_id, second);
//! assert_eq!(queue.check(), []);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod dispatch;
mod query;
mod settle;
mod state;

#[cfg(test)]
mod fairness_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod scene;

use std::collections::BTreeMap;

pub use check::{Fault, PriorityViolation};
pub use query::{ItemCounts, Place};
pub use settle::{Admission, Batch, Newcomer, Settled, Start, Waiting};
pub use state::{Campaign, Item, Lane, System, User};

use crate::{
    CallId, CallStatus, CampaignId, ConcurrencyLimit, ItemStatus, Origin, Priority, QueueItemId,
    UserId, Weight,
};

/// An operation that names something the queue does not have, or makes something twice.
/// Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No such user.
    #[error("no user {0}: add it first")]
    UnknownUser(UserId),
    /// No such campaign.
    #[error("no campaign {0}: add it first")]
    UnknownCampaign(CampaignId),
    /// The user is there already.
    #[error("user {0} is there already")]
    UserExists(UserId),
    /// The campaign is there already, maybe another user's.
    #[error("campaign {0} is there already")]
    CampaignExists(CampaignId),
}

/// A campaign call to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CampaignItem {
    /// Its identifier. An item that is there already is left as it is.
    pub id: QueueItemId,
    /// Higher goes first among the user's campaign calls.
    pub priority: Priority,
    /// Not due before this, in milliseconds.
    pub wakes_at: Option<i64>,
    /// Becomes `expired` if it has not started by then, in milliseconds.
    pub expires_at: Option<i64>,
}

/// The queue: users, campaigns, items, and the slots they hold. Times are milliseconds since the
/// Unix epoch and must not go back from one [`Queue::settle`] to the next.
#[derive(Debug, Clone)]
pub struct Queue {
    system: System,
    users: BTreeMap<UserId, User>,
    items: BTreeMap<QueueItemId, Item>,
    /// The last thing that happened was a settlement that did not run out of budget.
    drained: bool,
    /// Broken rules seen as they happened, for [`Queue::check`].
    faults: Vec<Fault>,
    violations: Vec<PriorityViolation>,
}

impl Queue {
    /// An empty queue for a system with this many slots.
    #[must_use]
    pub fn new(limit: ConcurrencyLimit) -> Self {
        Self {
            system: System::new(limit.get()),
            users: BTreeMap::new(),
            items: BTreeMap::new(),
            drained: false,
            faults: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Adds a user of weight 1, unmetered, with no slots held back for direct calls.
    ///
    /// # Errors
    /// [`ModelError::UserExists`].
    pub fn add_user(&mut self, id: UserId, limit: ConcurrencyLimit) -> Result<(), ModelError> {
        if self.users.contains_key(&id) {
            return Err(ModelError::UserExists(id));
        }
        self.users.insert(id, User::new(limit.get()));
        Ok(())
    }

    /// Adds a campaign without items.
    ///
    /// # Errors
    /// [`ModelError::UnknownUser`] or [`ModelError::CampaignExists`].
    pub fn add_campaign(
        &mut self,
        user_id: UserId,
        id: CampaignId,
        open: bool,
    ) -> Result<(), ModelError> {
        if self.campaign_owner(id).is_some() {
            return Err(ModelError::CampaignExists(id));
        }
        let user = self.user_mut(user_id)?;
        user.campaigns.insert(id, Campaign::new(open));
        Ok(())
    }

    /// Queues campaign calls in the order given, each with the next position.
    ///
    /// # Errors
    /// [`ModelError::UnknownCampaign`].
    pub fn enqueue_campaign_items(
        &mut self,
        campaign_id: CampaignId,
        items: &[CampaignItem],
    ) -> Result<(), ModelError> {
        let user_id = self
            .campaign_owner(campaign_id)
            .ok_or(ModelError::UnknownCampaign(campaign_id))?;
        for new in items {
            if self.items.contains_key(&new.id) {
                continue;
            }
            let position = self.system.hand_out_position();
            self.insert(Item {
                id: new.id,
                user_id,
                origin: Origin::Campaign(campaign_id),
                priority: new.priority,
                position,
                status: ItemStatus::Queued,
                wakes_at: new.wakes_at,
                expires_at: new.expires_at,
                attempts: 0,
                call_id: None,
                call_status: None,
            });
        }
        self.after_change();
        Ok(())
    }

    /// Withdraws a waiting item. Once it has started its status is the answer and nothing changes;
    /// none if there is no such item.
    pub fn cancel(&mut self, id: QueueItemId) -> Option<Result<(), ItemStatus>> {
        let status = self.items.get(&id)?.status;
        if status != ItemStatus::Queued {
            return Some(Err(status));
        }
        self.leave_line(id);
        self.set_status(id, ItemStatus::Cancelled);
        self.after_change();
        Some(Ok(()))
    }

    /// Moves a live call on to `status`. False, and no change, where that is not a step forward;
    /// starts and ends belong to [`Queue::settle`].
    pub fn progress(&mut self, call_id: CallId, status: CallStatus) -> bool {
        let Some(item) = self.items.get_mut(&item_of(call_id)) else {
            return false;
        };
        let forward = item.call_status.is_some_and(|now| now.may_become(status));
        if forward && !status.is_terminal() {
            item.call_status = Some(status);
            return true;
        }
        false
    }

    /// Changes a user's limit. A lower one stops new starts and ends no call.
    ///
    /// # Errors
    /// [`ModelError::UnknownUser`].
    pub fn set_user_limit(
        &mut self,
        id: UserId,
        limit: ConcurrencyLimit,
    ) -> Result<(), ModelError> {
        let user = self.user_mut(id)?;
        user.limit = limit.get();
        user.ceiling = user.active();
        self.after_change();
        Ok(())
    }

    /// Changes how many of the last slots of a user's limit campaigns may not use.
    ///
    /// # Errors
    /// [`ModelError::UnknownUser`].
    pub fn set_direct_reserved(&mut self, id: UserId, slots: u32) -> Result<(), ModelError> {
        self.user_mut(id)?.direct_reserved_slots = slots;
        self.after_change();
        Ok(())
    }

    /// Changes a user's weight. Its next turn stays where it is; later ones follow the new stride.
    ///
    /// # Errors
    /// [`ModelError::UnknownUser`].
    pub fn set_weight(&mut self, id: UserId, weight: Weight) -> Result<(), ModelError> {
        self.user_mut(id)?.weight = weight;
        self.after_change();
        Ok(())
    }

    /// Changes what a user has left to pay with; none means it is not metered.
    ///
    /// # Errors
    /// [`ModelError::UnknownUser`].
    pub fn set_credits(&mut self, id: UserId, credits: Option<i64>) -> Result<(), ModelError> {
        self.user_mut(id)?.credits = credits;
        Ok(())
    }

    /// Changes how many direct calls of a user may wait; none for any number. A smaller number
    /// withdraws no call, and what comes back from its slot is not refused.
    ///
    /// # Errors
    /// [`ModelError::UnknownUser`].
    pub fn set_max_queued_direct(
        &mut self,
        id: UserId,
        most: Option<u32>,
    ) -> Result<(), ModelError> {
        self.user_mut(id)?.max_queued_direct = most;
        Ok(())
    }

    /// Changes the system's limit. A lower one stops new starts and ends no call.
    pub fn set_system_limit(&mut self, limit: ConcurrencyLimit) {
        self.system.limit = limit.get();
        self.system.ceiling = self.system.active;
        self.after_change();
    }

    /// Pauses or resumes every start.
    pub fn set_paused(&mut self, paused: bool) {
        self.system.dispatch_paused = paused;
        self.after_change();
    }

    /// Opens or closes a campaign: its waiting items keep their places and go only while it is open.
    ///
    /// # Errors
    /// [`ModelError::UnknownCampaign`].
    pub fn set_campaign_open(&mut self, id: CampaignId, open: bool) -> Result<(), ModelError> {
        self.campaign_mut(id)?.open = open;
        self.after_change();
        Ok(())
    }

    /// Changes how many of a campaign's calls may be up at once. A lower limit ends no call.
    ///
    /// # Errors
    /// [`ModelError::UnknownCampaign`].
    pub fn set_campaign_limit(
        &mut self,
        id: CampaignId,
        limit: Option<u32>,
    ) -> Result<(), ModelError> {
        self.campaign_mut(id)?.limit = limit;
        self.after_change();
        Ok(())
    }

    /// Changes a campaign's turns beside those of its user's other campaigns. Its next turn stays
    /// where it is.
    ///
    /// # Errors
    /// [`ModelError::UnknownCampaign`].
    pub fn set_campaign_weight(
        &mut self,
        id: CampaignId,
        weight: Weight,
    ) -> Result<(), ModelError> {
        self.campaign_mut(id)?.weight = weight;
        self.after_change();
        Ok(())
    }

    fn campaign_mut(&mut self, id: CampaignId) -> Result<&mut Campaign, ModelError> {
        self.users
            .values_mut()
            .find_map(|user| user.campaigns.get_mut(&id))
            .ok_or(ModelError::UnknownCampaign(id))
    }

    fn user_mut(&mut self, id: UserId) -> Result<&mut User, ModelError> {
        self.users.get_mut(&id).ok_or(ModelError::UnknownUser(id))
    }

    fn campaign_owner(&self, id: CampaignId) -> Option<UserId> {
        let owns = |(_, user): &(&UserId, &User)| user.campaigns.contains_key(&id);
        self.users.iter().find(owns).map(|(user_id, _)| *user_id)
    }

    /// Ends every operation outside a settlement: what became ready is filed, and a slot may now
    /// be free that only the next settlement hands out.
    fn after_change(&mut self) {
        self.file_ready_lanes();
        self.drained = false;
    }
}

/// The item a call serves. The model gives both the same UUID.
fn item_of(call_id: CallId) -> QueueItemId {
    QueueItemId::from(call_id.as_uuid())
}
