//! What can be counted over call records by arithmetic alone.

use chrono::{DateTime, Utc};

/// How long a slot was held: from its reservation's commit to its release's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hold<User> {
    pub(super) user: User,
    pub(super) is_campaign: bool,
    pub(super) from: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
}

/// A direct call's time in line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wait<User> {
    pub(super) user: User,
    pub(super) from: DateTime<Utc>,
    pub(super) until: DateTime<Utc>,
}

/// The most slots held at one instant.
///
/// One instant is one transaction, in which endings come before starts: a slot that is handed on
/// is not two.
pub(super) fn most_at_once<'a, User: 'a>(holds: impl IntoIterator<Item = &'a Hold<User>>) -> u32 {
    let mut changes: Vec<(DateTime<Utc>, i32)> = holds
        .into_iter()
        .flat_map(|hold| [(hold.from, 1), (hold.until, -1)])
        .collect();
    changes.sort_unstable();
    let mut held = 0_i32;
    let most = changes.into_iter().map(|(_, change)| {
        held += change;
        held
    });
    most.max()
        .and_then(|most| u32::try_from(most).ok())
        .unwrap_or(0)
}

/// How many campaign calls took a slot that a waiting direct call could have used: its user's own,
/// or the system's while its user had one free.
pub(super) fn overtakings<User: Copy + PartialEq>(
    holds: &[Hold<User>],
    waits: &[Wait<User>],
    limit_of: impl Fn(User) -> u32,
) -> usize {
    let had_a_slot_free = |user: User, at: DateTime<Utc>| {
        let held = holds
            .iter()
            .filter(|hold| hold.user == user && hold.from <= at && at < hold.until);
        u32::try_from(held.count()).is_ok_and(|held| held < limit_of(user))
    };
    holds
        .iter()
        .filter(|hold| hold.is_campaign)
        .filter(|hold| {
            waits.iter().any(|wait| {
                let waited = wait.from <= hold.from && hold.from < wait.until;
                waited && (wait.user == hold.user || had_a_slot_free(wait.user, hold.from))
            })
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(at: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + at, 0).expect("in range")
    }

    fn hold(user: char, is_campaign: bool, from: i64, until: i64) -> Hold<char> {
        Hold {
            user,
            is_campaign,
            from: second(from),
            until: second(until),
        }
    }

    fn wait(user: char, from: i64, until: i64) -> Wait<char> {
        Wait {
            user,
            from: second(from),
            until: second(until),
        }
    }

    #[test]
    fn a_slot_handed_on_in_one_transaction_is_one_slot() {
        let holds = [
            hold('a', true, 0, 5),
            hold('a', true, 5, 9),
            hold('a', true, 2, 6),
        ];
        assert_eq!(most_at_once(&holds), 2);
    }

    #[test]
    fn calls_that_overlap_are_counted_together() {
        let holds = [
            hold('a', true, 0, 5),
            hold('a', false, 1, 6),
            hold('b', true, 4, 9),
        ];
        assert_eq!(most_at_once(&holds), 3);
        assert_eq!(
            most_at_once(holds.iter().filter(|hold| hold.user == 'a')),
            2
        );
        assert_eq!(most_at_once::<char>(&[]), 0);
    }

    #[test]
    fn a_campaign_call_that_starts_while_its_users_direct_call_waits_is_found() {
        let holds = [hold('a', true, 3, 8), hold('a', false, 5, 9)];
        assert_eq!(overtakings(&holds, &[wait('a', 2, 5)], |_| 1), 1);
        assert_eq!(overtakings(&holds, &[wait('a', 4, 5)], |_| 1), 0);
    }

    #[test]
    fn another_users_direct_call_is_overtaken_only_if_that_user_had_a_slot_free() {
        let holds = [
            hold('a', true, 3, 8),
            hold('b', false, 1, 5),
            hold('b', false, 5, 9),
        ];
        let waits = [wait('b', 2, 5)];
        assert_eq!(overtakings(&holds, &waits, |_| 1), 0);
        assert_eq!(overtakings(&holds, &waits, |_| 2), 1);
    }

    #[test]
    fn a_direct_call_that_starts_in_the_same_transaction_was_not_overtaken() {
        let holds = [hold('a', true, 5, 8), hold('a', false, 5, 9)];
        assert_eq!(overtakings(&holds, &[wait('a', 2, 5)], |_| 2), 0);
    }
}
