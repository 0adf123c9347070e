//! A round: everything is started, broken, left in peace, and judged.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use callq_testing::{Deed, Ledger};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::cli::{Cli, Plan};
use crate::client::{Client, World};
use crate::database::Database;
use crate::notes::{Notes, Promise};
use crate::people::{self, User};
use crate::server::{GRACE_SECONDS, Server};
use crate::storm::{self, Stage};
use crate::twin::Twin;
use crate::{campaigns, dialer, judge, sql};

/// Of the ways in which one promise was broken, so many are told.
const SHOWN: usize = 5;

/// Shared by callq and the dialer.
const SECRET: &str = "whsec_Y2hhb3MsIGEgc2VjcmV0IG9mIG5vIGltcG9ydGFuY2U=";

/// How long all that was accepted may take to end once it is calm: what is left in the queues,
/// calls of twenty seconds, and look-ups of those whose end was not told.
const REST: Duration = Duration::from_secs(150);

/// Contacts of each campaign.
pub(crate) const CONTACTS: usize = 40;

/// As long as callq waits for the dialer, and the longest that a call may take: a twenty-fourth of
/// it later callq asks about calls whose end it was not told.
const PROVIDER_TIMEOUT_MS: u64 = 1_000;
pub(crate) const MAX_CALL_SECONDS: i64 = 240;

/// Runs all rounds, and says whether each went as it should.
pub(crate) fn run_all(cli: &Cli) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(until_stopped(run_rounds(&cli.plan)));
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

/// Runs `work` to its end, or until this process is asked to stop.
async fn until_stopped(work: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<bool> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = work => done,
        _ = terminate.recv() => bail!("stopped"),
        _ = interrupt.recv() => bail!("stopped"),
    }
}

async fn run_rounds(plan: &Plan) -> anyhow::Result<bool> {
    let now = chrono::Utc::now().timestamp();
    let first = plan.seed.unwrap_or(u64::try_from(now).unwrap_or(0));
    let mut well = true;
    for seed in first..first + plan.rounds {
        well &= match plan.twin {
            Some(twin) => run_round(&in_short(plan, twin), seed).await?,
            None => run_round(plan, seed).await?,
        };
        if plan.twins {
            for twin in Twin::ALL {
                well &= run_round(&in_short(plan, twin), seed).await?;
            }
        }
    }
    Ok(well)
}

/// A run long enough for servers to die with calls up and for their leases to end.
fn in_short(plan: &Plan, twin: Twin) -> Plan {
    Plan {
        twin: Some(twin),
        users: 80,
        system_limit: 80,
        seconds: plan.seconds.min(30),
        server_kills: 8,
        power_cuts: 6,
        server_stops: 0,
        pauses: 0,
        database_kills: 0,
        ..plan.clone()
    }
}

/// Runs one round and reports on it. Whether it went as it should: no promise was broken, or, of a
/// twin, the one that it breaks.
async fn run_round(plan: &Plan, seed: u64) -> anyhow::Result<bool> {
    // Rounds share neither ledger nor database.
    let name = plan
        .twin
        .map_or(seed.to_string(), |twin| format!("{seed}-{twin:?}"));
    let folder = Folder::make(plan.folder.as_ref().map(|folder| folder.join(name)))?;
    say!(
        "seed {seed}: {} s of storm over {} servers and {} users{}; {}",
        plan.seconds,
        plan.servers,
        plan.users,
        plan.twin
            .map_or(String::new(), |it| format!(", broken on purpose ({it:?})")),
        folder.path.display()
    );
    let notes = Arc::new(Notes::new());
    let began = Instant::now();
    let ledger = play(plan, seed, &folder.path, &notes).await;
    let ledger = match ledger {
        Ok(ledger) => ledger,
        Err(error) => {
            folder.keep();
            return Err(error);
        }
    };
    let told = report(&ledger, &notes, began.elapsed());
    std::fs::write(folder.path.join("report.txt"), &told)?;
    say!("{told}");
    let broken = notes.all_broken();
    let well = match plan.twin {
        None => broken.is_empty(),
        Some(twin) => twin.breaks().iter().any(|it| broken.contains_key(it)),
    };
    match (plan.twin, well) {
        (None, true) => say!("seed {seed}: every promise was kept\n"),
        (None, false) => say!("seed {seed}: PROMISES WERE BROKEN\n"),
        (Some(twin), true) => say!("seed {seed}: {twin:?} was found out\n"),
        (Some(twin), false) => say!("seed {seed}: {twin:?} WAS NOT FOUND OUT\n"),
    }
    if !well {
        folder.keep();
    }
    Ok(well)
}

