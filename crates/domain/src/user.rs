//! Users, their roles, credits and bearer tokens.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::{CallRate, ConcurrencyLimit, NumberLimit, TokenId, UserId, Weight};

/// What a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Works with its own agents, contacts, campaigns and calls.
    User,
    /// Also sees and changes everyone's limits and the system's.
    Admin,
}

impl Role {
    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// Reads [`Role::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

/// An e-mail address, used as a user's name: lower case, one `@`, no spaces, at most 254 bytes.
///
/// Only its shape is checked. Nothing is ever sent to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

/// A text that is no e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address such as ada@example.com")]
pub struct EmailError;

impl Email {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = EmailError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().to_lowercase();
        let plain =
            text.len() <= 254 && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        match text.split_once('@') {
            Some((local, domain))
                if plain && !local.is_empty() && !domain.is_empty() && !domain.contains('@') =>
            {
                Ok(Self(text))
            }
            _ => Err(EmailError),
        }
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The SHA-256 of a bearer token: all that is ever stored of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// Who is asking: what a valid token proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user_id: UserId,
    /// What it may do.
    pub role: Role,
    /// The token that was shown.
    pub token_id: TokenId,
    /// When that token ends, if it does.
    pub token_expires_at: Option<DateTime<Utc>>,
}

/// A user to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its identifier.
    pub id: UserId,
    /// Its name; no two users share one.
    pub email: Email,
    /// What it may do.
    pub role: Role,
    /// How many of its calls may be up at once.
    pub concurrent_calls_limit: ConcurrencyLimit,
    /// Its home time zone, an IANA name.
    pub time_zone: String,
    /// Calls it has paid for; none means it is not metered.
    pub credits: Option<i64>,
}

/// A user as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its identifier.
    pub id: UserId,
    /// Its name.
    pub email: Email,
    /// What it may do.
    pub role: Role,
    /// How many of its calls may be up at once.
    pub concurrent_calls_limit: ConcurrencyLimit,
    /// How many of the last of these campaigns may not use.
    pub direct_reserved_slots: u32,
    /// How many of its direct calls may wait; none for the default.
    pub max_queued_direct_calls: Option<u32>,
    /// How many of its campaign calls may wait; none for the default.
    pub max_queued_campaign_calls: Option<u32>,
    /// How often its campaigns may call one number within any 24 hours; none for any number of times.
    pub max_calls_per_number_per_day: Option<NumberLimit>,
    /// Its turns relative to others.
    pub weight: Weight,
    /// How many campaign calls of it may start in a second; none for any number.
    pub campaign_calls_per_second: Option<CallRate>,
    /// Its home time zone, an IANA name.
    pub time_zone: String,
    /// Calls it has paid for; none means it is not metered.
    pub credits: Option<i64>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// What an admin changes about a user. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    /// A new limit. Lowering it ends no call.
    pub concurrent_calls_limit: Option<ConcurrencyLimit>,
    /// A new reserve for direct calls.
    pub direct_reserved_slots: Option<u32>,
    /// A new cap on its waiting direct calls; the inner `None` is the default. Lowering it withdraws
    /// no call.
    pub max_queued_direct_calls: Option<Option<u32>>,
    /// A new cap on its waiting campaign calls, likewise.
    pub max_queued_campaign_calls: Option<Option<u32>>,
    /// A new limit on its campaign calls to one number; the inner `None` ends it.
    pub max_calls_per_number_per_day: Option<Option<NumberLimit>>,
    /// A new weight.
    pub weight: Option<Weight>,
    /// A new pace of its campaign calls; the inner `None` lets them go at any.
    pub campaign_calls_per_second: Option<Option<CallRate>>,
    /// New credits; the inner `None` ends metering.
    pub credits: Option<Option<i64>>,
}

/// A token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its identifier, by which it is revoked.
    pub id: TokenId,
    /// Whose it is.
    pub user_id: UserId,
    /// The hash of its secret.
    pub hash: TokenHash,
    /// When it ends, if it does.
    pub expires_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_is_checked_for_shape_and_lowered() {
        assert_eq!(
            " Ada@Example.com ".parse::<Email>().map(|e| e.to_string()),
            Ok("ada@example.com".into())
        );
        for text in ["", "ada", "@example.com", "ada@", "a b@c", "a@b@c"] {
            assert!(text.parse::<Email>().is_err(), "{text:?}");
        }
    }
}
