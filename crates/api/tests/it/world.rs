//! A whole API over in-memory ports, two users and an admin, and a client for it.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{Method, StatusCode, header};
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use callq_api::{Api, Ports, configure, mint_token};
use callq_domain::*;
use chrono::{TimeDelta, Utc};
use serde_json::Value;

use crate::fake::Fake;
use crate::fake_engine::FakeProvider;

pub(crate) struct World {
    pub(crate) fake: Arc<Fake>,
    pub(crate) api: web::Data<Api>,
    /// Two users and an admin, with their tokens.
    pub(crate) ada: (UserId, String),
    pub(crate) bob: (UserId, String),
    pub(crate) admin: (UserId, String),
}

/// An answer as a client reads it.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    headers: header::HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body, after checking that it is a problem of this status in the agreed shape.
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let body = self.json();
        assert_eq!(body["status"], status);
        for name in ["type", "title", "detail", "error", "message"] {
            let text = body[name].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{name} is missing in {body}");
        }
        assert!(self.header("x-request-id").is_some());
        body
    }
}

pub(crate) fn ports(fake: &Arc<Fake>) -> Ports {
    let provider = FakeProvider {
        name: ProviderName::new("fake").expect("a name"),
        fake: fake.clone(),
    };
    Ports {
        accounts: fake.clone(),
        directory: fake.clone(),
        do_not_call: fake.clone(),
        campaigns: fake.clone(),
        campaign_contacts: fake.clone(),
        imports: fake.clone(),
        queue: fake.clone(),
        calls: fake.clone(),
        operators: fake.clone(),
        door: fake.clone(),
        providers: Providers::new([Arc::new(provider) as Arc<dyn CallProvider>]),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|api| api)
    }

    pub(crate) fn with(change: impl FnOnce(Api) -> Api) -> Self {
        let fake = Arc::new(Fake::default());
        fake.state().system_limit = 10;
        let api = web::Data::new(change(Api::new(ports(&fake))));
        let enrol = |role| {
            let (token, hash) = mint_token();
            let user_id = UserId::new();
            let identity = Identity {
                user_id,
                role,
                token_id: TokenId::new(),
                token_expires_at: None,
            };
            fake.state().tokens.insert(hash, identity);
            fake.state().loads.push(load(user_id, role));
            (user_id, token)
        };
        let (ada, bob, admin) = (enrol(Role::User), enrol(Role::User), enrol(Role::Admin));
        Self {
            fake,
            api,
            ada,
            bob,
            admin,
        }
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: TestRequest) -> Answered {
        let app = init_service(App::new().configure(configure(self.api.clone()))).await;
        let response = call_service(&app, request.to_request()).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = String::from_utf8(read_body(response).await.to_vec()).expect("text");
        Answered {
            status: status.as_u16(),
            headers,
            text,
        }
    }

    /// Sends a request with a token, and with a body where there is one.
    pub(crate) async fn ask(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answered {
        let method: Method = method.parse().expect("a method");
        let request = request(token).method(method).uri(path);
        self.send(match body {
            Some(body) => request.set_json(body),
            None => request,
        })
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.ask(&self.ada.1, "GET", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answered {
        self.ask(&self.ada.1, "POST", path, Some(body)).await
    }
}

/// A request with a bearer token.
pub(crate) fn request(token: &str) -> TestRequest {
    TestRequest::default().insert_header((header::AUTHORIZATION, format!("Bearer {token}")))
}

pub(crate) fn is_success(answered: &Answered) -> bool {
    StatusCode::from_u16(answered.status).is_ok_and(|status| status.is_success())
}

fn load(id: UserId, role: Role) -> UserLoad {
    UserLoad {
        user: User {
            id,
            email: format!("{id}@example.com").parse().expect("an address"),
            role,
            concurrent_calls_limit: ConcurrencyLimit::new(2).expect("a limit"),
            direct_reserved_slots: 0,
            max_queued_direct_calls: None,
            max_queued_campaign_calls: None,
            max_calls_per_number_per_day: None,
            weight: Weight::ONE,
            campaign_calls_per_second: None,
            time_zone: "UTC".into(),
            credits: None,
            created_at: Utc::now(),
        },
        direct: TypeCount {
            queued: 1,
            processing: 2,
        },
        campaign: TypeCount::default(),
    }
}

pub(crate) fn number() -> PhoneNumber {
    "+14155552671".parse().expect("a number")
}

/// A place whose user's calls last a minute on average, with one slot.
pub(crate) fn place(position: u64) -> QueuePlace {
    QueuePlace {
        position,
        total_in_queue: position,
        pace: Pace {
            slots: 1,
            samples: 10,
            mean_hold: Duration::from_secs(60),
        },
    }
}

pub(crate) fn queued(reason: QueueReason) -> Queued {
    Queued {
        item_id: QueueItemId::new(),
        reason,
        place: place(1),
        expires_at: None,
    }
}

pub(crate) fn user_limit() -> QueueReason {
    QueueReason::UserLimit(SlotUse {
        limit: 2,
        active: 2,
    })
}

/// A direct call of `user` that waits at the head of its line.
pub(crate) fn waiting(user_id: UserId) -> PlacedItem {
    PlacedItem {
        item: QueueItem {
            id: QueueItemId::new(),
            user_id,
            agent_id: AgentId::new(),
            contact_id: None,
            origin: Origin::Direct,
            priority: Priority::DIRECT,
            position: 17,
            status: ItemStatus::Queued,
            phone_number: number(),
            contact_name: Some("Grace".into()),
            scheduled_for: None,
            wakes_at: None,
            expires_at: None,
            attempts: 0,
            call_id: None,
            reason: None,
            queued_at: Utc::now() - TimeDelta::seconds(5),
            started_at: None,
            finished_at: None,
        },
        place: Some(place(1)),
        waiting_reason: Some(user_limit()),
    }
}

/// A call of `user` in this status, known to the provider as `x-1` unless it was never placed.
pub(crate) fn call(user_id: UserId, status: CallStatus) -> Call {
    let placed = !matches!(status, CallStatus::Reserved | CallStatus::Unknown);
    Call {
        id: CallId::new(),
        item_id: QueueItemId::new(),
        user_id,
        agent_id: AgentId::new(),
        contact_id: None,
        origin: Origin::Direct,
        phone_number: number(),
        contact_name: None,
        provider: ProviderName::new("fake").expect("a name"),
        execution_id: placed.then(|| ExecutionId::new("x-1")).flatten(),
        status,
        reason: None,
        attempts: 1,
        reserved_at: Utc::now(),
        answered_at: None,
        ended_at: None,
        duration_seconds: None,
    }
}

/// That call as an operator finds it, held by a server that lives.
pub(crate) fn held_call(call: Call) -> HeldCall {
    HeldCall {
        user_email: "ada@example.com".into(),
        placed_at: None,
        unknown_since: (call.status == CallStatus::Unknown).then(Utc::now),
        owner: CallOwner {
            server: ServerId::new(),
            lease_until: Some(Utc::now()),
            is_alive: true,
        },
        call,
    }
}

/// The story of a call of `user` in doubt, which came back once.
pub(crate) fn story(user_id: UserId) -> CallStory {
    let mut item = waiting(user_id).item;
    item.status = ItemStatus::Processing;
    item.attempts = 2;
    let call = Call {
        id: CallId::from(item.id.as_uuid()),
        item_id: item.id,
        attempts: 2,
        ..call(user_id, CallStatus::Unknown)
    };
    item.call_id = Some(call.id);
    let change = |status: &str, attempt, reason: Option<&str>| CallTransition {
        status: status.into(),
        at: Utc::now(),
        reason: reason.map(str::to_owned),
        attempt: Some(attempt),
        server: Some(ServerId::new()),
    };
    let held = held_call(call);
    CallStory {
        item,
        user_email: Some(held.user_email),
        agent_name: Some("Front desk".into()),
        campaign_name: None,
        placed_at: None,
        unknown_since: held.unknown_since,
        owner: Some(held.owner),
        place: None,
        waiting_reason: None,
        history: vec![
            change("reserved", 1, None),
            change("queued", 1, Some("Provider is busy (429)")),
            change("reserved", 2, None),
            change("unknown", 2, Some("no answer in time")),
        ],
        call: Some(held.call),
    }
}
