//! The fake dialer against the real `http` provider: it must be as honest a witness as the tests
//! that rely on it need.

#![expect(clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use callq_domain::{
    AgentId, Attempt, CallId, CallProvider, EventHeaders, Fence, HangUpError, LookUp, Origin,
    Outcome, Placement, PlacementRequest, ReportedStatus, StatusEvent, UserId,
};
use callq_providers::{HttpProvider, HttpProviderConfig};
use callq_testing::{Behaviour, Deed, DialerOptions, FakeDialer, Ledger};

const SOON: Duration = Duration::from_secs(30);

/// callq's side: the provider, and a webhook that takes events and tells of them.
struct Callq {
    provider: HttpProvider,
    events: mpsc::Receiver<StatusEvent>,
}

impl Callq {
    fn new(dialer: &FakeDialer) -> Self {
        Self::answering(dialer, &[])
    }

    /// Answers events with these statuses first, with 200 afterwards.
    fn answering(dialer: &FakeDialer, statuses: &[u16]) -> Self {
        Self::with_timeout(dialer, statuses, SOON)
    }

    fn with_timeout(dialer: &FakeDialer, statuses: &[u16], timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let callback_url = format!(
            "http://{}/api/webhooks/http",
            listener.local_addr().expect("it")
        );
        let provider = || {
            HttpProvider::new(HttpProviderConfig {
                base_url: dialer.url(),
                secret: dialer.secret().parse().expect("a secret"),
                callback_url: callback_url.clone(),
                timeout,
            })
            .expect("a provider")
        };
        let (sender, events) = mpsc::channel();
        let (reader, first) = (provider(), statuses.to_vec());
        thread::spawn(move || {
            let mut first = first.into_iter();
            for stream in listener.incoming().flatten() {
                let mut stream = BufReader::new(stream);
                let (headers, body) = read(&mut stream);
                let event = reader.read_event(&headers, &body).expect("a signed event");
                let status = first.next().unwrap_or(200);
                if sender.send(event).is_err() {
                    return;
                }
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                );
                let _ = stream.get_mut().write_all(answer.as_bytes());
            }
        });
        Self {
            provider: provider(),
            events,
        }
    }

    async fn place(&self) -> (CallId, Placement) {
        let request = request(UserId::new());
        (request.attempt.call_id, self.provider.place(&request).await)
    }

    fn next_event(&self) -> StatusEvent {
        self.events.recv_timeout(SOON).expect("an event")
    }
}

struct Headers(Vec<(String, String)>);

impl EventHeaders for Headers {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

fn read(stream: &mut impl BufRead) -> (Headers, Vec<u8>) {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).expect("a line");
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    let headers = Headers(headers);
    let length = headers.get("content-length").expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).expect("a body");
    (headers, body)
}

fn request(user_id: UserId) -> PlacementRequest {
    PlacementRequest {
        attempt: Attempt {
            call_id: CallId::new(),
            number: 1,
        },
        to: "+14155552671".parse().expect("a number"),
        from: None,
        origin: Origin::Direct,
        user_id,
        agent_id: AgentId::new(),
        provider_agent_id: None,
        settings: None,
        contact_name: None,
        user_data: None,
        fence: Fence::default(),
    }
}

fn is_placed(placement: &Placement) -> bool {
    matches!(placement, Placement::Placed { .. })
}

#[tokio::test]
async fn an_accepted_call_is_up_until_it_is_ended() {
    let dialer = FakeDialer::start();
    let callq = Callq::new(&dialer);

    let (call_id, placement) = callq.place().await;

    assert!(
        matches!(placement, Placement::Placed { execution_id } if execution_id.as_str() == "exec-1")
    );
    let dials = dialer.wait_for_dials(1, SOON);
    assert_eq!(dials[0].call_id, call_id.as_uuid());
    assert_eq!(dials[0].idempotency_key, Some(call_id.to_string()));
    assert_eq!(dialer.ledger().up(), 1);

    assert_eq!(
        dialer
            .send_event(call_id, "ringing")
            .expect("callq is there"),
        200
    );
    assert_eq!(callq.next_event().status, ReportedStatus::Ringing);
    assert_eq!(dialer.ledger().up(), 1);
    assert_eq!(dialer.end(call_id).expect("callq is there"), 200);
    assert_eq!(
        callq.next_event().status,
        ReportedStatus::Ended(Outcome::Completed)
    );
    assert_eq!(dialer.ledger().up(), 0);
}

