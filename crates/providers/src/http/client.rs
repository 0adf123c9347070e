//! The HTTP client under the `http` provider: signs, sends once, reads a bounded answer, and tells
//! "nothing was sent" from "the answer was lost".

use std::time::Duration;

use callq_domain::Fence;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Body, Client, Method, RequestBuilder, StatusCode, Url, redirect, retry};
use uuid::Uuid;

use super::fenced::{FenceClosed, FencedBody};
use crate::webhook::WebhookSecret;
use crate::words::root_cause;

/// The longest answer read; the few fields needed take far less.
const MAX_ANSWER: usize = 64 * 1024;

/// The longest time spent on connecting. Not being able to connect proves that nothing was sent,
/// which is worth learning before the whole time is used up and the answer is "unknown".
const MAX_CONNECT: Duration = Duration::from_secs(5);

/// How long an unused connection is kept. Common servers close theirs after five seconds; a
/// request that meets such a closing has an unknown fate, so this side closes first.
const IDLE: Duration = Duration::from_secs(3);

/// The answer to one request.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, or what kept it from being read.
    pub(super) body: Result<Vec<u8>, String>,
}

/// Why there was no answer.
pub(super) enum Fault {
    /// There was never a connection to send anything over.
    NothingSent(String),
    /// It may have arrived.
    AnswerLost(String),
}

impl Fault {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::NothingSent(reason) | Self::AnswerLost(reason) => reason,
        }
    }
}

#[derive(Debug)]
pub(super) struct DialerClient {
    client: Client,
    secret: WebhookSecret,
}

impl DialerClient {
    pub(super) fn new(secret: WebhookSecret, timeout: Duration) -> Result<Self, String> {
        // What remains of hyper's own retrying is harmless: it hands a request to another
        // connection only while not a byte of it was written.
        let client = Client::builder()
            .user_agent(concat!("callq/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .http1_only()
            .no_proxy()
            .referer(false)
            .pool_idle_timeout(IDLE)
            .connect_timeout(MAX_CONNECT.min(timeout / 2))
            .timeout(timeout)
            .build()
            .map_err(|error| root_cause(&error))?;
        Ok(Self { client, secret })
    }

    /// Sends a signed JSON body, once, unless the fence is closed when there is a connection.
    pub(super) async fn post(
        &self,
        url: Url,
        message_id: &str,
        body: String,
        idempotency_key: &str,
        fence: Fence,
    ) -> Result<Answer, Fault> {
        let request = self
            .signed(Method::POST, url, message_id, &body)
            .header("Idempotency-Key", idempotency_key)
            .header(CONTENT_TYPE, "application/json");
        let (body, withheld) = FencedBody::new(body, fence);
        let answer = exchange(request.body(Body::wrap(body))).await;
        answer.map_err(|fault| {
            if withheld.is_so() {
                return Fault::NothingSent(FenceClosed.to_string());
            }
            fault
        })
    }

    /// Sends a signed request without a body, once.
    pub(super) async fn send(&self, method: Method, url: Url) -> Result<Answer, Fault> {
        let message_id = format!("msg_{}", Uuid::now_v7().simple());
        exchange(self.signed(method, url, &message_id, "")).await
    }

    fn signed(&self, method: Method, url: Url, message_id: &str, body: &str) -> RequestBuilder {
        let headers = self.secret.signed_headers(message_id, body);
        let request = self.client.request(method, url);
        headers.into_iter().fold(request, |request, (name, value)| {
            request.header(name, value)
        })
    }
}

async fn exchange(request: RequestBuilder) -> Result<Answer, Fault> {
    let response = request.send().await.map_err(fault)?;
    Ok(Answer {
        status: response.status(),
        headers: response.headers().clone(),
        body: bounded_body(response).await,
    })
}

async fn bounded_body(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => body.extend(chunk),
            Ok(Some(_)) => return Err(format!("its answer is longer than {MAX_ANSWER} bytes")),
            Ok(None) => return Ok(body),
            Err(error) if error.is_timeout() => return Err("its answer did not end in time".into()),
            Err(error) => return Err(format!("its answer broke off: {}", root_cause(&error))),
        }
    }
}

/// A connection that was never made, its name look-up and TLS handshake included, carried nothing.
/// After that, everything is possible.
fn fault(error: reqwest::Error) -> Fault {
    let cause = root_cause(&error);
    if error.is_connect() {
        Fault::NothingSent(format!("Provider is unreachable: {cause}"))
    } else if error.is_timeout() {
        Fault::AnswerLost("Provider did not answer in time".into())
    } else {
        Fault::AnswerLost(format!("Provider's answer was lost: {cause}"))
    }
}
