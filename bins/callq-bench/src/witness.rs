//! What the carrier's side sees: which calls are up, whose, and in which order they came.
//!
//! It trusts nothing that callq says of itself. It knows what was queued, and from the placements
//! and ends that pass through it it tells an over-limit start, a double dial and a campaign call
//! that went before a waiting direct call of the same user. It never accuses wrongly: where the
//! order of two placements cannot be told from outside, it holds its tongue. Calls that end at once
//! are seldom up together, so the records are judged as well, afterwards (`judge.rs`).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use callq_domain::{CallId, CallType};
use tokio::sync::watch;

/// What must hold while calls go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub user: u32,
    pub system: u32,
}

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    UserOverLimit { user: u32, up: u32, limit: u32 },
    SystemOverLimit { up: u32, limit: u32 },
    Inversion { user: u32, waiting: u32 },
    DoubleDial { contact: u32, call: CallId },
    Stranger { what: String },
    EndIgnored { call: CallId },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserOverLimit { user, up, limit } => {
                write!(f, "user {user} has {up} calls up where {limit} are allowed")
            }
            Self::SystemOverLimit { up, limit } => {
                write!(f, "{up} calls are up where {limit} are allowed")
            }
            Self::Inversion { user, waiting } => write!(
                f,
                "a campaign call of user {user} went while at least {waiting} of its direct calls waited"
            ),
            Self::DoubleDial { contact, call } => {
                write!(f, "contact {contact} was dialled again, by call {call}")
            }
            Self::Stranger { what } => write!(f, "a call that nobody queued: {what}"),
            Self::EndIgnored { call } => write!(f, "call {call} was over before its end was told"),
        }
    }
}

/// How often each thing happened that must never happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    pub over_user_limit: u64,
    pub over_system_limit: u64,
    pub inversions: u64,
    pub double_dials: u64,
    pub strangers: u64,
    pub ends_ignored: u64,
}

/// How far things are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    pub placed: u64,
    /// Ends that callq has confirmed.
    pub ended: u64,
    pub up: u32,
    pub most_up: u32,
    pub most_up_of_a_user: u32,
}

pub(crate) struct Witness {
    limits: Limits,
    state: Mutex<State>,
    first: watch::Sender<Option<Violation>>,
}

#[derive(Default)]
struct State {
    up: HashMap<CallId, u32>,
    up_of_user: Vec<u32>,
    /// Direct calls queued and not dialled yet, by user.
    direct_left: Vec<u32>,
    /// Dials still due to each contact.
    dials_left: Vec<u16>,
    progress: Progress,
    counts: Counts,
}

