//! What happens to a call once it has a slot, and what keeps the queue moving without anyone
//! asking: placement, leases, take-over of what dead servers left, look-ups of lost answers; and
//! the auditor.
//!
//! Hand-off is by event: a freed slot's next call comes out of the engine in the same transaction
//! that freed the slot, and is dialled from here at once. The sweep only repairs.
//!
//! # Using it from another service
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use callq_concurrency::{Engine, EngineOptions};
//! # use callq_domain::{DirectoryStore, EngineStore, OwnershipStore, Providers, ServerId};
//! use callq_queue_processor::{Processor, ProcessorOptions};
//!
//! # async fn example<S>(store: Arc<S>, providers: Providers)
//! # where S: EngineStore + OwnershipStore + DirectoryStore + 'static {
//! let server = ServerId::new();
//! let (engine, reservations) = Engine::spawn(store.clone(), server, EngineOptions::default());
//! let processor = Processor::start(
//!     engine, reservations, store.clone(), store, providers, server, ProcessorOptions::default(),
//! ).await.expect("the database is up");
//! // … serve …
//! processor.shutdown(std::time::Duration::from_secs(20)).await;
//! # }
//! ```

mod auditor;
mod backoff;
mod dispatcher;
#[cfg(test)]
mod dispatcher_tests;
mod inquiry;
mod keeper;
mod lease;
mod processor;
mod reconciler;
#[cfg(test)]
mod reconciler_tests;

pub use auditor::{AuditReport, spawn_auditor};
pub use lease::Lease;
pub use processor::{Processor, ProcessorOptions};
