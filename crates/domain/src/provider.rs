//! The provider port: what callq needs of a carrier or voice platform, and what each answer means.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::{
    AgentId, Attempt, Call, CallId, ExecutionId, Origin, PhoneNumber, QueueItemId, ReportedStatus,
    StatusEvent, UserId,
};

/// A provider's short name, such as `simulator` or `http`: 1 to 32 of `a-z`, `0-9`, `-`, `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderName(Arc<str>);

impl ProviderName {
    /// A name, if it is one.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let well_formed = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        well_formed.then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A reserved call: it holds a slot, and this server owns the right to place this attempt.
#[derive(Debug, Clone)]
pub struct ReservedCall {
    /// The item it serves.
    pub item_id: QueueItemId,
    /// The provider of its agent.
    pub provider: ProviderName,
    /// What the provider is told.
    pub request: PlacementRequest,
}

/// What a provider is told when it is asked to place a call.
#[derive(Debug, Clone)]
pub struct PlacementRequest {
    /// The call and which try this is.
    pub attempt: Attempt,
    /// The number to dial.
    pub to: PhoneNumber,
    /// The caller id to show, if one was chosen.
    pub from: Option<String>,
    /// Direct or campaign.
    pub origin: Origin,
    /// Whose call it is.
    pub user_id: UserId,
    /// Who will talk.
    pub agent_id: AgentId,
    /// The agent's name at the provider.
    pub provider_agent_id: Option<String>,
    /// The agent's settings, as stored.
    pub settings: Option<Box<RawValue>>,
    /// The name of the person called.
    pub contact_name: Option<String>,
    /// The caller's own data, passed through.
    pub user_data: Option<Box<RawValue>>,
    /// Whether it may still be sent.
    pub fence: Fence,
}

/// Says whether an attempt may still be sent to its provider.
///
/// A server that was stopped for a while, by its machine or by a debugger, goes on in the middle of
/// what it was doing, while others have taken over and asked the provider about its calls. So a
/// provider asks at the last moment before a request leaves, after it has connected, and sends
/// nothing if the answer is no.
///
/// ```
/// use callq_domain::Fence;
///
/// assert!(Fence::default().is_open());
/// assert!(!Fence::new(|| false).is_open());
/// ```
#[derive(Clone)]
pub struct Fence(Arc<dyn Fn() -> bool + Send + Sync>);

impl Fence {
    /// A fence that is open as long as `is_open` says so; it may be asked on any thread.
    pub fn new(is_open: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_open))
    }

    /// Whether the attempt may be sent now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        (self.0)()
    }
}

/// Always open.
impl Default for Fence {
    fn default() -> Self {
        Self::new(|| true)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fence").field(&self.is_open()).finish()
    }
}

/// What became of a placement.
///
/// The difference that matters: `Busy` and `Unreachable` prove that nothing was dialled, so the
/// call may be tried again; `Unknown` proves nothing, so it may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The provider took the call.
    Placed {
        /// Its name for it.
        execution_id: ExecutionId,
    },
    /// The provider refused it for good.
    Refused {
        /// Its words.
        reason: String,
    },
    /// The provider has no room now. Nothing was dialled.
    Busy {
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
        /// Its words.
        reason: String,
    },
    /// The request never left. Nothing was dialled.
    Unreachable {
        /// Why.
        reason: String,
    },
    /// The request may have arrived, its answer did not.
    Unknown {
        /// What was seen.
        reason: String,
    },
}

/// What a provider knows of a call whose placement's answer was lost, or whose end never came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookUp {
    /// It has the call.
    Found {
        /// Its name for it.
        execution_id: ExecutionId,
        /// Where it stands.
        status: ReportedStatus,
    },
    /// It proves that it does not have the call.
    NotPlaced,
    /// It could not say. Ask again later.
    Unclear {
        /// What was seen.
        reason: String,
    },
}

/// Why a hang-up did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HangUpError {
    /// The provider does not know the call, or it is over.
    #[error("the provider has no such call up")]
    NotFound,
    /// The provider could not be asked, or did not say yes.
    #[error("the provider could not end the call: {0}")]
    Failed(String),
}

