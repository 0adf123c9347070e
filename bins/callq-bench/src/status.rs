//! What a user sees of its queue, by how many of its calls wait: the status at a glance, and one
//! item with its position anywhere in the queue. Every position is compared with the item's true
//! place.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use callq_domain::CallType;
use callq_persistence::connect;
use serde::Deserialize;
use uuid::Uuid;

use crate::cli::Cli;
use crate::cluster::{BenchDatabase, Cluster};
use crate::http::request;
use crate::judge::{Verdict, audit};
use crate::latency::{Latencies, Percentiles};
use crate::meter::resident_bytes;
use crate::report::{Figure, Report};
use crate::seed::{Backlog, Order, hasty_store, seed};
use crate::server::Server;
use crate::witness::Limits;
use crate::{numbering, sql};

const DATABASE: &str = "bench_status";

/// Positions asked for over each of the user's two lanes.
const SAMPLES: u32 = 100;

/// The deepest of the full measurement, which has targets.
const DEEPEST: u32 = 1_000_000;

/// What one run found at one depth.
struct Run {
    status: Percentiles,
    position: Percentiles,
    memory_mib: f64,
}

#[derive(Deserialize)]
struct Status {
    direct_calls: Calls,
    campaign_calls: Calls,
}

#[derive(Deserialize)]
struct Calls {
    queued: u64,
}

#[derive(Deserialize)]
struct Item {
    position: Option<u64>,
    total_in_queue: Option<u64>,
}

pub(crate) async fn measure(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    for waiting in cli.pick([10, 10_000, DEEPEST], [10, 10_000, 100_000]) {
        measure_depth(cli, cluster, report, waiting).await?;
    }
    Ok(())
}

async fn measure_depth(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
    waiting: u32,
) -> anyhow::Result<()> {
    let database = cluster.database(DATABASE)?;
    let backlog = Backlog {
        users: 1,
        waiting,
        limits: Limits {
            user: 2,
            system: 100,
        },
        order: Order::Clustered,
        spare_contacts: 0,
    };
    seed(&database, backlog).await?;
    let places = places(&database).await?;
    let mut runs = Vec::new();
    for _ in 0..cli.runs() {
        let run = run(cli, &database, backlog, &places).await?;
        say!(
            "  status, {waiting} waiting: p99 {:.2} ms; position: p99 {:.2} ms",
            run.status.p99,
            run.position.p99
        );
        runs.push(run);
    }
    let verdict = Verdict {
        calls: u64::from(waiting),
        audit_differences: audit(&hasty_store(&database)?).await?,
        ..Verdict::default()
    };
    report.judge("status", &verdict)?;
    add_figures(report, waiting, &runs);
    cluster.drop_database(DATABASE)
}

fn add_figures(report: &mut Report, waiting: u32, runs: &[Run]) {
    let status: Vec<Percentiles> = runs.iter().map(|it| it.status).collect();
    let position: Vec<Percentiles> = runs.iter().map(|it| it.position).collect();
    let memory: Vec<f64> = runs.iter().map(|it| it.memory_mib).collect();
    // Only the deepest has targets.
    let at_most = |figure: Figure, most: f64| match waiting {
        DEEPEST => figure.at_most(most),
        _ => figure,
    };
    for (id, words, runs) in [
        ("status", "queue status", status),
        ("position", "position of an item", position),
    ] {
        let (id, words) = (
            format!("{id}.{waiting}"),
            format!("{words}, {waiting} waiting"),
        );
        let [p50, p95, p99] = Figure::latency(&id, &words, &runs);
        report.add_all([p50, p95, at_most(p99, 5.0)]);
    }
    let words = format!("memory of the server, {waiting} waiting");
    let memory = Figure::plain(&format!("memory.{waiting}"), &words, "MiB", &memory);
    report.add(at_most(memory, 150.0));
}

/// Some items of both lanes, each with its true place.
async fn places(database: &BenchDatabase) -> anyhow::Result<Vec<(Uuid, u64)>> {
    let url = database.url.clone();
    tokio::task::spawn_blocking(move || {
        let mut conn = connect(&url)?;
        let mut places = Vec::new();
        for kind in [CallType::Direct, CallType::Campaign] {
            places.extend(sql::places(&mut conn, numbering::user(0), kind, SAMPLES)?);
        }
        Ok(places)
    })
    .await?
}

async fn run(
    cli: &Cli,
    database: &BenchDatabase,
    backlog: Backlog,
    places: &[(Uuid, u64)],
) -> anyhow::Result<Run> {
    let server = Server::start(database, &[]).await?;
    let token = server.token_of("user0@bench.invalid").await?;
    let mut connection = server.connect().await?;
    let (times, bound) = cli.pick(
        (1_000, Duration::from_secs(20)),
        (200, Duration::from_secs(4)),
    );

    let ask = request("GET", "/api/calls/queue/status", &token, "");
    let mut status = Latencies::default();
    let began = Instant::now();
    for _ in 0..times {
        let asked = Instant::now();
        let found: Status = connection.json(&ask).await?;
        status.record(asked.elapsed());
        let queued = (found.direct_calls.queued, found.campaign_calls.queued);
        let direct = u64::from(backlog.direct());
        let truth = (direct, u64::from(backlog.waiting) - direct);
        ensure!(
            queued == truth,
            "not correct: status says {queued:?} of {truth:?}"
        );
        if began.elapsed() > bound {
            break;
        }
    }

    let mut position = Latencies::default();
    let began = Instant::now();
    for (id, place) in places.iter().cycle().take(times) {
        let ask = request("GET", &format!("/api/queue/{id}"), &token, "");
        let asked = Instant::now();
        let found: Item = connection.json(&ask).await?;
        position.record(asked.elapsed());
        ensure!(
            found.position == Some(*place) && found.total_in_queue >= Some(*place),
            "not correct: position {:?} of {:?}, and it is {place}",
            found.position,
            found.total_in_queue
        );
        if began.elapsed() > bound {
            break;
        }
    }
    let memory = resident_bytes(server.pid()).context("no /proc of the server")?;
    server.stop().await?;
    Ok(Run {
        status: status.percentiles(),
        position: position.percentiles(),
        memory_mib: memory / 1024.0 / 1024.0,
    })
}
