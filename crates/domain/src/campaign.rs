//! Campaigns: a list of contacts worked through at priority 0.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;

use crate::{
    AgentId, CallingHours, CallingHoursError, CampaignId, ContactId, Country, LegalHours,
    NumberLimit, OpenWindow, Outcome, Pacing, RetryPolicy, UserId, Weekdays,
};

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CampaignStatus {
    /// Made, not started.
    Draft,
    /// Started, and its first hours have not come yet.
    Scheduled,
    /// Its calls are queued and go when their turn comes.
    Active,
    /// Its calls are queued and wait.
    Paused,
    /// Every contact is accounted for.
    Completed,
    /// Withdrawn.
    Cancelled,
}

impl CampaignStatus {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Draft,
        Self::Scheduled,
        Self::Active,
        Self::Paused,
        Self::Completed,
        Self::Cancelled,
    ];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Scheduled => "scheduled",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads [`CampaignStatus::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether `next` may follow directly when someone asks for it or nothing is left to do.
    /// Queueing contacts again besides makes a completed campaign active: see
    /// [`CampaignStatus::may_be_repeated`].
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Draft => matches!(next, Self::Scheduled | Self::Active | Self::Cancelled),
            Self::Scheduled => matches!(
                next,
                Self::Active | Self::Paused | Self::Completed | Self::Cancelled
            ),
            Self::Active => matches!(next, Self::Paused | Self::Completed | Self::Cancelled),
            // A paused campaign whose last call in progress ends is complete.
            Self::Paused => matches!(
                next,
                Self::Scheduled | Self::Active | Self::Completed | Self::Cancelled
            ),
            Self::Completed | Self::Cancelled => false,
        }
    }

    /// Whether it is over: nothing in it changes any more, but for [`CampaignStatus::may_be_repeated`].
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }

    /// Whether contacts that were not reached may be queued again. What was cancelled stays so.
    #[must_use]
    pub const fn may_be_repeated(self) -> bool {
        !matches!(self, Self::Cancelled)
    }

    /// Whether it may be deleted. What still calls, or may go on, must be cancelled first.
    #[must_use]
    pub const fn may_be_deleted(self) -> bool {
        matches!(self, Self::Draft | Self::Completed | Self::Cancelled)
    }
}

/// What the user says of a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignFields {
    /// A name for people.
    pub name: String,
    /// Who talks.
    pub agent_id: AgentId,
    /// What the campaign is for, in the user's words.
    pub next_action: String,
    /// Local time from which calls may be made.
    pub first_call_time: NaiveTime,
    /// Local time until which calls may be made; before `first_call_time` it means over midnight.
    pub last_call_time: NaiveTime,
    /// First local day.
    pub start_date: NaiveDate,
    /// Last local day, if there is one.
    pub end_date: Option<NaiveDate>,
    /// An IANA zone for the times above.
    pub campaign_timezone: Option<String>,
    /// Whether `campaign_timezone` holds rather than the user's zone.
    pub use_custom_timezone: bool,
    /// Whether its hours go by the clock of each contact, where [`zone_of_contact`] knows it.
    ///
    /// [`zone_of_contact`]: crate::zone_of_contact
    pub use_contact_timezone: bool,
    /// The days on which its hours begin.
    pub weekdays: Weekdays,
    /// Dates on which nobody is called.
    pub holidays: BTreeSet<NaiveDate>,
    /// Hours within which its own are cut.
    pub legal_hours: Option<LegalHours>,
    /// When calls that did not get through are made again.
    pub retries: RetryPolicy,
    /// How fast it may go.
    pub pacing: Pacing,
    /// Where its lists are from: numbers in national form are read as this country's.
    pub country: Option<Country>,
    /// How often it may call a number within any 24 hours, the calls of its user's other campaigns
    /// counted in; none for what its user's own limit says.
    pub max_calls_per_number_per_day: Option<NumberLimit>,
}

impl CampaignFields {
    /// The zone by whose clock its hours go: its own or its user's. None if that is no zone.
    #[must_use]
    pub fn zone(&self, of_user: &str) -> Option<Tz> {
        match &self.campaign_timezone {
            Some(own) if self.use_custom_timezone => own.parse().ok(),
            _ => of_user.parse().ok(),
        }
    }

    /// When it may call, by the clock of whichever zone holds.
    ///
    /// # Errors
    /// [`CallingHoursError`] if times and dates are no hours.
    pub fn hours(&self) -> Result<CallingHours, CallingHoursError> {
        let mut hours =
            CallingHours::new(self.first_call_time, self.last_call_time, self.start_date)?
                .on(self.weekdays)
                .except(self.holidays.clone());
        if let Some(end_date) = self.end_date {
            hours = hours.until(end_date)?;
        }
        Ok(match self.legal_hours {
            Some(legal) => hours.within(legal),
            None => hours,
        })
    }
}

/// A campaign to be made.
#[derive(Debug, Clone)]
pub struct NewCampaign {
    /// Its identifier.
    pub id: CampaignId,
    /// Its owner.
    pub user_id: UserId,
    /// What the user said of it.
    pub fields: CampaignFields,
    /// Whom to call, in this order; each once.
    pub contact_ids: Vec<ContactId>,
}

/// How far a campaign is. `total` is always the sum of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CampaignProgress {
    /// Contacts in the campaign.
    pub total: u64,
    /// Not queued yet: the campaign has not started.
    pub pending: u64,
    /// Waiting for a slot.
    pub queued: u64,
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

impl CampaignProgress {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            pending: self.pending + other.pending,
            queued: self.queued + other.queued,
            processing: self.processing + other.processing,
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
            expired: self.expired + other.expired,
        }
    }
}

/// A campaign as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Its identifier.
    pub id: CampaignId,
    /// Its owner.
    pub user_id: UserId,
    /// What the user said of it.
    pub fields: CampaignFields,
    /// The zone by whose clock its hours go: its own or its user's. If it goes by its contacts'
    /// clocks, that of those whose zone is not known.
    pub zone: Tz,
    /// Where it stands.
    pub status: CampaignStatus,
    /// The hours it is in, or else the next; none while it is not under way. If it goes by its
    /// contacts' clocks, the first of those of contacts whose calls are due; none if none is.
    pub window: Option<OpenWindow>,
    /// Whether its waiting calls may go now, or some of them.
    pub is_open: bool,
    /// How far it is.
    pub progress: CampaignProgress,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was started.
    pub started_at: Option<DateTime<Utc>>,
    /// When its last contact was accounted for, or it was withdrawn.
    pub finished_at: Option<DateTime<Utc>>,
}

/// How the calls of a campaign that are over went, those of contacts queued again among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CampaignCalls {
    /// Calls that held a slot to their end.
    pub ended: u64,
    /// Calls by outcome, in the order of [`Outcome::ALL`].
    pub by_outcome: [u64; Outcome::ALL.len()],
    /// Attempts that these calls took.
    pub attempts: u64,
    /// Seconds talked, as providers tell.
    pub talk_seconds: u64,
}

/// A campaign in figures. They outlive its deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignStatistics {
    /// The campaign.
    pub campaign: Campaign,
    /// When it was deleted, if it was.
    pub deleted_at: Option<DateTime<Utc>>,
    /// How its calls went; none if there are too many to look at each.
    pub calls: Option<CampaignCalls>,
}

/// A user's campaigns together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CampaignSummary {
    /// How many there are in each status that any has.
    pub by_status: Vec<(CampaignStatus, u64)>,
    /// How far they are, all together.
    pub progress: CampaignProgress,
    /// How many were deleted.
    pub deleted: u64,
    /// How far those got.
    pub deleted_progress: CampaignProgress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_that_is_over_stays_over() {
        for next in CampaignStatus::ALL {
            assert!(!CampaignStatus::Completed.may_become(next));
            assert!(!CampaignStatus::Cancelled.may_become(next));
        }
        assert!(CampaignStatus::Completed.may_be_repeated());
        assert!(!CampaignStatus::Cancelled.may_be_repeated());
        assert!(CampaignStatus::Paused.may_become(CampaignStatus::Active));
        assert!(!CampaignStatus::Draft.may_become(CampaignStatus::Paused));
    }

    #[test]
    fn a_campaign_that_may_still_call_is_not_deleted() {
        let kept = [
            CampaignStatus::Scheduled,
            CampaignStatus::Active,
            CampaignStatus::Paused,
        ];
        for status in CampaignStatus::ALL {
            assert_eq!(status.may_be_deleted(), !kept.contains(&status));
        }
    }
}
