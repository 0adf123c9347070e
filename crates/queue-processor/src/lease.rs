//! This server's proof of life, as its own clock sees it.

use std::sync::Mutex;
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
    until: Mutex<Duration>,
}

impl Lease {
    pub(crate) fn over() -> Self {
        Self {
            until: Mutex::new(Duration::ZERO),
        }
    }

    /// Notes a renewal for `length` that was asked for at `asked_at`, a [`since_boot`].
    pub(crate) fn renewed(&self, asked_at: Duration, length: Duration) {
        let mut until = self
            .until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *until = (*until).max(asked_at + length);
    }

    /// Whether at least `needed` of the lease is left.
    pub(crate) fn leaves(&self, needed: Duration) -> bool {
        self.left() >= needed
    }

    /// How much of the lease is left.
    pub fn left(&self) -> Duration {
        let until = *self
            .until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
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
}
