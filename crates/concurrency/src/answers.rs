//! What the engine answers.

use callq_domain::{PlacementReport, Queued, Refusal, Repeat, StoreError};

/// What became of a direct call at the door.
#[derive(Debug, Clone)]
pub enum Initiated {
    /// It got a slot, and this became of its placement.
    Started(PlacementReport),
    /// It waits.
    Queued(Queued),
    /// It was refused. Nothing was written.
    Refused(Refusal),
    /// Its idempotency key was used before. Nothing was written.
    Repeated(Repeat),
}

/// Why the engine could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The database cannot be reached.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// More is waiting to be settled than the engine holds.
    #[error("too many requests are waiting to be settled")]
    Overloaded,
    /// The server is stopping.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// A defect.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => Self::Unavailable(cause),
            other => Self::Internal(other.to_string()),
        }
    }
}
