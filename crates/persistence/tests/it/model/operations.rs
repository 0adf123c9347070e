//! What a script is made of: operations on a queue, small enough to be drawn at random and shrunk,
//! and printed as Rust that [`super::replays`] can play again.
//!
//! Items, users, campaigns and servers go by number, in the order in which they were made. A batch
//! is gathered by single operations and sent by [`Op::Settle`] or [`Op::Record`], so that a script
//! shrinks by leaving out its parts.

use std::fmt;

use callq_domain::{ItemStatus, Outcome, ReportedStatus};

pub(crate) const USERS: usize = 4;
pub(crate) const SERVERS: usize = 2;
/// A script makes no more campaigns than this; what would make another does nothing.
pub(crate) const CAMPAIGNS: usize = 3;
/// So many contacts each user has, and no campaign more.
pub(crate) const CONTACTS: usize = 8;
/// So many idempotency keys each user has.
pub(crate) const KEYS: u8 = 3;

/// One operation. Times are milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    /// Into the next batch: a direct call at the door.
    Ask {
        of: usize,
        starts_in: Option<u32>,
        expires_in: Option<u32>,
    },
    /// Into the next batch: a direct call under a key of its user, with this or that body.
    AskByKey {
        of: usize,
        key: u8,
        body: u8,
    },
    /// Into the next batch: a direct call that must be refused.
    AskInVain {
        of: usize,
        why: Vain,
    },
    /// Into the next batch: a call is over.
    End {
        call: Pick,
        by: By,
        outcome: Outcome,
        named: Named,
    },
    /// Into the next batch: an attempt that reached nobody.
    Return {
        call: Pick,
        stale: bool,
        delay: u32,
        if_unknown: bool,
    },
    /// Into the next batch: an admission whose caller was told no.
    Disown(Pick),
    /// Sends the batch.
    Settle {
        server: usize,
        reserve: u32,
    },
    /// A server sends its last batch once more, as after a lost answer.
    Resend(usize),
    /// The answer to a server's last batch was lost, and its callers were told no: its next batch
    /// says so.
    LoseAnswer(usize),

    /// Into the next progress: the provider took it.
    Placed {
        call: Pick,
        stale: bool,
    },
    /// Into the next progress: the provider's answer was lost.
    Lost {
        call: Pick,
        stale: bool,
    },
    /// Into the next progress: the provider tells how it stands.
    Tell {
        call: Pick,
        status: ReportedStatus,
        named: Named,
    },
    /// Into the next progress: what was answered under a key is to be kept.
    KeepAnswer {
        of: usize,
        key: u8,
    },
    /// Sends the progress.
    Record {
        server: usize,
    },

    /// A waiting item is withdrawn by its owner.
    Cancel(Pick),
    /// A waiting item is withdrawn by somebody else.
    CancelAnothers(Pick),
    UserLimit {
        of: usize,
        slots: u32,
    },
    SystemLimit(u32),
    Weight {
        of: usize,
        turns: u16,
    },
    DirectReserved {
        of: usize,
        slots: u32,
    },
    Credits {
        of: usize,
        left: Option<i64>,
    },
    /// So many direct calls of a user may wait.
    MaxQueued {
        of: usize,
        most: Option<u32>,
    },
    Paused(bool),
    /// A draft with so many contacts.
    Draft {
        of: usize,
        contacts: usize,
    },
    /// The nth campaign is started or resumed.
    Start(usize),
    Pause(usize),
    /// So many of the nth campaign's calls may be up at once.
    CampaignLimit {
        nth: usize,
        slots: Option<u32>,
    },
    /// The nth campaign's turns beside its user's others.
    CampaignWeight {
        nth: usize,
        turns: u16,
    },
    Withdraw(usize),
    /// A call is given up for its length: it will end as failed.
    GiveUp {
        server: usize,
        call: Pick,
    },
    /// A server stops; another takes over its calls.
    Die(usize),
    /// Housekeeping.
    Maintain,
    /// A user turns the page of its items.
    TurnPage {
        of: usize,
        limit: u16,
        status: Option<ItemStatus>,
    },
    /// Time passes.
    Advance(u32),
    /// Time passes until the very millisecond at which something is due by itself.
    UntilSomethingIsDue,
}

/// Why an admission must be refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Vain {
    UnknownUser,
    AnothersAgent,
    AnothersContact,
}

/// Which item or its call, as things stand when the operation is read. Numbers wrap around.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pick {
    /// The nth of those that hold a slot.
    Up(usize),
    /// The nth of those that wait.
    Waiting(usize),
    /// The nth of all there ever were.
    Any(usize),
    /// One that there is not.
    Nobody,
}

/// Who says that a call is over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By {
    TheCarrier,
    ThisAttempt,
    AnEarlierAttempt,
}

/// What a provider calls the call it speaks of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named {
    Unnamed,
    ItsName,
    AnotherName,
}

/// Prints a script as a test that plays it again.
pub(crate) struct Script<'a>(pub(crate) &'a [Op]);

impl fmt::Display for Script<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "replay(&[")?;
        for op in self.0 {
            writeln!(f, "    {op:?},")?;
        }
        f.write_str("]);")
    }
}
