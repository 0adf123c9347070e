//! Identifiers: one newtype per thing, so that a call id can never be passed where a user id is meant.
//!
//! All are UUIDs. The ones callq makes are version 7: they grow with time, so the rows they key
//! land next to each other instead of all over the heap.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh identifier, UUID version 7.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "a default that differs each time would surprise")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The UUID itself, for a wire or a database.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )+};
}

ids! {
    /// A user: the owner of agents, contacts, campaigns and calls, and the unit of fairness.
    UserId,
    /// What talks on a call: a voice agent at a provider.
    AgentId,
    /// A person who can be called.
    ContactId,
    /// A list being worked through.
    CampaignId,
    /// A list of people brought into a campaign.
    ImportId,
    /// One accepted wish for a call, from acceptance to its terminal state.
    QueueItemId,
    /// One call. It keeps its id while its placement is tried again, and never beyond its end.
    CallId,
    /// A bearer token (its record, not its secret).
    TokenId,
    /// One run of a callq server process.
    ServerId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_made_later_sort_later() {
        let first = CallId::new();
        let second = CallId::new();
        assert!(first < second);
    }

    #[test]
    fn an_id_survives_its_text_form() {
        let id = UserId::new();
        assert_eq!(id.to_string().parse::<UserId>(), Ok(id));
        assert!("".parse::<UserId>().is_err());
    }
}
