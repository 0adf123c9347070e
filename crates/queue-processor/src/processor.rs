//! The processor as a whole: its tasks, how they start, how they stop.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use callq_concurrency::{Engine, Reservations};
use callq_domain::{DirectoryStore, OwnershipStore, Providers, ServerId, StoreError};
use log::{error, info, warn};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::task::TaskTracker;

use crate::dispatcher::{self, Dispatcher};
use crate::keeper::{self, Keeper};
use crate::lease::Lease;
use crate::reconciler::{self, Reconciler};

/// How a processor behaves.
#[derive(Debug, Clone)]
pub struct ProcessorOptions {
    /// The longest wait for a provider's answer to one placement.
    pub provider_timeout: Duration,
    /// A call without a terminal event for this long is looked up and ended.
    pub max_call: Duration,
    /// Between two sweeps, which only repair.
    pub sweep_interval: Duration,
    /// Set by a caller that knows no other server uses this database, as with the embedded one:
    /// what earlier servers left is then taken over at once instead of when their leases end.
    pub alone: bool,
}

impl Default for ProcessorOptions {
    fn default() -> Self {
        Self {
            provider_timeout: Duration::from_secs(10),
            max_call: Duration::from_secs(7200),
            sweep_interval: Duration::from_secs(10),
            alone: false,
        }
    }
}

/// How much longer than the provider's own time-out its answer is waited for: a provider that times
/// out by itself can say whether anything was sent.
pub(crate) const PROVIDER_SLACK: Duration = Duration::from_millis(500);

/// How much longer a lease is than the longest placement.
pub(crate) const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// A running processor.
pub struct Processor {
    keeper: Arc<Keeper>,
    in_flight: TaskTracker,
    tasks: Vec<JoinHandle<()>>,
    dispatching: watch::Receiver<()>,
}

impl Processor {
    /// Proves that this server lives, takes over what dead servers left, and begins to place what
    /// the engine reserves.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be reached; nothing was started then.
    pub async fn start(
        engine: Engine,
        reservations: Reservations,
        store: Arc<dyn OwnershipStore>,
        directory: Arc<dyn DirectoryStore>,
        providers: Providers,
        server: ServerId,
        options: ProcessorOptions,
    ) -> Result<Self, StoreError> {
        let lease = Arc::new(Lease::over());
        let doubt = Arc::new(Notify::new());
        let in_flight = TaskTracker::new();
        let keeper = Arc::new(Keeper {
            engine: engine.clone(),
            store: Arc::clone(&store),
            directory,
            providers: providers.clone(),
            server,
            lease: Arc::clone(&lease),
            placement_bound: options.provider_timeout + PROVIDER_SLACK,
            lease_length: options.provider_timeout + LEASE_MARGIN,
            sweep_interval: options.sweep_interval,
            doubt: Arc::clone(&doubt),
        });
        keeper.renew().await?;
        store.maintain().await?;
        if options.alone {
            store.retire_others(server).await?;
        }
        keeper.take_over().await;
        engine.wake();

        let dispatcher = Arc::new(Dispatcher {
            engine: engine.clone(),
            providers: providers.clone(),
            lease,
            placement_bound: options.provider_timeout + PROVIDER_SLACK,
            doubt: Arc::clone(&doubt),
            in_flight: in_flight.clone(),
        });
        let reconciler = Arc::new(Reconciler {
            engine,
            store,
            providers,
            server,
            max_call: options.max_call,
            provider_timeout: options.provider_timeout,
            doubt,
        });
        // Closed by the dispatcher's end, however it comes.
        let (dispatches, dispatching) = watch::channel(());
        let tasks = vec![
            tokio::spawn(async move {
                let _dispatches = dispatches;
                dispatcher::run(dispatcher, reservations).await;
            }),
            watched("lease", {
                let it = Arc::clone(&keeper);
                move || keeper::keep_lease(Arc::clone(&it))
            }),
            watched("sweep", {
                let it = Arc::clone(&keeper);
                move || keeper::sweep(Arc::clone(&it))
            }),
            watched("reconciler", move || {
                reconciler::run(Arc::clone(&reconciler))
            }),
        ];
        Ok(Self {
            keeper,
            in_flight,
            tasks,
            dispatching,
        })
    }

    /// This server's lease, to be shown.
    #[must_use]
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.keeper.lease)
    }

    /// Waits until nobody takes what the engine reserves any more: a defect, after which this server
    /// can place nothing and has to be started anew, with its process.
    pub async fn failed(&self) {
        let mut dispatching = self.dispatching.clone();
        while dispatching.changed().await.is_ok() {}
    }

    /// Stops reserving, lets placements in flight finish for at most `grace`, and ends this
    /// server's lease. Calls in progress are left alone.
    pub async fn shutdown(self, grace: Duration) {
        let engine = &self.keeper.engine;
        engine.stop_admitting();
        self.in_flight.close();
        if tokio::time::timeout(grace, self.in_flight.wait())
            .await
            .is_err()
        {
            warn!(
                "placements still in flight after {} s are left to be looked up",
                grace.as_secs()
            );
        }
        for task in &self.tasks {
            task.abort();
        }
        engine.close().await;
        // What has not been sent by now is another server's to decide.
        self.keeper.lease.end();
        if let Err(cause) = self.keeper.store.retire(self.keeper.server).await {
            warn!("the lease could not be ended: {cause}");
        }
        info!(server_id:% = self.keeper.server; "stopped");
    }
}

/// Runs a task that never ends; should it panic, says so and runs it again.
pub(crate) fn watched<F>(
    name: &'static str,
    task: impl Fn() -> F + Send + 'static,
) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            // A set of one: it takes its task along when this one is aborted.
            let mut running = JoinSet::new();
            running.spawn(task());
            match running.join_next().await {
                None => return,
                Some(Err(panic)) => error!("the task {name} failed and is started again: {panic}"),
                Some(Ok(())) => error!("the task {name} ended and is started again"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}