/// The folder of a round.
struct Folder {
    path: PathBuf,
    temporary: Option<TempDir>,
}

impl Folder {
    fn make(wanted: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = wanted {
            std::fs::create_dir_all(&path)?;
            return Ok(Self {
                path,
                temporary: None,
            });
        }
        let temporary = tempfile::Builder::new().prefix("callq-chaos-").tempdir()?;
        Ok(Self {
            path: temporary.path().to_owned(),
            temporary: Some(temporary),
        })
    }

    fn keep(self) {
        if let Some(temporary) = self.temporary {
            say!("logs and ledger are kept in {}", temporary.keep().display());
        }
    }
}

async fn play(plan: &Plan, seed: u64, folder: &Path, notes: &Arc<Notes>) -> anyhow::Result<Ledger> {
    let programs = programs(plan)?;
    let database = {
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || Database::start(&folder)).await??
    };
    let mut settings = vec![
        ("DATABASE_URL", database.url.clone()),
        ("CALL_PROVIDER", "http".to_owned()),
        ("HTTP_PROVIDER_SECRET", SECRET.to_owned()),
        ("PROVIDER_TIMEOUT_MS", PROVIDER_TIMEOUT_MS.to_string()),
        ("MAX_CALL_SECONDS", MAX_CALL_SECONDS.to_string()),
        ("SHUTDOWN_GRACE_SECONDS", GRACE_SECONDS.to_string()),
        (
            "SYSTEM_CONCURRENT_CALLS_LIMIT",
            plan.system_limit.to_string(),
        ),
        ("RUST_LOG", "info".to_owned()),
    ];
    let dialer_address = reserve_address()?;
    settings.push(("HTTP_PROVIDER_URL", format!("http://{dialer_address}")));
    let servers: Vec<Server> = (0..plan.servers)
        .map(|n| Server::new(n, &programs[n % programs.len()], folder, &settings, notes))
        .collect::<Result<_, _>>()?;
    let addresses: Vec<String> = servers.iter().map(|it| it.address.clone()).collect();
    let ledger_file = folder.join("ledger.jsonl");
    let (mut dialer, stdin) = start_dialer(
        &ledger_file,
        seed,
        plan.twin.is_some(),
        &dialer_address,
        &addresses,
    )
    .await?;
    for server in &servers {
        server.start().await?;
    }
    if let Some(twin) = plan.twin {
        sql::execute(&database.url, &twin.sql())?;
    }
    let world = World::new(addresses, notes)?;
    let users = people::make(
        &programs[0],
        &database.url,
        &world,
        plan.users,
        plan.user_limit,
    )
    .await?;
    let stage = Arc::new(Stage {
        servers,
        database,
        dialer: Mutex::new(stdin),
        notes: Arc::clone(notes),
    });
    let clients = send_clients(plan, seed, &world, &users);
    let mut dice = StdRng::seed_from_u64(seed);
    let storm = storm::schedule(plan, &mut dice);
    stage.rage(storm, plan.storm()).await?;
    stage.tell_dialer(dialer::CALM).await?;
    world.over.store(true, Ordering::Relaxed);
    // What is broken on purpose has been seen by then.
    let rest = plan.twin.map_or(REST, |_| Duration::from_secs(3));
    come_to_rest(&stage, &world, &users, clients, rest).await?;

    let ledger = Ledger::read(&ledger_file)?;
    {
        let (plan, url, notes) = (plan.clone(), stage.database.url.clone(), Arc::clone(notes));
        let logs: Vec<PathBuf> = stage.servers.iter().map(|it| it.log.clone()).collect();
        let ledger = ledger.clone();
        tokio::task::spawn_blocking(move || {
            let logs: Vec<&Path> = logs.iter().map(PathBuf::as_path).collect();
            judge::judge(&plan, &url, &ledger, &logs, &notes)
        })
        .await??;
    }
    for server in &stage.servers {
        server.retire().await?;
    }
    dialer.kill().await?;
    stage.database.stop().await?;
    Ok(ledger)
}

