//! The faults of a round: what is broken, when, and for how long, all decided by the seed before it
//! begins.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::Plan;
use crate::database::{Database, End};
use crate::notes::Notes;
use crate::server::Server;

/// One fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Kill -9 of a server.
    KillServer { server: usize, away: Duration },
    /// Kill -9 of all servers at once.
    CutPower { away: Duration },
    /// SIGTERM to a server.
    StopServer { server: usize, away: Duration },
    /// SIGSTOP to a server, and SIGCONT later.
    PauseServer { server: usize, time: Duration },
    /// PostgreSQL ends, and is started again.
    EndDatabase { end: End, away: Duration },
    /// The dialer answers no look-up.
    ForgetCalls { time: Duration },
}

/// A fault and its time, from the storm's beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scheduled {
    pub at: Duration,
    pub fault: Fault,
}

/// Longer than the lease of a server, which is ten seconds more than the wait for a provider.
const LONG_SLEEP: Duration = Duration::from_secs(13);

/// The storm of a plan.
pub(crate) fn schedule(plan: &Plan, dice: &mut StdRng) -> Vec<Scheduled> {
    let storm = plan.storm();
    let mut faults = Vec::new();
    let millis = |dice: &mut StdRng, range: std::ops::Range<u64>| {
        Duration::from_millis(dice.random_range(range))
    };
    for _ in 0..plan.server_kills {
        let server = dice.random_range(0..plan.servers);
        let away = millis(dice, 0..2_000);
        faults.push(Fault::KillServer { server, away });
    }
    for _ in 0..plan.power_cuts {
        let away = millis(dice, 0..1_000);
        faults.push(Fault::CutPower { away });
    }
    for _ in 0..plan.server_stops {
        let server = dice.random_range(0..plan.servers);
        let away = millis(dice, 0..1_000);
        faults.push(Fault::StopServer { server, away });
    }
    for n in 0..plan.pauses {
        let server = dice.random_range(0..plan.servers);
        let time = match n % 2 {
            0 => LONG_SLEEP + millis(dice, 0..2_000),
            _ => millis(dice, 300..3_000),
        };
        faults.push(Fault::PauseServer { server, time });
    }
    for _ in 0..plan.database_kills {
        let away = millis(dice, 0..2_500);
        faults.push(Fault::EndDatabase {
            end: End::any(dice),
            away,
        });
    }
    for _ in 0..plan.seconds / 20 {
        let time = millis(dice, 500..3_000);
        faults.push(Fault::ForgetCalls { time });
    }
    let mut storm: Vec<Scheduled> = faults
        .into_iter()
        .map(|fault| Scheduled {
            at: storm.mul_f64(dice.random_range(0.02..0.95)),
            fault,
        })
        .collect();
    storm.sort_by_key(|scheduled| scheduled.at);
    storm
}

/// What the faults befall.
pub(crate) struct Stage {
    pub servers: Vec<Server>,
    pub database: Database,
    pub dialer: Mutex<ChildStdin>,
    pub notes: Arc<Notes>,
}

impl Stage {
    /// Lets it all happen, and returns when everything is up again.
    pub(crate) async fn rage(
        self: &Arc<Self>,
        storm: Vec<Scheduled>,
        length: Duration,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut under_way = JoinSet::new();
        for scheduled in storm {
            self.watch_until(began + scheduled.at).await?;
            let stage = Arc::clone(self);
            // One that befalls what is being restarted waits until it is up.
            under_way.spawn(async move { stage.befall(scheduled.fault).await });
        }
        self.watch_until(began + length).await?;
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Waits, and looks after the servers meanwhile.
    async fn watch_until(&self, time: Instant) -> anyhow::Result<()> {
        loop {
            for server in &self.servers {
                server.look().await?;
            }
            let look = Instant::now() + Duration::from_millis(200);
            if look >= time {
                tokio::time::sleep_until(time).await;
                return Ok(());
            }
            tokio::time::sleep_until(look).await;
        }
    }

    async fn befall(&self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::KillServer { server, away } => {
                self.servers[server].kill(away).await?;
                self.notes.count("servers killed");
            }
            Fault::CutPower { away } => {
                futures_util::future::try_join_all(self.servers.iter().map(|it| it.kill(away)))
                    .await?;
                self.notes.count("power cuts");
            }
            Fault::StopServer { server, away } => {
                self.servers[server].stop(away).await?;
                self.notes.count("servers stopped and started");
            }
            Fault::PauseServer { server, time } => {
                self.servers[server].pause(time).await?;
                self.notes.count("servers put to sleep");
            }
            Fault::EndDatabase { end, away } => {
                self.database.end_and_start(end, away).await?;
                self.notes.database_is_back();
                self.notes.count("ends of PostgreSQL");
            }
            Fault::ForgetCalls { time } => {
                self.tell_dialer("forget").await?;
                tokio::time::sleep(time).await;
                self.tell_dialer("remember").await?;
                self.notes.count("times without look-ups");
            }
        }
        Ok(())
    }

    pub(crate) async fn tell_dialer(&self, what: &str) -> anyhow::Result<()> {
        let mut dialer = self.dialer.lock().await;
        dialer.write_all(format!("{what}\n").as_bytes()).await?;
        Ok(dialer.flush().await?)
    }
}
