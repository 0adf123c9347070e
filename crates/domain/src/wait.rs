//! The estimated wait: what can honestly be said from the place in line and recent call durations.

use std::time::Duration;

use crate::QueuePlace;

/// How long a waiting call may still wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitEstimate {
    /// Whole minutes, at least 1. Rests on an assumed call duration while `quantiles` is `None`.
    pub minutes: u64,
    /// What was learned from the user's own calls, or nothing while there is too little to know.
    pub quantiles: Option<WaitQuantiles>,
}

/// Whole seconds that half and nine tenths of such waits stay under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitQuantiles {
    /// Half of such waits are shorter.
    pub p50: u64,
    /// Nine in ten are shorter.
    pub p90: u64,
}

/// Ended calls it takes before a user's mean duration is used.
const ENOUGH_SAMPLES: u32 = 3;

/// What a call is assumed to last before anything is known.
const ASSUMED_HOLD: Duration = Duration::from_secs(120);

/// The 0.9 quantile of the standard normal distribution.
const Z90: f64 = 1.2816;

impl WaitEstimate {
    /// The estimate for a call at `place`.
    ///
    /// With `c` slots always busy, calls ending at random and lasting `m` on average, the wait of
    /// the n-th in line is the sum of n gaps of mean `m/c`: `n·m/c` on average with deviation
    /// `√n·m/c` (an Erlang distribution). p90 is its normal approximation.
    #[must_use]
    pub fn for_place(place: &QueuePlace) -> Self {
        let known = place.pace.samples >= ENOUGH_SAMPLES;
        let hold = if known {
            place.pace.mean_hold
        } else {
            ASSUMED_HOLD
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "an estimate of places far below 2^52"
        )]
        let ahead = place.position as f64;
        let gap = hold.as_secs_f64() / f64::from(place.pace.slots.max(1));
        let mean = ahead * gap;
        let p90 = mean + Z90 * ahead.sqrt() * gap;
        Self {
            minutes: whole(mean / 60.0).max(1),
            quantiles: known.then(|| WaitQuantiles {
                p50: whole(mean),
                p90: whole(p90),
            }),
        }
    }
}

/// The next whole number, as an integer; the cast saturates.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and waits are never negative"
)]
fn whole(value: f64) -> u64 {
    value.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pace;

    fn place(position: u64, samples: u32, seconds: u64, slots: u32) -> QueuePlace {
        QueuePlace {
            position,
            total_in_queue: position,
            pace: Pace {
                slots,
                samples,
                mean_hold: Duration::from_secs(seconds),
            },
        }
    }

    #[test]
    fn little_knowledge_gives_minutes_but_no_seconds() {
        let estimate = WaitEstimate::for_place(&place(1, 2, 10, 2));
        assert_eq!(estimate.quantiles, None);
        assert_eq!(estimate.minutes, 1);
        assert_eq!(WaitEstimate::for_place(&place(4, 0, 0, 2)).minutes, 4);
    }

    #[test]
    fn a_longer_line_waits_longer_and_p90_exceeds_p50() {
        let near = WaitEstimate::for_place(&place(1, 10, 60, 2));
        let far = WaitEstimate::for_place(&place(20, 10, 60, 2));
        let (near, far) = (
            near.quantiles.expect("known"),
            far.quantiles.expect("known"),
        );
        assert_eq!((near.p50, far.p50), (30, 600));
        assert!(near.p90 > near.p50 && far.p90 > far.p50);
    }

    #[test]
    fn no_slots_at_all_does_not_divide_by_zero() {
        assert_eq!(WaitEstimate::for_place(&place(2, 5, 60, 0)).minutes, 2);
    }
}