impl Witness {
    /// A witness that expects nothing yet, for users 0 to `users` and contacts 0 to `contacts`.
    pub(crate) fn new(limits: Limits, users: u32, contacts: u32) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                up_of_user: vec![0; users as usize],
                direct_left: vec![0; users as usize],
                dials_left: vec![0; contacts as usize],
                ..State::default()
            }),
            first: watch::Sender::new(None),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Expects a call to this contact. Told before callq is.
    pub(crate) fn expect(&self, user: u32, contact: u32, kind: CallType) {
        let mut state = self.state();
        if kind == CallType::Direct
            && let Some(left) = state.direct_left.get_mut(user as usize)
        {
            *left += 1;
        }
        if let Some(left) = state.dials_left.get_mut(contact as usize) {
            *left += 1;
        }
    }

    /// Expects a call to this contact that is asked for while others go. When it began to wait
    /// cannot be told from outside, so an inversion is left to the records.
    pub(crate) fn expect_meanwhile(&self, contact: u32) {
        if let Some(left) = self.state().dials_left.get_mut(contact as usize) {
            *left += 1;
        }
    }

    /// A placement has reached the carrier.
    pub(crate) fn placed(&self, call: CallId, user: u32, contact: u32, kind: CallType) {
        let mut state = self.state();
        let violations = state.place(self.limits, call, user, contact, kind);
        drop(state);
        for violation in violations {
            self.accuse(violation);
        }
    }

    /// The call is about to be over: the carrier's end of it has gone.
    pub(crate) fn hung_up(&self, call: CallId) {
        let mut state = self.state();
        if let Some(user) = state.up.remove(&call) {
            state.progress.up = state.progress.up.saturating_sub(1);
            if let Some(up) = state.up_of_user.get_mut(user as usize) {
                *up = up.saturating_sub(1);
            }
        }
    }

    /// callq has confirmed the end of a call.
    pub(crate) fn confirmed(&self, call: CallId, applied: bool) {
        self.state().progress.ended += 1;
        if !applied {
            self.accuse(Violation::EndIgnored { call });
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.state().progress
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Dials that were expected and have not come.
    pub(crate) fn missing(&self) -> u64 {
        self.state()
            .dials_left
            .iter()
            .map(|left| u64::from(*left))
            .sum()
    }

    /// The first violation, as soon as there is one.
    pub(crate) async fn violated(&self) -> Violation {
        let mut first = self.first.subscribe();
        loop {
            if let Some(violation) = first.borrow_and_update().clone() {
                return violation;
            }
            // The sender lives as long as `self`.
            let _ = first.changed().await;
        }
    }

    /// A placement that cannot be told to whom it belongs.
    pub(crate) fn stranger(&self, what: String) {
        self.accuse(Violation::Stranger { what });
    }

    fn accuse(&self, violation: Violation) {
        let mut state = self.state();
        let counts = &mut state.counts;
        match &violation {
            Violation::UserOverLimit { .. } => counts.over_user_limit += 1,
            Violation::SystemOverLimit { .. } => counts.over_system_limit += 1,
            Violation::Inversion { .. } => counts.inversions += 1,
            Violation::DoubleDial { .. } => counts.double_dials += 1,
            Violation::Stranger { .. } => counts.strangers += 1,
            Violation::EndIgnored { .. } => counts.ends_ignored += 1,
        }
        drop(state);
        self.first.send_if_modified(|first| {
            let news = first.is_none();
            if news {
                *first = Some(violation);
            }
            news
        });
    }
}

impl State {
    fn place(
        &mut self,
        limits: Limits,
        call: CallId,
        user: u32,
        contact: u32,
        kind: CallType,
    ) -> Vec<Violation> {
        let mut violations = Vec::new();
        let (Some(up_of_user), Some(direct_left), Some(dials_left)) = (
            self.up_of_user.get_mut(user as usize),
            self.direct_left.get_mut(user as usize),
            self.dials_left.get_mut(contact as usize),
        ) else {
            return vec![Violation::Stranger {
                what: format!("user {user}, contact {contact}"),
            }];
        };
        match dials_left.checked_sub(1) {
            Some(left) => *dials_left = left,
            None => violations.push(Violation::DoubleDial { contact, call }),
        }
        if self.up.insert(call, user).is_some() {
            violations.push(Violation::DoubleDial { contact, call });
            return violations;
        }
        *up_of_user += 1;
        self.progress.up += 1;
        self.progress.placed += 1;
        self.progress.most_up = self.progress.most_up.max(self.progress.up);
        self.progress.most_up_of_a_user = self.progress.most_up_of_a_user.max(*up_of_user);
        if *up_of_user > limits.user {
            violations.push(Violation::UserOverLimit {
                user,
                up: *up_of_user,
                limit: limits.user,
            });
        }
        if self.progress.up > limits.system {
            violations.push(Violation::SystemOverLimit {
                up: self.progress.up,
                limit: limits.system,
            });
        }
        match kind {
            CallType::Direct => *direct_left = direct_left.saturating_sub(1),
            CallType::Campaign => {
                // Direct calls on their way here hold slots beside those that are up. What is
                // left over holds none: it waits, and waited when this call was chosen.
                let on_their_way = limits.user.saturating_sub(*up_of_user);
                let waiting = direct_left.saturating_sub(on_their_way);
                if waiting > 0 {
                    violations.push(Violation::Inversion { user, waiting });
                }
            }
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { user: 2, system: 3 };

    fn witness() -> Witness {
        Witness::new(LIMITS, 4, 100)
    }

    fn queue_and_place(witness: &Witness, user: u32, contact: u32, kind: CallType) -> CallId {
        let call = CallId::new();
        witness.expect(user, contact, kind);
        witness.placed(call, user, contact, kind);
        call
    }

    #[test]
    fn calls_within_every_limit_are_no_violation() {
        let witness = witness();
        let first = queue_and_place(&witness, 0, 1, CallType::Direct);
        queue_and_place(&witness, 0, 2, CallType::Campaign);
        queue_and_place(&witness, 1, 3, CallType::Campaign);

        witness.hung_up(first);
        queue_and_place(&witness, 0, 4, CallType::Direct);

        assert_eq!(witness.counts(), Counts::default());
        assert_eq!(witness.progress().most_up, 3);
    }

    #[test]
    fn a_call_over_a_users_limit_is_seen() {
        let witness = witness();
        for contact in 0..3 {
            queue_and_place(&witness, 0, contact, CallType::Direct);
        }
        assert_eq!(witness.counts().over_user_limit, 1);
    }

    #[test]
    fn a_call_over_the_systems_limit_is_seen() {
        let witness = witness();
        for user in 0..4 {
            queue_and_place(&witness, user, user, CallType::Direct);
        }
        assert_eq!(witness.counts().over_system_limit, 1);
        assert_eq!(witness.counts().over_user_limit, 0);
    }

    #[test]
    fn a_campaign_call_before_a_waiting_direct_call_is_seen() {
        let witness = witness();
        witness.expect(0, 1, CallType::Direct);
        witness.expect(0, 2, CallType::Direct);

        queue_and_place(&witness, 0, 3, CallType::Campaign);

        // One of the two may hold the other slot and be on its way; both cannot.
        assert_eq!(witness.counts().inversions, 1);
    }

    #[test]
    fn a_direct_call_that_may_be_on_its_way_accuses_nobody() {
        let witness = witness();
        witness.expect(0, 1, CallType::Direct);

        queue_and_place(&witness, 0, 3, CallType::Campaign);

        assert_eq!(witness.counts(), Counts::default());
    }

    #[test]
    fn a_contact_dialled_more_often_than_it_was_queued_is_seen() {
        let witness = witness();
        let call = queue_and_place(&witness, 0, 1, CallType::Direct);
        witness.hung_up(call);

        witness.placed(CallId::new(), 0, 1, CallType::Direct);

        assert_eq!(witness.counts().double_dials, 1);
    }

    #[tokio::test]
    async fn the_first_violation_is_told() {
        let witness = witness();
        witness.placed(CallId::new(), 9, 1, CallType::Direct);

        let first = witness.violated().await;

        assert!(matches!(first, Violation::Stranger { .. }), "{first}");
    }
}
