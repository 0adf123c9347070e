//! Limits on calls at once, and how much of them is in use.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

/// How many calls may hold a slot at once: 0 to [`ConcurrencyLimit::MAX`].
///
/// Zero is a limit like any other: nothing starts until it is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConcurrencyLimit(u32);

/// A number that is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Not a whole number.
    #[error("must be a whole number from 0 to {max}", max = ConcurrencyLimit::MAX)]
    NotANumber(#[from] ParseIntError),
    /// A whole number, but not one callq can promise to hold.
    #[error("must be from 0 to {max}", max = ConcurrencyLimit::MAX)]
    OutOfRange,
}

impl ConcurrencyLimit {
    /// The largest limit, chosen so that sums of limits never overflow 32 bits.
    pub const MAX: u32 = 1_000_000;

    /// A limit of `value` calls at once.
    ///
    /// # Errors
    /// [`LimitError::OutOfRange`] below 0 or above [`ConcurrencyLimit::MAX`].
    pub fn new(value: i64) -> Result<Self, LimitError> {
        match u32::try_from(value) {
            Ok(value) if value <= Self::MAX => Ok(Self(value)),
            _ => Err(LimitError::OutOfRange),
        }
    }

    /// The number of calls.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for ConcurrencyLimit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.trim().parse()?)
    }
}

impl fmt::Display for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The most calls that a cap on a user's waiting calls may name.
pub const MAX_QUEUED_CALLS: u32 = 100_000_000;

/// What holds for a user's waiting calls of which nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDefaults {
    /// So many direct calls may wait; none for any number.
    pub max_queued_direct_calls: Option<u32>,
    /// So many calls of campaigns under way may wait; none for any number.
    pub max_queued_campaign_calls: Option<u32>,
    /// A direct call that names no expiry gives up so long after it was accepted, or was to start.
    pub direct_call_ttl: Option<Duration>,
    /// A campaign call gives up so long after it was laid out, or its campaign may next call.
    pub campaign_call_ttl: Option<Duration>,
}

/// So many campaign calls to one number within any 24 hours: 1 to [`NumberLimit::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumberLimit(u16);

impl NumberLimit {
    /// The largest limit.
    pub const MAX: u16 = 1_000;

    /// A limit, if it lies in 1 to [`NumberLimit::MAX`].
    #[must_use]
    pub fn new(value: i64) -> Option<Self> {
        u16::try_from(value)
            .ok()
            .filter(|calls| (1..=Self::MAX).contains(calls))
            .map(Self)
    }

    /// The number of calls.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// A limit beside the calls that hold a slot under it. `active` may exceed `limit` only after the
/// limit was lowered: that ends no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotUse {
    /// Slots there are.
    pub limit: u32,
    /// Slots taken.
    pub active: u32,
}

impl SlotUse {
    /// Slots left.
    #[must_use]
    pub const fn available(self) -> u32 {
        self.limit.saturating_sub(self.active)
    }
}

/// Turns relative to others, a user's beside other users' or a campaign's beside its user's other
/// campaigns': 1 to 1,000, default 1. Weight 2 gets two turns a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight(u16);

impl Weight {
    /// One turn a round.
    pub const ONE: Self = Self(1);
    /// The heaviest weight.
    pub const MAX: u16 = 1_000;
    /// The length of a round in units of virtual time: the stride of weight 1. It is divisible by
    /// 2, 3, 4, 5, 6, 8, 10 and more, so that common weights give whole strides.
    pub const ROUND: i64 = 720_720;

    /// A weight, if it lies in 1 to [`Weight::MAX`].
    #[must_use]
    pub fn new(value: i64) -> Option<Self> {
        u16::try_from(value)
            .ok()
            .filter(|weight| (1..=Self::MAX).contains(weight))
            .map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// How far one call moves its user or campaign back in virtual time (stride scheduling, Waldspurger and
    /// Weihl 1995): `ROUND / weight`, rounded down.
    #[must_use]
    pub fn stride(self) -> i64 {
        Self::ROUND / i64::from(self.0)
    }
}

/// How many calls may start in a second: a thousandth to [`CallRate::MAX`], in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallRate(u32);

impl CallRate {
    /// The fastest pace, in calls a second.
    pub const MAX: u32 = 1_000;

    /// A pace of so many calls a second, rounded to thousandths; none if that is no number from
    /// 0.001 to [`CallRate::MAX`].
    #[must_use]
    pub fn per_second(calls: f64) -> Option<Self> {
        let thousandths = (calls * 1_000.0).round();
        let possible = (1.0..=f64::from(Self::MAX) * 1_000.0).contains(&thousandths);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is looked at just before"
        )]
        possible.then_some(Self(thousandths as u32))
    }

    /// Calls a second.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }
}

/// How fast a campaign may go beside what slots allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// How many of its calls may be up at once; none for as many as its user may have.
    pub max_concurrent_calls: Option<ConcurrencyLimit>,
    /// How many of its calls may start in a second; none for any number.
    pub calls_per_second: Option<CallRate>,
    /// Its turns beside those of its user's other campaigns.
    pub weight: Weight,
}

impl Pacing {
    /// As fast as slots allow, one turn a round.
    pub const FREE: Self = Self {
        max_concurrent_calls: None,
        calls_per_second: None,
        weight: Weight::ONE,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_thousandth_to_a_thousand_calls_a_second() {
        for (calls, kept) in [(0.001, 0.001), (0.25, 0.25), (12.3456, 12.346), (1e3, 1e3)] {
            assert_eq!(CallRate::per_second(calls).map(CallRate::get), Some(kept));
        }
        for calls in [0.0, 0.0004, -1.0, 1_000.001, f64::NAN, f64::INFINITY] {
            assert_eq!(CallRate::per_second(calls), None);
        }
    }

    #[test]
    fn limits_outside_the_range_are_refused() {
        assert!(ConcurrencyLimit::new(0).is_ok());
        assert_eq!(ConcurrencyLimit::new(-1), Err(LimitError::OutOfRange));
        assert_eq!(
            ConcurrencyLimit::new(1_000_001),
            Err(LimitError::OutOfRange)
        );
        assert!("two".parse::<ConcurrencyLimit>().is_err());
        assert_eq!(
            " 5 ".parse::<ConcurrencyLimit>().map(ConcurrencyLimit::get),
            Ok(5)
        );
    }

    #[test]
    fn use_over_a_lowered_limit_leaves_nothing_available() {
        assert_eq!(
            SlotUse {
                limit: 1,
                active: 3
            }
            .available(),
            0
        );
        assert_eq!(
            SlotUse {
                limit: 5,
                active: 3
            }
            .available(),
            2
        );
    }

    #[test]
    fn a_number_is_called_once_a_day_at_least() {
        assert!(NumberLimit::new(0).is_none() && NumberLimit::new(1_001).is_none());
        assert_eq!(NumberLimit::new(3).map(NumberLimit::get), Some(3));
    }

    #[test]
    fn twice_the_weight_is_half_the_stride() {
        let two = Weight::new(2).expect("in range");
        assert_eq!(two.stride() * 2, Weight::ONE.stride());
        assert!(Weight::new(0).is_none() && Weight::new(1_001).is_none());
    }
}