#[tokio::test]
async fn each_behaviour_is_seen_by_the_provider_as_what_it_is_and_dials_or_does_not() {
    let dialer = FakeDialer::start();
    let callq = Callq::with_timeout(&dialer, &[], Duration::from_secs(2));
    let busy = |retry_after: Option<&str>| Behaviour::Busy {
        status: 503,
        retry_after: retry_after.map(str::to_owned),
    };
    let seconds = |n| Some(Duration::from_secs(n));
    type Check = Box<dyn Fn(&Placement) -> bool>;
    let unknown = || -> Check { Box::new(|seen| matches!(seen, Placement::Unknown { .. })) };
    let cases: Vec<(Behaviour, Check)> = vec![
        (Behaviour::Accept, Box::new(is_placed)),
        (
            Behaviour::SlowAccept(Duration::from_millis(50)),
            Box::new(is_placed),
        ),
        (
            Behaviour::EventFirst { status: "busy" },
            Box::new(is_placed),
        ),
        (
            Behaviour::Refuse(422),
            Box::new(|seen| matches!(seen, Placement::Refused { .. })),
        ),
        (Behaviour::Refuse(500), unknown()),
        (
            busy(None),
            Box::new(|seen| {
                matches!(
                    seen,
                    Placement::Busy {
                        retry_after: None,
                        ..
                    }
                )
            }),
        ),
        (
            busy(Some("3")),
            Box::new(
                move |seen| matches!(seen, Placement::Busy { retry_after, .. } if *retry_after == seconds(3)),
            ),
        ),
        (Behaviour::Garbage, unknown()),
        (Behaviour::Reset, unknown()),
        (Behaviour::AcceptThenReset, unknown()),
        (Behaviour::Mute, unknown()),
        (Behaviour::AcceptThenMute, unknown()),
    ];
    for (behaviour, is_expected) in cases {
        dialer.next(behaviour.clone());
        let before = dialer.ledger();

        let (call_id, seen) = callq.place().await;

        assert!(is_expected(&seen), "{behaviour:?}: {seen:?}");
        let ledger = dialer.ledger();
        let started = ledger.count(Deed::Start) - before.count(Deed::Start);
        assert_eq!(started, usize::from(behaviour.dials()), "{behaviour:?}");
        assert_eq!(
            ledger.count(Deed::Dial) - before.count(Deed::Dial),
            1,
            "{behaviour:?}"
        );
        let known = callq.provider.look_up(call_id).await;
        assert_eq!(
            matches!(known, LookUp::Found { .. }),
            behaviour.dials(),
            "{behaviour:?}"
        );
        assert_eq!(
            known == LookUp::NotPlaced,
            !behaviour.dials(),
            "{behaviour:?}"
        );
    }
}

#[tokio::test]
async fn an_event_can_come_before_the_answer() {
    let dialer = FakeDialer::start();
    let callq = Callq::new(&dialer);
    dialer.next(Behaviour::EventFirst { status: "busy" });

    let (call_id, placement) = callq.place().await;

    let event = callq.events.try_recv().expect("it came before the answer");
    assert_eq!(
        (event.call_id, event.status),
        (call_id, ReportedStatus::Ended(Outcome::Busy))
    );
    assert!(is_placed(&placement));
    assert_eq!(dialer.ledger().up(), 0);
}

#[tokio::test]
async fn a_behaviour_may_depend_on_the_dial() {
    let dialer = FakeDialer::start();
    let callq = Callq::new(&dialer);
    dialer.behave(|dial| match dial.attempt {
        1 => Behaviour::Accept,
        _ => Behaviour::Refuse(400),
    });
    let mut request = request(UserId::new());
    assert!(is_placed(&callq.provider.place(&request).await));
    request.attempt.number = 2;
    assert!(!is_placed(&callq.provider.place(&request).await));
}

