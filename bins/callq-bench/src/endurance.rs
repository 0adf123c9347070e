//! Endurance: minutes at 80 % of what can be kept up, with as many new calls coming as going, to
//! see whether anything grows, slows down or gets lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use callq_domain::{CallId, OperatorStore};
use callq_persistence::{Database, PostgresStore, connect};
use tokio::sync::watch;

use crate::carrier::{CallsUp, Courier};
use crate::cli::Cli;
use crate::cluster::{BenchDatabase, Cluster};
use crate::drain::{LIMITS, all_down, limited_rate};
use crate::feeder::{Feeder, SPARE_CONTACTS};
use crate::fleet::Fleet;
use crate::judge::{judge, watch_priorities};
use crate::latency::Percentiles;
use crate::meter::resident_bytes;
use crate::pace::Pace;
use crate::report::{Figure, Report, Series};
use crate::seed::{Backlog, Order, hasty_store, provider_name, seed};
use crate::sql::{self, Sizes};
use crate::witness::Witness;

const DATABASE: &str = "bench_endurance";
const USERS: u32 = 1_000;
const WAITING: u32 = 20_000;
/// Of the highest rate with new calls coming.
const SHARE: f64 = 0.8;
const MIB: f64 = 1024.0 * 1024.0;

/// What a minute was like.
struct Minute {
    rate: f64,
    end: Percentiles,
    door: Percentiles,
    sizes: Sizes,
    memory_mib: f64,
}

pub(crate) async fn measure(
    cli: &Cli,
    cluster: &Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    let drained = match report.median("drain.limited.rate") {
        Some(rate) => rate,
        None => limited_rate(cli, cluster, report).await?,
    };
    let database = cluster.database(DATABASE)?;
    let backlog = Backlog {
        users: USERS,
        waiting: WAITING,
        limits: LIMITS,
        order: Order::Shuffled,
        spare_contacts: USERS * SPARE_CONTACTS,
    };
    let witness = seed(&database, backlog).await?;
    let operator = PostgresStore::new(Database::new(&database.url, 2)?, provider_name()?);
    let (fleet, calls_up) = Fleet::start(&database, cli.engines, &witness).await?;
    let courier = Courier::new(fleet.engines(), Arc::clone(&witness));
    let feeder = Arc::new(Feeder {
        // Its commits are waited for, like those of any user.
        store: PostgresStore::new(Database::new(&database.url, 2)?, provider_name()?),
        engines: fleet.engines(),
        witness: Arc::clone(&witness),
        backlog,
        door: Mutex::default(),
    });

    operator.set_dispatch_paused(false).await?;
    fleet.wake();
    let mut pacer = Pacer {
        courier: Arc::clone(&courier),
        calls_up,
        up: VecDeque::new(),
        ended: 0,
    };
    // Kept, so that whoever looks later still sees it.
    let (stop, stopping) = watch::channel(false);
    let mut minutes = Vec::new();
    let offered;
    {
        let feeding = async {
            let fed = tokio::join!(
                feeder.feed_campaigns(stopping.clone()),
                feeder.feed_direct_calls(stopping.clone())
            );
            fed.0.and(fed.1)
        };
        tokio::pin!(feeding);
        // New calls take as much work as ended ones: the drain's rate cannot be kept up with both.
        let highest = tokio::select! {
            rate = highest_rate(cli, &witness) => rate,
            paced = pacer.run(drained) => return paced,
            fed = &mut feeding => return fed,
            violation = witness.violated() => bail!("not correct: {violation}"),
        };
        offered = highest * SHARE;
        say!("  endurance: {highest:.0} a second at most, {offered:.0} from now on");
        courier.take_latencies();
        feeder.take_latencies();
        let following = follow(cli, &database, &witness, &courier, &feeder, &mut minutes);
        tokio::select! {
            followed = following => followed?,
            paced = pacer.run(offered) => paced?,
            fed = &mut feeding => fed?,
            violation = witness.violated() => bail!("not correct: {violation}"),
            watched = watch_priorities(&database) => watched?,
        }
        // Whoever still asks gets an answer before the end.
        let ending = async {
            stop.send_replace(true);
            feeding.await
        };
        tokio::select! {
            fed = ending => fed?,
            paced = pacer.run(offered) => paced?,
        }
    }
    operator.set_dispatch_paused(true).await?;
    pacer.end_all(&witness).await?;
    fleet.stop().await;
    let verdict = judge(&database, &hasty_store(&database)?, &witness, 0).await?;
    report.judge("endurance", &verdict)?;
    add_figures(report, offered, &minutes)?;
    cluster.drop_database(DATABASE)
}

/// How many calls a second end, once what the start brings along is over.
async fn highest_rate(cli: &Cli, witness: &Witness) -> f64 {
    let (warm_up, length) = cli.pick(
        (Duration::from_secs(30), Duration::from_secs(30)),
        (Duration::from_secs(2), Duration::from_secs(3)),
    );
    tokio::time::sleep(warm_up).await;
    let (began, before) = (Instant::now(), witness.progress().ended);
    tokio::time::sleep(length).await;
    (witness.progress().ended - before) as f64 / began.elapsed().as_secs_f64()
}

