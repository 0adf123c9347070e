//! Numbers that must not be called: each user's own list, and one for all.

use std::fmt;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{Page, PageRequest, PhoneNumber, StoreError, UserId};

/// A list of numbers that must not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoNotCallList {
    /// Holds for everybody's calls.
    Global,
    /// Holds for the calls of one user.
    Of(UserId),
}

/// Which list keeps a user from calling a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedOn {
    /// The one for all.
    Global,
    /// The user's own.
    Own,
}

impl ListedOn {
    /// `global` or `own`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Own => "own",
        }
    }
}

impl fmt::Display for ListedOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A number on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoNotCallEntry {
    /// The number.
    pub phone_number: PhoneNumber,
    /// Why it is there.
    pub reason: Option<String>,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// Where a number is listed, as far as it concerns one user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Its entry on the list for all.
    pub global: Option<DoNotCallEntry>,
    /// Its entry on the user's own.
    pub own: Option<DoNotCallEntry>,
}

/// What adding numbers to a list did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listed {
    /// Numbers that were not on it before.
    pub added: u64,
    /// Waiting calls that were withdrawn.
    pub withdrawn: u64,
}

/// The do-not-call lists.
///
/// A number on a list that applies is never dialled: a call to it is refused at the door, and ends
/// as cancelled with the reason `do-not-call` when it comes back to the queue. A call that holds a
/// slot already goes on.
#[async_trait]
pub trait DoNotCallStore: Send + Sync {
    /// Adds numbers to a list, where they are not on it yet, and withdraws what waits for them.
    /// Many numbers go in parts, in order: after an error a first part may be on the list, and
    /// adding them all again does the rest.
    async fn list_numbers(
        &self,
        list: DoNotCallList,
        numbers: Vec<PhoneNumber>,
        reason: Option<String>,
    ) -> Result<Listed, StoreError>;
    /// What is on a list, newest first.
    async fn do_not_call_entries(
        &self,
        list: DoNotCallList,
        page: PageRequest,
    ) -> Result<Page<DoNotCallEntry>, StoreError>;
    /// Where a number is listed: on the list for all, and on the user's own if one is named.
    async fn listing(
        &self,
        user: Option<UserId>,
        number: PhoneNumber,
    ) -> Result<Listing, StoreError>;
    /// Takes a number off a list. `NotFound` if it is not on it.
    async fn unlist_number(
        &self,
        list: DoNotCallList,
        number: PhoneNumber,
    ) -> Result<(), StoreError>;
}
