//! The `http` provider against a real socket: each row of the contract's table, and what is sent.

#![expect(clippy::expect_used, reason = "tests fail by panicking")]

mod scripted_dialer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callq_domain::{
    AgentId, Attempt, CallId, CallProvider, CampaignId, EventHeaders, EventRejection, ExecutionId,
    Fence, HangUpError, LookUp, Origin, Outcome, Placement, PlacementRequest, ReportedStatus,
    UserId,
};
use callq_providers::{HttpProvider, HttpProviderConfig, WebhookSecret};
use scripted_dialer::{Request, Script, ScriptedDialer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A host no resolver can find: a label may have 63 characters. Found out without a network.
const NOWHERE: &str =
    "http://a-label-that-is-longer-than-the-sixty-three-characters-allowed-in-dns.invalid";

const CALLBACK: &str = "http://127.0.0.1:3001/api/webhooks/http";

fn secret() -> WebhookSecret {
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        .parse()
        .expect("a secret")
}

/// Waits this long for an answer that is meant to come.
const PATIENT: Duration = Duration::from_secs(30);
/// Waits this long for an answer that never comes.
const BRIEF: Duration = Duration::from_millis(1_500);

fn provider(base_url: &str, timeout: Duration) -> HttpProvider {
    HttpProvider::new(HttpProviderConfig {
        base_url: base_url.into(),
        secret: secret(),
        callback_url: CALLBACK.into(),
        timeout,
    })
    .expect("a provider")
}

fn request() -> PlacementRequest {
    PlacementRequest {
        attempt: Attempt {
            call_id: CallId::new(),
            number: 2,
        },
        to: "+14155552671".parse().expect("a number"),
        from: Some("+14155550100".into()),
        origin: Origin::Direct,
        user_id: UserId::new(),
        agent_id: AgentId::new(),
        provider_agent_id: None,
        settings: None,
        contact_name: Some("Zoë".into()),
        user_data: Some(RawValue::from_string(r#"{"b":1.50,"a":"x"}"#.into()).expect("JSON")),
        fence: Fence::default(),
    }
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn says(status: &str, headers: &str, body: &str) -> Script {
    Script::Say(response(status, headers, body))
}

/// Places one call with a dialer that follows `script`, and proves that it was asked once only.
async fn placed_with(script: Script, timeout: Duration) -> Placement {
    let dialer = ScriptedDialer::start(script).await;
    let placement = provider(&dialer.url(), timeout).place(&request()).await;
    assert_eq!(dialer.requests().len(), 1, "exactly one request");
    placement
}

/// Headers as they arrived.
struct Arrived(Request);

impl EventHeaders for Arrived {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.header(name)
    }
}

fn assert_signed(request: &Request) {
    let verdict = secret().verify(&Arrived(request.clone()), request.body.as_bytes());
    assert_eq!(verdict, Ok(()), "{}", request.head);
}

#[tokio::test]
async fn a_placement_says_all_that_was_promised_to_dialers_and_is_signed() {
    let dialer = ScriptedDialer::start(says("201 Created", "", r#"{"execution_id":"e-1"}"#)).await;
    let campaign = CampaignId::new();
    let mut request = request();
    request.origin = Origin::Campaign(campaign);

    let placement = provider(&dialer.url(), PATIENT).place(&request).await;

    let execution_id = ExecutionId::new("e-1").expect("an id");
    assert_eq!(placement, Placement::Placed { execution_id });
    let [sent] = &dialer.requests()[..] else {
        panic!("not one request");
    };
    assert_eq!(sent.line(), "POST /calls HTTP/1.1");
    let call_id = request.attempt.call_id.to_string();
    assert_eq!(sent.header("idempotency-key"), Some(call_id.as_str()));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_signed(sent);
    assert_eq!(
        serde_json::from_str::<Value>(&sent.body).expect("JSON"),
        json!({
            "call_id": call_id,
            "attempt": 2,
            "to": "+14155552671",
            "from": "+14155550100",
            "call_type": "campaign",
            "user_id": request.user_id.to_string(),
            "agent_id": request.agent_id.to_string(),
            "provider_agent_id": null,
            "campaign_id": campaign.to_string(),
            "contact_name": "Zoë",
            "user_data": {"b": 1.50, "a": "x"},
            "status_callback": CALLBACK,
        })
    );
    assert!(
        sent.body.contains(r#"{"b":1.50,"a":"x"}"#),
        "user data passes through unchanged"
    );
}

#[tokio::test]
async fn nothing_is_sent_once_the_fence_is_closed_and_it_is_asked_only_when_connected() {
    let dialer = ScriptedDialer::start(says("201 Created", "", r#"{"execution_id":"e-1"}"#)).await;
    let asked = Arc::new(AtomicBool::new(false));
    let fenced = || {
        let asked = Arc::clone(&asked);
        PlacementRequest {
            fence: Fence::new(move || {
                asked.store(true, Ordering::SeqCst);
                false
            }),
            ..request()
        }
    };

    let nowhere = provider(NOWHERE, PATIENT).place(&fenced()).await;
    let asked_without_connection = asked.load(Ordering::SeqCst);
    let placement = provider(&dialer.url(), PATIENT).place(&fenced()).await;

    assert!(matches!(nowhere, Placement::Unreachable { .. }));
    assert!(!asked_without_connection);
    assert!(asked.load(Ordering::SeqCst));
    assert!(
        matches!(&placement, Placement::Unreachable { reason } if reason.contains("lease")),
        "{placement:?}"
    );
    assert!(dialer.requests().is_empty());
}

#[tokio::test]
async fn each_attempt_at_a_call_is_a_message_of_its_own() {
    let dialer = ScriptedDialer::start(says("429 Too Many Requests", "", "")).await;
    let provider = provider(&dialer.url(), PATIENT);
    let mut request = request();

    provider.place(&request).await;
    request.attempt.number += 1;
    provider.place(&request).await;

    let sent = dialer.requests();
    assert_ne!(sent[0].header("webhook-id"), sent[1].header("webhook-id"));
    assert_eq!(
        sent[0].header("idempotency-key"),
        sent[1].header("idempotency-key")
    );
}

#[tokio::test]
async fn a_4xx_refuses_for_good_with_the_dialers_words() {
    let body = r#"{"error": "number is barred"}"#;
    for status in [
        "400 Bad Request",
        "401 Unauthorized",
        "404 Not Found",
        "422 Unprocessable",
    ] {
        let placement = placed_with(says(status, "", body), PATIENT).await;
        let Placement::Refused { reason } = placement else {
            panic!("{status}: {placement:?}");
        };
        assert!(
            reason.contains(&status[..3]) && reason.ends_with("number is barred"),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn a_429_or_503_is_busy_for_as_long_as_it_says() {
    let date =
        "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:07 GMT\r\n";
    let cases = [
        ("429 Too Many Requests", "", None),
        ("429 Too Many Requests", "retry-after: 7\r\n", Some(7)),
        ("503 Service Unavailable", "", None),
        ("503 Service Unavailable", date, Some(30)),
        (
            "503 Service Unavailable",
            "retry-after: 999999\r\n",
            Some(3_600),
        ),
        ("503 Service Unavailable", "retry-after: soon\r\n", None),
    ];
    for (status, headers, seconds) in cases {
        let placement = placed_with(says(status, headers, ""), PATIENT).await;
        let Placement::Busy {
            retry_after,
            reason,
        } = placement
        else {
            panic!("{status}: {placement:?}");
        };
        assert_eq!(retry_after, seconds.map(Duration::from_secs), "{headers}");
        assert!(reason.starts_with("Provider is busy"), "{reason}");
    }
}

#[tokio::test]
async fn answers_that_prove_nothing_are_unknown() {
    let statuses = [
        "408 Request Timeout",
        "409 Conflict",
        "425 Too Early",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "504 Gateway Timeout",
    ];
    for status in statuses {
        let placement = placed_with(says(status, "", "{}"), PATIENT).await;
        assert!(
            matches!(placement, Placement::Unknown { .. }),
            "{status}: {placement:?}"
        );
    }
}

#[tokio::test]
async fn a_2xx_that_cannot_be_read_is_unknown() {
    // Whole and well formed, but longer than is read.
    let padding = "x".repeat(70_000);
    let huge = format!(r#"{{"padding": "{padding}", "execution_id": "e"}}"#);
    let scripts = [
        says("200 OK", "", "certainly!"),
        says("200 OK", "", r#"{"execution_id": null}"#),
        says("204 No Content", "", ""),
        Script::Say("HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"execution_id\":".into()),
        Script::Say("SMTP ready\r\n\r\n".into()),
        says("200 OK", "", &huge),
    ];
    for script in scripts {
        let placement = placed_with(script.clone(), PATIENT).await;
        assert!(
            matches!(placement, Placement::Unknown { .. }),
            "{script:?}: {placement:?}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_proves_nothing() {
    let elsewhere = ScriptedDialer::start(says("200 OK", "", r#"{"execution_id":"e"}"#)).await;
    for status in [
        "301 Moved",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let location = format!("location: {}/calls\r\n", elsewhere.url());
        let placement = placed_with(says(status, &location, ""), PATIENT).await;
        assert!(
            matches!(placement, Placement::Unknown { .. }),
            "{status}: {placement:?}"
        );
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn a_connection_lost_after_sending_is_unknown_and_not_tried_again() {
    for script in [Script::Reset, Script::Close] {
        let placement = placed_with(script.clone(), PATIENT).await;
        assert!(
            matches!(placement, Placement::Unknown { .. }),
            "{script:?}: {placement:?}"
        );
    }
}

#[tokio::test]
async fn silence_is_unknown_once_the_time_is_up() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{".to_owned();
    for script in [Script::Mute, Script::SayAndHang(half)] {
        let placement = placed_with(script.clone(), BRIEF).await;
        let Placement::Unknown { reason } = placement else {
            panic!("{script:?}: {placement:?}");
        };
        assert!(reason.contains("in time"), "{reason}");
    }
}

#[tokio::test]
async fn a_refused_connection_proves_that_nothing_was_sent() {
    let gone = ScriptedDialer::start(Script::Mute).await;
    let url = gone.url();
    drop(gone);
    // The port is free again once the listener's task has been dropped.
    tokio::task::yield_now().await;

    let placement = provider(&url, PATIENT).place(&request()).await;

    let Placement::Unreachable { reason } = placement else {
        panic!("{placement:?}");
    };
    assert!(reason.starts_with("Provider is unreachable"), "{reason}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_proves_that_nothing_was_sent() {
    let provider = provider(NOWHERE, PATIENT);
    let placement = provider.place(&request()).await;
    assert!(
        matches!(placement, Placement::Unreachable { .. }),
        "{placement:?}"
    );
}

#[tokio::test]
async fn a_tls_handshake_that_fails_or_hangs_proves_that_nothing_was_sent() {
    let plain = response("400 Bad Request", "", "");
    for (script, timeout) in [(Script::Blurt(plain), PATIENT), (Script::Deaf, BRIEF)] {
        let dialer = ScriptedDialer::start(script.clone()).await;
        let provider = provider(&format!("https://127.0.0.1:{}", dialer.port), timeout);
        let placement = provider.place(&request()).await;
        let unreachable = matches!(placement, Placement::Unreachable { .. });
        assert!(unreachable, "{script:?}: {placement:?}");
    }
}

#[test]
fn a_proxy_in_the_environment_is_not_used() {
    // Environment variables belong to the whole process, so another one runs the first test.
    let this = std::env::current_exe().expect("a path");
    let run = std::process::Command::new(this)
        .arg("--exact")
        .arg("a_placement_says_all_that_was_promised_to_dialers_and_is_signed")
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1")
        .output()
        .expect("a run");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn a_look_up_is_signed_and_finds_proves_absent_or_stays_unclear() {
    let call_id = CallId::new();
    let look_up = async |script: Script, timeout| {
        let dialer = ScriptedDialer::start(script).await;
        let found = provider(&dialer.url(), timeout).look_up(call_id).await;
        let sent = dialer.requests();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].line(), format!("GET /calls/{call_id} HTTP/1.1"));
        assert_signed(&sent[0]);
        found
    };

    let up = says("200 OK", "", r#"{"execution_id":"e","status":"no-answer"}"#);
    assert_eq!(
        look_up(up, PATIENT).await,
        LookUp::Found {
            execution_id: ExecutionId::new("e").expect("an id"),
            status: ReportedStatus::Ended(Outcome::NoAnswer),
        }
    );
    let absent = says("404 Not Found", "", "");
    assert_eq!(look_up(absent, PATIENT).await, LookUp::NotPlaced);
    let unclear = [
        says("200 OK", "", r#"{"status":"ringing"}"#),
        says("500 Oops", "", ""),
        Script::Reset,
        Script::Mute,
    ];
    for script in unclear {
        let found = look_up(script.clone(), BRIEF).await;
        assert!(
            matches!(found, LookUp::Unclear { .. }),
            "{script:?}: {found:?}"
        );
    }
}

#[tokio::test]
async fn a_look_up_that_cannot_be_asked_is_unclear_and_never_proof_of_absence() {
    let provider = provider(NOWHERE, PATIENT);
    let found = provider.look_up(CallId::new()).await;
    assert!(matches!(found, LookUp::Unclear { .. }), "{found:?}");
}

#[tokio::test]
async fn a_hang_up_is_signed_and_names_the_execution() {
    let hang_up = async |script: Script, timeout| {
        let dialer = ScriptedDialer::start(script).await;
        let execution_id = ExecutionId::new("a/b c?").expect("an id");
        let answer = provider(&dialer.url(), timeout)
            .hang_up(&execution_id)
            .await;
        let sent = dialer.requests();
        assert_eq!(sent[0].line(), "POST /calls/a%2Fb%20c%3F/hangup HTTP/1.1");
        assert_signed(&sent[0]);
        answer
    };

    assert_eq!(hang_up(says("202 Accepted", "", ""), PATIENT).await, Ok(()));
    for gone in ["404 Not Found", "410 Gone"] {
        let answer = hang_up(says(gone, "", ""), PATIENT).await;
        assert_eq!(answer, Err(HangUpError::NotFound));
    }
    for script in [says("500 Oops", "", ""), Script::Reset, Script::Mute] {
        let answer = hang_up(script, BRIEF).await;
        assert!(matches!(answer, Err(HangUpError::Failed(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn an_execution_that_no_address_can_name_is_never_hung_up_as_another() {
    let dialer = ScriptedDialer::start(says("200 OK", "", "")).await;
    let provider = provider(&dialer.url(), PATIENT);
    for id in [".", ".."] {
        let id = ExecutionId::new(id).expect("an id");
        assert!(matches!(
            provider.hang_up(&id).await,
            Err(HangUpError::Failed(_))
        ));
    }
    assert!(dialer.requests().is_empty());
}

#[test]
fn an_event_is_read_only_if_its_signature_is_good() {
    let provider = provider("http://dialer.test", PATIENT);
    let call_id = CallId::new();
    let body = json!({
        "event_id": "evt-1", "call_id": call_id.to_string(), "execution_id": "e",
        "status": "ringing", "occurred_at": "2030-01-31T12:00:00Z",
    })
    .to_string();
    let arrived = |body: &str| {
        let headers = secret().signed_headers("evt-1", body);
        let lines = headers.map(|(name, value)| format!("{name}: {value}"));
        let head = format!("POST / HTTP/1.1\r\n{}", lines.join("\r\n"));
        let body = body.to_owned();
        Arrived(Request { head, body })
    };

    let event = provider
        .read_event(&arrived(&body), body.as_bytes())
        .expect("an event");
    assert_eq!(
        (event.call_id, event.status),
        (call_id, ReportedStatus::Ringing)
    );

    let forged = body.replace("ringing", "completed");
    assert!(matches!(
        provider.read_event(&arrived(&body), forged.as_bytes()),
        Err(EventRejection::Unauthentic(_))
    ));
    assert!(matches!(
        provider.read_event(&arrived("[]"), b"[]"),
        Err(EventRejection::Malformed(_))
    ));
}
