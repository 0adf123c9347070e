//! Who is in the demo: three users, the lists they work through and the people they call.

use anyhow::Context;
use callq_api::mint_token;
use callq_domain::{
    AccountStore, AgentId, ConcurrencyLimit, NewToken, NewUser, Role, TokenId, UserId,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::demo::client::Client;

/// What Ada's campaign works through.
pub(super) const CONTACTS: &str = include_str!("contacts.csv");

/// What Grace's campaign works through.
pub(super) const PATIENTS: &str = include_str!("patients.csv");

/// One row of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) phone: String,
}

/// Reads a list: a header `name,phone`, then a row for each person.
pub(super) fn rows(csv: &str) -> Result<Vec<Row>, csv::Error> {
    csv::Reader::from_reader(csv.as_bytes())
        .deserialize()
        .collect()
}

/// The users.
pub(super) struct Cast {
    pub(super) ada: Person,
    pub(super) grace: Person,
    pub(super) alan: Person,
}

impl Cast {
    pub(super) fn all(&self) -> [&Person; 3] {
        [&self.ada, &self.grace, &self.alan]
    }
}

/// One user.
#[derive(Clone)]
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) id: UserId,
    pub(super) limit: u32,
    pub(super) client: Client,
    /// Who talks on this user's calls.
    pub(super) agent: AgentId,
}

/// Makes the users as `callq user create` does; their agents over HTTP.
pub(super) async fn sign_up(store: &impl AccountStore, address: &str) -> anyhow::Result<Cast> {
    Ok(Cast {
        ada: person(store, address, "Ada", 2, list_outcomes()).await?,
        grace: person(store, address, "Grace", 2, list_outcomes()).await?,
        alan: person(store, address, "Alan", 3, json!("completed")).await?,
    })
}

/// Not everybody on a list picks up.
fn list_outcomes() -> Value {
    json!({"completed": 0.84, "busy": 0.08, "no-answer": 0.08})
}

async fn person(
    store: &impl AccountStore,
    address: &str,
    name: &'static str,
    limit: u32,
    outcomes: Value,
) -> anyhow::Result<Person> {
    let (secret, hash) = mint_token();
    let id = UserId::new();
    let user = NewUser {
        id,
        email: format!("{name}@example.com").parse()?,
        role: Role::User,
        concurrent_calls_limit: ConcurrencyLimit::new(limit.into())?,
        time_zone: "UTC".to_owned(),
        credits: None,
    };
    let token = NewToken {
        id: TokenId::new(),
        user_id: id,
        hash,
        expires_at: None,
    };
    store.create_user(user, token).await?;
    let client = Client::new(address, secret)?;
    // Short calls, so that a minute shows many.
    let settings = json!({
        "answer_after_ms": {"distribution": "uniform", "min_ms": 200, "max_ms": 400},
        "talk_ms": {"distribution": "uniform", "min_ms": 600, "max_ms": 1500},
        "outcome": outcomes,
    });
    let agent = client
        .create_agent(&format!("{name}'s agent"), settings)
        .await;
    let agent = agent.with_context(|| format!("{name} could not make an agent"))?;
    Ok(Person {
        name,
        id,
        limit,
        client,
        agent,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use callq_domain::PhoneNumber;

    use super::*;

    #[test]
    fn every_number_on_the_lists_can_be_dialled_and_stands_there_once() {
        let mut numbers = HashSet::new();
        for list in [CONTACTS, PATIENTS] {
            for row in rows(list).expect("the list is readable") {
                let number: PhoneNumber = row.phone.parse().expect(&row.name);
                assert_eq!(number.as_str(), row.phone);
                assert!(numbers.insert(number), "{} stands there twice", row.phone);
            }
        }
        assert_eq!(numbers.len(), 46);
    }
}
