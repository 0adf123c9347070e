//! The simulator as its callers see it, on a clock that the tests move.

#![expect(clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use callq_domain::{
    AgentId, Attempt, Call, CallId, CallProvider, CallStatus, EventEffect, EventError,
    EventHeaders, EventRejection, EventSink, ExecutionId, Fence, HangUpError, LookUp, Origin,
    Outcome, Placement, PlacementRequest, QueueItemId, ReportedStatus, StatusEvent, UserId,
};
use callq_providers::{Simulator, WebhookSecret};
use chrono::Utc;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Takes events, or refuses them as told first.
struct Sink {
    events: mpsc::UnboundedSender<(Duration, StatusEvent)>,
    faults: Mutex<VecDeque<EventError>>,
    start: Instant,
}

#[async_trait]
impl EventSink for Sink {
    async fn accept(&self, event: StatusEvent) -> Result<EventEffect, EventError> {
        if let Some(fault) = self.faults.lock().expect("no panic").pop_front() {
            return Err(fault);
        }
        self.events
            .send((self.start.elapsed(), event))
            .expect("a test that listens");
        Ok(EventEffect::Applied)
    }
}

struct Stage {
    simulator: Simulator,
    sink: Arc<Sink>,
    events: mpsc::UnboundedReceiver<(Duration, StatusEvent)>,
}

fn stage() -> Stage {
    let (sender, events) = mpsc::unbounded_channel();
    let sink = Arc::new(Sink {
        events: sender,
        faults: Mutex::default(),
        start: Instant::now(),
    });
    let simulator = Simulator::new(Arc::clone(&sink) as Arc<dyn EventSink>, Some(secret()));
    Stage {
        simulator,
        sink,
        events,
    }
}

impl Stage {
    async fn place(&self, settings: &Value) -> (CallId, Placement) {
        let request = request(settings);
        (
            request.attempt.call_id,
            self.simulator.place(&request).await,
        )
    }

    /// The next event: after how many milliseconds it came, and its status.
    async fn next(&mut self) -> (u128, &'static str) {
        let (after, event) = self.next_event().await;
        (after.as_millis(), event.status.as_str())
    }

    async fn next_event(&mut self) -> (Duration, StatusEvent) {
        let month = Duration::from_secs(30 * 86_400);
        let next = tokio::time::timeout(month, self.events.recv()).await;
        next.expect("an event within a month")
            .expect("a sink that is there")
    }

    /// Nothing happens for a day.
    async fn assert_silent(&mut self) {
        let day = Duration::from_secs(86_400);
        let next = tokio::time::timeout(day, self.events.recv()).await;
        assert!(next.is_err(), "{next:?}");
    }

    /// Takes a signed event of this status, as the webhook would.
    fn signed(&self, call_id: CallId, status: &str) -> Result<StatusEvent, EventRejection> {
        let body = json!({
            "event_id": "evt-1", "call_id": call_id.to_string(),
            "status": status, "occurred_at": "2030-01-31T12:00:00Z",
        })
        .to_string();
        let headers = Headers(secret().signed_headers("evt-1", &body));
        self.simulator.read_event(&headers, body.as_bytes())
    }
}

