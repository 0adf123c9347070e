//! A call: the time from a slot's reservation to its release, and the events that lead there.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::{
    AgentId, CallId, ContactId, Origin, PhoneNumber, ProviderName, QueueItemId, ServerId, UserId,
};

/// Where a call stands. `docs/state-machine.md` draws it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallStatus {
    /// Has a slot; nothing was sent yet.
    Reserved,
    /// Handed, or about to be handed, to the provider.
    Dialing,
    /// The far side rings.
    Ringing,
    /// Answered.
    InProgress,
    /// The provider's answer was lost; the call keeps its slot while it is looked up.
    Unknown,
    /// Over, for the reason the outcome gives.
    Ended(Outcome),
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It took place.
    Completed,
    /// The line was busy.
    Busy,
    /// Nobody picked up.
    NoAnswer,
    /// It could not be made, or broke.
    Failed,
    /// It was withdrawn.
    Cancelled,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Completed,
        Self::Busy,
        Self::NoAnswer,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads [`Outcome::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == name)
    }
}

impl CallStatus {
    /// Every status.
    pub const ALL: [Self; 10] = [
        Self::Reserved,
        Self::Dialing,
        Self::Ringing,
        Self::InProgress,
        Self::Unknown,
        Self::Ended(Outcome::Completed),
        Self::Ended(Outcome::Busy),
        Self::Ended(Outcome::NoAnswer),
        Self::Ended(Outcome::Failed),
        Self::Ended(Outcome::Cancelled),
    ];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Dialing => "dialing",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Unknown => "unknown",
            Self::Ended(outcome) => outcome.as_str(),
        }
    }

    /// Reads [`CallStatus::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether nothing follows. A call holds its slot until then.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Ended(_))
    }

    /// Whether `next` may follow directly.
    ///
    /// Statuses only move forward; a late `ringing` after `in-progress` changes nothing. Any live
    /// status may end, since a terminal event may come first.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Ended(_), _) | (_, Self::Reserved) => false,
            (Self::Reserved, next) => matches!(next, Self::Dialing | Self::Ended(_)),
            (_, Self::Ended(_)) => true,
            (Self::Dialing, next) => {
                matches!(next, Self::Ringing | Self::InProgress | Self::Unknown)
            }
            // Proof of life settles what was unknown.
            (Self::Unknown, next) => {
                matches!(next, Self::Dialing | Self::Ringing | Self::InProgress)
            }
            (Self::Ringing, next) => matches!(next, Self::InProgress),
            (Self::InProgress, _) => false,
        }
    }
}

impl fmt::Display for CallStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A provider's own name for a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExecutionId(String);

impl ExecutionId {
    /// The longest text accepted, in bytes.
    pub const MAX_LEN: usize = 255;

    /// A provider's id, if it is 1 to [`ExecutionId::MAX_LEN`] bytes without control characters.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = !text.is_empty() && text.len() <= Self::MAX_LEN;
        (fits && !text.chars().any(char::is_control)).then_some(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One authorised try to place a call. It reaches the carrier at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The call.
    pub call_id: CallId,
    /// Counts from 1 over the item's life.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.call_id, self.number)
    }
}

/// What a provider says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReportedStatus {
    /// It was accepted by the carrier.
    Initiated,
    /// The far side rings.
    Ringing,
    /// Answered.
    InProgress,
    /// Over.
    Ended(Outcome),
}

impl ReportedStatus {
    /// Reads the name a provider event uses: `initiated`, `ringing`, `in-progress` or an outcome.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "initiated" => Some(Self::Initiated),
            "ringing" => Some(Self::Ringing),
            "in-progress" => Some(Self::InProgress),
            other => Outcome::from_name(other).map(Self::Ended),
        }
    }

    /// The name [`ReportedStatus::from_name`] reads.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initiated => "initiated",
            Self::Ringing => "ringing",
            Self::InProgress => "in-progress",
            Self::Ended(outcome) => outcome.as_str(),
        }
    }

    /// The call status it proves.
    #[must_use]
    pub const fn as_call_status(self) -> CallStatus {
        match self {
            Self::Initiated => CallStatus::Dialing,
            Self::Ringing => CallStatus::Ringing,
            Self::InProgress => CallStatus::InProgress,
            Self::Ended(outcome) => CallStatus::Ended(outcome),
        }
    }
}

/// A provider's report about a call, its signature already checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusEvent {
    /// The provider's id for this event.
    pub event_id: String,
    /// The call it is about.
    pub call_id: CallId,
    /// The provider's name for the call.
    pub execution_id: Option<ExecutionId>,
    /// What happened.
    pub status: ReportedStatus,
    /// When, by the provider's clock.
    pub occurred_at: DateTime<Utc>,
    /// Talk time in whole seconds, where the provider says.
    pub duration_seconds: Option<u32>,
    /// The provider's words for why.
    pub reason: Option<String>,
}

/// A call as it is recorded, live or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its identifier.
    pub id: CallId,
    /// The item it serves.
    pub item_id: QueueItemId,
    /// Its owner.
    pub user_id: UserId,
    /// Who talks.
    pub agent_id: AgentId,
    /// Who is called, when it is a stored contact.
    pub contact_id: Option<ContactId>,
    /// Direct or campaign.
    pub origin: Origin,
    /// The number dialled.
    pub phone_number: PhoneNumber,
    /// The name of the person called.
    pub contact_name: Option<String>,
    /// Who carries it.
    pub provider: ProviderName,
    /// The provider's name for it, once known.
    pub execution_id: Option<ExecutionId>,
    /// Where it stands.
    pub status: CallStatus,
    /// Why it ended, or why it waits.
    pub reason: Option<String>,
    /// Placements attempted.
    pub attempts: u32,
    /// When its slot was reserved.
    pub reserved_at: DateTime<Utc>,
    /// When it was answered.
    pub answered_at: Option<DateTime<Utc>>,
    /// When its slot was freed.
    pub ended_at: Option<DateTime<Utc>>,
    /// Talk time in whole seconds, where known.
    pub duration_seconds: Option<u32>,
}

/// One entry of a call's history: append-only, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallTransition {
    /// What it became: an item or call status, or a word such as `placed` or `returned`.
    pub status: String,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: Option<String>,
    /// Which attempt, once there was one.
    pub attempt: Option<u32>,
    /// The server that recorded it.
    pub server: Option<ServerId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_can_always_end_but_only_once() {
        for from in CallStatus::ALL {
            for outcome in Outcome::ALL {
                assert_eq!(
                    from.may_become(CallStatus::Ended(outcome)),
                    !from.is_terminal()
                );
            }
        }
    }

    #[test]
    fn statuses_never_move_backwards() {
        use CallStatus as S;
        assert!(!S::InProgress.may_become(S::Ringing));
        assert!(!S::Ringing.may_become(S::Dialing));
        assert!(!S::Dialing.may_become(S::Reserved));
        assert!(!S::InProgress.may_become(S::Unknown));
        assert!(S::Unknown.may_become(S::InProgress));
    }

    #[test]
    fn names_read_back() {
        for status in CallStatus::ALL {
            assert_eq!(CallStatus::from_name(status.as_str()), Some(status));
        }
        for name in [
            "initiated",
            "ringing",
            "in-progress",
            "completed",
            "busy",
            "no-answer",
            "failed",
            "cancelled",
        ] {
            assert_eq!(
                ReportedStatus::from_name(name).map(ReportedStatus::as_str),
                Some(name)
            );
        }
        assert_eq!(ReportedStatus::from_name("reserved"), None);
    }
}
