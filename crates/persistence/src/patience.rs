//! How long somebody still waits for what is being done at the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use callq_domain::StoreError;

/// Until when it is waited for.
pub(crate) struct Patience {
    end: Instant,
    is_over: Arc<AtomicBool>,
}

impl Patience {
    /// So long at most, and no longer than the second value lives.
    pub(crate) fn of(bound: Duration) -> (Self, Over) {
        let is_over = Arc::new(AtomicBool::new(false));
        let patience = Self {
            end: Instant::now() + bound,
            is_over: Arc::clone(&is_over),
        };
        (patience, Over(is_over))
    }

    pub(crate) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// # Errors
    /// [`StoreError::Unavailable`] if nobody waits any more.
    pub(crate) fn lasts(&self) -> Result<(), StoreError> {
        if self.left().is_zero() || self.is_over.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable(
                "given up before it was done".into(),
            ));
        }
        Ok(())
    }
}

/// Says that nobody waits any more when it is dropped, by a caller that goes away too.
pub(crate) struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
