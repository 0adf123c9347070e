//! Far more requests than can be served, while the database says nothing: each is told so in bounded
//! time, in bounded memory.

use std::process::Command;
use std::time::{Duration, Instant};

use callq_testing::{Link, OwnCluster};
use serde_json::json;

use crate::harness::{PATIENCE, Server, World};

/// What the flood may take of memory. Each request holds a connection's buffers and little else.
const MOST_GROWTH_KIB: u64 = 256 * 1024;

/// The bound of the door, and time for a busy machine to take as many connections.
const BOUND: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_against_a_silent_database_is_turned_away_in_bounded_time_and_memory() {
    let cluster = OwnCluster::start(&[]);
    let link = Link::to(cluster.url());
    let mut world = World::on(cluster.url(), 10);
    world.settings.insert("DATABASE_URL", link.url().to_owned());
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    assert_eq!(ada.call(0).await.status, 200);
    let call = world.dialer.dials()[0].clone();
    let requests = flood_size();
    let before = memory_kib(&server);

    link.hold();
    let begun = Instant::now();
    let calls: Vec<_> = (0..requests)
        .map(|n| {
            let ada = ada.clone();
            tokio::spawn(async move {
                loop {
                    let asked = Instant::now();
                    // Calls, and reads of two kinds.
                    let answer = match n % 4 {
                        0 => ada.try_get("/api/calls/queue/status").await,
                        1 => ada.try_get("/api/agents").await,
                        _ => ada.try_call(n).await,
                    };
                    // On a machine so busy that this end cannot even send its request within five
                    // seconds, the server gives up on the connection.
                    if let Ok(answer) = answer {
                        return (answer, asked.elapsed());
                    }
                }
            })
        })
        .collect();
    let event = json!({"event_id": "e", "call_id": call.call_id, "execution_id": call.execution_id,
        "status": "completed", "occurred_at": chrono::Utc::now().to_rfc3339()});
    let now = chrono::Utc::now().timestamp();
    let told = world.event_signed_at(&server, event.clone(), now).await;
    told.assert_unavailable();
    let told_after = begun.elapsed();
    let mut slowest = Duration::ZERO;
    let mut most = 0;
    for call in calls {
        let (answer, took) = call.await.expect("an answer");
        answer.assert_unavailable();
        slowest = slowest.max(took);
        most = most.max(memory_kib(&server));
    }
    assert_eq!(server.open_page("/healthz").await, 200);
    println!(
        "{requests} requests: all refused within {slowest:?}, an event within {told_after:?}; \
         memory {before} KiB before, {most} KiB at most"
    );
    assert!(slowest < BOUND, "{slowest:?}");
    assert!(told_after < BOUND, "{told_after:?}");
    assert!(most < before + MOST_GROWTH_KIB, "{before} to {most} KiB");

    link.release();
    let back = Instant::now();
    while ada.call(1).await.status != 202 {
        assert!(back.elapsed() < PATIENCE, "not well again");
    }
    println!("well again after {:?}", back.elapsed());
    world
        .until_count("SELECT count(*) FROM call_queue", 1)
        .await;
    assert_eq!(world.signed_event(&server, event).await, 200);
    assert_eq!(world.dialer.wait_for_dials(2, PATIENCE).len(), 2);
    assert_eq!(world.audit(), "every counter equals its rows");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// 1,000, or 3,000 when there is time; or what the files a process may open allow: both ends of each
/// connection are one.
fn flood_size() -> u32 {
    let wanted = match std::env::var_os("CALLQ_LONG_TESTS") {
        Some(_) => 3_000,
        None => 1_000,
    };
    let output = Command::new("sh").args(["-c", "ulimit -n"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let files: u32 = text.ok().and_then(|it| it.parse().ok()).unwrap_or(u32::MAX);
    (files / 3).min(wanted)
}

/// The memory a server has in use; 0 where there is no `/proc` to say so.
fn memory_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
