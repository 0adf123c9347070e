//! When a call is asked about, and when again: soon and then ever more rarely.

use std::collections::HashMap;
use std::time::Duration;

use callq_domain::{Attempt, CallStatus, DoubtfulCall};
use tokio::time::Instant;

/// Why a call is asked about.
///
/// In the order in which they are asked about when there are many: those that keep a slot too long,
/// those that may be tried again, those that are probably well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// It has been up for longer than a call may be.
    Overlong,
    /// Nobody knows whether it was placed.
    Lost,
    /// It has been up for so long that its end may have been missed.
    Long,
}

/// What is known of one call in doubt.
#[derive(Debug)]
pub(crate) struct Inquiry {
    doubt: Doubt,
    next: Instant,
    pause: Duration,
    /// Since when the provider has said, without a break, that it does not know the call.
    absent_since: Option<Instant>,
}

/// The calls in doubt.
#[derive(Debug)]
pub(crate) struct Inquiries {
    max_call: Duration,
    /// By attempt: what the provider said of one proves nothing of the next.
    known: HashMap<Attempt, Inquiry>,
}

/// A provider that does not know a call may only not know it *yet*: its own "no" counts as proof
/// once it has said so twice, this far apart.
const PROOF_OF_ABSENCE: Duration = Duration::from_secs(2);

/// The provider may still be at work on the request whose answer was lost.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A call is long after this part of the time that a call may take: five minutes of two hours.
const LONG_PART: u32 = 24;
const LONGEST_PAUSE_OF_LONG: Duration = Duration::from_secs(30 * 60);

/// Asked about in one round, so that what comes up meanwhile does not wait for all of them.
const A_ROUND: usize = 64;

impl Inquiries {
    pub(crate) fn new(max_call: Duration) -> Self {
        Self {
            max_call,
            known: HashMap::new(),
        }
    }

    /// A call that has held its slot for longer than this is asked about.
    pub(crate) fn long(&self) -> Duration {
        self.max_call / LONG_PART
    }

    /// Why a call is asked about.
    pub(crate) fn doubt(&self, doubtful: &DoubtfulCall) -> Doubt {
        if doubtful.age >= self.max_call {
            Doubt::Overlong
        } else if doubtful.call.status == CallStatus::Unknown {
            Doubt::Lost
        } else {
            Doubt::Long
        }
    }

    /// Notes the calls now in doubt, `all` of them or only those that may be lost, and picks those
    /// whose time has come. Each of these will be asked about again after a longer pause.
    pub(crate) fn due(
        &mut self,
        calls: Vec<DoubtfulCall>,
        all: bool,
        now: Instant,
    ) -> Vec<DoubtfulCall> {
        self.known.retain(|attempt, inquiry| {
            (!all && inquiry.doubt != Doubt::Lost)
                || calls.iter().any(|doubtful| doubtful.attempt == *attempt)
        });
        let mut due: Vec<(Instant, DoubtfulCall)> = Vec::new();
        for doubtful in calls {
            let next = self.note(&doubtful, now);
            if next <= now {
                due.push((next, doubtful));
            }
        }
        // Of each kind those that have waited the longest.
        due.sort_by_key(|(next, doubtful)| (self.doubt(doubtful), *next));
        due.truncate(A_ROUND);
        for (_, doubtful) in &due {
            if let Some(inquiry) = self.known.get_mut(&doubtful.attempt) {
                let longest = match inquiry.doubt {
                    Doubt::Lost | Doubt::Overlong => LONGEST_PAUSE,
                    Doubt::Long => LONGEST_PAUSE_OF_LONG,
                };
                inquiry.next = now + inquiry.pause;
                inquiry.pause = (inquiry.pause * 2).min(longest);
            }
        }
        due.into_iter().map(|(_, doubtful)| doubtful).collect()
    }

    /// When this call is asked about.
    fn note(&mut self, doubtful: &DoubtfulCall, now: Instant) -> Instant {
        let doubt = self.doubt(doubtful);
        let (first, pause) = match doubt {
            Doubt::Lost => (now + FIRST_PAUSE, FIRST_PAUSE * 2),
            Doubt::Long => (now, self.long()),
            Doubt::Overlong => (now, FIRST_PAUSE),
        };
        let inquiry = self.known.entry(doubtful.attempt);
        let inquiry = inquiry.or_insert_with(|| Inquiry {
            doubt,
            next: first,
            pause,
            absent_since: None,
        });
        if inquiry.doubt != doubt {
            // Another question, another rhythm. What the provider said before still holds.
            inquiry.doubt = doubt;
            inquiry.next = first;
            inquiry.pause = pause;
        }
        inquiry.next
    }

    /// The next time at which a call that may be lost is asked about.
    pub(crate) fn next(&self) -> Option<Instant> {
        let lost = self.known.values().filter(|it| it.doubt == Doubt::Lost);
        lost.map(|inquiry| inquiry.next).min()
    }

    /// The provider says that it does not know the call. Whether that proves that it never got this
    /// attempt.
    pub(crate) fn is_absent(&mut self, attempt: Attempt, now: Instant) -> bool {
        let Some(inquiry) = self.known.get_mut(&attempt) else {
            return false;
        };
        let since = *inquiry.absent_since.get_or_insert(now);
        let proved = now.duration_since(since) >= PROOF_OF_ABSENCE;
        if !proved {
            inquiry.next = since + PROOF_OF_ABSENCE;
        }
        proved
    }

