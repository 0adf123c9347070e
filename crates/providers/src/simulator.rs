//! The `simulator` provider: calls that ring, talk and end inside this process.
//!
//! # Settings of an agent
//!
//! | field | value | default |
//! | --- | --- | --- |
//! | `answer_after_ms` | time until it is answered, or ends otherwise | 1000 |
//! | `talk_ms` | time from answer to end | 10000 |
//! | `outcome` | `completed`, `busy`, `no-answer`, `failed`, `cancelled`, or weights such as `{"completed": 0.8, "busy": 0.2}` | `completed` |
//! | `mode` | `timed`, or `manual`: up, silent, until a signed event or a hang-up ends it | `timed` |
//! | `place` | the answer to the placement: `placed`, `refused`, `busy`, `unreachable`, `unknown` (the call is up, its answer "lost"), or weights of these | `placed` |
//!
//! A time is a number of milliseconds (a day at most) or a distribution:
//! `{"distribution": "fixed", "ms"}`, `{"distribution": "uniform", "min_ms", "max_ms"}`,
//! `{"distribution": "normal", "mean_ms", "sd_ms"}` (cut off at 0),
//! `{"distribution": "lognormal", "median_ms", "sigma"}` or
//! `{"distribution": "exponential", "mean_ms"}`.
//!
//! Other names are passed over, so that an agent made for another provider can be tried here. A
//! value that cannot be read refuses the call and names the field.
//!
//! # What is reported
//!
//! `ringing` at once (not for `busy` and `failed`, nor when it is answered after 0 ms),
//! `in-progress` when it is answered, and its outcome at the end; outcomes other than `completed`
//! end it when it would have been answered. Each is reported until it is stored.
//!
//! # After a restart
//!
//! What happens to a call is a function of its id, its attempt and its agent's settings, so
//! [`CallProvider::resume`] goes on with what is left of it. If callq was down when it should have
//! been answered, it is answered now. A call that had not been recorded as placed died with its
//! process: a look-up proves it.

mod live;
mod plan;
mod settings;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use callq_domain::{
    Attempt, Call, CallId, CallProvider, CallStatus, EventHeaders, EventRejection, EventSink,
    ExecutionId, HangUpError, LookUp, Placement, PlacementRequest, ProviderName, StatusEvent,
};
use chrono::Utc;
use serde_json::value::RawValue;
use tokio::runtime::Handle;

use self::live::{LiveCalls, execution_id};
use self::plan::Plan;
use self::settings::{PlaceAnswer, Settings};
use crate::event;
use crate::webhook::WebhookSecret;

/// A provider whose calls live in this process.
pub struct Simulator {
    name: ProviderName,
    secret: Option<WebhookSecret>,
    calls: LiveCalls,
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").finish_non_exhaustive()
    }
}

impl Simulator {
    /// The name agents use to choose it.
    pub const NAME: &str = "simulator";

    /// A simulator that reports to `sink`. Without a secret no signed event is accepted, and a
    /// manual call ends by hanging up only.
    ///
    /// # Panics
    /// Outside a Tokio runtime. Its calls live in the runtime it is made in.
    #[must_use]
    pub fn new(sink: Arc<dyn EventSink>, secret: Option<WebhookSecret>) -> Self {
        Self {
            name: crate::provider_name(Self::NAME),
            secret,
            calls: LiveCalls::new(sink, Handle::current()),
        }
    }
}

#[async_trait]
impl CallProvider for Simulator {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    async fn place(&self, request: &PlacementRequest) -> Placement {
        if !request.fence.is_open() {
            return Placement::Unreachable {
                reason: "the server's lease was over before the call was put up".into(),
            };
        }
        let settings = match Settings::read(request.settings.as_deref()) {
            Ok(settings) => settings,
            Err(error) => {
                return Placement::Refused {
                    reason: format!("the agent's {error}"),
                };
            }
        };
        let plan = Plan::new(request.attempt, &settings);
        let up = || self.calls.start(request.attempt, plan.whole());
        match (plan.place, execution_id(request.attempt.call_id)) {
            (PlaceAnswer::Placed, Some(execution_id)) => {
                up();
                Placement::Placed { execution_id }
            }
            (PlaceAnswer::Placed, None) | (PlaceAnswer::Refused, _) => Placement::Refused {
                reason: "Provider refused the call (simulated)".into(),
            },
            (PlaceAnswer::Busy, _) => Placement::Busy {
                retry_after: None,
                reason: "Provider is busy (simulated)".into(),
            },
            (PlaceAnswer::Unreachable, _) => Placement::Unreachable {
                reason: "Provider is unreachable (simulated)".into(),
            },
            (PlaceAnswer::Unknown, _) => {
                up();
                Placement::Unknown {
                    reason: "Provider's answer was lost (simulated)".into(),
                }
            }
        }
    }

    async fn look_up(&self, call_id: CallId) -> LookUp {
        match (self.calls.status(call_id), execution_id(call_id)) {
            (Some(status), Some(execution_id)) => LookUp::Found {
                execution_id,
                status,
            },
            _ => LookUp::NotPlaced,
        }
    }

    async fn hang_up(&self, execution_id: &ExecutionId) -> Result<(), HangUpError> {
        let id = execution_id.as_str().strip_prefix("sim-");
        let call_id = id.and_then(|id| id.parse().ok());
        match call_id {
            Some(call_id) if self.calls.hang_up(call_id) => Ok(()),
            _ => Err(HangUpError::NotFound),
        }
    }

    fn read_event(
        &self,
        headers: &dyn EventHeaders,
        body: &[u8],
    ) -> Result<StatusEvent, EventRejection> {
        let Some(secret) = &self.secret else {
            return Err(EventRejection::Unauthentic(
                "this server has no secret to check a simulated event with".into(),
            ));
        };
        secret.verify(headers, body)?;
        let event = event::read(body)?;
        self.calls.note(event.call_id, event.status);
        Ok(event)
    }

    fn resume(&self, call: &Call, settings: Option<&RawValue>) {
        let proved = matches!(call.status, CallStatus::Ringing | CallStatus::InProgress);
        let was_placed = call.execution_id.is_some() && call.status != CallStatus::Reserved;
        if call.status.is_terminal() || !(proved || was_placed) {
            return;
        }
        let settings = Settings::read(settings).unwrap_or_else(|error| {
            log::warn!(call_id:% = call.id;
                "a simulated call goes on with the default settings: the agent's {error}");
            Settings::default()
        });
        let attempt = Attempt {
            call_id: call.id,
            number: call.attempts,
        };
        let plan = Plan::new(attempt, &settings);
        self.calls.start(attempt, plan.rest(call, Utc::now()));
    }
}
