//! The two kinds of call and the priority each starts with.

use std::fmt;

/// Who asked for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallType {
    /// A person clicked "call" and is waiting for it.
    Direct,
    /// A campaign works through a list.
    Campaign,
}

impl CallType {
    /// Both kinds, in the order in which they are served.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Campaign];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Campaign => "campaign",
        }
    }

    /// The priority a call of this kind has unless someone changes it.
    #[must_use]
    pub const fn default_priority(self) -> Priority {
        match self {
            Self::Direct => Priority::DIRECT,
            Self::Campaign => Priority::CAMPAIGN,
        }
    }

    /// Reads [`CallType::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for CallType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Order within one user's calls of one type: higher goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(i32);

impl Priority {
    /// What a direct call starts with.
    pub const DIRECT: Self = Self(100);
    /// What a campaign call starts with.
    pub const CAMPAIGN: Self = Self(0);

    /// Any priority.
    #[must_use]
    pub const fn new(value: i32) -> Self {
        Self(value)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}