    /// The provider said something else, or nothing.
    pub(crate) fn is_not_absent(&mut self, attempt: Attempt) {
        if let Some(inquiry) = self.known.get_mut(&attempt) {
            inquiry.absent_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use callq_domain::{
        AgentId, Call, CallId, Origin, PhoneNumber, ProviderName, QueueItemId, UserId,
    };

    use super::*;

    const MAX_CALL: Duration = Duration::from_secs(7200);

    fn call(status: CallStatus, age: Duration) -> DoubtfulCall {
        let id = CallId::new();
        DoubtfulCall {
            attempt: Attempt {
                call_id: id,
                number: 1,
            },
            age,
            call: Call {
                id,
                item_id: QueueItemId::new(),
                user_id: UserId::new(),
                agent_id: AgentId::new(),
                contact_id: None,
                origin: Origin::Direct,
                phone_number: PhoneNumber::from_trusted("+14155550100"),
                contact_name: None,
                provider: ProviderName::new("fake").expect("a name"),
                execution_id: None,
                status,
                reason: None,
                attempts: 1,
                reserved_at: chrono::DateTime::UNIX_EPOCH,
                answered_at: None,
                ended_at: None,
                duration_seconds: None,
            },
        }
    }

    /// The seconds after which a call is asked about, within `watched`.
    fn rhythm(mut doubtful: DoubtfulCall, watched: Duration) -> Vec<u64> {
        let mut inquiries = Inquiries::new(MAX_CALL);
        let (began, first) = (Instant::now(), doubtful.age);
        let mut asked = Vec::new();
        let mut passed = Duration::ZERO;
        while passed <= watched {
            doubtful.age = first + passed;
            if !inquiries
                .due(vec![doubtful.clone()], true, began + passed)
                .is_empty()
            {
                asked.push(passed.as_secs());
            }
            passed += Duration::from_millis(500);
        }
        asked
    }

    #[test]
    fn a_lost_call_is_asked_about_soon_and_then_ever_more_rarely() {
        let lost = call(CallStatus::Unknown, Duration::ZERO);

        assert_eq!(
            rhythm(lost, Duration::from_secs(200)),
            [0, 1, 3, 7, 15, 31, 63, 123, 183]
        );
    }

    #[test]
    fn a_call_that_is_up_for_long_is_asked_about_at_growing_intervals_and_when_it_is_overlong() {
        let long = call(CallStatus::InProgress, Duration::from_secs(300));

        let asked = rhythm(long, Duration::from_secs(6900));

        assert_eq!(asked, [0, 300, 900, 2100, 3900, 5700, 6900]);
    }

    #[test]
    fn a_look_at_lost_calls_alone_forgets_nothing_of_the_others() {
        let mut inquiries = Inquiries::new(MAX_CALL);
        let now = Instant::now();
        let long = call(CallStatus::Ringing, Duration::from_secs(400));
        assert_eq!(inquiries.due(vec![long.clone()], true, now).len(), 1);

        assert!(inquiries.due(Vec::new(), false, now).is_empty());

        assert!(inquiries.due(vec![long], true, now).is_empty());
    }

    #[test]
    fn absence_is_proved_by_two_answers_two_seconds_apart_with_nothing_between() {
        let mut inquiries = Inquiries::new(MAX_CALL);
        let now = Instant::now();
        let lost = call(CallStatus::Unknown, Duration::ZERO);
        let id = lost.attempt;
        inquiries.due(vec![lost], true, now);
        let second = Duration::from_secs(1);

        assert!(!inquiries.is_absent(id, now));
        assert!(!inquiries.is_absent(id, now + second));
        inquiries.is_not_absent(id);
        assert!(!inquiries.is_absent(id, now + 2 * second));
        assert!(!inquiries.is_absent(id, now + 3 * second));
        assert!(inquiries.is_absent(id, now + 4 * second));
    }

    #[test]
    fn what_was_learned_of_an_attempt_proves_nothing_of_the_next() {
        let mut inquiries = Inquiries::new(MAX_CALL);
        let now = Instant::now();
        let first = call(CallStatus::Unknown, Duration::ZERO);
        let mut second = first.clone();
        second.attempt.number = 2;
        inquiries.due(vec![first.clone()], true, now);
        assert!(!inquiries.is_absent(first.attempt, now));
        let later = now + Duration::from_secs(60);

        assert!(inquiries.due(vec![second.clone()], true, later).is_empty());

        assert!(!inquiries.is_absent(second.attempt, later));
    }

    #[test]
    fn overlong_calls_do_not_wait_behind_a_crowd_of_long_ones() {
        let mut inquiries = Inquiries::new(MAX_CALL);
        let now = Instant::now();
        let mut calls: Vec<_> = (0..2 * A_ROUND)
            .map(|_| call(CallStatus::InProgress, Duration::from_secs(400)))
            .collect();
        inquiries.due(calls.clone(), true, now);
        let overlong = call(CallStatus::InProgress, MAX_CALL);
        calls.push(overlong.clone());

        let asked = inquiries.due(calls, true, now + Duration::from_secs(300));

        assert_eq!(asked.len(), A_ROUND);
        assert_eq!(asked[0].attempt, overlong.attempt);
    }
}
