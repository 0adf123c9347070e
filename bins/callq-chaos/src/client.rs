//! A client of callq as good clients are: it gives a request a key, sends it to any server, and
//! sends it again until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::notes::{Accepted, Notes, Promise, Span};
use crate::people::User;

/// Longest wait for one answer. A server that is asleep gives none.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest that a server that is awake may take: eleven seconds, and the machine is busy.
const BOUND: TimeDelta = TimeDelta::seconds(15);

/// What a request is counted as that has no answer in the end.
pub(crate) const GIVEN_UP: &str = "direct calls given up";

/// What all clients share.
pub(crate) struct World {
    pub http: reqwest::Client,
    pub servers: Vec<String>,
    pub notes: Arc<Notes>,
    /// Set when nothing new is to be asked for.
    pub over: AtomicBool,
    /// Set when what has no answer yet will get none.
    pub given_up: AtomicBool,
}

impl World {
    pub(crate) fn new(servers: Vec<String>, notes: &Arc<Notes>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()?,
            servers,
            notes: Arc::clone(notes),
            over: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        }))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// One user's client.
pub(crate) struct Client {
    pub world: Arc<World>,
    pub user: User,
    pub dice: StdRng,
}

/// An answer that is one.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

impl Client {
    pub(crate) fn new(world: &Arc<World>, user: &User, seed: u64) -> Self {
        Self {
            world: Arc::clone(world),
            user: user.clone(),
            dice: StdRng::seed_from_u64(seed),
        }
    }

    /// A pause of this length on average, spread as those of people are.
    pub(crate) async fn pause(&mut self, mean: Duration) {
        let spread = -f64::ln(1.0 - self.dice.random::<f64>());
        tokio::time::sleep(mean.mul_f64(spread.min(5.0))).await;
    }

    /// Sends a request to any server until one answers it. `None`: it was given up.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Answer> {
        while !self.world.given_up.load(Ordering::Relaxed) {
            match self.send_once(method.clone(), path, key, body).await {
                Some(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                    self.world.notes.count("answers 503");
                }
                // Its server slept while it came, and read nothing of it.
                Some(answer) if answer.status == StatusCode::REQUEST_TIMEOUT => {
                    self.world
                        .notes
                        .count("answers 408 of servers that woke up");
                }
                // The same request is still on its way, or was when its server was killed.
                Some(answer) if answer.status == StatusCode::CONFLICT && key.is_some() => {
                    self.world.notes.count("answers 409, still running");
                }
                Some(answer) => return Some(answer),
                None => self.world.notes.count("requests without an answer"),
            }
            let pause = Duration::from_millis(self.dice.random_range(50..400));
            tokio::time::sleep(pause).await;
        }
        None
    }

    async fn send_once(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Option<Answer> {
        let server = self.world.servers.choose(&mut self.dice)?;
        let mut request = self
            .world
            .http
            .request(method, format!("{server}{path}"))
            .bearer_auth(&self.user.token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let began = Utc::now();
        let response = request.send().await.ok()?;
        let status = response.status();
        let retry_after = response.headers().contains_key("retry-after");
        let text = response.text().await.ok()?;
        let notes = &self.world.notes;
        let ended = Utc::now();
        if ended - began > BOUND {
            notes.slow(Span {
                server: server.clone(),
                from: began,
                to: ended,
            });
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR
            || (status == StatusCode::SERVICE_UNAVAILABLE && !retry_after)
        {
            let how = format!("{path} answered {status}: {text}");
            notes.broken(Promise::HonestAnswers, how);
        }
        Some(Answer {
            status,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        })
    }

    /// Asks for a direct call now and then until the storm is over.
    pub(crate) async fn ask_for_calls(mut self, mean: Duration) {
        loop {
            self.pause(mean).await;
            if self.world.is_over() {
                return;
            }
            self.ask_for_call().await;
        }
    }

    async fn ask_for_call(&mut self) {
        let number = self.dice.random_range(0..10_000);
        let mut body = json!({
            "agentId": self.user.agent_id,
            "phoneNumber": format!("+1415555{number:04}"),
        });
        let kind = self.dice.random_range(0..100);
        match kind {
            0..6 => body["expires_in"] = json!(self.dice.random_range(1..5)),
            6..12 => {
                let ahead = TimeDelta::milliseconds(self.dice.random_range(500..3_000));
                body["scheduled_for"] = json!((Utc::now() + ahead).to_rfc3339());
            }
            _ => {}
        }
        let key = Uuid::new_v4().to_string();
        let asked = self
            .send(Method::POST, "/api/calls/initiate", Some(&key), Some(&body))
            .await;
        let Some(answer) = asked else {
            self.world.notes.count(GIVEN_UP);
            return;
        };
        let Some(mut accepted) = self.accepted(&answer, kind >= 12) else {
            return;
        };
        self.world.notes.count("direct calls accepted");
        accepted.expires = kind < 6;
        if let (Some(item), 12..20) = (accepted.item, kind) {
            accepted.cancelling = true;
            accepted.cancelled = self.cancel(item).await;
        }
        self.world.notes.accepted(accepted);
    }

    fn accepted(&self, answer: &Answer, plain: bool) -> Option<Accepted> {
        let id = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        let accepted = Accepted {
            user: self.user.id,
            item: id(&answer.body["queue"]["id"]),
            call: id(&answer.body["callId"]),
            at: Utc::now(),
            cancelling: false,
            cancelled: false,
            expires: false,
            plain,
        };
        let named = accepted.item.is_some() || accepted.call.is_some();
        // An item that expired before a repeat was answered is named by its address alone.
        let over = answer.body["status_url"].is_string();
        match answer.status.as_u16() {
            200 | 202 | 502 if named => Some(accepted),
            202 if over => {
                let url = answer.body["status_url"].as_str().unwrap_or_default();
                Some(Accepted {
                    item: url.rsplit('/').next().and_then(|id| id.parse().ok()),
                    ..accepted
                })
            }
            _ => {
                let how = format!("a direct call was answered {answer:?}");
                self.world.notes.broken(Promise::HonestAnswers, how);
                None
            }
        }
    }

    /// Whether the cancellation was confirmed.
    async fn cancel(&mut self, item: Uuid) -> bool {
        self.pause(Duration::from_millis(500)).await;
        let path = format!("/api/queue/{item}");
        let Some(answer) = self.send(Method::DELETE, &path, None, None).await else {
            return false;
        };
        match answer.status.as_u16() {
            200 => {
                self.world.notes.count("cancellations confirmed");
                true
            }
            // The first answer to the same wish was lost.
            409 => answer.body["status"] == "cancelled",
            _ => {
                let how = format!("a cancellation was answered {answer:?}");
                self.world.notes.broken(Promise::HonestAnswers, how);
                false
            }
        }
    }
}
