//! The `http` provider: bring your own dialer.
//!
//! Everything here serves one distinction: whether it is *proved* that nothing was dialled. The
//! client is therefore as plain as can be. It follows no redirects, retries nothing, speaks
//! HTTP/1.1 only and goes through no proxy: a proxy named in the environment could answer 429 or
//! 503 in the dialer's place after having passed the request on, and that answer is read as proof.

mod answer;
mod client;
mod fenced;
mod retry_after;

use std::time::Duration;

use async_trait::async_trait;
use callq_domain::{
    CallId, CallProvider, EventHeaders, EventRejection, ExecutionId, HangUpError, LookUp,
    Placement, PlacementRequest, ProviderName, StatusEvent,
};
use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use self::client::{DialerClient, Fault};
use crate::event;
use crate::webhook::WebhookSecret;

/// What the `http` provider needs to know.
#[derive(Debug, Clone)]
pub struct HttpProviderConfig {
    /// The dialer's address; `/calls` is appended to it. May hold a path and a user and password,
    /// which are sent as basic authentication.
    pub base_url: String,
    /// Signs requests to the dialer and proves its events.
    pub secret: WebhookSecret,
    /// Where the dialer reports: this server's `/api/webhooks/http`, as seen from the dialer.
    pub callback_url: String,
    /// The longest wait for an answer, connecting included. Half of it, and five seconds at most,
    /// may go into connecting.
    pub timeout: Duration,
}

/// Why a configuration cannot be used. Names the field, never its value: an address may hold a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpProviderError {
    /// An address that is none.
    #[error(
        "{field} must be an http or https address such as https://dialer.example.com, without `?` or `#`"
    )]
    Address {
        /// `base_url` or `callback_url`.
        field: &'static str,
    },
    /// No time to wait at all.
    #[error("timeout must be longer than 0")]
    Timeout,
    /// The TLS library could not be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(String),
}

/// A dialer spoken to over HTTP.
#[derive(Debug)]
pub struct HttpProvider {
    name: ProviderName,
    secret: WebhookSecret,
    base_url: Url,
    callback_url: String,
    client: DialerClient,
}

impl HttpProvider {
    /// The name agents use to choose it.
    pub const NAME: &str = "http";

    /// A provider that speaks to the dialer at `config.base_url`. Opens no connection yet.
    ///
    /// # Errors
    /// [`HttpProviderError`] naming the field at fault.
    pub fn new(config: HttpProviderConfig) -> Result<Self, HttpProviderError> {
        let base_url = http_address("base_url", &config.base_url)?;
        http_address("callback_url", &config.callback_url)?;
        if config.timeout.is_zero() {
            return Err(HttpProviderError::Timeout);
        }
        let client = DialerClient::new(config.secret.clone(), config.timeout)
            .map_err(HttpProviderError::Client)?;
        Ok(Self {
            name: crate::provider_name(Self::NAME),
            secret: config.secret,
            base_url,
            callback_url: config.callback_url,
            client,
        })
    }

    /// The address of `{base_url}/calls` and what follows, each segment percent-encoded.
    fn address<const N: usize>(&self, segments: [&str; N]) -> Url {
        let mut url = self.base_url.clone();
        // An http address always has a path to add to.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("calls").extend(segments);
        }
        url
    }
}

fn http_address(field: &'static str, text: &str) -> Result<Url, HttpProviderError> {
    let fault = || HttpProviderError::Address { field };
    let url = Url::parse(text.trim()).map_err(|_| fault())?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.has_host();
    if plain && matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(fault())
    }
}

/// The body of a placement, field for field as promised to dialers.
#[derive(Serialize)]
struct PlaceBody<'a> {
    call_id: Uuid,
    attempt: u32,
    to: &'a str,
    from: Option<&'a str>,
    call_type: &'a str,
    user_id: Uuid,
    agent_id: Uuid,
    provider_agent_id: Option<&'a str>,
    campaign_id: Option<Uuid>,
    contact_name: Option<&'a str>,
    user_data: Option<&'a RawValue>,
    status_callback: &'a str,
}

impl<'a> PlaceBody<'a> {
    fn new(request: &'a PlacementRequest, status_callback: &'a str) -> Self {
        Self {
            call_id: request.attempt.call_id.as_uuid(),
            attempt: request.attempt.number,
            to: request.to.as_str(),
            from: request.from.as_deref(),
            call_type: request.origin.call_type().as_str(),
            user_id: request.user_id.as_uuid(),
            agent_id: request.agent_id.as_uuid(),
            provider_agent_id: request.provider_agent_id.as_deref(),
            campaign_id: request.origin.campaign_id().map(Uuid::from),
            contact_name: request.contact_name.as_deref(),
            user_data: request.user_data.as_deref(),
            status_callback,
        }
    }
}

