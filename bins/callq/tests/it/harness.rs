//! The real binary on a database of its own, with a dialer that keeps a ledger, and a small
//! client: what the system tests stand on.

mod server;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use callq_testing::{FakeDialer, TestDatabase};
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) use self::server::Server;

/// How long anything that must happen may take before the test gives up. Generous: it is only
/// reached when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test.
pub(crate) fn callq() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callq"));
    // Nothing of the developer's own environment or .env decides a test.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.current_dir(std::env::temp_dir());
    command
}

/// A database, a dialer, and the servers started on them.
pub(crate) struct World {
    pub database_url: String,
    pub dialer: FakeDialer,
    pub settings: BTreeMap<&'static str, String>,
    client: reqwest::Client,
    // Dropped last, if it is this world's own.
    _database: Option<TestDatabase>,
}

/// A client that opens a connection for each request: a server that slept closes one that it kept
/// just as the next request arrives.
fn fresh_connections() -> reqwest::Client {
    let client = reqwest::Client::builder().pool_max_idle_per_host(0);
    client.build().expect("a client")
}

impl World {
    /// A world with a system limit, whose sweep is far too rare to move anything.
    pub(crate) fn new(system_limit: u32) -> Self {
        let database = TestDatabase::new();
        let mut world = Self::on(database.url(), system_limit);
        world._database = Some(database);
        world
    }

