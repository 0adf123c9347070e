//! Rows of `agents` and `contacts`.

use callq_domain::{
    Agent, AgentFields, AgentId, Contact, ContactFields, ContactId, PhoneNumber, UserId,
};
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::{AsChangeset, Insertable, Queryable, Selectable};
use uuid::Uuid;

use super::json::RawJson;
use super::provider;
use crate::Failure;
use crate::schema::{agents, contacts};

/// An agent.
#[derive(Queryable, Selectable)]
#[diesel(table_name = agents, check_for_backend(Pg))]
pub(crate) struct AgentRow {
    pub(crate) id: Uuid,
    user_id: Uuid,
    name: String,
    provider: Option<String>,
    provider_agent_id: Option<String>,
    caller_id: Option<String>,
    settings: Option<RawJson>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl AgentRow {
    pub(crate) fn into_agent(self) -> Result<Agent, Failure> {
        let named = self.provider.as_deref();
        Ok(Agent {
            id: AgentId::from(self.id),
            user_id: UserId::from(self.user_id),
            fields: AgentFields {
                name: self.name,
                provider: named
                    .map(|name| provider("agents.provider", name))
                    .transpose()?,
                provider_agent_id: self.provider_agent_id,
                caller_id: self.caller_id,
                settings: self.settings.map(|json| json.0),
            },
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// What a user says of an agent, inserted or put in place of what was said before.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = agents, treat_none_as_null = true)]
pub(crate) struct AgentFieldsRow {
    name: String,
    provider: Option<String>,
    provider_agent_id: Option<String>,
    caller_id: Option<String>,
    settings: Option<RawJson>,
}

impl From<AgentFields> for AgentFieldsRow {
    fn from(fields: AgentFields) -> Self {
        Self {
            name: fields.name,
            provider: fields.provider.map(|name| name.as_str().to_owned()),
            provider_agent_id: fields.provider_agent_id,
            caller_id: fields.caller_id,
            settings: fields.settings.map(RawJson),
        }
    }
}

/// A contact.
#[derive(Queryable, Selectable)]
#[diesel(table_name = contacts, check_for_backend(Pg))]
pub(crate) struct ContactRow {
    pub(crate) id: Uuid,
    user_id: Uuid,
    phone_number: String,
    name: Option<String>,
    time_zone: Option<String>,
    user_data: Option<RawJson>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<ContactRow> for Contact {
    fn from(row: ContactRow) -> Self {
        Self {
            id: ContactId::from(row.id),
            user_id: UserId::from(row.user_id),
            fields: ContactFields {
                phone_number: PhoneNumber::from_trusted(row.phone_number),
                name: row.name,
                time_zone: row.time_zone,
                user_data: row.user_data.map(|json| json.0),
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What a user says of a contact, inserted or put in place of what was said before.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = contacts, treat_none_as_null = true)]
pub(crate) struct ContactFieldsRow {
    pub(crate) phone_number: String,
    pub(crate) name: Option<String>,
    time_zone: Option<String>,
    user_data: Option<RawJson>,
}

impl From<ContactFields> for ContactFieldsRow {
    fn from(fields: ContactFields) -> Self {
        Self {
            phone_number: fields.phone_number.as_str().to_owned(),
            name: fields.name,
            time_zone: fields.time_zone,
            user_data: fields.user_data.map(RawJson),
        }
    }
}
