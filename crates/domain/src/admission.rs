//! A direct call at the door: what is asked, and every answer there can be.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::{
    AgentId, CallId, CallType, ContactId, ExecutionId, ListedOn, Pace, PhoneNumber, QueueItemId,
    QueuePlace, ReservedCall, SlotUse, UserId,
};

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A stored contact of the same user.
    Contact(ContactId),
    /// A number.
    Number(PhoneNumber),
}

/// A direct call that is asked for.
#[derive(Debug, Clone)]
pub struct NewDirectCall {
    /// The id its queue item will have. Made by the caller, so that a repeat after a lost
    /// connection is recognised.
    pub item_id: QueueItemId,
    /// Who asks.
    pub user_id: UserId,
    /// Who will talk.
    pub agent_id: AgentId,
    /// Whom to call.
    pub target: Target,
    /// A name for the person called; a stored contact's own name otherwise.
    pub contact_name: Option<String>,
    /// Passed to the provider; a JSON object.
    pub user_data: Option<Box<RawValue>>,
    /// The caller id to show; the agent's own otherwise.
    pub caller_id: Option<String>,
    /// Not before this.
    pub scheduled_for: Option<DateTime<Utc>>,
    /// Becomes `expired` if it has not started this long after its acceptance.
    pub expires_in: Option<Duration>,
    /// The client's key for this request, if it gave one.
    pub idempotency: Option<IdempotencyKey>,
}

/// A client's key for a request, with a digest of what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The header's value, 1 to 255 characters.
    pub key: String,
    /// SHA-256 of the request's body.
    pub request_hash: [u8; 32],
}

/// What became of an admission, decided and durable.
#[derive(Debug, Clone)]
pub enum Admission {
    /// A slot was free: it is reserved and must now be placed.
    Started(Box<ReservedCall>),
    /// It waits.
    Queued(Queued),
    /// It was refused. Nothing was written.
    Refused(Refusal),
    /// The same idempotency key was used before. Nothing was written.
    Repeated(Repeat),
}

/// A call that was accepted and waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Queued {
    /// Its item.
    pub item_id: QueueItemId,
    /// Why it could not start at once.
    pub reason: QueueReason,
    /// Where it stands.
    pub place: QueuePlace,
    /// When it gives up, if it does.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Why a call waits rather than starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueReason {
    /// The user's slots are taken.
    UserLimit(SlotUse),
    /// The system's slots are taken.
    SystemLimit(SlotUse),
    /// Direct calls that came first wait.
    EarlierDirectCalls {
        /// How many.
        ahead: u64,
    },
    /// It was asked to start later.
    Scheduled(DateTime<Utc>),
    /// An operator paused all dispatch.
    DispatchPaused,
    /// Its campaign is paused.
    CampaignPaused,
    /// Its campaign may not call now; when it may again, if that is known.
    OutsideHours(Option<DateTime<Utc>>),
    /// Its campaign has as many calls up as it may.
    CampaignLimit(SlotUse),
    /// Whose pace lets no call go at this moment.
    Paced(PacedBy),
    /// The provider has no room, or cannot be reached; its words.
    Provider(String),
}

/// Whose calls a second are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacedBy {
    /// The campaign's.
    Campaign,
    /// Those of all the user's campaigns.
    User,
    /// The provider's, all users and servers together.
    Provider,
}

impl fmt::Display for QueueReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserLimit(SlotUse { limit, active }) => write!(
                f,
                "User has reached concurrency limit ({active}/{limit} active calls)"
            ),
            Self::SystemLimit(SlotUse { limit, active }) => write!(
                f,
                "System has reached concurrency limit ({active}/{limit} active calls)"
            ),
            Self::EarlierDirectCalls { ahead } => {
                write!(f, "Earlier direct calls are waiting ({ahead} ahead)")
            }
            Self::Scheduled(at) => write!(f, "Scheduled for {}", at.to_rfc3339()),
            Self::DispatchPaused => f.write_str("Dispatch is paused by an operator"),
            Self::CampaignPaused => f.write_str("The campaign is paused"),
            Self::OutsideHours(Some(at)) => {
                write!(f, "Outside the campaign's hours until {}", at.to_rfc3339())
            }
            Self::OutsideHours(None) => f.write_str("Outside the campaign's hours"),
            Self::CampaignLimit(SlotUse { limit, active }) => write!(
                f,
                "The campaign has reached its limit ({active}/{limit} active calls)"
            ),
            Self::Paced(PacedBy::Campaign) => {
                f.write_str("The campaign's pace lets the next call go in a moment")
            }
            Self::Paced(PacedBy::User) => {
                f.write_str("The user's pace lets the next campaign call go in a moment")
            }
            Self::Paced(PacedBy::Provider) => {
                f.write_str("The provider's pace lets the next call go in a moment")
            }
            Self::Provider(words) => f.write_str(words),
        }
    }
}

