//! What an operator sees of single calls and may do to them: those that hold a slot, the whole story
//! of one, and the word that settles one whose end will never come.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::{
    Call, CallStatus, CallTransition, Outcome, QueueItem, QueuePlace, QueueReason, ServerId,
};

/// The server that holds a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallOwner {
    /// The server.
    pub server: ServerId,
    /// The end of its lease; none if it is known no longer.
    pub lease_until: Option<DateTime<Utc>>,
    /// Whether its lease holds, by the database's clock. If not, another server takes over soon.
    pub is_alive: bool,
}

/// A call that holds a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCall {
    /// The call.
    pub call: Call,
    /// Whose it is.
    pub user_email: String,
    /// When its provider took it.
    pub placed_at: Option<DateTime<Utc>>,
    /// Since when it is `unknown`.
    pub unknown_since: Option<DateTime<Utc>>,
    /// Who holds it.
    pub owner: CallOwner,
}

/// Calls that hold a slot, or the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCalls {
    /// As many as were asked for.
    pub items: Vec<HeldCall>,
    /// How many there are.
    pub total: u64,
}

/// Everything there is to tell of an item and its call, in one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct CallStory {
    /// The item.
    pub item: QueueItem,
    /// Its call, once it has had a slot.
    pub call: Option<Call>,
    /// Whose it is; none if the user is deleted.
    pub user_email: Option<String>,
    /// Who talks; none if the agent is deleted.
    pub agent_name: Option<String>,
    /// The campaign's name, if it is a campaign's.
    pub campaign_name: Option<String>,
    /// When the provider took its last attempt.
    pub placed_at: Option<DateTime<Utc>>,
    /// Since when it is `unknown`, while it is.
    pub unknown_since: Option<DateTime<Utc>>,
    /// Who holds it, while it holds a slot.
    pub owner: Option<CallOwner>,
    /// Its place, while it waits.
    pub place: Option<QueuePlace>,
    /// Why it waits, while it waits and that is known.
    pub waiting_reason: Option<QueueReason>,
    /// Every change, oldest first.
    pub history: Vec<CallTransition>,
}

impl CallStory {
    /// Whether it holds a slot.
    #[must_use]
    pub const fn holds_slot(&self) -> bool {
        self.owner.is_some()
    }

    /// The call's status or, if it never had a slot, the item's.
    #[must_use]
    pub fn status(&self) -> &'static str {
        let of_call = self.call.as_ref().map(|call| call.status.as_str());
        of_call.unwrap_or(self.item.status.as_str())
    }
}

/// What an operator says for the record: 1 to [`OperatorReason::MAX_LEN`] characters on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorReason(String);

/// Why a text is no [`OperatorReason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {} characters without line breaks",
    OperatorReason::MAX_LEN
)]
pub struct OperatorReasonError;

impl OperatorReason {
    /// The longest that is kept, in characters.
    pub const MAX_LEN: usize = 200;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OperatorReason {
    type Err = OperatorReasonError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let fits = (1..=Self::MAX_LEN).contains(&text.chars().count());
        if fits && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(OperatorReasonError)
        }
    }
}

impl fmt::Display for OperatorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an operator says became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorWord {
    /// It is over.
    Ended {
        /// How it ended.
        outcome: Outcome,
        /// Whether to end it though it is not `unknown`, and its own end may still come.
        force: bool,
    },
    /// Its carrier never dialled it. Only of a call that is `unknown`.
    NotPlaced,
}

/// An operator's settlement of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandSettlement {
    /// What became of it.
    pub word: OperatorWord,
    /// How the operator knows.
    pub reason: Option<OperatorReason>,
    /// The attempt that is meant; a later one is then left alone.
    pub attempt: Option<u32>,
}

/// What a [`HandSettlement`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandEffect {
    /// The call ended now and its slot is free.
    Ended,
    /// It is back in its place in the queue and its slot is free.
    Returned,
    /// Nothing: there is no such call and no such item.
    UnknownCall,
    /// Nothing.
    Refused(HandRefusal),
}

/// Why a call was left as it is. Reads as a sentence without its full stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandRefusal {
    /// It is over.
    #[error("the call is over already: {status}")]
    Over {
        /// How it ended.
        status: String,
    },
    /// It waits.
    #[error("the call holds no slot: it waits in the queue")]
    Waits {
        /// `queued`, or `reserved` if it has had a slot before.
        status: String,
    },
    /// It is at another attempt by now.
    #[error("the call is at attempt {attempt} by now")]
    OtherAttempt {
        /// Where it stands.
        status: CallStatus,
        /// Its current attempt.
        attempt: u32,
    },
    /// Only a call that is `unknown` may be put back.
    #[error(
        "only a call that is unknown can be put back, and this one is {status}: it may be up, and \
         putting it back would dial a second time"
    )]
    NotUnknown {
        /// Where it stands.
        status: CallStatus,
    },
    /// A call that is not `unknown` is only ended by force.
    #[error(
        "the call is {status}, not unknown: its own end may still come, ending it here hangs \
         nothing up, and its slot would be given on while the line is in use; to end it all the \
         same, use force"
    )]
    NeedsForce {
        /// Where it stands.
        status: CallStatus,
    },
}

impl HandRefusal {
    /// Where the call stands.
    #[must_use]
    pub fn status(&self) -> &str {
        match self {
            Self::Over { status } | Self::Waits { status } => status,
            Self::OtherAttempt { status, .. }
            | Self::NotUnknown { status }
            | Self::NeedsForce { status } => status.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operators_reason_is_one_line_of_bounded_length() {
        let reason: OperatorReason = " the carrier says busy ".parse().expect("a reason");
        assert_eq!(reason.as_str(), "the carrier says busy");
        let longest = "ä".repeat(OperatorReason::MAX_LEN);
        assert!(longest.parse::<OperatorReason>().is_ok());
        for text in ["", "  ", "two\nlines", &format!("{longest}x")] {
            assert!(text.parse::<OperatorReason>().is_err(), "{text:?}");
        }
    }
}
