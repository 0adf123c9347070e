//! How evenly turns were given, in figures: over a record of who was served in which order.
//!
//! Three figures say it. [`jain_index`] is 1 when all were served at one rate and falls to `1/n`
//! when one of `n` was served alone. [`Turns::longest_gap`] is the worst that anybody had to wait,
//! held against [`round`]. [`Turns::share`] is what somebody got of the whole, held against the
//! share of its weight.
//!
//! ```
//! use callq_domain::fairness::{Turns, jain_index};
//! use callq_domain::UserId;
//!
//! let (ada, bob) = (UserId::new(), UserId::new());
//! let mut turns = Turns::default();
//! for user in [ada, bob, ada, bob, ada, ada] {
//!     turns.record(user);
//! }
//! assert_eq!((turns.given(ada), turns.longest_gap(ada)), (4, 2));
//! assert_eq!((turns.given(bob), turns.longest_gap(bob)), (2, 2));
//! assert_eq!(turns.since_last(bob), 2);
//! assert_eq!(jain_index(&[4.0, 2.0]), Some(0.9));
//! ```

use std::collections::BTreeMap;

use crate::{UserId, Weight};

/// Jain's fairness index of rates: `(Σ x)² / (n · Σ x²)`. None without a rate, or if all are 0.
///
/// R. Jain, D. Chiu and W. Hawe, *A Quantitative Measure of Fairness and Discrimination for
/// Resource Allocation in Shared Computer Systems*, DEC Research Report TR-301, 1984.
#[must_use]
pub fn jain_index(rates: &[f64]) -> Option<f64> {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    let count = rates.iter().map(|_| 1.0).sum::<f64>();
    (squares > 0.0).then(|| sum * sum / (count * squares))
}

/// The most turns there can be from one turn of a user to its next, that one included, while
/// `others` are ready too: each of them gets `weight / own` turns, rounded up.
#[must_use]
pub fn round(own: Weight, others: impl IntoIterator<Item = Weight>) -> u64 {
    let in_between = others
        .into_iter()
        .map(|other| u64::from(other.get()).div_ceil(own.get().into()));
    1 + in_between.sum::<u64>()
}

/// Who was served, in order. It keeps one entry a user, however many turns there were.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    total: u64,
    users: BTreeMap<UserId, OfUser>,
}

#[derive(Debug, Clone, Copy, Default)]
struct OfUser {
    given: u64,
    /// The number of its last turn, counted from 1.
    last: u64,
    longest_gap: u64,
}

impl Turns {
    /// A user is served next.
    pub fn record(&mut self, user: UserId) {
        self.total += 1;
        let of = self.users.entry(user).or_default();
        of.longest_gap = of.longest_gap.max(self.total - of.last);
        of.last = self.total;
        of.given += 1;
    }

    /// All turns so far.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// A user's turns so far.
    #[must_use]
    pub fn given(&self, user: UserId) -> u64 {
        self.of(user).given
    }

    /// The part of all turns that was a user's, from 0 to 1.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "nobody records so many turns that it shows"
    )]
    pub fn share(&self, user: UserId) -> f64 {
        self.given(user) as f64 / self.total.max(1) as f64
    }

    /// The most turns from the beginning, or from a turn of this user, to its next, that one
    /// included.
    #[must_use]
    pub fn longest_gap(&self, user: UserId) -> u64 {
        self.of(user).longest_gap
    }

    /// Turns of others since this user's last: for one that is still ready the gap goes on.
    #[must_use]
    pub fn since_last(&self, user: UserId) -> u64 {
        self.total - self.of(user).last
    }

    fn of(&self, user: UserId) -> OfUser {
        self.users.get(&user).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_1_for_equal_rates_and_one_nth_for_a_single_user() {
        assert_eq!(jain_index(&[3.0; 8]), Some(1.0));
        assert_eq!(jain_index(&[0.0, 5.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain_index(&[]), None);
        assert_eq!(jain_index(&[0.0, 0.0]), None);
    }

    #[test]
    fn a_round_gives_every_other_user_the_turns_of_its_weight() {
        let weight = |turns| Weight::new(turns).expect("in range");
        assert_eq!(round(weight(1), [1, 1, 1].map(weight)), 4);
        assert_eq!(round(weight(1), [4, 2].map(weight)), 7);
        assert_eq!(round(weight(4), [1, 2, 5].map(weight)), 5);
    }

    #[test]
    fn a_gap_counts_from_the_beginning_and_goes_on_after_the_last_turn() {
        let (early, late) = (UserId::new(), UserId::new());
        let mut turns = Turns::default();
        for user in [early, early, late, early, early, early, early] {
            turns.record(user);
        }
        assert_eq!((turns.longest_gap(late), turns.since_last(late)), (3, 4));
        assert_eq!((turns.longest_gap(early), turns.since_last(early)), (2, 0));
        assert_eq!(turns.since_last(UserId::new()), turns.total());
    }
}
