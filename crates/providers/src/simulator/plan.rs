//! What will happen to a simulated call: a pure function of the call, the attempt and the agent's
//! settings, so that another process can go on where one that died left off.

use std::time::Duration;

use callq_domain::{Attempt, Call, CallStatus, Outcome};
use chrono::{DateTime, Utc};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::settings::{PlaceAnswer, Settings};

/// What will happen to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) place: PlaceAnswer,
    /// Nothing happens by itself.
    pub(super) manual: bool,
    pub(super) answer_after: Duration,
    pub(super) talk: Duration,
    pub(super) outcome: Outcome,
}

/// One independent stream of chance per setting: changing how long a call talks does not change
/// how it ends.
#[derive(Clone, Copy)]
enum Stream {
    Place,
    AnswerAfter,
    Talk,
    Outcome,
}

fn rng(attempt: Attempt, stream: Stream) -> StdRng {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(attempt.call_id.as_uuid().as_bytes());
    seed[16..20].copy_from_slice(&attempt.number.to_le_bytes());
    seed[20] = stream as u8;
    StdRng::from_seed(seed)
}

impl Plan {
    pub(super) fn new(attempt: Attempt, settings: &Settings) -> Self {
        let rng = |stream| rng(attempt, stream);
        Self {
            place: settings
                .place
                .draw(&mut rng(Stream::Place))
                .unwrap_or(PlaceAnswer::Placed),
            manual: settings.manual,
            answer_after: settings.answer_after.draw(&mut rng(Stream::AnswerAfter)),
            talk: settings.talk.draw(&mut rng(Stream::Talk)),
            outcome: settings
                .outcome
                .draw(&mut rng(Stream::Outcome))
                .unwrap_or(Outcome::Completed),
        }
    }

    /// The whole of it, for a call that was just placed.
    pub(super) fn whole(&self) -> Course {
        if self.manual {
            return Course::Manual { talked: None };
        }
        Course::Ringing {
            // A line that is busy or broken never rings, and one that answers at once hardly does.
            audible: !matches!(self.outcome, Outcome::Busy | Outcome::Failed)
                && !self.answer_after.is_zero(),
            answer_in: self.answer_after,
            talk: self.talk,
            outcome: self.outcome,
        }
    }

    /// What is left of it at `now`, for a call that another process placed.
    pub(super) fn rest(&self, call: &Call, now: DateTime<Utc>) -> Course {
        let since = |then: DateTime<Utc>| (now - then).to_std().unwrap_or_default();
        let talked = call.answered_at.map(since);
        if self.manual {
            return Course::Manual { talked };
        }
        if let Some(talked) = talked {
            let talk_left = self.talk.saturating_sub(talked);
            return Course::Talking { talked, talk_left };
        }
        match self.whole() {
            Course::Ringing {
                audible,
                answer_in,
                talk,
                outcome,
            } => Course::Ringing {
                audible: audible && call.status != CallStatus::Ringing,
                answer_in: answer_in.saturating_sub(since(call.reserved_at)),
                talk,
                outcome,
            },
            course => course,
        }
    }
}

/// What is still to happen to a call that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Nothing by itself.
    Manual { talked: Option<Duration> },
    /// It rings, perhaps heard by callq, and then is answered and talks, or ends.
    Ringing {
        audible: bool,
        answer_in: Duration,
        talk: Duration,
        outcome: Outcome,
    },
    /// It was answered already.
    Talking {
        talked: Duration,
        talk_left: Duration,
    },
}

impl Course {
    /// How long it has been answered, if it has.
    pub(super) fn talked(&self) -> Option<Duration> {
        match *self {
            Self::Manual { talked } => talked,
            Self::Ringing { .. } => None,
            Self::Talking { talked, .. } => Some(talked),
        }
    }
}

#[cfg(test)]
mod tests {
    use callq_domain::CallId;
    use serde_json::json;

    use super::*;

    fn settings() -> Settings {
        let text = json!({
            "answer_after_ms": {"distribution": "exponential", "mean_ms": 2_000},
            "talk_ms": {"distribution": "lognormal", "median_ms": 60_000, "sigma": 1},
            "outcome": {"completed": 1, "busy": 1, "no-answer": 1},
            "place": {"placed": 1, "busy": 1},
        });
        let raw = serde_json::value::to_raw_value(&text).expect("JSON");
        Settings::read(Some(&raw)).expect("settings")
    }

    fn attempts() -> impl Iterator<Item = Attempt> {
        (0..50).map(|n| Attempt {
            call_id: CallId::from(uuid::Uuid::from_u128(n)),
            number: 1,
        })
    }

    #[test]
    fn the_same_attempt_has_the_same_plan_every_time() {
        for attempt in attempts() {
            assert_eq!(
                Plan::new(attempt, &settings()),
                Plan::new(attempt, &settings())
            );
        }
    }

    #[test]
    fn other_calls_and_other_attempts_have_other_plans() {
        for attempt in attempts() {
            let plan = Plan::new(attempt, &settings());
            let again = Attempt {
                number: 2,
                ..attempt
            };
            assert_ne!(plan.talk, Plan::new(again, &settings()).talk);
            let others = attempts().filter(|other| *other != attempt);
            for other in others {
                assert_ne!(plan.talk, Plan::new(other, &settings()).talk);
            }
        }
    }

    #[test]
    fn how_long_a_call_talks_has_no_say_in_how_it_ends() {
        let mut longer = settings();
        longer.talk = Settings::default().talk;
        for attempt in attempts() {
            let (plan, other) = (Plan::new(attempt, &settings()), Plan::new(attempt, &longer));
            assert_eq!(
                Plan {
                    talk: plan.talk,
                    ..other
                },
                plan
            );
        }
    }
}
