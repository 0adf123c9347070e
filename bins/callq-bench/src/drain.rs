//! The drain: a backlog worked off as fast as it goes. Each call is reserved, marked, placed with a
//! carrier that answers at once, recorded, and ended; limits, priority and turns are kept, and
//! history is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use callq_domain::OperatorStore;
use callq_persistence::{Database, PostgresStore};

use crate::carrier::Courier;
use crate::cli::Cli;
use crate::cluster::{BenchDatabase, Cluster};
use crate::fleet::Fleet;
use crate::judge::{Verdict, judge, watch_priorities};
use crate::latency::Percentiles;
use crate::meter::{Meter, Usage};
use crate::report::{Figure, Report};
use crate::seed::{Backlog, Order, provider_name, seed};
use crate::witness::{Limits, Witness};

const DATABASE: &str = "bench_drain";

/// Per user and in all, in every drain.
pub(crate) const LIMITS: Limits = Limits {
    user: 2,
    system: 100,
};

/// Nothing placed for so long, with calls waiting, is a stall and not a slow machine.
const STALL: Duration = Duration::from_secs(30);

/// A backlog, and how much of it one run works off.
struct Case {
    name: String,
    words: String,
    backlog: Backlog,
    calls: u32,
    target: Option<f64>,
}

/// What one run found.
struct Run {
    calls: f64,
    seconds: f64,
    usage: Usage,
    transactions: f64,
    end: Percentiles,
}

pub(crate) async fn measure(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    for case in cases(cli) {
        if cli.case.is_empty() || cli.case.iter().any(|it| case.name.contains(it)) {
            measure_case(cli, cluster, report, &case).await?;
        }
    }
    add_depth_share(report);
    Ok(())
}

/// The rate of the limited drain, for parts that load a share of it.
pub(crate) async fn limited_rate(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<f64> {
    if let Some(case) = cases(cli).first() {
        measure_case(cli, cluster, report, case).await?;
    }
    report
        .median("drain.limited.rate")
        .context("the limited drain was not measured")
}

fn cases(cli: &Cli) -> Vec<Case> {
    let sizes: &[(u32, u32)] = cli.pick(
        &[
            (100, 10_000),
            (10_000, 10_000),
            (100_000, 10_000),
            (100, 100_000),
            (10_000, 100_000),
            (100_000, 100_000),
            (100, 1_000_000),
            (10_000, 1_000_000),
            (100_000, 1_000_000),
        ],
        &[(10_000, 100_000)],
    );
    let calls = cli.pick(50_000, 10_000);
    let mut cases = vec![
        Case::new("limited", 1_000, calls, Order::Shuffled, calls),
        Case::new("clustered", 1_000, calls, Order::Clustered, calls),
    ];
    cases[0].target = Some(3.0);
    if cli.quick {
        cases.truncate(1);
    }
    for (users, waiting) in sizes {
        let name = format!("{users}x{waiting}");
        let calls = calls.min(*waiting);
        cases.push(Case::new(&name, *users, *waiting, Order::Clustered, calls));
    }
    cases
}

impl Case {
    fn new(name: &str, users: u32, waiting: u32, order: Order, calls: u32) -> Self {
        let lie = match order {
            Order::Shuffled => "shuffled",
            Order::Clustered => "clustered by user",
        };
        Self {
            name: name.into(),
            words: format!("{users} users, {waiting} waiting, {lie}"),
            backlog: Backlog {
                users,
                waiting,
                limits: LIMITS,
                order,
                spare_contacts: 0,
            },
            calls,
            target: None,
        }
    }

    fn is_whole(&self) -> bool {
        self.calls == self.backlog.waiting
    }
}

async fn measure_case(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
    case: &Case,
) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    let mut stage: Option<(BenchDatabase, Arc<Witness>)> = None;
    let mut worked_off = 0;
    for _ in 0..cli.runs() {
        // A backlog that is not emptied serves the next run as well.
        let kept = stage.take().filter(|_| {
            !case.is_whole()
                && worked_off + u64::from(case.calls) <= u64::from(case.backlog.waiting)
        });
        let (database, witness) = match kept {
            Some(kept) => kept,
            None => {
                let database = cluster.database(DATABASE)?;
                let witness = seed(&database, case.backlog).await?;
                (database, witness)
            }
        };
        let (run, verdict) = drain(cli, cluster, &database, &witness, case).await?;
        worked_off = witness.progress().placed;
        report.judge("drain", &verdict)?;
        say!(
            "  drain {}: {:.0} calls a second",
            case.name,
            run.calls / run.seconds
        );
        runs.push(run);
        stage = Some((database, witness));
    }
    add_figures(report, case, &runs);
    cluster.drop_database(DATABASE)
}

