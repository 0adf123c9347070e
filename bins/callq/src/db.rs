//! The database a command works on: the one that is configured, the private cluster that `serve`
//! runs already, or that cluster started for the occasion.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use callq_embedded_postgres::{EmbeddedError, EmbeddedPostgres, Options};
use callq_persistence::{Database, PostgresStore, migrations};

use crate::config::{Config, mask_url};
use crate::gauges::Pools;

/// One settles what moves slots, one records the rest, one proves that this server lives.
const ENGINE_CONNECTIONS: u32 = 3;

/// How long a command waits for another process that has just begun to run the private cluster.
const PATIENCE_WITH_OWNER: Duration = Duration::from_secs(10);

/// Between looks at whether the private cluster is still there.
const LOOK_AT_CLUSTER: Duration = Duration::from_secs(1);

fn is_owned_by_another(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(EmbeddedError::InUse { .. }))
}

/// An open database. Keep it as long as its URL is used: dropping it stops a cluster it started.
pub(crate) struct Db {
    url: String,
    cluster: Option<Arc<Mutex<Option<EmbeddedPostgres>>>>,
    external: bool,
}

impl Db {
    /// The configured database, or the private cluster, owned: for `serve`.
    pub(crate) async fn own(config: &Config) -> anyhow::Result<Self> {
        match &config.database_url {
            Some(url) => Ok(Self::external(url)),
            None => Self::start_cluster(config).await,
        }
    }

    /// The configured database, the private cluster as `serve` runs it, or else that cluster
    /// started for now: for commands.
    pub(crate) async fn borrow(config: &Config) -> anyhow::Result<Self> {
        if let Some(url) = &config.database_url {
            return Ok(Self::external(url));
        }
        // A process that has just begun to run the cluster owns it before it answers.
        let deadline = tokio::time::Instant::now() + PATIENCE_WITH_OWNER;
        loop {
            let data_dir = config.data_dir.clone();
            let running =
                tokio::task::spawn_blocking(move || EmbeddedPostgres::connect_existing(data_dir))
                    .await??;
            if let Some(url) = running {
                return Ok(Self {
                    url,
                    cluster: None,
                    external: false,
                });
            }
            match Self::start_cluster(config).await {
                Err(error)
                    if is_owned_by_another(&error) && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                started => return started,
            }
        }
    }

    fn external(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            cluster: None,
            external: true,
        }
    }

    async fn start_cluster(config: &Config) -> anyhow::Result<Self> {
        let mut options = Options::new(&config.data_dir);
        options.max_connections = u16::try_from(config.pool_size + 20)
            .unwrap_or(u16::MAX)
            .max(100);
        let cluster =
            tokio::task::spawn_blocking(move || EmbeddedPostgres::start(options)).await??;
        Ok(Self {
            url: cluster.url().to_owned(),
            cluster: Some(Arc::new(Mutex::new(Some(cluster)))),
            external: false,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether this process alone uses the database: it owns the private cluster.
    pub(crate) fn is_owned(&self) -> bool {
        self.cluster.is_some()
    }

    /// A word for logs: never a password.
    pub(crate) fn describe(&self) -> String {
        if self.external {
            mask_url(&self.url)
        } else {
            "the private cluster".into()
        }
    }

    /// Brings the schema up to date where that is this process's to do: always on the private
    /// cluster; elsewhere it only checks.
    pub(crate) async fn prepare(&self) -> anyhow::Result<()> {
        let (url, external) = (self.url.clone(), self.external);
        tokio::task::spawn_blocking(move || {
            if external {
                migrations::check_current(&url)
            } else {
                migrations::up(&url).map(drop)
            }
        })
        .await?
        .context("the schema is not ready; run `callq migrate up`")
    }

    /// A store on this database, for a command.
    pub(crate) fn store(&self, config: &Config) -> anyhow::Result<PostgresStore> {
        let database = Database::new(&self.url, config.pool_size)?;
        Ok(PostgresStore::new(database, config.call_provider.clone()))
    }

    /// A store on this database, for a server, and its pools: some connections are the engine's.
    pub(crate) fn server_store(&self, config: &Config) -> anyhow::Result<(PostgresStore, Pools)> {
        let database = Database::new(&self.url, config.pool_size - ENGINE_CONNECTIONS)?;
        let engine = Database::for_engine(&self.url, ENGINE_CONNECTIONS)?;
        let pools = vec![("requests", database.clone()), ("engine", engine.clone())];
        let store = PostgresStore::new(database, config.call_provider.clone());
        Ok((store.with_engine_database(engine), pools))
    }

    /// Starts the private cluster again, for as long as the server runs, whenever it dies.
    pub(crate) fn keep_alive(&self) {
        let Some(cluster) = self.cluster.clone() else {
            return;
        };
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_AT_CLUSTER).await;
                let cluster = Arc::clone(&cluster);
                let looked = tokio::task::spawn_blocking(move || match &mut *held(&cluster) {
                    Some(cluster) => cluster.revive().map(|_| true),
                    None => Ok(false),
                })
                .await;
                match looked {
                    Ok(Ok(true)) => {}
                    Ok(Err(cause)) => log::error!("the private cluster is down: {cause}"),
                    Err(cause) => log::error!("the look at the private cluster failed: {cause}"),
                    Ok(Ok(false)) => return,
                }
            }
        });
    }

    /// Stops the private cluster if this process started it.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        if let Some(cluster) = self.cluster {
            tokio::task::spawn_blocking(move || held(&cluster).take().map(EmbeddedPostgres::stop))
                .await?
                .transpose()?;
        }
        Ok(())
    }
}

/// A look at the cluster that failed leaves nothing half done.
fn held(cluster: &Mutex<Option<EmbeddedPostgres>>) -> MutexGuard<'_, Option<EmbeddedPostgres>> {
    cluster.lock().unwrap_or_else(PoisonError::into_inner)
}
