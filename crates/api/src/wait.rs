//! How a place in line is shown: estimated wait, and when to ask again.

use callq_domain::{QueuePlace, QueueReason, Queued, WaitEstimate};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Bounds on `Retry-After`, in seconds.
const RETRY_AFTER: (u64, u64) = (1, 3600);

/// Seconds that half and nine tenths of such waits stay under.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = WaitQuantiles)]
pub(crate) struct QuantilesResponse {
    /// Half of such waits are shorter.
    p50: u64,
    /// Nine in ten are shorter.
    p90: u64,
}

/// What can be said of a wait.
pub(crate) struct Wait {
    pub(crate) minutes: u64,
    pub(crate) quantiles: Option<QuantilesResponse>,
}

impl Wait {
    /// The wait at `place` of a call that is not due before `due`.
    pub(crate) fn at(place: &QueuePlace, due: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Self {
        let until_due = seconds_until(due, now);
        let estimate = WaitEstimate::for_place(place);
        // Its line may well be over by the time it is due, so the two waits do not add up.
        let at_least = |seconds: u64| seconds.max(until_due);
        Self {
            minutes: estimate.minutes.max(until_due.div_ceil(60)),
            quantiles: estimate.quantiles.map(|known| QuantilesResponse {
                p50: at_least(known.p50),
                p90: at_least(known.p90),
            }),
        }
    }

    /// Seconds after which asking again makes sense.
    pub(crate) fn retry_after(&self) -> u64 {
        let seconds = match &self.quantiles {
            Some(known) => known.p50,
            None => self.minutes.saturating_mul(60),
        };
        seconds.clamp(RETRY_AFTER.0, RETRY_AFTER.1)
    }
}

fn seconds_until(due: Option<DateTime<Utc>>, now: DateTime<Utc>) -> u64 {
    due.and_then(|due| u64::try_from((due - now).num_seconds()).ok())
        .unwrap_or(0)
}

/// Where a queued call stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = QueueTicket)]
pub(crate) struct TicketResponse {
    /// The queue item.
    id: Uuid,
    /// 1 for the next to go among your waiting direct calls.
    position: u64,
    /// How many of your direct calls wait, this one included.
    total_in_queue: u64,
    /// Whole minutes, at least 1.
    estimated_wait: u64,
    /// Learned from your own calls; null while there is too little to know.
    estimated_wait_seconds: Option<QuantilesResponse>,
    /// When it gives up, if it does.
    expires_at: Option<DateTime<Utc>>,
    /// Where to ask how it is.
    status_url: String,
}

impl TicketResponse {
    /// The ticket of a call that waits, and the seconds after which to ask again.
    pub(crate) fn of(queued: &Queued, now: DateTime<Utc>) -> (Self, u64) {
        let due = match queued.reason {
            QueueReason::Scheduled(at) => Some(at),
            _ => None,
        };
        let wait = Wait::at(&queued.place, due, now);
        let retry_after = wait.retry_after();
        let ticket = Self {
            id: queued.item_id.into(),
            position: queued.place.position,
            total_in_queue: queued.place.total_in_queue,
            estimated_wait: wait.minutes,
            estimated_wait_seconds: wait.quantiles,
            expires_at: queued.expires_at,
            status_url: format!("/api/queue/{}", queued.item_id),
        };
        (ticket, retry_after)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use callq_domain::Pace;
    use chrono::TimeDelta;

    use super::*;

    fn place(samples: u32) -> QueuePlace {
        QueuePlace {
            position: 2,
            total_in_queue: 2,
            pace: Pace {
                slots: 1,
                samples,
                mean_hold: Duration::from_secs(30),
            },
        }
    }

    #[test]
    fn retry_after_follows_what_is_known_within_its_bounds() {
        let now = Utc::now();
        assert_eq!(Wait::at(&place(10), None, now).retry_after(), 60);
        assert_eq!(Wait::at(&place(0), None, now).retry_after(), 240);
        let far = Some(now + TimeDelta::days(3));
        assert_eq!(Wait::at(&place(10), far, now).retry_after(), 3600);
    }

    #[test]
    fn nobody_is_promised_a_start_before_it_is_due() {
        let now = Utc::now();
        let wait = Wait::at(&place(10), Some(now + TimeDelta::minutes(30)), now);
        assert_eq!(wait.minutes, 30);
        assert_eq!(wait.quantiles.map(|known| known.p50), Some(1800));
        let past = Wait::at(&place(10), Some(now - TimeDelta::minutes(30)), now);
        assert_eq!(past.minutes, 1);
    }
}
