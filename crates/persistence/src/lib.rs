//! PostgreSQL behind callq's ports: rows apart from domain types, and the decisions that must be
//! exact kept in SQL functions.
//!
//! # Using it from another service
//!
//! ```no_run
//! use callq_domain::{OperatorStore, ProviderName, QueueStore, UserId};
//! use callq_persistence::{Database, PostgresStore, migrations};
//!
//! # async fn example(user: UserId) -> Result<(), Box<dyn std::error::Error>> {
//! let url = "postgresql:///callq?host=/var/run/postgresql";
//! migrations::up(url)?;
//! let provider = ProviderName::new("simulator").ok_or("not a provider's name")?;
//! let store = PostgresStore::new(Database::new(url, 8)?, provider);
//!
//! store.ready().await?;
//! let queue = store.queue_status(user).await?;
//! println!("{} direct calls wait", queue.direct.queued);
//! # Ok(())
//! # }
//! ```

mod accounts;
mod calls;
mod campaigns;
mod connections;
mod cursor;
mod database;
mod directory;
mod do_not_call;
mod door;
mod engine;
mod failure;
mod functions;
mod generation;
pub mod migrations;
mod operator_calls;
mod operators;
mod ownership;
mod patience;
mod queue;
mod rehearsal;
mod rows;
mod schema;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use connections::connect;
pub use database::Database;
pub use failure::Failure;

/// Every store of callq on one database. Implements the ports of `callq_domain`.
#[derive(Clone)]
pub struct PostgresStore {
    database: Database,
    engine: Database,
    default_provider: callq_domain::ProviderName,
    tokens: Arc<tokens::TokenLookups>,
    /// Whether there turned out to be a pooler between us and PostgreSQL.
    pooled: Arc<AtomicBool>,
}

impl PostgresStore {
    /// A store on `database`. `default_provider` carries the calls of agents that name none.
    #[must_use]
    pub fn new(database: Database, default_provider: callq_domain::ProviderName) -> Self {
        Self {
            engine: database.clone(),
            database,
            default_provider,
            tokens: Arc::default(),
            pooled: Arc::default(),
        }
    }

    /// With connections of the engine's own, made by [`Database::for_engine`]. Three are
    /// enough for a server, and then no reader can keep it waiting.
    #[must_use]
    pub fn with_engine_database(mut self, engine: Database) -> Self {
        self.engine = engine;
        self
    }
}
