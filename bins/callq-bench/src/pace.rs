//! A steady rate: how much is due by now.

use std::time::Instant;

/// What falls behind is made up for, but for no more than a tenth of a second's worth: a rush would
/// measure something else.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: f64,
    last: Instant,
    due: f64,
}

impl Pace {
    /// So many a second from now on.
    pub(crate) fn new(rate: f64) -> Self {
        Self {
            rate,
            last: Instant::now(),
            due: 0.0,
        }
    }

    /// Whether one more is due now.
    pub(crate) fn is_due(&mut self) -> bool {
        self.is_due_at(Instant::now())
    }

    /// One was done.
    pub(crate) fn count(&mut self) {
        self.due -= 1.0;
    }

    fn is_due_at(&mut self, now: Instant) -> bool {
        self.due += now.duration_since(self.last).as_secs_f64() * self.rate;
        self.due = self.due.min((self.rate / 10.0).max(1.0));
        self.last = now;
        self.due >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn done_by(pace: &mut Pace, now: Instant) -> u32 {
        let mut done = 0;
        while pace.is_due_at(now) {
            pace.count();
            done += 1;
        }
        done
    }

    #[test]
    fn as_many_are_due_as_the_rate_says_and_a_long_gap_is_no_rush() {
        let mut pace = Pace::new(1_000.0);
        let start = pace.last;

        assert_eq!(done_by(&mut pace, start + Duration::from_millis(50)), 50);
        assert_eq!(done_by(&mut pace, start + Duration::from_millis(51)), 1);
        assert_eq!(done_by(&mut pace, start + Duration::from_secs(60)), 100);
    }
}