#[async_trait]
impl CallProvider for HttpProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    async fn place(&self, request: &PlacementRequest) -> Placement {
        let call_id = request.attempt.call_id.to_string();
        let body = match serde_json::to_string(&PlaceBody::new(request, &self.callback_url)) {
            Ok(body) => body,
            Err(error) => {
                return Placement::Refused {
                    reason: format!("the call cannot be written as JSON: {error}"),
                };
            }
        };
        // A second attempt at a call is another message, not a repeat of the first.
        let message_id = format!("{call_id}-{}", request.attempt.number);
        let answer = self
            .client
            .post(
                self.address([]),
                &message_id,
                body,
                &call_id,
                request.fence.clone(),
            )
            .await;
        match answer {
            Ok(answer) => answer::placement(&answer),
            Err(Fault::NothingSent(reason)) => Placement::Unreachable { reason },
            Err(Fault::AnswerLost(reason)) => Placement::Unknown { reason },
        }
    }

    async fn look_up(&self, call_id: CallId) -> LookUp {
        let url = self.address([&call_id.to_string()]);
        match self.client.send(Method::GET, url).await {
            Ok(answer) => answer::look_up(&answer),
            Err(fault) => LookUp::Unclear {
                reason: fault.into_reason(),
            },
        }
    }

    async fn hang_up(&self, execution_id: &ExecutionId) -> Result<(), HangUpError> {
        // An address cannot hold these as a segment, encoded or not: they mean "here" and "up".
        if matches!(execution_id.as_str(), "." | "..") {
            return Err(HangUpError::Failed(
                "its execution id cannot be part of an address".into(),
            ));
        }
        let url = self.address([execution_id.as_str(), "hangup"]);
        match self.client.send(Method::POST, url).await {
            Ok(answer) => answer::hang_up(&answer),
            Err(fault) => Err(HangUpError::Failed(fault.into_reason())),
        }
    }

    fn read_event(
        &self,
        headers: &dyn EventHeaders,
        body: &[u8],
    ) -> Result<StatusEvent, EventRejection> {
        self.secret.verify(headers, body)?;
        event::read(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(base_url: &str, callback_url: &str) -> HttpProviderConfig {
        HttpProviderConfig {
            base_url: base_url.into(),
            secret: "a secret".parse().expect("a secret"),
            callback_url: callback_url.into(),
            timeout: Duration::from_secs(1),
        }
    }

    fn provider(base_url: &str) -> HttpProvider {
        HttpProvider::new(config(base_url, "http://127.0.0.1:3001/api/webhooks/http"))
            .expect("a provider")
    }

    #[test]
    fn addresses_are_appended_to_the_base_and_encoded() {
        for base in ["http://dialer.test/v1", "http://dialer.test/v1/"] {
            let provider = provider(base);
            assert_eq!(provider.address([]).as_str(), "http://dialer.test/v1/calls");
            assert_eq!(
                provider.address(["a/b ?#%", "hangup"]).as_str(),
                "http://dialer.test/v1/calls/a%2Fb%20%3F%23%25/hangup"
            );
        }
        assert_eq!(
            provider("http://dialer.test").address(["x"]).as_str(),
            "http://dialer.test/calls/x"
        );
    }

    #[test]
    fn a_bad_address_is_named_but_not_shown() {
        let good = "http://dialer.test";
        for bad in [
            "",
            "dialer.test",
            "ftp://dialer.test",
            "http://u:pass@d.test/?x=1",
            "http://d/#f",
        ] {
            for (base, callback, field) in [(bad, good, "base_url"), (good, bad, "callback_url")] {
                let error = HttpProvider::new(config(base, callback)).expect_err(bad);
                assert_eq!(error, HttpProviderError::Address { field });
                assert!(!error.to_string().contains("pass"));
            }
        }
    }

    #[test]
    fn no_time_to_wait_is_refused() {
        let mut config = config("http://dialer.test", "http://callq.test");
        config.timeout = Duration::ZERO;
        assert_eq!(
            HttpProvider::new(config).err(),
            Some(HttpProviderError::Timeout)
        );
    }
}
