//! Servers side by side in this process: each has an engine, a processor and connections of its
//! own, wired as `callq serve` wires them, without HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use callq_concurrency::{Engine, EngineOptions};
use callq_domain::{CallProvider, Providers, ServerId};
use callq_persistence::{Database, PostgresStore};
use callq_queue_processor::{Processor, ProcessorOptions};

use crate::carrier::{CallsUp, Carrier};
use crate::cluster::BenchDatabase;
use crate::seed::provider_name;
use crate::witness::Witness;

/// As `callq serve` has them.
const ENGINE_CONNECTIONS: u32 = 3;
const OTHER_CONNECTIONS: u32 = 2;

/// Longest wait for the engines' connections, each of which rehearses first.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Fleet {
    servers: Vec<Server>,
}

struct Server {
    engine: Engine,
    processor: Processor,
}

impl Fleet {
    /// Starts `count` servers, and the carrier they all place with.
    pub(crate) async fn start(
        database: &BenchDatabase,
        count: u8,
        witness: &Arc<Witness>,
    ) -> anyhow::Result<(Self, CallsUp)> {
        let (carrier, calls_up) = Carrier::new(provider_name()?, Arc::clone(witness));
        let carrier: Arc<dyn CallProvider> = carrier;
        let providers = Providers::new([carrier]);
        let mut fleet = Self {
            servers: Vec::new(),
        };
        for _ in 0..count {
            fleet
                .servers
                .push(Server::start(database, providers.clone()).await?);
        }
        Ok((fleet, calls_up))
    }

    pub(crate) fn engines(&self) -> Vec<Engine> {
        self.servers
            .iter()
            .map(|server| server.engine.clone())
            .collect()
    }

    /// Has every engine look for work.
    pub(crate) fn wake(&self) {
        for server in &self.servers {
            server.engine.wake();
        }
    }

    /// Stops all servers; their connections are closed on return.
    pub(crate) async fn stop(self) {
        for server in self.servers {
            server.processor.shutdown(Duration::from_secs(10)).await;
        }
    }
}

impl Server {
    async fn start(database: &BenchDatabase, providers: Providers) -> anyhow::Result<Self> {
        let others = Database::new(&database.url, OTHER_CONNECTIONS)?;
        let engines = Database::for_engine(&database.url, ENGINE_CONNECTIONS)?;
        let store =
            PostgresStore::new(others, provider_name()?).with_engine_database(engines.clone());
        let store = Arc::new(store);
        let id = ServerId::new();
        let (engine, reservations) = Engine::spawn(store.clone(), id, EngineOptions::default());
        let processor = Processor::start(
            engine.clone(),
            reservations,
            store.clone(),
            store,
            providers,
            id,
            ProcessorOptions::default(),
        )
        .await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while engines.connections().1 < ENGINE_CONNECTIONS {
            ensure!(
                tokio::time::Instant::now() < deadline,
                "the engine's connections are not ready"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { engine, processor })
    }
}