/// Looks at the end of each minute, and says what it was like.
async fn follow(
    cli: &Cli,
    database: &BenchDatabase,
    witness: &Witness,
    courier: &Courier,
    feeder: &Feeder,
    minutes: &mut Vec<Minute>,
) -> anyhow::Result<()> {
    let (count, length) = cli.pick((10, Duration::from_secs(60)), (4, Duration::from_secs(4)));
    let mut conn = connect(&database.url)?;
    let mut ticks = tokio::time::interval(length);
    ticks.tick().await;
    let mut last = (Instant::now(), witness.progress().ended);
    for minute in 1..=count {
        ticks.tick().await;
        let now = (Instant::now(), witness.progress().ended);
        let (again, sizes) = tokio::task::spawn_blocking(move || {
            let sizes = sql::sizes(&mut conn);
            (conn, sizes)
        })
        .await?;
        conn = again;
        let found = Minute {
            rate: (now.1 - last.1) as f64 / (now.0 - last.0).as_secs_f64(),
            end: courier.take_latencies().percentiles(),
            door: feeder.take_latencies().percentiles(),
            sizes: sizes?,
            memory_mib: resident_bytes(std::process::id()).unwrap_or(0.0) / MIB,
        };
        last = now;
        say!(
            "  minute {minute}: {:.0} a second, ends p99 {:.1} ms, hot tables {:.1} + {:.1} MiB, {} dead rows, {:.0} MiB",
            found.rate,
            found.end.p99,
            found.sizes.table_bytes / MIB,
            found.sizes.index_bytes / MIB,
            found.sizes.dead_rows,
            found.memory_mib
        );
        minutes.push(found);
    }
    Ok(())
}

/// Ends calls at a steady rate, the oldest first, if so many are up.
struct Pacer {
    courier: Arc<Courier>,
    calls_up: CallsUp,
    up: VecDeque<CallId>,
    ended: usize,
}

impl Pacer {
    /// Ends only with an error.
    async fn run(&mut self, rate: f64) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut pace = Pace::new(rate);
        loop {
            tokio::select! {
                call = self.calls_up.recv() => {
                    self.up.push_back(call.context("the carrier is gone")?);
                }
                _ = ticks.tick() => while pace.is_due() && self.end_oldest() {
                    pace.count();
                },
            }
        }
    }

    fn end_oldest(&mut self) -> bool {
        let Some(call) = self.up.pop_front() else {
            return false;
        };
        self.courier.end(call, self.ended);
        self.ended += 1;
        true
    }

    /// Ends whatever is up, and what still comes, until nothing does.
    async fn end_all(&mut self, witness: &Witness) -> anyhow::Result<()> {
        while self.end_oldest() {}
        let down = all_down(witness);
        tokio::pin!(down);
        loop {
            tokio::select! {
                ended = &mut down => return ended,
                call = self.calls_up.recv() => {
                    self.up.push_back(call.context("the carrier is gone")?);
                    self.end_oldest();
                }
            }
        }
    }
}

fn add_figures(report: &mut Report, offered: f64, minutes: &[Minute]) -> anyhow::Result<()> {
    let (Some(first), Some(last)) = (minutes.first(), minutes.last()) else {
        bail!("no minute was measured");
    };
    ensure!(offered > 0.0, "nothing was offered");
    let rates: Vec<f64> = minutes.iter().map(|it| it.rate).collect();
    report.add(Figure::rate(
        "endurance.offered",
        "endurance, offered",
        &[offered],
    ));
    let reached = Figure::rate("endurance.rate", "reached, minute by minute", &rates);
    report.add(reached.detail());
    report.add(
        Figure::plain(
            "endurance.last_to_first",
            "last minute's rate to the first's",
            "",
            &[last.rate / first.rate],
        )
        .at_least(0.9)
        .detail(),
    );
    let mut follow = |id: &str, words: &str, unit: &str, of: fn(&Minute) -> f64| {
        report.series.push(Series {
            id: format!("endurance.{id}"),
            words: words.into(),
            unit: unit.into(),
            values: minutes.iter().map(of).collect(),
        });
    };
    follow("rate", "calls a second", "/s", |it| it.rate);
    follow("end_p50", "an end, from told to durable, p50", "ms", |it| {
        it.end.p50
    });
    follow("end_p99", "an end, from told to durable, p99", "ms", |it| {
        it.end.p99
    });
    follow(
        "door_p50",
        "a direct call at the engine's door, p50",
        "ms",
        |it| it.door.p50,
    );
    follow(
        "door_p99",
        "a direct call at the engine's door, p99",
        "ms",
        |it| it.door.p99,
    );
    follow("tables", "hot tables", "MiB", |it| {
        it.sizes.table_bytes / MIB
    });
    follow("indexes", "their indexes", "MiB", |it| {
        it.sizes.index_bytes / MIB
    });
    follow("dead_rows", "dead rows in them", "", |it| {
        it.sizes.dead_rows
    });
    follow("database", "the database, history included", "MiB", |it| {
        it.sizes.database_bytes / MIB
    });
    follow("oldest_snapshot", "oldest snapshot", "s", |it| {
        it.sizes.oldest_snapshot_seconds
    });
    follow("memory", "memory of the server", "MiB", |it| it.memory_mib);
    for series in report.series.clone() {
        let edge = |which: &str, values: &[f64]| {
            let id = format!("{}.{which}", series.id);
            let words = format!("{which} minute: {}", series.words);
            Figure::plain(&id, &words, &series.unit, values).detail()
        };
        let (first, last) = (series.values.first(), series.values.last());
        report.add(edge("first", first.map_or(&[][..], std::slice::from_ref)));
        report.add(edge("last", last.map_or(&[][..], std::slice::from_ref)));
    }
    Ok(())
}
