//! Operations in a row about one call or one campaign: what single draws would seldom bring about.

use callq_domain::{Outcome, ReportedStatus};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{by, by_key, delay, keep_answer, named, rarely, server, user};
use crate::model::operations::{CONTACTS, Named, Op, Pick, SERVERS};

/// What one server tells of one call, a word at a time; then maybe its end.
pub(super) fn of_a_call() -> impl Strategy<Value = Vec<Op>> {
    (0..4_usize, server(), vec(word(), 0..5), last_words()).prop_map(
        |(nth, server, words, last)| {
            let call = Pick::Up(nth);
            let mut story = Vec::new();
            for word in words {
                story.extend([word.about(call), Op::Record { server }]);
            }
            let settle = Op::Settle {
                server,
                reserve: 100,
            };
            story.extend(last.into_iter().map(|word| word.about(call)));
            story.push(settle);
            story
        },
    )
}

/// A word about a call that is still to be named.
#[derive(Debug, Clone, Copy)]
struct Word(Op);

impl Word {
    fn about(self, call: Pick) -> Op {
        match self.0 {
            Op::Placed { stale, .. } => Op::Placed { call, stale },
            Op::Lost { stale, .. } => Op::Lost { call, stale },
            Op::Tell { status, named, .. } => Op::Tell {
                call,
                status,
                named,
            },
            Op::End {
                by, outcome, named, ..
            } => Op::End {
                call,
                by,
                outcome,
                named,
            },
            Op::Return {
                stale,
                delay,
                if_unknown,
                ..
            } => Op::Return {
                call,
                stale,
                delay,
                if_unknown,
            },
            Op::GiveUp { server, .. } => Op::GiveUp { server, call },
            Op::Disown(_) => Op::Disown(call),
            other => other,
        }
    }
}

fn word() -> impl Strategy<Value = Word> {
    let call = Pick::Nobody;
    let status = select(vec![
        ReportedStatus::Initiated,
        ReportedStatus::Ringing,
        ReportedStatus::InProgress,
    ]);
    prop_oneof![
        4 => rarely().prop_map(move |stale| Op::Placed { call, stale }),
        4 => rarely().prop_map(move |stale| Op::Lost { call, stale }),
        5 => (status, named()).prop_map(move |(status, named)| Op::Tell { call, status, named }),
    ]
    .prop_map(Word)
}

fn last_words() -> impl Strategy<Value = Vec<Word>> {
    let call = Pick::Nobody;
    let end = || {
        (by(), select(Outcome::ALL.to_vec()), named()).prop_map(move |(by, outcome, named)| {
            Op::End {
                call,
                by,
                outcome,
                named,
            }
        })
    };
    let back = (delay(), any::<bool>()).prop_map(move |(delay, if_unknown)| Op::Return {
        call,
        stale: false,
        delay,
        if_unknown,
    });
    let words = prop_oneof![
        2 => Just(Vec::new()),
        4 => end().prop_map(|end| vec![end]),
        4 => back.prop_map(|back| vec![back]),
        1 => Just(vec![Op::Disown(call)]),
        1 => (0..SERVERS).prop_map(|server| vec![Op::Die(server)]),
        1 => (server(), end()).prop_map(move |(server, end)| vec![Op::GiveUp { server, call }, end]),
        1 => (end(), end()).prop_map(|(one, other)| vec![one, other]),
    ];
    words.prop_map(|words| words.into_iter().map(Word).collect())
}

