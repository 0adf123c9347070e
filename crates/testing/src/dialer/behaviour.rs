//! What a fake dialer can do with a placement, and how a call goes on.

use std::time::Duration;

/// What is done with one placement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Dials and answers 201 with the execution id.
    Accept,
    /// Does not dial and answers with this status.
    Refuse(u16),
    /// Does not dial and answers that there is no room.
    Busy {
        /// 429 or 503.
        status: u16,
        /// The header's value: seconds or a date.
        retry_after: Option<String>,
    },
    /// Does not dial and never answers.
    Mute,
    /// Does not dial and resets the connection.
    Reset,
    /// Does not dial and answers 200 with what is no JSON.
    Garbage,
    /// Dials and never answers.
    AcceptThenMute,
    /// Dials and resets the connection instead of answering.
    AcceptThenReset,
    /// Dials, breaks down, and answers with this status.
    AcceptThenFail(u16),
    /// Dials and answers twice, one after the other, with the same execution id.
    AcceptTwice,
    /// Dials at once and answers this much later.
    SlowAccept(Duration),
    /// Dials, ends the call, sends its terminal event, and only then answers 201.
    EventFirst {
        /// The event's status, such as `busy`.
        status: &'static str,
    },
}

impl Behaviour {
    /// Whether the call is up afterwards, whatever callq gets to know.
    #[must_use]
    pub const fn dials(&self) -> bool {
        match self {
            Self::Accept
            | Self::AcceptThenMute
            | Self::AcceptThenReset
            | Self::AcceptThenFail(_)
            | Self::AcceptTwice
            | Self::SlowAccept(_)
            | Self::EventFirst { .. } => true,
            Self::Refuse(_) | Self::Busy { .. } | Self::Mute | Self::Reset | Self::Garbage => false,
        }
    }
}

/// How a call that was put up goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// Statuses such as `ringing` and `in-progress`, and when each is sent. Sent once: one that
    /// callq does not take is lost.
    pub on_the_way: Vec<(Duration, &'static str)>,
    /// When it ends.
    pub ends_after: Duration,
    /// How, such as `completed`.
    pub outcome: &'static str,
    /// What callq gets to know of its end.
    pub telling: Telling,
}

/// What callq gets to know of a call's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Its event is sent until callq takes it.
    Once,
    /// The same, and then once more.
    Twice,
    /// Nothing, unless it asks.
    Never,
}

impl Course {
    /// Ends as `completed` after this time, and says so.
    #[must_use]
    pub fn completed_after(time: Duration) -> Self {
        Self {
            on_the_way: Vec::new(),
            ends_after: time,
            outcome: "completed",
            telling: Telling::Once,
        }
    }
}

/// What is done with look-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LookUps {
    /// They are answered truthfully.
    #[default]
    Truth,
    /// They are answered with this status and no body.
    Status(u16),
    /// They are answered 200 with what is no JSON.
    Garbage,
    /// They are never answered.
    Mute,
}
