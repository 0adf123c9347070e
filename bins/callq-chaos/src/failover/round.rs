//! One round: load, a loss, the wait for everything to be back, and the lost node's return.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::Rng;

use super::load::{Answer, Load, Request};
use super::probe::Probe;
use super::{Death, GRACE, SILENCE, Scene};
use crate::patroni::NodeName;

/// How long anything that must happen may take before the drill gives up on it.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a round showed.
pub(super) struct Round {
    death: Death,
    node: NodeName,
    /// From the death until the database accepted a write.
    database: Duration,
    /// From the death until each server accepted a call.
    servers: Vec<Duration>,
    /// From its start, or its waking, until the lost node was a synchronous standby.
    rejoined: Duration,
}

impl Scene {
    /// Has the leader die, and waits until all is as before.
    pub(super) fn round(
        &mut self,
        death: Death,
        probe: &Probe,
        load: &Load,
    ) -> anyhow::Result<Round> {
        sleep(Duration::from_millis(
            self.random.random_range(2_000..4_000),
        ));
        let node = match death {
            Death::Kill => self.cluster.kill_leader()?,
            Death::KillAhead => self.cluster.kill_leader_ahead(AHEAD)?,
            Death::Freeze | Death::Hang => self.cluster.freeze_leader()?,
            Death::KillStandby => self.cluster.kill_standby()?,
            Death::FreezeStandby => self.cluster.freeze_standby()?,
        };
        let died = Instant::now();
        let database = probe.first_after(died, PATIENCE)?;
        let servers = (0..self.servers.addresses().len())
            .map(|server| first_accepted(load, server, died))
            .collect::<anyhow::Result<_>>()?;
        sleep(Duration::from_millis(
            self.random.random_range(1_000..3_000),
        ));
        let began = Instant::now();
        match death {
            Death::Hang => self.cluster.thaw(node),
            _ => self.cluster.revive(node)?,
        }
        self.cluster.wait_for_synchronous_standby(PATIENCE)?;
        Ok(Round {
            death,
            node,
            database,
            servers,
            rejoined: began.elapsed(),
        })
    }
}

/// How long the standby is held.
const HOLD: Duration = Duration::from_secs(2);

/// How long a leader is ahead of its standby before it dies.
const AHEAD: Duration = Duration::from_secs(1);

/// How long an answer that needed nothing more of the database may take to arrive.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

impl Scene {
    /// Has the standby acknowledge nothing for a while, in which nobody may be told that a call was
    /// accepted: should the leader die then, the standby would not know of it. Returns what is
    /// wrong, if anything is.
    pub(super) fn hold(&self, load: &Load) -> anyhow::Result<Option<String>> {
        self.cluster.hold_standby()?;
        sleep(ON_ITS_WAY);
        let from = Instant::now();
        sleep(HOLD);
        let until = Instant::now();
        self.cluster.resume_standby()?;
        for server in 0..self.servers.addresses().len() {
            first_accepted(load, server, until)?;
        }
        let accepted = load
            .requests()
            .iter()
            .filter(|request| matches!(request.answer, Answer::Accepted(_)))
            .filter(|request| (from..until).contains(&request.answered))
            .count();
        say!(
            "standby silent for {} s: {accepted} calls accepted meanwhile",
            (ON_ITS_WAY + HOLD).as_secs_f64()
        );
        Ok((accepted > 0).then(|| format!("{accepted} calls were accepted that no standby had")))
    }
}

/// Waits until a server accepts a call after a moment, and says how long after: one that was asked
/// for after it, or before it and was not simply on its way.
pub(super) fn first_accepted(
    load: &Load,
    server: usize,
    after: Instant,
) -> anyhow::Result<Duration> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(first) = first_accepted_of(&load.requests(), server, after) {
            return Ok(first);
        }
        if Instant::now() >= deadline {
            bail!("server {} accepts no calls again", server + 1);
        }
        sleep(Duration::from_millis(50));
    }
}

fn first_accepted_of(requests: &[Request], server: usize, after: Instant) -> Option<Duration> {
    requests
        .iter()
        .filter(|request| request.server == server)
        .filter(|request| request.sent > after || request.answered > after + ON_ITS_WAY)
        .filter(|request| matches!(request.answer, Answer::Accepted(_)))
        .map(|request| request.answered - after)
        .min()
}

impl Round {
    /// What is wrong with it, if anything is.
    pub(super) fn fault(&self) -> Option<String> {
        let last = self.servers.iter().max()?;
        let allowed = match self.death {
            Death::Kill | Death::KillAhead | Death::KillStandby => self.database + GRACE,
            // Until the silence is noticed there is no saying whether the node only is slow.
            Death::Freeze | Death::Hang | Death::FreezeStandby => {
                self.database.max(SILENCE) + GRACE
            }
        };
        (*last > allowed).then(|| {
            format!(
                "a server was back after {:.2} s, {:.2} s were allowed",
                last.as_secs_f64(),
                allowed.as_secs_f64()
            )
        })
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.death {
            Death::Kill => "leading, killed",
            Death::KillAhead => "leading and ahead, killed",
            Death::Freeze => "leading, frozen",
            Death::Hang => "leading, frozen and thawed",
            Death::KillStandby => "standing by, killed",
            Death::FreezeStandby => "standing by, frozen",
        };
        write!(
            f,
            "node {}, {how}; database back after {:.2} s; servers after",
            self.node,
            self.database.as_secs_f64()
        )?;
        for server in &self.servers {
            let late = server.as_secs_f64() - self.database.as_secs_f64();
            write!(f, " {:.2} ({late:+.2})", server.as_secs_f64())?;
        }
        write!(
            f,
            " s; the node followed again {:.1} s after it was let",
            self.rejoined.as_secs_f64()
        )
    }
}
