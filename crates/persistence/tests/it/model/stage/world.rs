//! The users of every script, with what is theirs.

use callq_domain::{
    AccountStore, AgentFields, AgentId, ConcurrencyLimit, ContactFields, ContactId, DirectoryStore,
    NewUser, OperatorStore, ProviderName, Role, UserId,
};
use callq_persistence::PostgresStore;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::answers::Who;
use crate::model::operations::{CONTACTS, USERS};
use crate::model::reference::Universe;
use crate::scene::{agent_fields, contact_fields, new_token, phone_number};

pub(super) async fn make(store: &PostgresStore) -> Universe {
    let mut universe = Universe {
        users: Vec::new(),
        agents: Vec::new(),
        carriers: Vec::new(),
        contacts: Vec::new(),
        user_limit: ConcurrencyLimit::new(2).unwrap(),
        system_limit: ConcurrencyLimit::new(3).unwrap(),
    };
    store.set_system_limit(universe.system_limit).await.unwrap();
    for nth in 1..=USERS as u128 {
        let user = NewUser {
            id: UserId::from(Uuid::from_u128(nth)),
            email: format!("user{nth}@example.com").parse().unwrap(),
            role: Role::User,
            concurrent_calls_limit: universe.user_limit,
            time_zone: "UTC".into(),
            credits: None,
        };
        let token = new_token(user.id);
        let id = store.create_user(user, token).await.unwrap().id;
        let agent = AgentId::from(Uuid::from_u128(0xa000 + nth));
        // Every other one says who carries its calls and what they show.
        let says = nth % 2 == 0;
        let fields = AgentFields {
            provider: says.then(|| ProviderName::new("carrier").unwrap()),
            caller_id: says.then(|| phone_number(4_000)),
            ..agent_fields("Ada")
        };
        let carrier = if says { "carrier" } else { "simulator" };
        let carrier = (carrier.to_owned(), fields.caller_id.clone());
        store.create_agent(agent, id, fields).await.unwrap();
        let mut own = Vec::new();
        for contact in 0..CONTACTS as u128 {
            let id_of = Uuid::from_u128((0xc000 + nth) << 16 | contact);
            own.push(make_contact(store, id, ContactId::from(id_of), contact).await);
        }
        universe.users.push(id);
        universe.agents.push(agent);
        universe.carriers.push(carrier);
        universe.contacts.push(own);
    }
    universe
}

/// Some have a name, some something to pass on.
async fn make_contact(
    store: &PostgresStore,
    user: UserId,
    id: ContactId,
    nth: u128,
) -> (ContactId, Who) {
    let who = Who {
        number: phone_number(5_000 + u32::try_from(nth).unwrap()),
        name: nth.is_multiple_of(2).then(|| format!("Bob {nth}")),
        data: nth
            .is_multiple_of(3)
            .then(|| format!("{{\"contact\": {nth}}}")),
    };
    let data = who.data.clone();
    let fields = ContactFields {
        name: who.name.clone(),
        user_data: data.map(|data| RawValue::from_string(data).unwrap()),
        ..contact_fields(&who.number)
    };
    store.create_contact(id, user, fields).await.unwrap();
    (id, who)
}
