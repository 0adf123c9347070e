//! When a campaign's call that did not get through is made again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Outcome;

/// The reason of a call that was answered by a machine, as a provider tells it.
pub const MACHINE: &str = "machine";

/// Reasons after which a number is not called again: what a provider says of the number, and what
/// callq says of a call that it gave up for its length, and which may still be up.
pub const FINAL_REASONS: [&str; 3] = ["do-not-call", "invalid-number", "timed_out"];

/// How a call ended that a campaign may want made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryCause {
    /// The line was busy.
    Busy,
    /// Nobody answered.
    NoAnswer,
    /// The carrier took it and could not complete it.
    Failed,
    /// A machine answered.
    Machine,
}

impl RetryCause {
    /// Every cause, in the order in which the database counts them.
    pub const ALL: [Self; 4] = [Self::Busy, Self::NoAnswer, Self::Failed, Self::Machine];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::NoAnswer => "no-answer",
            Self::Failed => "failed",
            Self::Machine => "machine",
        }
    }

    /// Reads [`RetryCause::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == name)
    }

    /// What the end of a call is as a cause, if it is one. `was_taken` is whether the carrier had
    /// the call: one that failed before was refused for good.
    #[must_use]
    pub fn of(outcome: Outcome, reason: Option<&str>, was_taken: bool) -> Option<Self> {
        if reason.is_some_and(|reason| FINAL_REASONS.contains(&reason)) {
            return None;
        }
        match outcome {
            Outcome::Busy => Some(Self::Busy),
            Outcome::NoAnswer => Some(Self::NoAnswer),
            Outcome::Failed if was_taken => Some(Self::Failed),
            Outcome::Completed if reason == Some(MACHINE) => Some(Self::Machine),
            Outcome::Failed | Outcome::Completed | Outcome::Cancelled => None,
        }
    }
}

/// How often to call again after one cause, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryRule {
    times: u32,
    after_minutes: Vec<u32>,
}

/// A rule that cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetryRuleError {
    /// More times than a rule may say.
    #[error("must be 0 to {}", RetryRule::MOST)]
    TooManyTimes,
    /// No pause at all, or more than a rule may say.
    #[error("must hold 1 to {} numbers", RetryRule::MOST)]
    PauseCount,
    /// A pause that is none, or longer than a rule may say.
    #[error("must hold minutes from 1 to {}", RetryRule::LONGEST)]
    Pause,
}

impl RetryRule {
    /// The most calls after one cause, and the most pauses.
    pub const MOST: u32 = 100;
    /// The longest pause, in minutes: thirty days.
    pub const LONGEST: u32 = 43_200;

    /// Again at most `times`: first after the first pause, then after the second, and so on; the
    /// last holds for all that follow. Pauses are in minutes.
    ///
    /// # Errors
    /// What is out of range.
    pub fn new(times: u32, after_minutes: Vec<u32>) -> Result<Self, RetryRuleError> {
        let count = u32::try_from(after_minutes.len()).unwrap_or(u32::MAX);
        if times > Self::MOST {
            Err(RetryRuleError::TooManyTimes)
        } else if !(1..=Self::MOST).contains(&count) {
            Err(RetryRuleError::PauseCount)
        } else if !after_minutes
            .iter()
            .all(|m| (1..=Self::LONGEST).contains(m))
        {
            Err(RetryRuleError::Pause)
        } else {
            Ok(Self {
                times,
                after_minutes,
            })
        }
    }

    /// How often at most.
    #[must_use]
    pub const fn times(&self) -> u32 {
        self.times
    }

    /// The pauses, in minutes.
    #[must_use]
    pub fn after_minutes(&self) -> &[u32] {
        &self.after_minutes
    }
}

/// When calls of a campaign are made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Calls to one contact after the first, whatever the causes.
    pub max_retries: u32,
    /// Minutes before each, for a cause without a rule.
    pub interval_minutes: u32,
    /// Rules for some causes. Without one, a call is made again after each but
    /// [`RetryCause::Machine`], as often as `max_retries` allows.
    pub rules: BTreeMap<RetryCause, RetryRule>,
}

/// Calls to a contact that were made again, by cause.
pub type RetriesMade = BTreeMap<RetryCause, u32>;

