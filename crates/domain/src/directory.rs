//! What a user keeps in callq besides calls: agents and contacts.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::{AgentId, ContactId, PhoneNumber, ProviderName, UserId};

/// What talks on a call, as the user describes it.
#[derive(Debug, Clone)]
pub struct AgentFields {
    /// A name for people.
    pub name: String,
    /// Who carries its calls; none means the server's default provider.
    pub provider: Option<ProviderName>,
    /// Its name at the provider.
    pub provider_agent_id: Option<String>,
    /// The caller id its calls show.
    pub caller_id: Option<String>,
    /// What the provider needs to know; a JSON object.
    pub settings: Option<Box<RawValue>>,
}

/// An agent as it is stored.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its identifier.
    pub id: AgentId,
    /// Its owner.
    pub user_id: UserId,
    /// What the user said of it.
    pub fields: AgentFields,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A person who can be called, as the user describes them.
#[derive(Debug, Clone)]
pub struct ContactFields {
    /// The number to dial.
    pub phone_number: PhoneNumber,
    /// A name for people.
    pub name: Option<String>,
    /// The contact's own time zone, an IANA name.
    pub time_zone: Option<String>,
    /// Passed to the provider with each call; a JSON object.
    pub user_data: Option<Box<RawValue>>,
}

/// A contact as it is stored.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Its identifier.
    pub id: ContactId,
    /// Its owner.
    pub user_id: UserId,
    /// What the user said of it.
    pub fields: ContactFields,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}
