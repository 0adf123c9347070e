//! The contacts of a campaign one by one: where each stands, and the port through which they are
//! listed, added, withdrawn and called again.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{
    CallId, CampaignId, ContactId, Outcome, Page, PageRequest, PhoneNumber, QueueItemId,
    StoreError, UserId,
};

/// Where a contact stands in its campaign. Each stands in one place at any time, and there are as
/// many in each as [`crate::CampaignProgress`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContactStatus {
    /// Its campaign has not started.
    Pending,
    /// Waiting for a slot.
    Queued,
    /// Holding a slot.
    Processing,
    /// Its call took place.
    Completed,
    /// Its call did not take place.
    Failed,
    /// Withdrawn, or its call was.
    Cancelled,
    /// Not started in time.
    Expired,
}

impl ContactStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Queued,
        Self::Processing,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// Those that may be called again. A contact whose call took place is never called again.
    pub const REPEATABLE: [Self; 3] = [Self::Failed, Self::Cancelled, Self::Expired];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Reads [`ContactStatus::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// A contact of a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignContact {
    /// The contact.
    pub contact_id: ContactId,
    /// The item that stands for it in the queue now, or did last.
    pub item_id: QueueItemId,
    /// The number that is dialled, or was.
    pub phone_number: PhoneNumber,
    /// The name that goes with it.
    pub name: Option<String>,
    /// Where it stands.
    pub status: ContactStatus,
    /// Attempts made so far, those before it was queued again among them.
    pub attempts: u32,
    /// How its last call ended, if one did.
    pub outcome: Option<Outcome>,
    /// Why it waits, or ended so.
    pub reason: Option<String>,
    /// Its call, once it has one.
    pub call_id: Option<CallId>,
    /// When it is next tried, if that is known: null while it only waits for its turn.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it last got a slot.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Which contacts of a campaign something is done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContactSelection {
    /// All of them.
    All,
    /// These. Those that are not in the campaign are passed over.
    These(Vec<ContactId>),
}

/// What became of contacts that were to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContactsAdded {
    /// They are in the campaign.
    Added {
        /// How many are new in it.
        added: u64,
        /// Those that were in it before.
        skipped: Vec<ContactId>,
    },
    /// This one does not exist, or is another user's. Nothing was added.
    UnknownContact(ContactId),
}

/// The contacts of campaigns. Everywhere `NotFound` if the campaign is not the user's or was
/// deleted, `Conflict` where its status does not allow what is asked.
#[async_trait]
pub trait CampaignContactStore: Send + Sync {
    /// A campaign's contacts: all in the order of its list, or those of one status, the next to go
    /// or the last to end first. A page may hold fewer than asked although others follow.
    async fn campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        status: Option<ContactStatus>,
        page: PageRequest,
    ) -> Result<Page<CampaignContact>, StoreError>;
    /// Adds contacts behind those of a campaign that is not over, all or none of them.
    async fn add_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        contacts: Vec<ContactId>,
    ) -> Result<ContactsAdded, StoreError>;
    /// Withdraws contacts that wait, of a campaign that is not over, and answers how many. Calls in
    /// progress go on. Those withdrawn before a failure stay so.
    async fn cancel_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        which: ContactSelection,
    ) -> Result<u64, StoreError>;
    /// Queues contacts again that ended as one of `ended`, behind all others, and answers how many.
    /// Only [`ContactStatus::REPEATABLE`] count. A completed campaign is active again if there are
    /// any; a cancelled one is over for good.
    async fn requeue_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        which: ContactSelection,
        ended: Vec<ContactStatus>,
    ) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_back_from_its_name() {
        for status in ContactStatus::ALL {
            assert_eq!(ContactStatus::from_name(status.as_str()), Some(status));
        }
        assert_eq!(ContactStatus::from_name("done"), None);
    }

    #[test]
    fn who_was_reached_or_still_has_a_turn_is_not_queued_again() {
        use ContactStatus as S;
        for status in [S::Pending, S::Queued, S::Processing, S::Completed] {
            assert!(!S::REPEATABLE.contains(&status));
        }
    }
}