/// Why a call was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such user: it was deleted a moment ago.
    UnknownUser,
    /// No such agent, or another user's.
    UnknownAgent,
    /// No such contact, or another user's.
    UnknownContact,
    /// The number is on a do-not-call list.
    DoNotCall(ListedOn),
    /// Nothing left to pay with.
    NoCredits {
        /// What is left.
        credits: i64,
    },
    /// It would have to wait, and the user has as many calls waiting as it may.
    QueueFull(QueueFull),
}

/// A user's queue that has no room for what was asked. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull {
    /// Which of its queues.
    pub call_type: CallType,
    /// Calls of this type that may wait.
    pub limit: u32,
    /// Calls that do.
    pub waiting: u64,
    /// Calls that would have had to.
    pub asked: u64,
    /// What is known of the user's calls and slots, to estimate from when there may be room.
    pub pace: Pace,
}

impl QueueFull {
    /// How many calls have to leave the queue before there is room; none if it never holds as many
    /// as were asked for. A direct call may always find a free slot instead.
    #[must_use]
    pub fn room_after(&self) -> Option<u64> {
        let limit = u64::from(self.limit);
        match self.call_type {
            CallType::Campaign if self.asked > limit => None,
            _ => Some((self.waiting + self.asked).saturating_sub(limit).max(1)),
        }
    }
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            call_type,
            limit,
            waiting,
            asked,
            ..
        } = self;
        match call_type {
            CallType::Direct => {
                write!(f, "{waiting} direct calls wait, and at most {limit} may")
            }
            CallType::Campaign => write!(
                f,
                "{waiting} campaign calls wait, and at most {limit} may; {asked} more were asked for"
            ),
        }
    }
}

/// What is known of an idempotency key that was used before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// Its first request has not been answered yet.
    InProgress,
    /// It was used with another body.
    Mismatch,
    /// Its answer, to be sent again.
    Answered(SavedAnswer),
    /// Its server died before it could answer; this is the item that it made.
    Unanswered(QueueItemId),
}

/// An answer as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedAnswer {
    /// HTTP status.
    pub status: u16,
    /// JSON body.
    pub body: String,
}

/// What became of a reserved call's placement, told to whoever waits at the door.
#[derive(Debug, Clone, PartialEq)]
pub enum PlacementReport {
    /// The provider took it.
    Placed {
        /// The call.
        call_id: CallId,
        /// The provider's name for it.
        execution_id: ExecutionId,
    },
    /// The provider refused it for good; it is recorded as failed and its slot is free.
    Refused {
        /// The call.
        call_id: CallId,
        /// The provider's words.
        reason: String,
    },
    /// The provider has no room; the call waits at the head of its queue.
    Returned(Queued),
    /// The answer was lost; the call keeps its slot and is being looked up.
    Unknown {
        /// The call.
        call_id: CallId,
        /// The item it serves.
        item_id: QueueItemId,
    },
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_full_queue_says_after_how_many_calls_there_is_room() {
        let full = |call_type, limit, waiting, asked| QueueFull {
            call_type,
            limit,
            waiting,
            asked,
            pace: Pace {
                slots: 1,
                samples: 0,
                mean_hold: Duration::ZERO,
            },
        };
        let room =
            |call_type, limit, waiting, asked| full(call_type, limit, waiting, asked).room_after();
        assert_eq!(room(CallType::Direct, 10, 10, 1), Some(1));
        assert_eq!(room(CallType::Direct, 10, 13, 1), Some(4));
        // What may not wait may still start.
        assert_eq!(room(CallType::Direct, 0, 0, 1), Some(1));
        assert_eq!(room(CallType::Campaign, 10, 8, 5), Some(3));
        assert_eq!(room(CallType::Campaign, 10, 0, 11), None);
        assert_eq!(
            full(CallType::Campaign, 10, 8, 5).to_string(),
            "8 campaign calls wait, and at most 10 may; 5 more were asked for"
        );
    }

    #[test]
    fn reasons_read_as_clients_expect_them() {
        let full = SlotUse {
            limit: 2,
            active: 2,
        };
        assert_eq!(
            QueueReason::UserLimit(full).to_string(),
            "User has reached concurrency limit (2/2 active calls)"
        );
        assert_eq!(
            QueueReason::SystemLimit(SlotUse {
                limit: 10,
                active: 10
            })
            .to_string(),
            "System has reached concurrency limit (10/10 active calls)"
        );
        assert_eq!(
            QueueReason::EarlierDirectCalls { ahead: 3 }.to_string(),
            "Earlier direct calls are waiting (3 ahead)"
        );
    }
}
