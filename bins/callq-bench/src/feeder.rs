//! New calls while others go, as many as are placed: four fifths as campaigns, made and started as
//! users do it, one fifth as direct calls at an engine's door.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use callq_concurrency::{Engine, Initiated};
use callq_domain::PlacementReport;
use callq_persistence::PostgresStore;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::latency::Latencies;
use crate::seed::{Backlog, DIRECT_PERCENT, direct_call, start_campaign};
use crate::witness::Witness;

/// Contacts of each campaign.
const CAMPAIGN: u32 = 100;

/// Between two looks at how many calls are owed.
const PAUSE: Duration = Duration::from_millis(10);

/// Feeds the servers until it is dropped.
pub(crate) struct Feeder {
    pub store: PostgresStore,
    pub engines: Vec<Engine>,
    pub witness: Arc<Witness>,
    pub backlog: Backlog,
    /// From asking for a direct call to its answer.
    pub door: Mutex<Latencies>,
}

/// Contacts that a user needs for both kinds of call.
pub(crate) const SPARE_CONTACTS: u32 = CAMPAIGN;

impl Feeder {
    fn door(&self) -> MutexGuard<'_, Latencies> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn take_latencies(&self) -> Latencies {
        std::mem::take(&mut *self.door())
    }

    /// Calls placed so far, of which this share is direct or not.
    fn owed(&self, percent: u32) -> u64 {
        self.witness.progress().placed * u64::from(percent) / 100
    }

    /// Makes campaigns, user by user. Ends only with an error.
    pub(crate) async fn feed_campaigns(
        &self,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut fed = 0;
        for user in (0..self.backlog.users).cycle() {
            while self.owed(100 - DIRECT_PERCENT) < fed + u64::from(CAMPAIGN) {
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                }
            }
            let contacts: Vec<u32> = (0..CAMPAIGN)
                .map(|nth| self.backlog.spare_contact(user, nth))
                .collect();
            for contact in &contacts {
                self.witness.expect_meanwhile(*contact);
            }
            start_campaign(&self.store, user, &contacts).await?;
            for engine in &self.engines {
                engine.wake();
            }
            fed += u64::from(CAMPAIGN);
        }
        Ok(())
    }

    /// Asks for direct calls, user by user, each in a task of its own.
    pub(crate) async fn feed_direct_calls(
        self: &Arc<Self>,
        mut stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut asking = JoinSet::new();
        let mut fed = 0;
        loop {
            while fed < self.owed(DIRECT_PERCENT) {
                asking.spawn(Arc::clone(self).ask(fed));
                fed += 1;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stop.wait_for(|stop| *stop) => break,
                Some(asked) = asking.join_next() => asked??,
            }
            while let Some(asked) = asking.try_join_next() {
                asked??;
            }
        }
        while let Some(asked) = asking.join_next().await {
            asked??;
        }
        Ok(())
    }

    async fn ask(self: Arc<Self>, nth: u64) -> anyhow::Result<()> {
        let users = u64::from(self.backlog.users);
        let user = u32::try_from(nth % users)?;
        let contact = self.backlog.spare_contact(
            user,
            u32::try_from(nth / users % u64::from(SPARE_CONTACTS))?,
        );
        let engine = &self.engines[usize::try_from(nth)? % self.engines.len()];
        self.witness.expect_meanwhile(contact);
        let asked = Instant::now();
        let answer = engine.initiate(direct_call(user, contact)).await?;
        self.door().record(asked.elapsed());
        let accepted = matches!(
            answer,
            Initiated::Queued(_) | Initiated::Started(PlacementReport::Placed { .. })
        );
        ensure!(accepted, "a direct call was answered with {answer:?}");
        Ok(())
    }
}