struct Headers([(&'static str, String); 3]);

impl EventHeaders for Headers {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn secret() -> WebhookSecret {
    "a secret for tests".parse().expect("a secret")
}

fn settings(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("JSON")
}

fn request(value: &Value) -> PlacementRequest {
    PlacementRequest {
        attempt: Attempt {
            call_id: CallId::new(),
            number: 1,
        },
        to: "+14155552671".parse().expect("a number"),
        from: None,
        origin: Origin::Direct,
        user_id: UserId::new(),
        agent_id: AgentId::new(),
        provider_agent_id: None,
        settings: Some(settings(value)),
        contact_name: None,
        user_data: None,
        fence: Fence::default(),
    }
}

fn execution_id(call_id: CallId) -> ExecutionId {
    ExecutionId::new(format!("sim-{call_id}")).expect("an id")
}

/// A call as another process left it, its slot reserved this long ago.
fn left_behind(status: CallStatus, reserved: Duration, answered: Option<Duration>) -> Call {
    let request = request(&json!({}));
    let call_id = request.attempt.call_id;
    Call {
        id: call_id,
        item_id: QueueItemId::new(),
        user_id: request.user_id,
        agent_id: request.agent_id,
        contact_id: None,
        origin: Origin::Direct,
        phone_number: request.to,
        contact_name: None,
        provider: callq_domain::ProviderName::new(Simulator::NAME).expect("a name"),
        execution_id: Some(execution_id(call_id)),
        status,
        reason: None,
        attempts: 1,
        reserved_at: Utc::now() - reserved,
        answered_at: answered.map(|ago| Utc::now() - ago),
        ended_at: None,
        duration_seconds: None,
    }
}

/// Whether a call resumed in real time a moment ago is as far on as it should be.
fn about(millis: u128, expected: u128) -> bool {
    (expected.saturating_sub(2_000)..=expected).contains(&millis)
}

#[tokio::test(start_paused = true)]
async fn a_call_rings_is_answered_and_ends_when_its_settings_say() {
    let mut stage = stage();
    let (call_id, placement) = stage
        .place(&json!({"answer_after_ms": 300, "talk_ms": 4_500}))
        .await;

    let execution_id = execution_id(call_id);
    assert_eq!(
        placement,
        Placement::Placed {
            execution_id: execution_id.clone()
        }
    );
    assert_eq!(stage.next().await, (0, "ringing"));
    assert_eq!(stage.next().await, (300, "in-progress"));
    let (after, end) = stage.next_event().await;
    assert_eq!(
        (after.as_millis(), end.status.as_str()),
        (4_800, "completed")
    );
    assert_eq!(end.duration_seconds, Some(4));
    assert_eq!(end.execution_id, Some(execution_id));
    assert_eq!(end.call_id, call_id);
}

#[tokio::test(start_paused = true)]
async fn without_settings_it_rings_a_second_and_talks_ten() {
    let mut stage = stage();
    let mut request = request(&json!({}));
    request.settings = None;
    stage.simulator.place(&request).await;
    assert_eq!(stage.next().await, (0, "ringing"));
    assert_eq!(stage.next().await, (1_000, "in-progress"));
    assert_eq!(stage.next().await, (11_000, "completed"));
}

#[tokio::test(start_paused = true)]
async fn other_outcomes_end_the_call_when_it_would_have_been_answered() {
    for (outcome, rings) in [
        ("busy", false),
        ("failed", false),
        ("no-answer", true),
        ("cancelled", true),
    ] {
        let mut stage = stage();
        stage
            .place(&json!({"answer_after_ms": 700, "outcome": outcome}))
            .await;
        if rings {
            assert_eq!(stage.next().await, (0, "ringing"));
        }
        let (after, end) = stage.next_event().await;
        assert_eq!((after.as_millis(), end.status.as_str()), (700, outcome));
        assert_eq!(end.duration_seconds, None);
    }
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_be_read_refuse_the_call_and_name_the_field() {
    let mut stage = stage();
    let (_, placement) = stage.place(&json!({"talk_ms": "long"})).await;
    let Placement::Refused { reason } = placement else {
        panic!("{placement:?}");
    };
    assert!(reason.contains("settings.talk_ms"), "{reason}");
    stage.assert_silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_placement_can_be_made_to_fail_in_every_way() {
    let mut stage = stage();
    let place = async |answer: &str| stage.place(&json!({"place": answer})).await;
    assert!(matches!(
        place("refused").await.1,
        Placement::Refused { .. }
    ));
    assert!(matches!(place("busy").await.1, Placement::Busy { .. }));
    assert!(matches!(
        place("unreachable").await.1,
        Placement::Unreachable { .. }
    ));
    stage.assert_silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_answer_is_lost_is_up_and_can_be_looked_up() {
    let mut stage = stage();
    let (call_id, placement) = stage.place(&json!({"place": "unknown"})).await;
    assert!(matches!(placement, Placement::Unknown { .. }));
    assert_eq!(stage.next().await.1, "ringing");
    assert_eq!(
        stage.simulator.look_up(call_id).await,
        LookUp::Found {
            execution_id: execution_id(call_id),
            status: ReportedStatus::Ringing,
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_nobody_placed_is_proved_not_placed() {
    let stage = stage();
    assert_eq!(
        stage.simulator.look_up(CallId::new()).await,
        LookUp::NotPlaced
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_placed_twice_is_up_once() {
    let mut stage = stage();
    let request = request(&json!({"answer_after_ms": 0, "talk_ms": 100}));
    let first = stage.simulator.place(&request).await;
    assert_eq!(stage.simulator.place(&request).await, first);
    assert_eq!(stage.next().await.1, "in-progress");
    assert_eq!(stage.next().await.1, "completed");
    stage.assert_silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_manual_call_stays_up_until_it_is_hung_up() {
    let mut stage = stage();
    let (call_id, _) = stage.place(&json!({"mode": "manual"})).await;
    stage.assert_silent().await;

    assert_eq!(
        stage.simulator.hang_up(&execution_id(call_id)).await,
        Ok(())
    );

    assert_eq!(stage.next().await.1, "cancelled");
    let again = stage.simulator.hang_up(&execution_id(call_id)).await;
    assert_eq!(again, Err(HangUpError::NotFound));
    stage.assert_silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_manual_call_ends_by_a_signed_event_and_reports_nothing_itself() {
    let mut stage = stage();
    let (call_id, _) = stage.place(&json!({"mode": "manual"})).await;

    stage.signed(call_id, "in-progress").expect("an event");
    let event = stage.signed(call_id, "busy").expect("an event");

    assert_eq!(event.status, ReportedStatus::Ended(Outcome::Busy));
    // Still known: the event may have to be sent again before it is stored.
    assert!(matches!(
        stage.simulator.look_up(call_id).await,
        LookUp::Found {
            status: ReportedStatus::Ended(Outcome::Busy),
            ..
        }
    ));
    let hung_up = stage.simulator.hang_up(&execution_id(call_id)).await;
    assert_eq!(hung_up, Err(HangUpError::NotFound));
    stage.assert_silent().await;
    assert_eq!(
        stage.simulator.look_up(call_id).await,
        LookUp::NotPlaced,
        "forgotten by now"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answered_call_that_is_hung_up_is_completed_with_its_talk_time() {
    let mut stage = stage();
    let (call_id, _) = stage
        .place(&json!({"answer_after_ms": 500, "talk_ms": 60_000}))
        .await;
    stage.next().await;
    assert_eq!(stage.next().await, (500, "in-progress"));
    tokio::time::advance(Duration::from_millis(3_200)).await;

    stage
        .simulator
        .hang_up(&execution_id(call_id))
        .await
        .expect("it is up");

    let (after, end) = stage.next_event().await;
    assert_eq!(
        (after.as_millis(), end.status.as_str()),
        (3_700, "completed")
    );
    assert_eq!(end.duration_seconds, Some(3));
    stage.assert_silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_ringing_call_that_is_hung_up_is_cancelled() {
    let mut stage = stage();
    let (call_id, _) = stage.place(&json!({})).await;
    assert_eq!(stage.next().await.1, "ringing");
    stage
        .simulator
        .hang_up(&execution_id(call_id))
        .await
        .expect("it is up");
    assert_eq!(stage.next().await, (0, "cancelled"));
    stage.assert_silent().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_simulated_call_cannot_be_hung_up() {
    let stage = stage();
    for id in [
        "sim-",
        "exec-1",
        "sim-not-a-call",
        &format!("sim-{}", CallId::new()),
    ] {
        let id = ExecutionId::new(id).expect("an id");
        assert_eq!(
            stage.simulator.hang_up(&id).await,
            Err(HangUpError::NotFound)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_signed_event_may_end_a_timed_call_too() {
    let mut stage = stage();
    let (call_id, _) = stage.place(&json!({})).await;
    assert_eq!(stage.next().await.1, "ringing");
    stage.signed(call_id, "failed").expect("an event");
    stage.assert_silent().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_secret_or_a_good_signature_is_refused() {
    let mut stage = stage();
    let (call_id, _) = stage.place(&json!({"mode": "manual"})).await;
    let headers = Headers(secret().signed_headers("evt-1", "something else"));
    let rejected = stage.simulator.read_event(&headers, b"{}");
    assert!(matches!(rejected, Err(EventRejection::Unauthentic(_))));

    stage.simulator = Simulator::new(Arc::clone(&stage.sink) as Arc<dyn EventSink>, None);
    let rejected = stage.signed(call_id, "completed");
    assert!(matches!(rejected, Err(EventRejection::Unauthentic(_))));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_repeated_until_it_is_stored_and_never_overtaken() {
    let mut stage = stage();
    let unavailable = || EventError::Unavailable("no database".into());
    stage
        .sink
        .faults
        .lock()
        .expect("no panic")
        .extend((0..30).map(|_| unavailable()));

    stage
        .place(&json!({"answer_after_ms": 100, "talk_ms": 100}))
        .await;

    let (ringing, status) = stage.next().await;
    assert_eq!(status, "ringing");
    // Thirty pauses that grow to five seconds, each up to twice as long by its jitter.
    assert!((100_000..320_000).contains(&ringing), "{ringing}");
    assert_eq!(stage.next().await.1, "in-progress");
    assert_eq!(stage.next().await.1, "completed");
}

#[tokio::test(start_paused = true)]
async fn an_event_of_a_call_nobody_knows_is_given_up() {
    let mut stage = stage();
    let request = request(&json!({"answer_after_ms": 0, "talk_ms": 100}));
    let call_id = request.attempt.call_id;
    stage
        .sink
        .faults
        .lock()
        .expect("no panic")
        .push_back(EventError::UnknownCall(call_id));
    stage.simulator.place(&request).await;
    assert_eq!(stage.next().await, (100, "completed"), "the one after it");
}

#[tokio::test(start_paused = true)]
async fn a_ringing_call_goes_on_with_the_time_it_has_left() {
    let mut stage = stage();
    let plan = settings(&json!({"answer_after_ms": 60_000, "talk_ms": 30_000}));
    let call = left_behind(CallStatus::Ringing, Duration::from_secs(40), None);

    stage.simulator.resume(&call, Some(&plan));

    let (answered, status) = stage.next().await;
    assert_eq!(status, "in-progress", "it rang before");
    assert!(about(answered, 20_000), "{answered}");
    assert_eq!(stage.next().await, (answered + 30_000, "completed"));
}

#[tokio::test(start_paused = true)]
async fn an_answered_call_goes_on_talking_and_its_talk_time_counts_from_its_answer() {
    let mut stage = stage();
    let plan = settings(&json!({"talk_ms": 60_000, "outcome": "busy"}));
    let (reserved, answered) = (Duration::from_secs(50), Duration::from_secs(45));
    let call = left_behind(CallStatus::InProgress, reserved, Some(answered));

    stage.simulator.resume(&call, Some(&plan));

    let (after, end) = stage.next_event().await;
    assert_eq!(
        end.status.as_str(),
        "completed",
        "it was answered, whatever was planned"
    );
    assert!(about(after.as_millis(), 15_000), "{after:?}");
    let talked = end.duration_seconds.expect("a talk time");
    assert!((14..=60).contains(&talked), "{talked}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_should_be_over_by_now_ends_at_once() {
    let mut stage = stage();
    let hour = Duration::from_secs(3_600);
    let call = left_behind(CallStatus::InProgress, hour, Some(hour));
    stage.simulator.resume(&call, None);
    assert_eq!(stage.next().await, (0, "completed"));
}

#[tokio::test(start_paused = true)]
async fn the_same_call_resumed_draws_the_same_times_as_when_it_was_placed() {
    let mut stage = stage();
    let drawn = json!({
        "answer_after_ms": {"distribution": "uniform", "min_ms": 100_000, "max_ms": 900_000},
        "talk_ms": {"distribution": "exponential", "mean_ms": 600_000},
    });
    let mut call = left_behind(CallStatus::Dialing, Duration::ZERO, None);
    stage.simulator.resume(&call, Some(&settings(&drawn)));
    let mut resumed = Vec::new();
    for _ in 0..3 {
        resumed.push(stage.next().await);
    }

    let mut again = self::stage();
    let mut request = request(&drawn);
    request.attempt.call_id = call.id;
    again.simulator.place(&request).await;
    for (at, status) in resumed {
        let (placed_at, placed_status) = again.next().await;
        assert_eq!(status, placed_status);
        assert!(about(at, placed_at), "{at} {placed_at}");
    }

    // Another call draws other times.
    call.id = CallId::new();
    let mut other = self::stage();
    other.simulator.resume(&call, Some(&settings(&drawn)));
    other.next().await;
    assert!(!about(
        other.next().await.0,
        again.sink.start.elapsed().as_millis()
    ));
}

#[tokio::test(start_paused = true)]
async fn a_manual_call_goes_on_waiting_and_is_completed_if_it_was_answered() {
    let mut stage = stage();
    let manual = settings(&json!({"mode": "manual"}));
    let minute = Duration::from_secs(60);
    let call = left_behind(
        CallStatus::InProgress,
        minute,
        Some(Duration::from_secs(30)),
    );
    stage.simulator.resume(&call, Some(&manual));
    stage.assert_silent().await;

    stage
        .simulator
        .hang_up(&execution_id(call.id))
        .await
        .expect("it is up");
    assert_eq!(stage.next().await.1, "completed");
}

#[tokio::test(start_paused = true)]
async fn calls_that_ended_or_were_never_placed_are_not_resumed() {
    let mut stage = stage();
    let second = Duration::from_secs(1);
    let mut never_placed = left_behind(CallStatus::Dialing, second, None);
    never_placed.execution_id = None;
    let ended = left_behind(CallStatus::Ended(Outcome::Busy), second, None);
    for call in [
        never_placed,
        ended,
        left_behind(CallStatus::Reserved, second, None),
    ] {
        stage.simulator.resume(&call, None);
    }
    stage.assert_silent().await;
}
