//! One user's programme as a client of callq: plain HTTP with that user's token.

use std::time::Duration;

use anyhow::{Context, bail};
use callq_domain::{AgentId, CallId, CampaignId, ContactId, QueueItemId};
use chrono::{DateTime, Utc};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// A user's way into the API. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    address: String,
    token: String,
}

/// What callq answered to a click on "call".
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// 200: it is being dialled.
    Started(CallId),
    /// 202: it waits.
    Queued(Ticket),
}

/// A waiting call's place in line.
#[derive(Debug, PartialEq)]
pub(super) struct Ticket {
    pub(super) item: QueueItemId,
    pub(super) position: u64,
    pub(super) reason: String,
    /// Whole seconds that half and nine tenths of such waits stay under, once that is known.
    pub(super) wait: Option<(u64, u64)>,
}

/// A queue item's progress.
#[derive(Deserialize)]
pub(super) struct Item {
    pub(super) status: String,
    pub(super) queued_at: DateTime<Utc>,
    pub(super) started_at: Option<DateTime<Utc>>,
}

/// A limit and its use.
#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Slots {
    pub(super) limit: u64,
    pub(super) active: u64,
}

/// A user's queue at a glance.
#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Queue {
    pub(super) direct_calls: Count,
    pub(super) campaign_calls: Count,
    pub(super) limits: Limits,
}

#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Count {
    pub(super) queued: u64,
    pub(super) total: u64,
}

#[derive(Clone, Copy, Default, Deserialize)]
pub(super) struct Limits {
    pub(super) user: Slots,
    pub(super) system: Slots,
}

/// How far a campaign is.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Progress {
    pub(super) total: u64,
    pub(super) pending: u64,
    pub(super) queued: u64,
    pub(super) processing: u64,
}

impl Progress {
    /// Contacts that are accounted for.
    pub(super) fn done(&self) -> u64 {
        self.total - self.pending - self.queued - self.processing
    }
}

#[derive(Deserialize)]
struct Created {
    id: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Initiated {
    Started {
        #[serde(rename = "callId")]
        call_id: String,
        success: bool,
    },
    Queued {
        reason: String,
        queue: QueueTicket,
    },
}

#[derive(Deserialize)]
struct QueueTicket {
    id: String,
    position: u64,
    estimated_wait_seconds: Option<Quantiles>,
}

#[derive(Deserialize)]
struct Quantiles {
    p50: u64,
    p90: u64,
}

impl Client {
    /// A client of the server at `address`, an `http://` URL without a trailing slash.
    pub(super) fn new(address: &str, token: String) -> anyhow::Result<Self> {
        // The server is in this very process: a proxy meant for the Internet cannot reach it.
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            http,
            address: address.to_owned(),
            token,
        })
    }

    pub(super) async fn create_agent(
        &self,
        name: &str,
        settings: Value,
    ) -> anyhow::Result<AgentId> {
        let body = json!({"name": name, "provider": "simulator", "settings": settings});
        Ok(self.create("/api/agents", &body).await?.parse()?)
    }

    pub(super) async fn create_contact(
        &self,
        name: &str,
        phone: &str,
    ) -> anyhow::Result<ContactId> {
        let body = json!({"name": name, "phone_number": phone});
        Ok(self.create("/api/contacts", &body).await?.parse()?)
    }

    /// Makes a campaign that may call at any hour from today on.
    pub(super) async fn create_campaign(
        &self,
        name: &str,
        agent: AgentId,
        contacts: &[ContactId],
    ) -> anyhow::Result<CampaignId> {
        let body = json!({
            "name": name,
            "agent_id": agent.to_string(),
            "next_action": "call",
            "contact_ids": contacts.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "first_call_time": "00:00:00",
            "last_call_time": "00:00:00",
            "start_date": Utc::now().date_naive().to_string(),
            "campaign_timezone": "UTC",
        });
        Ok(self.create("/api/campaigns", &body).await?.parse()?)
    }

    pub(super) async fn start_campaign(&self, id: CampaignId) -> anyhow::Result<()> {
        let request = self
            .http
            .post(self.url(&format!("/api/campaigns/{id}/start")));
        self.send(request).await.map(drop)
    }

    /// A click on "call". `key` makes a repeated click the same click.
    pub(super) async fn initiate(
        &self,
        agent: AgentId,
        name: &str,
        phone: &str,
        key: Option<&str>,
    ) -> anyhow::Result<Answer> {
        let body =
            json!({"agentId": agent.to_string(), "phoneNumber": phone, "contact_name": name});
        let mut request = self.http.post(self.url("/api/calls/initiate")).json(&body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let response = self.send(request).await?;
        let status = response.status();
        match (status, response.json().await?) {
            (
                StatusCode::OK,
                Initiated::Started {
                    call_id,
                    success: true,
                },
            ) => Ok(Answer::Started(call_id.parse()?)),
            (StatusCode::ACCEPTED, Initiated::Queued { reason, queue }) => {
                Ok(Answer::Queued(Ticket {
                    item: queue.id.parse()?,
                    position: queue.position,
                    wait: queue
                        .estimated_wait_seconds
                        .map(|wait| (wait.p50, wait.p90)),
                    reason,
                }))
            }
            _ => bail!("POST /api/calls/initiate answered {status} with another status's body"),
        }
    }

    pub(super) async fn queue(&self) -> anyhow::Result<Queue> {
        self.read("/api/calls/queue/status").await
    }

    pub(super) async fn item(&self, id: QueueItemId) -> anyhow::Result<Item> {
        self.read(&format!("/api/queue/{id}")).await
    }

    pub(super) async fn progress(&self, id: CampaignId) -> anyhow::Result<Progress> {
        self.read(&format!("/api/campaigns/{id}/statistics")).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    async fn create(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let response = self.send(self.http.post(self.url(path)).json(body)).await?;
        Ok(response.json::<Created>().await?.id)
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send(self.http.get(self.url(path))).await?;
        response
            .json()
            .await
            .with_context(|| format!("{path} answered something else"))
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.bearer_auth(&self.token).send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let path = response.url().path().to_owned();
        bail!(
            "{path} answered {status}: {}",
            response.text().await.unwrap_or_default()
        )
    }
}