/// Why a status event was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventRejection {
    /// No signature, a wrong one, or one outside the time allowed.
    #[error("the signature is missing, wrong or stale: {0}")]
    Unauthentic(String),
    /// Signed well, but not an event.
    #[error("the event cannot be read: {0}")]
    Malformed(String),
}

/// Request headers as a provider sees them: a case-insensitive look-up.
pub trait EventHeaders: Send + Sync {
    /// The value of a header, if it is there and text.
    fn get(&self, name: &str) -> Option<&str>;
}

/// A carrier or voice platform.
///
/// # Contract
/// * `place` sends at most one request for the attempt it is given: no retries, no redirects.
///   It answers `Busy` or `Unreachable` only with proof that nothing was dialled; in doubt it
///   answers `Unknown`. It may take as long as it likes: its caller bounds it and treats a
///   time-out as `Unknown`.
/// * `look_up` answers `NotPlaced` only with the provider's proof.
/// * No method blocks its thread, and none panics on what the far side sends.
#[async_trait]
pub trait CallProvider: Send + Sync {
    /// The name agents use to choose it.
    fn name(&self) -> &ProviderName;

    /// Asks the provider to dial. Nothing may be sent once the request's [`Fence`] is closed, which
    /// is proof that nothing was dialled: [`Placement::Unreachable`].
    async fn place(&self, request: &PlacementRequest) -> Placement;

    /// Asks the provider what it knows of a call.
    async fn look_up(&self, call_id: CallId) -> LookUp;

    /// Asks the provider to end a call.
    ///
    /// # Errors
    /// [`HangUpError`] when the call is not up or the provider did not agree. The slot is freed by
    /// the terminal event that follows, never by this answer.
    async fn hang_up(&self, execution_id: &ExecutionId) -> Result<(), HangUpError>;

    /// Checks the signature of a status event and reads it.
    ///
    /// # Errors
    /// [`EventRejection`] for a bad signature or body.
    fn read_event(
        &self,
        headers: &dyn EventHeaders,
        body: &[u8],
    ) -> Result<StatusEvent, EventRejection>;

    /// Told of each call in progress that this server took over from one that is gone. Providers
    /// whose calls live elsewhere need nothing; one whose calls live in the process goes on here.
    fn resume(&self, call: &Call, settings: Option<&RawValue>) {
        let _ = (call, settings);
    }
}

/// Where a provider that lives in the process reports what happens to its calls.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Makes the event durable and acts on it.
    ///
    /// # Errors
    /// [`EventError`]; after [`EventError::Unavailable`] the same event may be sent again.
    async fn accept(&self, event: StatusEvent) -> Result<EventEffect, EventError>;
}

/// What an accepted event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventEffect {
    /// The call changed.
    Applied,
    /// It was a repeat, or came too late to change anything.
    Ignored,
}

/// Why an event had no effect that lasts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// No call has this id.
    #[error("no call {0} is known")]
    UnknownCall(CallId),
    /// It could not be made durable now.
    #[error("the event could not be stored: {0}")]
    Unavailable(String),
}

/// The providers a server knows, by name, and the one used by agents that name none.
#[derive(Clone)]
pub struct Providers {
    by_name: BTreeMap<ProviderName, Arc<dyn CallProvider>>,
}

impl Providers {
    /// A registry of these providers. A later one replaces an earlier one of the same name.
    #[must_use]
    pub fn new(providers: impl IntoIterator<Item = Arc<dyn CallProvider>>) -> Self {
        let by_name = providers
            .into_iter()
            .map(|provider| (provider.name().clone(), provider))
            .collect();
        Self { by_name }
    }

    /// The provider of this name.
    #[must_use]
    pub fn get(&self, name: &ProviderName) -> Option<&Arc<dyn CallProvider>> {
        self.by_name.get(name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &ProviderName> {
        self.by_name.keys()
    }
}