/// A campaign is made, started, and soon stopped one way or another, while calls of it are up.
pub(super) fn of_a_campaign() -> impl Strategy<Value = Vec<Op>> {
    let stop = prop_oneof![
        3 => (0..3_usize).prop_map(|nth| vec![Op::Pause(nth)]),
        1 => (0..3_usize).prop_map(|nth| vec![Op::Withdraw(nth)]),
        1 => (0..3_usize).prop_map(|nth| vec![Op::Pause(nth), Op::Start(nth)]),
    ];
    let then = prop_oneof![
        (0..3_usize, by()).prop_map(|(nth, by)| Op::End {
            call: Pick::Up(nth),
            by,
            outcome: Outcome::NoAnswer,
            named: Named::Unnamed,
        }),
        (0..3_usize, delay()).prop_map(|(nth, delay)| Op::Return {
            call: Pick::Up(nth),
            stale: false,
            delay,
            if_unknown: false,
        }),
    ];
    let maintain = prop_oneof![3 => Just(false), 1 => Just(true)];
    (user(), 0..=CONTACTS, stop, vec(then, 0..3), maintain).prop_map(
        |(of, contacts, stop, then, maintain)| {
            let settle = Op::Settle {
                server: 0,
                reserve: 100,
            };
            let mut story = vec![Op::Draft { of, contacts }];
            story.extend((0..3).map(Op::Start));
            story.push(settle);
            story.extend(stop);
            story.extend(then);
            story.push(settle);
            story.extend(maintain.then_some(Op::Maintain));
            story
        },
    )
}

/// A call that comes back and back: from its fourth attempt on it may step aside.
pub(super) fn of_a_call_turned_away() -> impl Strategy<Value = Vec<Op>> {
    (0..3_usize, vec(delay(), 3..6)).prop_map(|(nth, delays)| {
        let mut story = Vec::new();
        for delay in delays {
            story.push(Op::Return {
                call: Pick::Up(nth),
                stale: false,
                delay,
                if_unknown: false,
            });
            let settle = Op::Settle {
                server: 0,
                reserve: 100,
            };
            story.extend([settle, Op::UntilSomethingIsDue, settle]);
        }
        story
    })
}

/// A key is asked for again: at once, once it was answered, long after.
pub(super) fn of_a_key() -> impl Strategy<Value = Vec<Op>> {
    const A_MINUTE: u32 = 60_000;
    const A_DAY: u32 = 24 * 60 * A_MINUTE;
    let between = prop_oneof![
        2 => Just(None),
        2 => keep_answer().prop_map(Some),
        1 => select(vec![6 * A_MINUTE - 1, 6 * A_MINUTE, A_DAY - 1, A_DAY])
            .prop_map(|ms| Some(Op::Advance(ms))),
        1 => (0..4_usize).prop_map(|nth| Some(Op::Disown(Pick::Any(nth)))),
    ];
    vec((vec(by_key(), 1..4), server(), between), 1..4).prop_map(|rounds| {
        let mut story = Vec::new();
        for (asks, server, between) in rounds {
            let settle = Op::Settle { server, reserve: 1 };
            story.extend(asks);
            story.push(settle);
            story.extend(between);
            story.extend([Op::Record { server }, settle]);
        }
        story
    })
}

/// A server misses an answer, and then asks again or tells those who asked no.
pub(super) fn of_a_lost_answer() -> impl Strategy<Value = Vec<Op>> {
    let meanwhile = prop_oneof![
        2 => Just(Vec::new()),
        1 => (0..2_usize).prop_map(|nth| vec![Op::Placed { call: Pick::Up(nth), stale: false }]),
        1 => (0..2_usize).prop_map(|server| vec![Op::Settle { server, reserve: 100 }]),
        1 => Just(vec![Op::Paused(false), Op::SystemLimit(4)]),
    ];
    (
        server(),
        vec(super::ask(), 1..4),
        meanwhile,
        any::<bool>(),
        0..3_u32,
    )
        .prop_map(|(server, asks, meanwhile, again, reserve)| {
            let mut story = asks;
            story.push(Op::Settle { server, reserve });
            story.extend(meanwhile);
            story.push(Op::Record { server });
            story.extend(if again {
                vec![Op::Resend(server)]
            } else {
                vec![Op::LoseAnswer(server), Op::Settle { server, reserve }]
            });
            story
        })
}
