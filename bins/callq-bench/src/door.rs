//! The door: `POST /api/calls/initiate` to a real `callq serve` over HTTP, with free slots (the
//! simulator takes each call and it stays up: 200) and at the user's limit (each call is queued:
//! 202). Either answer is durable before it is given.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use callq_domain::OperatorStore;
use callq_persistence::{Database, PostgresStore, connect};

use crate::cli::Cli;
use crate::cluster::{BenchDatabase, Cluster};
use crate::http::request;
use crate::judge::{Verdict, audit};
use crate::latency::Percentiles;
use crate::load::{Load, load};
use crate::report::{Figure, Report};
use crate::seed::provider_name;
use crate::server::{Server, User};
use crate::sql;

const DATABASE: &str = "bench_door";
const CONNECTIONS: [usize; 3] = [1, 32, 256];
const USERS: usize = 32;
/// Of the users who are at it.
const LIMIT: u32 = 2;
/// Of the others, and of the system: never reached.
const NO_LIMIT: u32 = 1_000_000;

/// Whether slots are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slots {
    Free,
    Taken,
}

/// What one phase of one run found.
struct Phase {
    slots: Slots,
    connections: usize,
    rate: f64,
    latency: Percentiles,
}

pub(crate) async fn measure(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    let mut start_ups = Vec::new();
    for _ in 0..cli.runs() {
        let database = cluster.database(DATABASE)?;
        let (phases, start_up) = run(cli, &database, report).await?;
        for phase in &phases {
            say!(
                "  door, slots {:?}, {} connections: {:.0} a second",
                phase.slots,
                phase.connections,
                phase.rate
            );
        }
        runs.push(phases);
        start_ups.push(start_up.as_secs_f64() * 1e3);
    }
    for nth in 0..runs.first().map_or(0, Vec::len) {
        let phases: Vec<&Phase> = runs.iter().filter_map(|run| run.get(nth)).collect();
        add_figures(report, &phases);
    }
    report.add(
        Figure::milliseconds(
            "start.ready",
            "start to ready, existing database",
            &start_ups,
        )
        .at_most(1_000.0),
    );
    cluster.drop_database(DATABASE)
}

fn add_figures(report: &mut Report, phases: &[&Phase]) {
    let Some(first) = phases.first() else { return };
    let (slots, name) = match first.slots {
        Slots::Free => ("free slots", "free"),
        Slots::Taken => ("at the limit", "limit"),
    };
    let id = format!("door.{name}.{}", first.connections);
    let words = format!("door, {slots}, {} connections", first.connections);
    let rates: Vec<f64> = phases.iter().map(|it| it.rate).collect();
    let latencies: Vec<Percentiles> = phases.iter().map(|it| it.latency).collect();
    let mut rate = Figure::rate(&format!("{id}.rate"), &words, &rates);
    let [mut p50, p95, p99] = Figure::latency(&id, "", &latencies);
    match (first.slots, first.connections) {
        (Slots::Taken, 256) => rate = rate.at_least_floors(1.2),
        (Slots::Taken, 1) => p50 = p50.at_most_commits(2.0, 0.5),
        _ => {}
    }
    report.add_all([rate, p50, p95, p99]);
}

async fn run(
    cli: &Cli,
    database: &BenchDatabase,
    report: &mut Report,
) -> anyhow::Result<(Vec<Phase>, Duration)> {
    let limit = NO_LIMIT.to_string();
    // What is measured is the door, not where its queues end.
    let settings = [
        ("SYSTEM_CONCURRENT_CALLS_LIMIT", limit),
        ("DEFAULT_MAX_QUEUED_DIRECT_CALLS", "100000000".to_owned()),
    ];
    let server = Server::start(database, &settings).await?;
    let full = server.create_users("full", USERS, LIMIT).await?;
    let roomy = server.create_users("roomy", USERS, NO_LIMIT).await?;
    let (full, roomy) = (
        requests(&server, &full).await?,
        requests(&server, &roomy).await?,
    );
    let mut started = fill(&server, &full).await?;
    let mut queued = 0;
    let time = cli.pick(Duration::from_secs(8), Duration::from_secs(2));
    let mut phases = Vec::new();
    let mut verdict = Verdict::default();
    for (slots, requests, expected) in [(Slots::Taken, full, 202), (Slots::Free, roomy, 200)] {
        for connections in CONNECTIONS {
            let found: Load =
                load(&server.address, connections, time, Arc::clone(&requests)).await?;
            if slots == Slots::Taken {
                verdict.witnessed.over_user_limit += found.answers(200);
            }
            let all: u64 = found.statuses.values().sum();
            ensure!(
                verdict.witnessed.over_user_limit > 0 || found.answers(expected) == all,
                "answers other than {expected}: {:?}",
                found.statuses
            );
            started += found.answers(200);
            queued += found.answers(202);
            phases.push(Phase {
                slots,
                connections,
                rate: found.rate,
                latency: found.latencies.percentiles(),
            });
        }
    }
    let start_up = server.start_up;
    server.stop().await?;
    let records = judge(database, started, queued).await?;
    verdict.add(&records);
    report.judge("door", &verdict)?;
    Ok((phases, start_up))
}

/// One request for each user, to an agent whose calls stay up.
async fn requests(server: &Server, users: &[User]) -> anyhow::Result<Arc<Vec<Vec<u8>>>> {
    let mut requests = Vec::new();
    for user in users {
        let agent = server.create_agent(user, r#"{"mode": "manual"}"#).await?;
        let body = format!(r#"{{"agentId": "{agent}", "phoneNumber": "+14155552671"}}"#);
        requests.push(request("POST", "/api/calls/initiate", &user.token, &body));
    }
    Ok(Arc::new(requests))
}

/// Takes every slot of these users.
async fn fill(server: &Server, requests: &[Vec<u8>]) -> anyhow::Result<u64> {
    let mut connection = server.connect().await?;
    let mut started = 0;
    for _ in 0..LIMIT {
        for request in requests {
            let answer = connection.exchange(request).await?;
            ensure!(answer.status() == Some(200), "{}", answer.first_line());
            started += 1;
        }
    }
    Ok(started)
}

/// Whether every answer is on record: calls up for each 200, items waiting for each 202.
async fn judge(database: &BenchDatabase, started: u64, queued: u64) -> anyhow::Result<Verdict> {
    let store = PostgresStore::new(Database::new(&database.url, 1)?, provider_name()?);
    let url = database.url.clone();
    let (violations, waiting) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let mut conn = connect(&url)?;
        Ok((
            sql::priority_violations(&mut conn)?,
            sql::waiting(&mut conn)?,
        ))
    })
    .await??;
    let active = u64::from(store.system_state().await?.slots.active);
    Ok(Verdict {
        calls: started + queued,
        priority_violations: violations.unsigned_abs(),
        lost_calls: queued.abs_diff(waiting.unsigned_abs()) + started.saturating_sub(active),
        leaked_slots: active.saturating_sub(started),
        audit_differences: audit(&store).await?,
        ..Verdict::default()
    })
}
