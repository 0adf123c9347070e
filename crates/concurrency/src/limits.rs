//! The admission rule by itself, for callers who only want to look.

use callq_domain::{Concurrency, QueueReason};

/// Why a direct call asked for now would have to wait, or `None` if it would start at once.
///
/// `earlier` is how many due direct calls of the user wait. This is the rule the store applies
/// under its lock, in its order; the answer here may be outdated as soon as it is given.
#[must_use]
pub fn should_queue(use_now: &Concurrency, earlier: u64, paused: bool) -> Option<QueueReason> {
    if paused {
        Some(QueueReason::DispatchPaused)
    } else if use_now.user.available() == 0 {
        Some(QueueReason::UserLimit(use_now.user))
    } else if use_now.system.available() == 0 {
        Some(QueueReason::SystemLimit(use_now.system))
    } else if earlier > 0 {
        Some(QueueReason::EarlierDirectCalls { ahead: earlier })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callq_domain::SlotUse;

    fn in_use(user: u32, system: u32) -> Concurrency {
        Concurrency {
            user: SlotUse {
                limit: 2,
                active: user,
            },
            system: SlotUse {
                limit: 10,
                active: system,
            },
            direct_reserved_slots: 0,
        }
    }

    #[test]
    fn a_call_starts_only_with_both_slots_free_and_nobody_before_it() {
        assert_eq!(should_queue(&in_use(1, 9), 0, false), None);
        assert!(matches!(
            should_queue(&in_use(2, 9), 0, false),
            Some(QueueReason::UserLimit(_))
        ));
        assert!(matches!(
            should_queue(&in_use(1, 10), 0, false),
            Some(QueueReason::SystemLimit(_))
        ));
        assert_eq!(
            should_queue(&in_use(1, 1), 3, false),
            Some(QueueReason::EarlierDirectCalls { ahead: 3 })
        );
        assert_eq!(
            should_queue(&in_use(0, 0), 0, true),
            Some(QueueReason::DispatchPaused)
        );
    }
}