    /// The same on a database that is somebody else's.
    pub(crate) fn on(database_url: &str, system_limit: u32) -> Self {
        let dialer = FakeDialer::start();
        let settings = BTreeMap::from([
            ("DATABASE_URL", database_url.to_owned()),
            ("PORT", "0".to_owned()),
            ("SYSTEM_CONCURRENT_CALLS_LIMIT", system_limit.to_string()),
            ("QUEUE_PROCESSOR_INTERVAL", "3600000".to_owned()),
            ("CALL_PROVIDER", "http".to_owned()),
            ("HTTP_PROVIDER_URL", dialer.url()),
            ("HTTP_PROVIDER_SECRET", dialer.secret().to_owned()),
            ("PROVIDER_TIMEOUT_MS", "5000".to_owned()),
            ("RUST_LOG", "info,callq=debug".to_owned()),
        ]);
        Self {
            database_url: database_url.to_owned(),
            dialer,
            settings,
            client: fresh_connections(),
            _database: None,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.insert(name, value.to_owned());
        self
    }

    /// A server, once it answers.
    pub(crate) fn serve(&self) -> Server {
        Server::start(&self.settings)
    }

    /// A new user with an agent.
    pub(crate) async fn user(&self, server: &Server, name: &str, limit: u32) -> User {
        let record = self.create_user(name, limit, &[]);
        let text = |field: &str| record[field].as_str().expect(field).to_owned();
        let mut user = User {
            id: text("id"),
            token: text("token"),
            address: server.address.clone(),
            agent_id: String::new(),
            client: self.client.clone(),
        };
        let agent = user.post("/api/agents", json!({"name": "Agent"})).await;
        assert_eq!(agent.status, 201, "{agent:?}");
        user.agent_id = agent.body["id"].as_str().expect("an id").to_owned();
        user
    }

    /// The record printed by `callq user create`.
    pub(crate) fn create_user(&self, name: &str, limit: u32, more: &[&str]) -> Value {
        let output = callq()
            .envs(&self.settings)
            .args([
                "user",
                "create",
                "--json",
                "--email",
                &format!("{name}@example.com"),
            ])
            .args(["--concurrent-calls-limit", &limit.to_string()])
            .args(more)
            .output()
            .expect("callq runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("a record")
    }

    /// What `callq audit` says.
    pub(crate) fn audit(&self) -> String {
        let output = callq()
            .envs(&self.settings)
            .arg("audit")
            .output()
            .expect("callq runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The status a server answers to a status event signed with the dialer's secret.
    pub(crate) async fn signed_event(&self, server: &Server, event: Value) -> u16 {
        let now = chrono::Utc::now().timestamp();
        self.event_signed_at(server, event, now).await.status
    }

    /// What a server answers to a status event signed with the dialer's secret at a time.
    pub(crate) async fn event_signed_at(&self, server: &Server, event: Value, now: i64) -> Answer {
        let body = event.to_string();
        let webhook = standardwebhooks::Webhook::new(self.dialer.secret()).expect("a secret");
        let signature = webhook.sign("e", now, body.as_bytes()).expect("signed");
        let answer = self
            .client
            .post(format!("{}/api/webhooks/http", server.address))
            .header("content-type", "application/json")
            .header("webhook-id", "e")
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", signature)
            .body(body)
            .send()
            .await
            .expect("an answer");
        Answer::read(answer).await
    }

    /// An administrator, talking to the same server as `user`.
    pub(crate) fn admin(&self, user: &User) -> User {
        let record = self.create_user("root", 1, &["--role", "admin"]);
        user.with_token(record["token"].as_str().expect("a token"))
    }

    /// One number from the database.
    pub(crate) fn count(&self, query: &str) -> i64 {
        use diesel::prelude::*;
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            n: i64,
        }
        let mut conn = PgConnection::establish(&self.database_url).expect("the database is up");
        diesel::sql_query(format!("SELECT ({query})::bigint AS n"))
            .get_result::<Row>(&mut conn)
            .expect("a number")
            .n
    }

    /// Waits until a count is as wanted. Only for what leaves no event behind.
    pub(crate) async fn until_count(&self, query: &str, wanted: i64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.count(query);
            if seen == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{query}: {seen}, not {wanted}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A user with a token and an agent, talking to one server.
#[derive(Clone)]
pub(crate) struct User {
    pub id: String,
    pub token: String,
    pub address: String,
    pub agent_id: String,
    client: reqwest::Client,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            status,
            headers,
            body,
        }
    }

    /// That it is a 503 as it has to be: a problem that says when to come again.
    pub(crate) fn assert_unavailable(&self) {
        assert_eq!(self.status, 503, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert!(self.headers.contains_key("retry-after"), "{self:?}");
        assert_eq!(self.body["error"], "Service unavailable", "{self:?}");
    }
}

impl User {
    /// Whoever holds another token, otherwise the same.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// Another user, at the same server.
    pub(crate) fn with_ids(&self, id: &str, agent_id: &str) -> Self {
        Self {
            id: id.to_owned(),
            agent_id: agent_id.to_owned(),
            ..self.clone()
        }
    }

    /// The same user at another server.
    pub(crate) fn at(&self, server: &Server) -> Self {
        Self {
            address: server.address.clone(),
            ..self.clone()
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[]).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body.to_string()), &[])
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None, &[]).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let answer = self.try_send(method, path, body, headers).await;
        answer.expect("an answer")
    }

    /// As [`User::get`], where the connection may break.
    pub(crate) async fn try_get(&self, path: &str) -> reqwest::Result<Answer> {
        self.try_send(Method::GET, path, None, &[]).await
    }

    /// As [`User::call`], where the connection may break.
    pub(crate) async fn try_call(&self, n: u32) -> reqwest::Result<Answer> {
        let body = json!({"agentId": self.agent_id, "phoneNumber": number(n)}).to_string();
        self.try_send(Method::POST, "/api/calls/initiate", Some(body), &[])
            .await
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Answer> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.address))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(Answer::read(request.send().await?).await)
    }

    /// Asks for a direct call to the `n`-th of many valid numbers.
    pub(crate) async fn call(&self, n: u32) -> Answer {
        self.call_with(n, json!({})).await
    }

    /// As [`User::call`], with more fields.
    pub(crate) async fn call_with(&self, n: u32, more: Value) -> Answer {
        let mut body = json!({"agentId": self.agent_id, "phoneNumber": number(n)});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        self.post("/api/calls/initiate", body).await
    }

    /// A started campaign of so many contacts, which may call at any time.
    pub(crate) async fn campaign(&self, contacts: u32) -> String {
        self.campaign_from(contacts, "00:00", "00:00").await
    }

    /// A started campaign that may call every day from `first` to `last`, UTC.
    pub(crate) async fn campaign_from(&self, contacts: u32, first: &str, last: &str) -> String {
        let mut ids = Vec::new();
        for n in 0..contacts {
            let contact = self
                .post(
                    "/api/contacts",
                    json!({"phone_number": number(5_000 + n), "name": format!("Contact {n}")}),
                )
                .await;
            ids.push(contact.body["id"].clone());
        }
        let campaign = self
            .post(
                "/api/campaigns",
                json!({"name": "List", "agent_id": self.agent_id, "next_action": "call", "contact_ids": ids,
                    "first_call_time": first, "last_call_time": last, "start_date": "2026-01-01",
                    "campaign_timezone": "UTC"}),
            )
            .await;
        assert_eq!(campaign.status, 201, "{campaign:?}");
        let id = campaign.body["id"].as_str().expect("an id").to_owned();
        let started = self
            .post(&format!("/api/campaigns/{id}/start"), json!({}))
            .await;
        assert_eq!(started.status, 200, "{started:?}");
        id
    }
}

/// The `n`-th of 10,000 valid numbers.
pub(crate) fn number(n: u32) -> String {
    format!("+1415555{n:04}")
}
