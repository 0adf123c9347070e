//! How scripts are drawn.

use callq_domain::{Outcome, ReportedStatus};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::operations::{By, CONTACTS, Named, Op, Pick, SERVERS, USERS, Vain};

/// Everything there is, at any time.
pub(crate) fn any_script(operations: usize) -> impl Strategy<Value = Vec<Op>> {
    vec(any_op(), 1..=operations)
}

/// Much coming and going with few slots, in full batches and by small budgets: who goes next.
pub(crate) fn busy_script(operations: usize) -> impl Strategy<Value = Vec<Op>> {
    let opening = vec(
        prop_oneof![
            (0..USERS, 1..=4_u16).prop_map(|(of, turns)| Op::Weight { of, turns }),
            (0..USERS, 1..=3_u32).prop_map(|(of, slots)| Op::UserLimit { of, slots }),
            (1..=5_u32).prop_map(Op::SystemLimit),
            (0..USERS, 0..=2_u32).prop_map(|(of, slots)| Op::DirectReserved { of, slots }),
            (0..USERS, 1..=CONTACTS).prop_map(|(of, contacts)| Op::Draft { of, contacts }),
        ],
        0..8,
    );
    let coming_and_going = prop_oneof![
        8 => ask(),
        6 => (0..6_usize).prop_map(|nth| Op::End {
            call: Pick::Up(nth),
            by: By::TheCarrier,
            outcome: Outcome::Completed,
            named: Named::Unnamed,
        }),
        2 => (0..6_usize, delay()).prop_map(|(nth, delay)| Op::Return {
            call: Pick::Up(nth),
            stale: false,
            delay,
            if_unknown: false,
        }),
        8 => settle(),
        1 => server().prop_map(Op::Resend),
        2 => (0..3_usize).prop_map(Op::Start),
        1 => (1..600_u32).prop_map(Op::Advance),
        1 => (1..=5_u32).prop_map(Op::SystemLimit),
    ];
    (opening, vec(coming_and_going, 1..=operations)).prop_map(|(mut opening, rest)| {
        opening.extend(rest);
        opening
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => into_a_batch(),
        16 => settle(),
        2 => server().prop_map(Op::Resend),
        1 => server().prop_map(Op::LoseAnswer),
        12 => into_progress(),
        6 => server().prop_map(|server| Op::Record { server }),
        10 => change(),
        9 => campaign(),
        4 => (1..800_u32).prop_map(Op::Advance),
        1 => (server(), pick()).prop_map(|(server, call)| Op::GiveUp { server, call }),
        1 => (0..SERVERS).prop_map(Op::Die),
    ]
}

fn into_a_batch() -> impl Strategy<Value = Op> {
    let vain = prop_oneof![Just(Vain::UnknownUser), Just(Vain::AnothersAgent)];
    prop_oneof![
        12 => ask(),
        1 => (0..USERS, vain).prop_map(|(of, why)| Op::AskInVain { of, why }),
        9 => (pick(), by(), select(Outcome::ALL.to_vec()), named())
            .prop_map(|(call, by, outcome, named)| Op::End { call, by, outcome, named }),
        6 => (pick(), rarely(), delay(), rarely())
            .prop_map(|(call, stale, delay, if_unknown)| Op::Return { call, stale, delay, if_unknown }),
        1 => pick().prop_map(Op::Disown),
    ]
}

fn ask() -> impl Strategy<Value = Op> {
    (0..USERS, maybe_soon(), maybe_soon()).prop_map(|(of, starts_in, expires_in)| Op::Ask {
        of,
        starts_in,
        expires_in,
    })
}

fn settle() -> impl Strategy<Value = Op> {
    let reserve = prop_oneof![3 => Just(100), 2 => 0..4_u32];
    (server(), reserve).prop_map(|(server, reserve)| Op::Settle { server, reserve })
}

fn into_progress() -> impl Strategy<Value = Op> {
    let status = select(vec![
        ReportedStatus::Initiated,
        ReportedStatus::Ringing,
        ReportedStatus::InProgress,
    ]);
    prop_oneof![
        3 => (pick(), rarely()).prop_map(|(call, stale)| Op::Placed { call, stale }),
        2 => (pick(), rarely()).prop_map(|(call, stale)| Op::Lost { call, stale }),
        3 => (pick(), status, named())
            .prop_map(|(call, status, named)| Op::Tell { call, status, named }),
    ]
}

fn change() -> impl Strategy<Value = Op> {
    let left = prop_oneof![Just(None), (0..3_i64).prop_map(Some)];
    prop_oneof![
        4 => waiting().prop_map(Op::Cancel),
        1 => waiting().prop_map(Op::CancelAnothers),
        3 => (0..USERS, 0..=3_u32).prop_map(|(of, slots)| Op::UserLimit { of, slots }),
        3 => (0..=5_u32).prop_map(Op::SystemLimit),
        2 => (0..USERS, 1..=4_u16).prop_map(|(of, turns)| Op::Weight { of, turns }),
        2 => (0..USERS, 0..=2_u32).prop_map(|(of, slots)| Op::DirectReserved { of, slots }),
        1 => (0..USERS, left).prop_map(|(of, left)| Op::Credits { of, left }),
        2 => any::<bool>().prop_map(Op::Paused),
    ]
}

fn campaign() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..USERS, 0..=CONTACTS).prop_map(|(of, contacts)| Op::Draft { of, contacts }),
        5 => (0..3_usize).prop_map(Op::Start),
        1 => (0..3_usize).prop_map(Op::Pause),
        1 => (0..3_usize).prop_map(Op::Withdraw),
        1 => Just(Op::Maintain),
    ]
}

/// Mostly calls that are up: what is said of others changes nothing.
fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        12 => (0..6_usize).prop_map(Pick::Up),
        2 => (0..12_usize).prop_map(Pick::Waiting),
        2 => (0..24_usize).prop_map(Pick::Any),
        1 => Just(Pick::Nobody),
    ]
}

fn waiting() -> impl Strategy<Value = Pick> {
    prop_oneof![
        6 => (0..12_usize).prop_map(Pick::Waiting),
        1 => (0..6_usize).prop_map(Pick::Up),
        1 => (0..24_usize).prop_map(Pick::Any),
        1 => Just(Pick::Nobody),
    ]
}

fn by() -> impl Strategy<Value = By> {
    prop_oneof![6 => Just(By::TheCarrier), 2 => Just(By::ThisAttempt), 1 => Just(By::AnEarlierAttempt)]
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![5 => Just(Named::Unnamed), 3 => Just(Named::ItsName), 1 => Just(Named::AnotherName)]
}

fn server() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 1 => 0..SERVERS]
}

fn maybe_soon() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![4 => Just(None), 1 => (0..1_500_u32).prop_map(Some)]
}

fn delay() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..1_000_u32]
}

fn rarely() -> impl Strategy<Value = bool> {
    prop_oneof![6 => Just(false), 1 => Just(true)]
}
