//! The drill of losing the leading PostgreSQL: two servers, steady load, and in each round the
//! leader dies, the standby takes over, and the dead node comes back as the new standby.
//!
//! It measures how long the database was away (a probe of its own, which knows nothing of callq)
//! and how much longer callq was, and holds what callq answered against the dialer's ledger and
//! what callq says afterwards.

mod load;
mod probe;
mod round;
mod servers;
mod verdict;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use callq_testing::{Behaviour, DialerOptions, FakeDialer};
use clap::{Args, ValueEnum};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use self::load::Load;
use self::probe::Probe;
use self::servers::{Caller, Servers};
use crate::patroni::HaCluster;

/// Calls of one user that may be up at once.
const USER_LIMIT: usize = 2;

/// Calls that may be up at once in all.
const SYSTEM_LIMIT: usize = 25;

/// How long a call is up.
const TALK: Duration = Duration::from_millis(500);

/// How much longer than the database callq may be away.
const GRACE: Duration = Duration::from_secs(2);

/// How long callq believes in a connection on which nothing comes back, and the two seconds that
/// libpq waits for a silent node before it tries the other.
const SILENCE: Duration = Duration::from_secs(12);

/// What the drill is run with.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often the leader dies
    #[arg(long, value_name = "N", default_value_t = 4)]
    rounds: u32,
    /// Decides what is random: moments, users, and how the dialer behaves
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What becomes of a node; by default the first four take turns
    #[arg(long, value_enum, value_name = "HOW")]
    how: Option<Death>,
    /// Break it on purpose: commits do not wait for the standby, and the leader dies ahead of it. The
    /// drill succeeds if that is found out
    #[arg(long)]
    twin: bool,
    /// Users who call, two calls a second each
    #[arg(long, value_name = "N", default_value_t = 20)]
    users: usize,
    /// Where everything lies meanwhile [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// How a node is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Death {
    /// The leader's processes are killed; connections to it are refused from then on
    Kill,
    /// The same, after the standby has received nothing for a second
    KillAhead,
    /// The leader's processes stop where they are; connections to it stay open and silent
    Freeze,
    /// As frozen, and once another leads they go on as if nothing had happened
    Hang,
    /// The standby's processes are killed
    KillStandby,
    /// The standby's processes stop where they are
    FreezeStandby,
}

/// Everything that takes part.
struct Scene {
    cluster: HaCluster,
    dialer: FakeDialer,
    servers: Servers,
    callers: Vec<Caller>,
    random: StdRng,
    // Removed after all of the above have stopped.
    folder: TempDir,
}

/// Runs the drill.
///
/// # Errors
/// When a promise was broken, when callq was away for too long, or when the drill itself failed.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    say!("seed {}, {} rounds", options.seed, options.rounds);
    let mut scene = Scene::set(options)?;
    let played = scene.play(options).and_then(|broken| match broken {
        0 if options.twin => bail!("the twin was not found out (seed {})", options.seed),
        broken if options.twin => {
            say!("the twin was found out: {broken} promises broken");
            Ok(())
        }
        0 => {
            say!("every promise was kept");
            Ok(())
        }
        broken => bail!("{broken} promises broken (seed {})", options.seed),
    });
    scene.servers.stop();
    if played.is_err() {
        let Scene {
            cluster, folder, ..
        } = scene;
        if let Err(cause) = cluster.keep_logs(folder.path()) {
            say!("the logs of Patroni and etcd are lost: {cause}");
        }
        drop(cluster);
        say!("ledger and logs are kept in {}", folder.keep().display());
    }
    played
}

impl Scene {
    fn set(options: &Options) -> anyhow::Result<Self> {
        let began = Instant::now();
        let scratch = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new()
            .prefix("callq-failover-")
            .tempdir_in(&scratch)
            .with_context(|| format!("no folder can be made in {}", scratch.display()))?;
        let cluster = HaCluster::start(folder.path())?;
        say!(
            "two nodes, one of them leading, the other its synchronous standby, after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        servers::migrate(cluster.url())?;
        if options.twin {
            crate::sql::execute(
                cluster.url(),
                "ALTER ROLE CURRENT_USER SET synchronous_commit = local",
            )?;
        }
        let dialer = FakeDialer::start_with(DialerOptions {
            ledger_file: Some(folder.path().join("ledger.jsonl")),
            ..DialerOptions::default()
        })?;
        dialer.auto_end_after(TALK);
        let mut random = StdRng::seed_from_u64(options.seed);
        misbehave_now_and_then(&dialer, random.random());
        let servers = Servers::start(cluster.url(), &dialer, SYSTEM_LIMIT, folder.path())?;
        let callers = servers.create_callers(options.users, USER_LIMIT)?;
        Ok(Self {
            cluster,
            dialer,
            servers,
            callers,
            random,
            folder,
        })
    }

    /// How many promises were broken, times away for too long among them.
    fn play(&mut self, options: &Options) -> anyhow::Result<usize> {
        let probe = Probe::start(self.cluster.admin_url())?;
        let load = Load::start(
            self.servers.addresses(),
            self.callers.clone(),
            self.random.random(),
        );
        for server in 0..self.servers.addresses().len() {
            round::first_accepted(&load, server, Instant::now())?;
        }
        let early = self.hold(&load)?;
        let mut rounds = Vec::new();
        let mut turns = [Death::Kill, Death::KillAhead, Death::Freeze, Death::Hang]
            .into_iter()
            .cycle()
            .skip(self.random.random_range(0..4));
        for number in 1..=options.rounds {
            let wanted = options.twin.then_some(Death::KillAhead).or(options.how);
            let death = wanted.or_else(|| turns.next()).unwrap_or(Death::Kill);
            let round = self.round(death, &probe, &load)?;
            say!("round {number}: {round}");
            rounds.push(round);
        }
        let requests = load.stop();
        let mut faults = verdict::of(self, &requests)?;
        faults.extend(early);
        let late: Vec<String> = rounds.iter().filter_map(round::Round::fault).collect();
        for fault in faults.iter().chain(&late) {
            say!("✗ {fault}");
        }
        Ok(faults.len() + late.len())
    }
}

/// Most placements are accepted; some are answered late, not at all, or after the call is over.
fn misbehave_now_and_then(dialer: &FakeDialer, seed: u64) {
    let random = std::sync::Mutex::new(StdRng::seed_from_u64(seed));
    dialer.behave(move |_| {
        let mut random = random
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match random.random_range(0..100) {
            0..3 => Behaviour::AcceptThenReset,
            3..5 => Behaviour::Reset,
            5..8 => Behaviour::EventFirst { status: "busy" },
            8..11 => Behaviour::Busy {
                status: 429,
                retry_after: None,
            },
            11..20 => Behaviour::SlowAccept(Duration::from_millis(random.random_range(10..400))),
            _ => Behaviour::Accept,
        }
    });
}