/// The binaries of callq: those that were named, or the one beside this program.
fn programs(plan: &Plan) -> anyhow::Result<Vec<PathBuf>> {
    let programs = if plan.callq.is_empty() {
        vec![std::env::current_exe()?.with_file_name("callq")]
    } else {
        plan.callq
            .iter()
            .map(std::path::absolute)
            .collect::<Result<_, _>>()?
    };
    for program in &programs {
        ensure!(
            program.is_file(),
            "{} is not there; build it: cargo build --bin callq",
            program.display()
        );
    }
    Ok(programs)
}

/// An address that is free now.
fn reserve_address() -> anyhow::Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}

async fn start_dialer(
    ledger: &Path,
    seed: u64,
    slow: bool,
    address: &str,
    servers: &[String],
) -> anyhow::Result<(Child, tokio::process::ChildStdin)> {
    let mut dialer = Command::new(std::env::current_exe()?)
        .arg("dialer")
        .arg("--ledger")
        .arg(ledger)
        .args(["--listen", address])
        .args(["--secret", SECRET, "--seed", &seed.to_string()])
        .args(["--servers", &servers.join(",")])
        .args(slow.then_some("--slow"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = dialer.stdout.take().context("no output")?;
    let stdin = dialer.stdin.take().context("no input")?;
    let mut lines = BufReader::new(output).lines();
    match lines.next_line().await? {
        Some(line) if line.starts_with(dialer::ANNOUNCEMENT) => Ok((dialer, stdin)),
        other => bail!("the dialer said {other:?}"),
    }
}

/// Sets the users to work: all ask for calls, every other one runs campaigns too.
fn send_clients(plan: &Plan, seed: u64, world: &Arc<World>, users: &[User]) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    // So many that about two thirds of the slots go to direct calls.
    let busy = f64::from(plan.system_limit) / 3.0;
    let mean = Duration::from_secs_f64(plan.users as f64 / busy);
    for (n, user) in users.iter().enumerate() {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(n as u64);
        clients.spawn(Client::new(world, user, seed).ask_for_calls(mean));
        if n % 2 == 0 {
            let client = Client::new(world, user, seed.wrapping_add(500_000));
            clients.spawn(campaigns::run(client, CONTACTS));
        }
    }
    clients
}

/// Waits until every wish has its answer and every call its end.
async fn come_to_rest(
    stage: &Stage,
    world: &Arc<World>,
    users: &[User],
    mut clients: JoinSet<()>,
    rest: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + rest;
    let done = tokio::time::timeout(rest, async {
        while let Some(one) = clients.join_next().await {
            one?;
        }
        for (n, user) in users.iter().enumerate().step_by(2) {
            campaigns::cancel_all(Client::new(world, user, n as u64)).await;
        }
        anyhow::Ok(())
    });
    match done.await {
        Ok(done) => done?,
        Err(_) => {
            let how = format!(
                "clients have no answer {} s after the storm",
                rest.as_secs()
            );
            stage.notes.broken(Promise::HonestAnswers, how);
        }
    }
    world.given_up.store(true, Ordering::Relaxed);
    let url = stage.database.url.clone();
    tokio::task::spawn_blocking(move || {
        let mut conn = sql::connect(&url)?;
        while judge::unfinished(&mut conn)? > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        anyhow::Ok(())
    })
    .await?
}

/// What came of a round, in words.
fn report(ledger: &Ledger, notes: &Notes, took: Duration) -> String {
    let broken = notes.all_broken();
    let mut lines = Vec::new();
    for promise in Promise::ALL {
        let found = broken.get(&promise).map_or(0, Vec::len);
        let verdict = match found {
            0 => "kept".to_owned(),
            _ => format!("BROKEN {found} times"),
        };
        lines.push(format!("  {:<45} {verdict}", promise.words()));
        for how in broken.get(&promise).into_iter().flatten().take(SHOWN) {
            lines.push(format!("      {how}"));
        }
    }
    lines.push(format!(
        "  {} dials, {} calls put up, at most {} at once, in {:.0} s",
        ledger.count(Deed::Dial),
        ledger.count(Deed::Start),
        ledger.max_overlap(),
        took.as_secs_f64()
    ));
    let counts = notes.counts();
    let words: Vec<String> = counts
        .iter()
        .map(|(what, n)| format!("{n} {what}"))
        .collect();
    lines.push(format!("  {}", words.join(", ")));
    if let Some(longest) = judge::slowest_recovery(ledger, &notes.database_back()) {
        lines.push(format!(
            "  after PostgreSQL came back the next call was put up within {} ms",
            longest.num_milliseconds()
        ));
    }
    lines.join("\n")
}