fn add_figures(report: &mut Report, case: &Case, runs: &[Run]) {
    let each = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<_>>();
    let id = |what: &str| format!("drain.{}.{what}", case.name);
    let mut rate = Figure::rate(
        &id("rate"),
        &format!("drain, {}", case.words),
        &each(|run| run.calls / run.seconds),
    );
    if let Some(times) = case.target {
        rate = rate.at_least_floors(times);
    }
    report.add(rate);
    let mut detail = |what: &str, words: &str, unit: &str, of: fn(&Run) -> f64| {
        report.add(Figure::plain(&id(what), words, unit, &each(of)).detail());
    };
    detail("wal", "WAL a call", "bytes", |run| {
        run.usage.wal_bytes / run.calls
    });
    detail("transactions", "transactions a call", "", |run| {
        run.transactions / run.calls
    });
    detail("server_cpu", "server CPU a call", "µs", |run| {
        run.usage.server_cpu_seconds / run.calls * 1e6
    });
    detail("postgres_cpu", "PostgreSQL CPU a call", "µs", |run| {
        run.usage.postgres_cpu_seconds / run.calls * 1e6
    });
    detail(
        "end_p50",
        "an end, from told to durable, p50",
        "ms",
        |run| run.end.p50,
    );
    detail(
        "end_p99",
        "an end, from told to durable, p99",
        "ms",
        |run| run.end.p99,
    );
}

/// How much of the small case's rate the deepest backlog with the most users keeps.
fn add_depth_share(report: &mut Report) {
    let small = report.median("drain.limited.rate");
    let deep = report.median("drain.100000x1000000.rate");
    if let (Some(small), Some(deep)) = (small, deep) {
        let words = "drain, the largest case to the first";
        let share = Figure::plain("drain.depth_share", words, "", &[deep / small]);
        report.add(share.at_least(0.8));
    }
}

/// Works off some of the backlog and judges what happened.
async fn drain(
    cli: &Cli,
    cluster: &Cluster,
    database: &BenchDatabase,
    witness: &Arc<Witness>,
    case: &Case,
) -> anyhow::Result<(Run, Verdict)> {
    let mut meter = Meter::new(cluster, database)?;
    let operator = PostgresStore::new(Database::new(&database.url, 2)?, provider_name()?);
    let transactions = meter.transactions()?;
    let (fleet, calls_up) = Fleet::start(database, cli.engines, witness).await?;
    let courier = Courier::new(fleet.engines(), Arc::clone(witness));
    let ending = tokio::spawn(Arc::clone(&courier).end_at_once(calls_up));

    let before = witness.progress();
    let goal = before.ended + u64::from(case.calls);
    let first = meter.read()?;
    let began = Instant::now();
    operator.set_dispatch_paused(false).await?;
    fleet.wake();
    tokio::select! {
        reached = ended(witness, goal) => reached?,
        violation = witness.violated() => bail!("not correct: {violation}"),
        watched = watch_priorities(database) => watched?,
    }
    let seconds = began.elapsed().as_secs_f64();
    let used = first.until(&meter.read()?);
    let calls = witness.progress().ended - before.ended;

    operator.set_dispatch_paused(true).await?;
    all_down(witness).await?;
    fleet.stop().await;
    ending.abort();
    drop(ending.await);
    let run = Run {
        calls: calls as f64,
        seconds,
        usage: used,
        transactions: meter.transactions_since(transactions)?,
        end: courier.take_latencies().percentiles(),
    };
    let verdict = judge(database, &operator, witness, 0).await?;
    Ok((run, verdict))
}

/// Returns when callq has confirmed `goal` ends in all.
async fn ended(witness: &Witness, goal: u64) -> anyhow::Result<()> {
    let mut last = (0, Instant::now());
    loop {
        let progress = witness.progress();
        if progress.ended >= goal {
            return Ok(());
        }
        if progress.ended != last.0 {
            last = (progress.ended, Instant::now());
        }
        ensure!(
            last.1.elapsed() < STALL,
            "stalled: {} calls of {goal} ended, {} up, and nothing happens",
            progress.ended,
            progress.up
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Returns when every call that was placed has ended. What was reserved before the pause still
/// goes.
pub(crate) async fn all_down(witness: &Witness) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut quiet_since = Instant::now();
    let mut placed = 0;
    loop {
        let progress = witness.progress();
        if progress.placed != placed || progress.ended < progress.placed {
            placed = progress.placed;
            quiet_since = Instant::now();
        }
        if quiet_since.elapsed() > Duration::from_millis(300) {
            return Ok(());
        }
        ensure!(
            began.elapsed() < STALL,
            "{} calls were placed and {} ended",
            progress.placed,
            progress.ended
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
