//! This server's proof of life, as its own clock sees it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Until when this server may send requests to providers.
///
/// Measured by the monotonic clock from *before* the renewal was sent, so that it never outlasts
/// the lease the database granted. On Linux that clock also stands still while the machine is
/// suspended; the database's mark (`mark_dialing`) is what fences then.
pub(crate) struct Lease {
    until: Mutex<Instant>,
}

impl Lease {
    pub(crate) fn over() -> Self {
        Self {
            until: Mutex::new(Instant::now()),
        }
    }

    /// Notes a renewal for `length` that was asked for at `asked_at`.
    pub(crate) fn renewed(&self, asked_at: Instant, length: Duration) {
        let mut until = self
            .until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *until = (*until).max(asked_at + length);
    }

    /// Whether at least `needed` of the lease is left.
    pub(crate) fn leaves(&self, needed: Duration) -> bool {
        let until = *self
            .until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        until.saturating_duration_since(Instant::now()) >= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_until_it_is_renewed_and_is_never_shortened() {
        let lease = Lease::over();
        assert!(!lease.leaves(Duration::from_millis(1)));
        let now = Instant::now();
        lease.renewed(now, Duration::from_secs(60));
        lease.renewed(now, Duration::from_secs(5));
        assert!(lease.leaves(Duration::from_secs(30)));
        assert!(!lease.leaves(Duration::from_secs(61)));
    }
}
