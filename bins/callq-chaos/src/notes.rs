//! What everyone writes down during a round: broken promises, and figures worth reporting.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A promise, as the report names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// One attempt reaches the dialer at most once.
    OneDialPerAttempt,
    /// A call that was put up is never put up again.
    OneStartPerCall,
    /// No user has more calls up than its limit, as the dialer saw it.
    UserLimit,
    /// Nor has the system.
    SystemLimit,
    /// A call keeps its slot until it is over at the dialer.
    SlotUntilTheEnd,
    /// What was accepted ends in a terminal state.
    NothingLost,
    /// A request that is sent again under its key is one call, and nobody is called who was not asked
    /// for.
    OneCallPerRequest,
    /// What was put up is known, and ended as it did.
    RecordsAreTrue,
    /// What was confirmed as cancelled is not dialled, nor what expired.
    WithdrawnStaysWithdrawn,
    /// No campaign call starts while a due direct call of its user waits.
    DirectFirst,
    /// Campaigns call within their hours, their limits and their paces.
    CampaignRules,
    /// Counters equal rows, and nothing holds a slot in the end.
    CountersEqualRows,
    /// No server ends by itself, panics, or does not stop when asked.
    ServersLive,
    /// Every answer is one of those that are promised, in time.
    HonestAnswers,
    /// The dialer is spoken to as it was told.
    DialerContract,
}

impl Promise {
    pub(crate) const ALL: [Self; 15] = [
        Self::OneDialPerAttempt,
        Self::OneStartPerCall,
        Self::UserLimit,
        Self::SystemLimit,
        Self::SlotUntilTheEnd,
        Self::NothingLost,
        Self::OneCallPerRequest,
        Self::RecordsAreTrue,
        Self::WithdrawnStaysWithdrawn,
        Self::DirectFirst,
        Self::CampaignRules,
        Self::CountersEqualRows,
        Self::ServersLive,
        Self::HonestAnswers,
        Self::DialerContract,
    ];

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::OneDialPerAttempt => "one attempt, one dial",
            Self::OneStartPerCall => "no call put up twice",
            Self::UserLimit => "users' limits, as the dialer saw them",
            Self::SystemLimit => "the system's limit, as the dialer saw it",
            Self::SlotUntilTheEnd => "no slot freed while its call was up",
            Self::NothingLost => "all that was accepted has ended",
            Self::OneCallPerRequest => "one call for each request",
            Self::RecordsAreTrue => "records agree with the dialer",
            Self::WithdrawnStaysWithdrawn => "nothing cancelled or expired was dialled",
            Self::DirectFirst => "direct calls first",
            Self::CampaignRules => "campaigns' hours, limits and paces",
            Self::CountersEqualRows => "counters equal rows, no slot is left",
            Self::ServersLive => "no server ended or panicked by itself",
            Self::HonestAnswers => "every answer was a promised one, in time",
            Self::DialerContract => "the dialer was spoken to as it was told",
        }
    }
}

/// A call that callq accepted, and what came of it at the door.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub user: Uuid,
    /// The item, if the answer named one.
    pub item: Option<Uuid>,
    /// The call, if the answer named one.
    pub call: Option<Uuid>,
    /// When the answer came.
    pub at: DateTime<Utc>,
    /// Whether its cancellation was asked for, and whether it was confirmed.
    pub cancelling: bool,
    pub cancelled: bool,
    /// Whether it was to expire.
    pub expires: bool,
    /// Whether it was neither to wait for a time nor to expire.
    pub plain: bool,
}

#[derive(Default)]
struct Book {
    broken: BTreeMap<Promise, Vec<String>>,
    counts: BTreeMap<&'static str, u64>,
    accepted: Vec<Accepted>,
    slow: Vec<Span>,
    asleep: Vec<Span>,
    database_back: Vec<DateTime<Utc>>,
}

/// Something that went on at a server for a time.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub server: String,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

impl Span {
    /// Whether they share a server and a moment.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.server == other.server && self.from <= other.to && other.from <= self.to
    }
}

/// The notes of one round.
pub(crate) struct Notes {
    began: Instant,
    book: Mutex<Book>,
}

impl Notes {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            book: Mutex::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a promise was broken, and how.
    pub(crate) fn broken(&self, promise: Promise, how: String) {
        let at = self.began.elapsed().as_secs_f64();
        let how = format!("{at:.1} s: {how}");
        self.book().broken.entry(promise).or_default().push(how);
    }

    /// Counts something worth reporting.
    pub(crate) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: &'static str, times: u64) {
        *self.book().counts.entry(what).or_default() += times;
    }

    pub(crate) fn accepted(&self, call: Accepted) {
        self.book().accepted.push(call);
    }

    pub(crate) fn all_accepted(&self) -> Vec<Accepted> {
        self.book().accepted.clone()
    }

    /// Notes an answer that took long.
    pub(crate) fn slow(&self, answer: Span) {
        self.book().slow.push(answer);
    }

    /// Notes that a server was asleep.
    pub(crate) fn asleep(&self, sleep: Span) {
        self.book().asleep.push(sleep);
    }

    /// Answers that took long although their server was awake.
    pub(crate) fn unexcused(&self) -> Vec<Span> {
        let book = self.book();
        let excused = |slow: &&Span| !book.asleep.iter().any(|sleep| sleep.meets(slow));
        book.slow.iter().filter(excused).cloned().collect()
    }

    /// Notes that PostgreSQL is back now.
    pub(crate) fn database_is_back(&self) {
        self.book().database_back.push(Utc::now());
    }

    pub(crate) fn database_back(&self) -> Vec<DateTime<Utc>> {
        self.book().database_back.clone()
    }

    /// How often something was counted.
    pub(crate) fn count_of(&self, what: &str) -> u64 {
        self.book().counts.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        let book = self.book();
        book.counts.iter().map(|(what, n)| (*what, *n)).collect()
    }

    /// How each promise was broken.
    pub(crate) fn all_broken(&self) -> BTreeMap<Promise, Vec<String>> {
        self.book().broken.clone()
    }
}
