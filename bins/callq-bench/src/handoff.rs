//! The hand-off: from the moment a call's terminal event leaves the dialer to the moment the next
//! placement request arrives there. Both HTTP hops on loopback are in it, and so are two commits:
//! the one that ends and reserves, and the one that marks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use callq_domain::{CallId, OperatorStore};
use callq_persistence::{Database, PostgresStore};

use crate::cli::Cli;
use crate::cluster::Cluster;
use crate::dialer::{Dialer, SECRET};
use crate::judge::judge;
use crate::latency::Percentiles;
use crate::pace::Pace;
use crate::report::{Figure, Report};
use crate::seed::{Backlog, Order, provider_name, seed};
use crate::server::Server;
use crate::witness::{Limits, Witness};

const DATABASE: &str = "bench_handoff";
const LIMITS: Limits = Limits {
    user: 2,
    system: 100,
};
const USERS: u32 = 1_000;

/// Between two ends of the idle measurement.
const PAUSE: Duration = Duration::from_millis(50);

/// Longer than any hand-off takes.
const STALL: Duration = Duration::from_secs(10);

/// What one run found.
struct Run {
    idle: Percentiles,
    /// Calls a second when each is ended as soon as it is up.
    highest_rate: f64,
    /// What was reached of half of it.
    half_rate: f64,
    half: Percentiles,
}

pub(crate) async fn measure(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for _ in 0..cli.runs() {
        let run = run(cli, cluster, report).await?;
        say!(
            "  hand-off: p50 {:.2} ms idle, {:.2} ms at half of {:.0} calls a second",
            run.idle.p50,
            run.half.p50,
            run.highest_rate
        );
        runs.push(run);
    }
    let idle: Vec<Percentiles> = runs.iter().map(|it| it.idle).collect();
    let half: Vec<Percentiles> = runs.iter().map(|it| it.half).collect();
    let rates: Vec<f64> = runs.iter().map(|it| it.highest_rate).collect();
    let half_rates: Vec<f64> = runs.iter().map(|it| it.half_rate).collect();
    let [p50, p95, p99] = Figure::latency("handoff.idle", "hand-off, idle", &idle);
    report.add_all([p50.at_most(4.0), p95, p99.at_most(8.0)]);
    let words = "hand-off, highest rate over HTTP, one server";
    report.add(Figure::rate("handoff.rate", words, &rates));
    let words = "hand-off, half that rate";
    let [p50, p95, p99] = Figure::latency("handoff.half", words, &half);
    report.add_all([p50, p95, p99.at_most(25.0)]);
    let reached = Figure::rate("handoff.half.rate", "rate reached", &half_rates);
    report.add(reached.detail());
    cluster.drop_database(DATABASE)
}

async fn run(cli: &Cli, cluster: &Cluster, report: &mut Report) -> anyhow::Result<Run> {
    let database = cluster.database(DATABASE)?;
    let backlog = Backlog {
        users: USERS,
        waiting: cli.pick(250_000, 60_000),
        limits: LIMITS,
        order: Order::Clustered,
        spare_contacts: 0,
    };
    let witness = seed(&database, backlog).await?;
    let operator = PostgresStore::new(Database::new(&database.url, 2)?, provider_name()?);
    operator.set_dispatch_paused(false).await?;

    let dialer = Dialer::listen(Arc::clone(&witness)).await?;
    let settings = [
        ("CALL_PROVIDER", "http".to_owned()),
        ("HTTP_PROVIDER_URL", format!("http://{}", dialer.address)),
        ("HTTP_PROVIDER_SECRET", SECRET.to_owned()),
    ];
    let server = Server::start(&database, &settings).await?;
    let mut stage = Stage {
        dialer,
        witness: Arc::clone(&witness),
        up: VecDeque::new(),
    };
    stage.dialer.report_to(&server.address)?;

    stage.fill().await?;
    let idle = stage.idle(cli.pick(400, 100)).await?;
    let highest_rate = stage
        .flat_out(cli.pick(Duration::from_secs(8), Duration::from_secs(2)))
        .await?;
    stage.fill().await?;
    let time = cli.pick(Duration::from_secs(10), Duration::from_secs(3));
    let half_rate = stage.paced(highest_rate / 2.0, time).await?;
    let half = stage.dialer.take_hand_offs().percentiles();

    operator.set_dispatch_paused(true).await?;
    stage.dialer.end_all(stage.up.drain(..)).await?;
    server.stop().await?;
    let verdict = judge(&database, &operator, &witness, 0).await?;
    report.judge("hand-off", &verdict)?;
    Ok(Run {
        idle,
        highest_rate,
        half_rate,
        half,
    })
}

struct Stage {
    dialer: Dialer,
    witness: Arc<Witness>,
    /// Calls that are up, the oldest first.
    up: VecDeque<CallId>,
}

impl Stage {
    /// The next call that comes up, or what went wrong.
    async fn next_call(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            call = tokio::time::timeout(STALL, self.dialer.next_call()) => match call {
                Ok(call) => self.up.push_back(call?),
                Err(_) => bail!("stalled: no placement for {} s", STALL.as_secs()),
            },
            violation = self.witness.violated() => bail!("not correct: {violation}"),
        }
        Ok(())
    }

    fn end_oldest(&mut self) -> bool {
        let Some(call) = self.up.pop_front() else {
            return false;
        };
        self.dialer.end(call);
        true
    }

    /// Returns when every slot is taken.
    async fn fill(&mut self) -> anyhow::Result<()> {
        while self.up.len() < LIMITS.system as usize {
            self.next_call().await?;
        }
        self.dialer.take_hand_offs();
        Ok(())
    }

    /// Ends one call at a time, with pauses.
    async fn idle(&mut self, times: u32) -> anyhow::Result<Percentiles> {
        for _ in 0..times {
            self.end_oldest();
            self.next_call().await?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(self.dialer.take_hand_offs().percentiles())
    }

    /// Ends each call as soon as it is up. Answers how many a second came up.
    async fn flat_out(&mut self, time: Duration) -> anyhow::Result<f64> {
        while self.end_oldest() {}
        let began = Instant::now();
        let mut calls = 0_u32;
        while began.elapsed() < time {
            self.next_call().await?;
            calls += 1;
            self.end_oldest();
        }
        Ok(f64::from(calls) / began.elapsed().as_secs_f64())
    }

    /// Ends the oldest call so many times a second, if so many are up. Answers how many it were.
    async fn paced(&mut self, rate: f64, time: Duration) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut pace = Pace::new(rate);
        let mut ended = 0_u32;
        while began.elapsed() < time {
            tokio::select! {
                arrived = self.next_call() => arrived?,
                _ = ticks.tick() => while pace.is_due() && self.end_oldest() {
                    pace.count();
                    ended += 1;
                },
            }
        }
        Ok(f64::from(ended) / began.elapsed().as_secs_f64())
    }
}
