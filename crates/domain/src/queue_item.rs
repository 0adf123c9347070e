//! A queue item: one accepted wish for a call, from its acceptance to its terminal state.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    AgentId, CallId, CallType, CampaignId, ContactId, Outcome, PhoneNumber, Priority, QueueItemId,
    UserId,
};

/// Where a queue item stands. `docs/state-machine.md` draws it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemStatus {
    /// Accepted, holds no slot.
    Queued,
    /// Holds a slot: reserved, being placed, or in progress.
    Processing,
    /// Its call took place.
    Completed,
    /// Its call did not take place, for the reason recorded.
    Failed,
    /// Withdrawn.
    Cancelled,
    /// Did not start by its `expires_at`.
    Expired,
}

impl ItemStatus {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Processing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Reads [`ItemStatus::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Processing)
    }

    /// Whether `next` may follow directly.
    ///
    /// An item goes back from processing to queued only when its call was provably not placed.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Queued => matches!(next, Self::Processing | Self::Cancelled | Self::Expired),
            Self::Processing => matches!(
                next,
                Self::Queued | Self::Completed | Self::Failed | Self::Cancelled
            ),
            Self::Completed | Self::Failed | Self::Cancelled | Self::Expired => false,
        }
    }
}

impl From<Outcome> for ItemStatus {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::Busy | Outcome::NoAnswer | Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

impl fmt::Display for ItemStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What asked for the call. A campaign call always knows its campaign, a direct call never has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A person.
    Direct,
    /// A campaign.
    Campaign(CampaignId),
}

impl Origin {
    /// The call type this origin makes.
    #[must_use]
    pub const fn call_type(self) -> CallType {
        match self {
            Self::Direct => CallType::Direct,
            Self::Campaign(_) => CallType::Campaign,
        }
    }

    /// The campaign, if it is one.
    #[must_use]
    pub const fn campaign_id(self) -> Option<CampaignId> {
        match self {
            Self::Direct => None,
            Self::Campaign(id) => Some(id),
        }
    }
}

/// A queue item as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueItem {
    /// Its identifier.
    pub id: QueueItemId,
    /// Its owner.
    pub user_id: UserId,
    /// Who will talk.
    pub agent_id: AgentId,
    /// Who is called, when it is a stored contact.
    pub contact_id: Option<ContactId>,
    /// Direct or campaign.
    pub origin: Origin,
    /// Higher goes first within user and type.
    pub priority: Priority,
    /// Order within the priority; handed out by a counter, kept for life.
    pub position: i64,
    /// Where it stands.
    pub status: ItemStatus,
    /// The number to dial.
    pub phone_number: PhoneNumber,
    /// The name of the person called.
    pub contact_name: Option<String>,
    /// When it was asked to start, if not at once.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Not due before this, when it is waiting for a time (its schedule, or a retry).
    pub wakes_at: Option<DateTime<Utc>>,
    /// Becomes `expired` if it has not started by then.
    pub expires_at: Option<DateTime<Utc>>,
    /// Placements attempted so far.
    pub attempts: u32,
    /// Its call, once it has had a slot.
    pub call_id: Option<CallId>,
    /// Why it ended, or why its last attempt was not placed.
    pub reason: Option<String>,
    /// When it was accepted.
    pub queued_at: DateTime<Utc>,
    /// When it last got a slot.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Where a waiting item stands in its user's line, and how long that may take.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuePlace {
    /// 1 for the next to go among the user's waiting calls of the same type.
    pub position: u64,
    /// How many of the user's calls of the same type wait, this one included.
    pub total_in_queue: u64,
    /// What is known of the user's calls and slots, to estimate the wait from.
    pub pace: Pace,
}

/// What the wait estimate is made of: the user's slots and how long its calls lasted lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Calls that can be up at once for this user: its own limit or the system's, the smaller.
    pub slots: u32,
    /// How many ended calls the mean rests on.
    pub samples: u32,
    /// Exponentially decaying mean of how long a call held its slot.
    pub mean_hold: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_statuses_lead_nowhere() {
        for from in ItemStatus::ALL {
            let leads_on = ItemStatus::ALL.into_iter().any(|to| from.may_become(to));
            assert_eq!(leads_on, !from.is_terminal(), "{from}");
        }
    }

    #[test]
    fn only_processing_ends_in_an_outcome() {
        for outcome in Outcome::ALL {
            let ended = ItemStatus::from(outcome);
            assert!(ended.is_terminal());
            assert!(ItemStatus::Processing.may_become(ended));
        }
        assert!(!ItemStatus::Queued.may_become(ItemStatus::Completed));
        assert!(!ItemStatus::Processing.may_become(ItemStatus::Expired));
    }

    #[test]
    fn names_read_back() {
        for status in ItemStatus::ALL {
            assert_eq!(ItemStatus::from_name(status.as_str()), Some(status));
        }
    }
}