#[tokio::test]
async fn the_ledger_shows_a_call_that_was_dialled_twice() {
    let dialer = FakeDialer::start();
    let callq = Callq::new(&dialer);
    let request = request(UserId::new());
    for _ in 0..2 {
        callq.provider.place(&request).await;
    }
    let call_id = request.attempt.call_id.as_uuid();
    assert_eq!(dialer.dials_per_attempt()[&(call_id, 1)], 2);
    assert_eq!(dialer.ledger().starts_per_call()[&call_id], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_are_all_up_at_once_and_counted_by_user() {
    let dialer = FakeDialer::start();
    let callq = std::sync::Arc::new(Callq::new(&dialer).provider);
    let users = [UserId::new(), UserId::new()];
    let calls = (0..200).map(|n| {
        let (provider, request) = (
            std::sync::Arc::clone(&callq),
            request(users[usize::from(n % 4 == 0)]),
        );
        tokio::spawn(async move { provider.place(&request).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(is_placed(&call.await.expect("no panic")));
    }

    let ledger = dialer.ledger();
    assert_eq!(ledger.max_overlap(), 200);
    let per_user = ledger.max_overlap_per_user();
    assert_eq!(
        (per_user[&users[0].as_uuid()], per_user[&users[1].as_uuid()]),
        (150, 50)
    );
    assert_eq!(dialer.wait_for_dials(200, SOON).len(), 200);
}

#[tokio::test]
async fn calls_one_after_another_do_not_overlap() {
    let dialer = FakeDialer::start();
    let callq = Callq::new(&dialer);
    for _ in 0..3 {
        let (call_id, _) = callq.place().await;
        dialer.end(call_id).expect("callq is there");
    }
    let ledger = dialer.ledger();
    assert_eq!((ledger.max_overlap(), ledger.up()), (1, 0));
    let sequence: Vec<u64> = ledger
        .entries()
        .iter()
        .map(|entry| entry.sequence)
        .collect();
    assert_eq!(sequence, (0..sequence.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn calls_end_by_themselves_and_their_events_are_brought_until_they_are_taken() {
    let dialer = FakeDialer::start();
    let callq = Callq::answering(&dialer, &[503, 500]);
    dialer.auto_end_after(Duration::from_millis(10));

    let (call_id, _) = callq.place().await;

    let events: Vec<StatusEvent> = (0..3).map(|_| callq.next_event()).collect();
    assert!(events.iter().all(|event| event.call_id == call_id));
    assert!(
        events
            .iter()
            .all(|event| event.event_id == events[0].event_id),
        "one event, repeated"
    );
    let ledger = dialer.wait_until(SOON, |ledger| ledger.count(Deed::Event) == 3);
    assert_eq!((ledger.count(Deed::End), ledger.up()), (1, 0));
}

#[tokio::test]
async fn a_hang_up_ends_the_call_and_its_event_follows() {
    let dialer = FakeDialer::start();
    let callq = Callq::new(&dialer);
    let (call_id, placement) = callq.place().await;
    let Placement::Placed { execution_id } = placement else {
        panic!("{placement:?}");
    };

    assert_eq!(callq.provider.hang_up(&execution_id).await, Ok(()));

    let event = callq.next_event();
    assert_eq!(
        (event.call_id, event.status),
        (call_id, ReportedStatus::Ended(Outcome::Cancelled))
    );
    let again = callq.provider.hang_up(&execution_id).await;
    assert_eq!(again, Err(HangUpError::NotFound));
}

#[tokio::test]
async fn look_ups_can_be_made_to_fail() {
    let dialer = FakeDialer::start();
    let callq = Callq::new(&dialer);
    let (call_id, _) = callq.place().await;
    dialer.answer_look_ups_with(Some(500));
    assert!(matches!(
        callq.provider.look_up(call_id).await,
        LookUp::Unclear { .. }
    ));
    dialer.answer_look_ups_with(None);
    assert!(matches!(
        callq.provider.look_up(call_id).await,
        LookUp::Found { .. }
    ));
}

#[tokio::test]
async fn a_request_signed_with_another_secret_is_refused_and_noted() {
    let dialer = FakeDialer::start();
    let provider = HttpProvider::new(HttpProviderConfig {
        base_url: dialer.url(),
        secret: "another secret".parse().expect("a secret"),
        callback_url: "http://127.0.0.1:1".into(),
        timeout: SOON,
    })
    .expect("a provider");

    let placement = provider.place(&request(UserId::new())).await;

    assert!(
        matches!(placement, Placement::Refused { .. }),
        "{placement:?}"
    );
    let ledger = dialer.ledger();
    assert_eq!(
        (ledger.count(Deed::Unauthentic), ledger.count(Deed::Dial)),
        (1, 0)
    );
}

#[tokio::test]
async fn the_ledger_file_says_what_the_ledger_says_even_if_its_last_line_was_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.jsonl");
    let dialer = FakeDialer::start_with(DialerOptions {
        ledger_file: Some(path.clone()),
        ..DialerOptions::default()
    })
    .expect("a dialer");
    let callq = Callq::new(&dialer);
    let (call_id, _) = callq.place().await;
    dialer.end(call_id).expect("callq is there");

    let whole = std::fs::read(&path).expect("a file");
    assert_eq!(
        Ledger::read(&path).expect("a ledger").entries(),
        dialer.ledger().entries()
    );

    std::fs::write(&path, &whole[..whole.len() - 20]).expect("a file");
    let cut = Ledger::read(&path).expect("a ledger");
    assert_eq!(cut.entries().len() + 1, dialer.ledger().entries().len());
    std::fs::write(&path, [b"nonsense\n", &whole[..]].concat()).expect("a file");
    assert!(Ledger::read(&path).is_err());
}

#[tokio::test]
async fn a_dialer_that_is_gone_refuses_connections() {
    let dialer = FakeDialer::start();
    let callq = Callq::new(&dialer);
    assert!(is_placed(&callq.place().await.1));
    drop(dialer);
    // Its door closes within moments, on a thread of its own; connections it had are shut at once.
    let seen = callq.place().await.1;
    assert!(!is_placed(&seen), "{seen:?}");
}
