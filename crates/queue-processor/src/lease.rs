//! This server's proof of life, as its own clock sees it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since this machine was started, by a clock that is never set and, on Linux, goes on
/// while the machine is suspended: a server that wakes from that must know that its lease is over.
pub(crate) fn since_boot() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Until when this server may send requests to providers.
///
/// Counted from *before* the renewal was sent, so that it never outlasts the lease the database
/// granted.
#[derive(Debug)]
pub struct Lease {
    /// `None` once this server has ended it.
    until: Mutex<Option<Duration>>,
}

impl Lease {
    pub(crate) fn over() -> Self {
        Self {
            until: Mutex::new(Some(Duration::ZERO)),
        }
    }

    fn until(&self) -> MutexGuard<'_, Option<Duration>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a renewal for `length` that was asked for at `asked_at`, a [`since_boot`].
    pub(crate) fn renewed(&self, asked_at: Duration, length: Duration) {
        if let Some(until) = self.until().as_mut() {
            *until = (*until).max(asked_at + length);
        }
    }

    /// Nothing may be sent from now on, whatever was or will be granted.
    pub(crate) fn end(&self) {
        *self.until() = None;
    }

    /// Whether at least `needed` of the lease is left.
    pub(crate) fn leaves(&self, needed: Duration) -> bool {
        self.left() >= needed
    }

    /// How much of the lease is left.
    pub fn left(&self) -> Duration {
        let until = self.until().unwrap_or_default();
        until.saturating_sub(since_boot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_until_it_is_renewed_and_is_never_shortened() {
        let lease = Lease::over();
        assert!(!lease.leaves(Duration::from_millis(1)));
        let now = since_boot();
        lease.renewed(now, Duration::from_secs(60));
        lease.renewed(now, Duration::from_secs(5));
        assert!(lease.leaves(Duration::from_secs(30)));
        assert!(!lease.leaves(Duration::from_secs(61)));
    }

    #[test]
    fn a_lease_that_was_ended_is_not_renewed() {
        let lease = Lease::over();
        lease.renewed(since_boot(), Duration::from_secs(60));
        lease.end();
        lease.renewed(since_boot(), Duration::from_secs(60));
        assert!(lease.left().is_zero());
    }
}
