//! Who gets a slot, and when: the engine that gathers admissions, endings and returns and settles
//! them in one transaction a batch.
//!
//! While one transaction commits, the next batch gathers: an idle system answers after one commit,
//! a busy one pays one commit for hundreds of calls. The engine decides only *when* to ask its
//! store and what to put into a batch; the store keeps limits, order and turns exact, from however
//! many servers it is asked.
//!
//! # Using it from another service
//!
//! Implement [`callq_domain::EngineStore`] (or take `callq_persistence::PostgresStore`), spawn the
//! engine, and place what comes out of its reservations. The store lets nothing start for a server
//! that has not proved its life lately (`OwnershipStore::renew_lease`); the queue processor does so:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use callq_domain::{EngineStore, ExecutionId, ServerId};
//! # fn execution_id() -> ExecutionId { ExecutionId::new("the provider's name for it").expect("an id") }
//! # async fn example(store: Arc<dyn EngineStore>) {
//! use callq_concurrency::{Engine, EngineOptions};
//!
//! let (engine, mut reservations) = Engine::spawn(store, ServerId::new(), EngineOptions::default());
//! while let Some(reservation) = reservations.recv().await {
//!     // Place it, once, and record what became of it; dropping it gives its place to the next.
//!     let attempt = reservation.call.request.attempt;
//!     // … ask the provider …
//!     engine.record_placed(attempt, execution_id()).await.ok();
//! }
//! # }
//! ```

mod answers;
mod batch;
mod engine;
#[cfg(test)]
mod engine_tests;
mod limits;
mod progress;
mod reservation;
mod slots;

pub use answers::{EngineError, Initiated};
pub use engine::{Engine, EngineOptions};
pub use limits::should_queue;
pub use reservation::{Reservation, Reservations};
