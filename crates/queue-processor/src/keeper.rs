//! Proof of life, take-over from the dead, and housekeeping.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callq_concurrency::Engine;
use callq_domain::{Call, DirectoryStore, OwnershipStore, Providers, ServerId, StoreError};
use log::{error, info, warn};
use tokio::sync::Notify;

use crate::lease::{Lease, since_boot};

/// Keeps this server alive in the eyes of others, and cleans up after those that are not.
pub(crate) struct Keeper {
    pub engine: Engine,
    pub store: Arc<dyn OwnershipStore>,
    pub directory: Arc<dyn DirectoryStore>,
    pub providers: Providers,
    pub server: ServerId,
    pub lease: Arc<Lease>,
    pub placement_bound: Duration,
    pub lease_length: Duration,
    pub sweep_interval: Duration,
    pub doubt: Arc<Notify>,
}

/// Between two looks for calls that came back to a campaign which was cancelled meanwhile: they hold
/// no slot and will not start, but are not over.
const LEFT_OVER: Duration = Duration::from_secs(20);

/// Between two rounds of housekeeping.
const MAINTENANCE: Duration = Duration::from_secs(3600);

/// Between attempts to renew a lease that could not be.
const RENEW_AGAIN: Duration = Duration::from_millis(250);

/// The longest pause between two renewals: short enough that a lease always leaves time to dial,
/// however long a provider may take.
const RENEW: Duration = Duration::from_secs(3);

/// How much earlier a server believes its lease to be over than the database does. Leases go by the
/// database's clock, and when a standby takes over that is another machine's.
const CLOCKS_DIFFER: Duration = Duration::from_secs(2);

/// Renews the lease several times in its length. While too little of it is left to dial, nothing is
/// admitted or reserved: it could not be placed.
pub(crate) async fn keep_lease(this: Arc<Keeper>) {
    loop {
        let renewed = this.renew_or_suspend().await;
        let alive = this.lease.leaves(this.placement_bound);
        this.engine.suspend(!alive);
        let pause = match renewed {
            Ok(()) => RENEW.min(this.lease_length / 5),
            Err(cause) => {
                warn!(server_id:% = this.server, alive = alive; "the lease could not be renewed: {cause}");
                RENEW_AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Takes over orphans, about once a sweep, and maintains now and then.
pub(crate) async fn sweep(this: Arc<Keeper>) {
    let mut maintained = Instant::now();
    let mut withdrawn = Instant::now();
    loop {
        // Take-over is due soon after a lease ends, however rare the sweeps are.
        tokio::time::sleep(this.sweep_interval.min(this.lease_length / 5)).await;
        this.take_over().await;
        if withdrawn.elapsed() >= LEFT_OVER {
            withdrawn = Instant::now();
            if let Err(cause) = this.store.withdraw_left_over().await {
                warn!("calls of cancelled campaigns could not be withdrawn yet: {cause}");
            }
        }
        if maintained.elapsed() >= MAINTENANCE {
            maintained = Instant::now();
            if let Err(cause) = this.store.maintain().await {
                error!("housekeeping failed: {cause}");
            }
        }
        this.engine.wake();
    }
}

impl Keeper {
    /// Proves that this server lives. While the answer is waited for and too little of the lease is
    /// left to dial, nothing is admitted or reserved.
    async fn renew_or_suspend(&self) -> Result<(), StoreError> {
        let renewing = self.renew();
        tokio::pin!(renewing);
        let left = self.lease.left().saturating_sub(self.placement_bound);
        tokio::select! {
            renewed = &mut renewing => return renewed,
            () = tokio::time::sleep(left) => self.engine.suspend(true),
        }
        renewing.await
    }

    /// Proves that this server lives.
    pub(crate) async fn renew(&self) -> Result<(), StoreError> {
        let asked_at = since_boot();
        self.store
            .renew_lease(self.server, self.lease_length)
            .await?;
        let believed = self.lease_length.saturating_sub(CLOCKS_DIFFER);
        self.lease.renewed(asked_at, believed);
        Ok(())
    }

    /// Takes over what dead servers left.
    pub(crate) async fn take_over(&self) {
        match self.store.adopt_orphans(self.server).await {
            Ok(calls) if calls.is_empty() => {}
            Ok(calls) => {
                info!(server_id:% = self.server, calls = calls.len(); "took over calls of a server that is gone");
                for call in &calls {
                    self.resume(call).await;
                }
                self.doubt.notify_one();
                self.engine.wake();
            }
            Err(cause) => warn!("orphans could not be taken over: {cause}"),
        }
    }

    async fn resume(&self, call: &Call) {
        let Some(provider) = self.providers.get(&call.provider) else {
            return;
        };
        match self.directory.agent(call.user_id, call.agent_id).await {
            Ok(agent) => {
                let settings = agent.and_then(|agent| agent.fields.settings);
                provider.resume(call, settings.as_deref());
            }
            Err(cause) => warn!(call_id:% = call.id; "its agent could not be read: {cause}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::{LEASE_MARGIN, PROVIDER_SLACK};

    #[test]
    fn between_two_renewals_a_lease_leaves_time_to_dial_however_long_that_takes() {
        // A renewal's own time comes on top of the pause: what the store gives it at most.
        const RENEWAL: Duration = Duration::from_secs(4);
        const {
            assert!(
                LEASE_MARGIN.as_millis()
                    >= (CLOCKS_DIFFER.as_millis()
                        + RENEW.as_millis()
                        + RENEWAL.as_millis()
                        + PROVIDER_SLACK.as_millis())
            )
        };
    }
}