impl RetryPolicy {
    /// How long after a call that ended by this cause the next one is due; none if there is no
    /// next one. The database decides the same in `retry_calls`.
    #[must_use]
    pub fn next(&self, made: &RetriesMade, cause: RetryCause) -> Option<Duration> {
        let so_far = made.get(&cause).copied().unwrap_or(0);
        let rule = self.rules.get(&cause);
        let times = match rule {
            Some(rule) => rule.times,
            None if cause == RetryCause::Machine => 0,
            None => self.max_retries,
        };
        if made.values().sum::<u32>() >= self.max_retries || so_far >= times {
            return None;
        }
        let minutes = rule.map_or(self.interval_minutes, |rule| {
            let nth = usize::try_from(so_far).unwrap_or(usize::MAX);
            let pause = rule.after_minutes.get(nth).or(rule.after_minutes.last());
            pause.copied().unwrap_or(self.interval_minutes)
        });
        Some(Duration::from_secs(u64::from(minutes) * 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn policy(max_retries: u32, rules: &[(RetryCause, u32, &[u32])]) -> RetryPolicy {
        let rules = rules
            .iter()
            .map(|(cause, times, after)| (*cause, RetryRule::new(*times, after.to_vec()).unwrap()));
        RetryPolicy {
            max_retries,
            interval_minutes: 60,
            rules: rules.collect(),
        }
    }

    #[test]
    fn without_rules_every_cause_but_a_machine_is_tried_again_to_the_budget() {
        let policy = policy(2, &[]);
        let made = |busy, failed| {
            RetriesMade::from([(RetryCause::Busy, busy), (RetryCause::Failed, failed)])
        };

        for cause in [RetryCause::Busy, RetryCause::NoAnswer, RetryCause::Failed] {
            assert_eq!(policy.next(&made(0, 0), cause), Some(60 * MINUTE));
            assert_eq!(policy.next(&made(1, 0), cause), Some(60 * MINUTE));
            assert_eq!(policy.next(&made(1, 1), cause), None);
        }
        assert_eq!(policy.next(&made(0, 0), RetryCause::Machine), None);
    }

    #[test]
    fn a_rule_has_its_own_times_and_pauses_within_the_budget_of_all() {
        let policy = policy(
            4,
            &[
                (RetryCause::Busy, 3, &[5, 15]),
                (RetryCause::Machine, 1, &[240]),
            ],
        );
        let after = |busy| policy.next(&[(RetryCause::Busy, busy)].into(), RetryCause::Busy);

        assert_eq!(after(0), Some(5 * MINUTE));
        assert_eq!(after(1), Some(15 * MINUTE));
        assert_eq!(after(2), Some(15 * MINUTE));
        assert_eq!(after(3), None);
        let spent = RetriesMade::from([(RetryCause::Busy, 3), (RetryCause::NoAnswer, 1)]);
        assert_eq!(policy.next(&spent, RetryCause::Machine), None);
        assert_eq!(
            policy.next(&RetriesMade::new(), RetryCause::Machine),
            Some(240 * MINUTE)
        );
    }

    #[test]
    fn what_must_not_be_tried_again_is_no_cause() {
        use Outcome::{Busy, Cancelled, Completed, Failed, NoAnswer};
        let cause = RetryCause::of;

        assert_eq!(cause(Failed, None, false), None);
        assert_eq!(cause(Failed, Some("do-not-call"), true), None);
        assert_eq!(cause(Failed, Some("timed_out"), true), None);
        assert_eq!(cause(Busy, Some("invalid-number"), true), None);
        assert_eq!(cause(Completed, Some("caller hung up"), true), None);
        assert_eq!(cause(Cancelled, None, true), None);
        assert_eq!(
            cause(Completed, Some("machine"), true),
            Some(RetryCause::Machine)
        );
        assert_eq!(cause(NoAnswer, None, false), Some(RetryCause::NoAnswer));
        assert_eq!(cause(Failed, None, true), Some(RetryCause::Failed));
    }

    #[test]
    fn a_rule_that_cannot_be_kept_is_none() {
        assert_eq!(
            RetryRule::new(101, vec![1]),
            Err(RetryRuleError::TooManyTimes)
        );
        assert_eq!(RetryRule::new(1, vec![]), Err(RetryRuleError::PauseCount));
        assert_eq!(RetryRule::new(1, vec![0]), Err(RetryRuleError::Pause));
        assert_eq!(RetryRule::new(1, vec![43_201]), Err(RetryRuleError::Pause));
    }
}
