//! The request rate limit: how often a user may ask, which has nothing to do with how many of its
//! calls may be up. Off unless it is configured.

use std::num::NonZeroU32;

use callq_domain::UserId;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};

use crate::problem::Problem;

/// A bucket for each user that has asked since the server started.
pub(crate) struct RequestRate {
    limiter: DefaultKeyedRateLimiter<UserId>,
    clock: DefaultClock,
}

impl RequestRate {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        Self {
            limiter: DefaultKeyedRateLimiter::keyed(Quota::per_second(per_second)),
            clock: DefaultClock::default(),
        }
    }

    /// Takes one request out of the user's bucket, or says when there will be one again.
    pub(crate) fn check(&self, user: UserId) -> Result<(), Problem> {
        self.limiter.check_key(&user).map(drop).map_err(|full| {
            let wait = full.wait_time_from(self.clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Problem::too_many_requests(seconds.max(1))
        })
    }
}
