//! Those who really make calls, each behind the domain's [`CallProvider`] port: [`Simulator`], whose
//! calls live in this process, and [`HttpProvider`], which speaks to a dialer of your own over HTTP.
//! A further carrier is a further module.
//!
//! Both read status events in the same form, signed as Standard Webhooks with a [`WebhookSecret`].
//!
//! # Using it from another service
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use callq_domain::*;
//! use callq_providers::Simulator;
//! use tokio::sync::mpsc;
//!
//! /// Takes what happens to calls. callq's own writes it to the database.
//! struct Inbox(mpsc::UnboundedSender<StatusEvent>);
//!
//! #[async_trait]
//! impl EventSink for Inbox {
//!     async fn accept(&self, event: StatusEvent) -> Result<EventEffect, EventError> {
//!         let taken = self.0.send(event);
//!         taken.map_err(|_| EventError::Unavailable("nobody is listening".into()))?;
//!         Ok(EventEffect::Applied)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (inbox, mut events) = mpsc::unbounded_channel();
//! let provider: Arc<dyn CallProvider> = Arc::new(Simulator::new(Arc::new(Inbox(inbox)), None));
//!
//! let settings = r#"{"answer_after_ms": 5, "talk_ms": 5}"#.to_owned();
//! let answer = provider
//!     .place(&PlacementRequest {
//!         attempt: Attempt { call_id: CallId::new(), number: 1 },
//!         to: "+14155552671".parse()?,
//!         from: None,
//!         origin: Origin::Direct,
//!         user_id: UserId::new(),
//!         agent_id: AgentId::new(),
//!         provider_agent_id: None,
//!         settings: Some(serde_json::value::RawValue::from_string(settings)?),
//!         contact_name: None,
//!         user_data: None,
//!         fence: Fence::default(),
//!     })
//!     .await;
//! assert!(matches!(answer, Placement::Placed { .. }));
//!
//! for expected in ["ringing", "in-progress", "completed"] {
//!     let event = events.recv().await.ok_or("the simulator is gone")?;
//!     assert_eq!(event.status.as_str(), expected);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`CallProvider`]: callq_domain::CallProvider

mod event;
mod http;
mod simulator;
mod webhook;
mod words;

pub use http::{HttpProvider, HttpProviderConfig, HttpProviderError};
pub use simulator::Simulator;
pub use webhook::{WebhookSecret, WebhookSecretError};

#[expect(
    clippy::expect_used,
    reason = "the names are constants of this crate, and each provider's tests make one"
)]
fn provider_name(name: &'static str) -> callq_domain::ProviderName {
    callq_domain::ProviderName::new(name).expect("a provider name")
}
