//! How scripts are drawn: at random, but with a mind to where two sides may part. What takes many
//! operations in a row to come about is drawn as a whole, in [`stories`].

use callq_domain::{ItemStatus, Outcome, ReportedStatus};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::operations::{By, CAMPAIGNS, CONTACTS, KEYS, Named, Op, Pick, SERVERS, USERS, Vain};

mod stories;

/// Phrases of a script, each one operation or a few.
const PHRASES: usize = 60;

/// Scripts of every kind.
pub(crate) fn every_kind() -> [BoxedStrategy<Vec<Op>>; 4] {
    [
        any_script().boxed(),
        told_script().boxed(),
        busy_script().boxed(),
        campaign_script().boxed(),
    ]
}

/// Everything there is, at any time.
pub(crate) fn any_script() -> impl Strategy<Value = Vec<Op>> {
    let phrase = prop_oneof![
        20 => any_op().prop_map(|op| vec![op]),
        2 => stories::of_a_call(),
        1 => stories::of_a_campaign(),
        1 => stories::of_a_call_turned_away(),
        1 => stories::of_a_key(),
        1 => stories::of_a_lost_answer(),
    ];
    vec(phrase, 1..=PHRASES).prop_map(|phrases| phrases.concat())
}

/// Few calls, of which much is told: in order, out of order, twice, by another's name.
pub(crate) fn told_script() -> impl Strategy<Value = Vec<Op>> {
    let phrase = prop_oneof![
        4 => (ask(), settle()).prop_map(|(ask, settle)| vec![ask, settle]),
        6 => stories::of_a_call(),
        1 => stories::of_a_campaign(),
        2 => into_progress().prop_map(|op| vec![op]),
        1 => (server(), into_a_batch()).prop_map(|(server, op)| vec![op, Op::Record { server }]),
        1 => settle().prop_map(|op| vec![op]),
    ];
    vec(phrase, 1..=PHRASES / 3).prop_map(|phrases| phrases.concat())
}

/// Much coming and going of direct calls with few slots, in full batches and by small budgets.
pub(crate) fn busy_script() -> impl Strategy<Value = Vec<Op>> {
    let opening = vec(prop_oneof![2 => setting(), 1 => started_campaign()], 0..12);
    let coming_and_going = prop_oneof![
        5 => burst(),
        6 => end().prop_map(|op| vec![op]),
        2 => back().prop_map(|op| vec![op]),
        8 => settle().prop_map(|op| vec![op]),
        1 => (0..CAMPAIGNS).prop_map(|nth| vec![Op::Start(nth)]),
        1 => (0..CAMPAIGNS).prop_map(|nth| vec![Op::Pause(nth)]),
        2 => pass_time().prop_map(|op| vec![op]),
        1 => server().prop_map(|server| vec![Op::Resend(server)]),
        1 => setting(),
        1 => gathering(),
        1 => placed(),
    ];
    opened_by(opening, vec(coming_and_going, 1..=PHRASES))
}

/// Several users' campaigns that run, stop and run again with few slots, and now and then a direct
/// call.
pub(crate) fn campaign_script() -> impl Strategy<Value = Vec<Op>> {
    let opening = vec(prop_oneof![2 => setting(), 3 => started_campaign()], 3..12);
    let coming_and_going = prop_oneof![
        1 => ask().prop_map(|op| vec![op]),
        8 => end().prop_map(|op| vec![op]),
        2 => back().prop_map(|op| vec![op]),
        9 => settle().prop_map(|op| vec![op]),
        3 => (0..CAMPAIGNS).prop_map(|nth| vec![Op::Start(nth)]),
        2 => (0..CAMPAIGNS).prop_map(|nth| vec![Op::Pause(nth)]),
        1 => pass_time().prop_map(|op| vec![op]),
        1 => setting(),
        2 => campaign_setting().prop_map(|op| vec![op]),
    ];
    opened_by(opening, vec(coming_and_going, 1..=PHRASES))
}

fn opened_by(
    opening: impl Strategy<Value = Vec<Vec<Op>>>,
    rest: impl Strategy<Value = Vec<Vec<Op>>>,
) -> impl Strategy<Value = Vec<Op>> {
    (opening, rest).prop_map(|(opening, rest)| [opening.concat(), rest.concat()].concat())
}

/// One user asks for some calls at once.
fn burst() -> impl Strategy<Value = Vec<Op>> {
    (0..USERS, vec(ask(), 1..4)).prop_map(|(of, mut asks)| {
        for ask in &mut asks {
            if let Op::Ask { of: asks, .. } = ask {
                *asks = of;
            }
        }
        asks
    })
}

/// Several users' calls gather while nothing starts, and then many go at once.
fn gathering() -> impl Strategy<Value = Vec<Op>> {
    (vec(burst(), 2..5), settle(), settle()).prop_map(|(bursts, first, second)| {
        let mut phrase = vec![Op::Paused(true)];
        phrase.extend(bursts.concat());
        phrase.extend([first, Op::Paused(false), Op::SystemLimit(5), second]);
        phrase
    })
}

fn setting() -> impl Strategy<Value = Vec<Op>> {
    prop_oneof![
        2 => (user(), 1..=4_u16).prop_map(|(of, turns)| vec![Op::Weight { of, turns }]),
        2 => (user(), 1..=3_u32).prop_map(|(of, slots)| vec![Op::UserLimit { of, slots }]),
        1 => (user(), 1..=2_u32).prop_map(|(of, slots)| vec![Op::DirectReserved { of, slots }]),
        2 => (1..=5_u32).prop_map(|slots| vec![Op::SystemLimit(slots)]),
        1 => campaign_setting().prop_map(|op| vec![op]),
        1 => (user(), most()).prop_map(|(of, most)| vec![Op::MaxQueued { of, most }]),
    ]
}

fn started_campaign() -> impl Strategy<Value = Vec<Op>> {
    let owner = prop_oneof![1 => Just(0), 1 => 0..USERS];
    (owner, 1..=CONTACTS, 0..CAMPAIGNS)
        .prop_map(|(of, contacts, nth)| vec![Op::Draft { of, contacts }, Op::Start(nth)])
}

/// A call ends as most do.
fn end() -> impl Strategy<Value = Op> {
    (0..6_usize).prop_map(|nth| Op::End {
        call: Pick::Up(nth),
        by: By::TheCarrier,
        outcome: Outcome::Completed,
        named: Named::Unnamed,
    })
}

/// Most of what is up was taken by its provider.
fn placed() -> impl Strategy<Value = Vec<Op>> {
    server().prop_map(|server| {
        let up = (0..4).map(|nth| Op::Placed {
            call: Pick::Up(nth),
            stale: false,
        });
        up.chain([Op::Record { server }]).collect()
    })
}

/// The provider of a call has no room.
fn back() -> impl Strategy<Value = Op> {
    (0..6_usize, delay()).prop_map(|(nth, delay)| Op::Return {
        call: Pick::Up(nth),
        stale: false,
        delay,
        if_unknown: false,
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => into_a_batch(),
        16 => settle(),
        1 => server().prop_map(Op::Resend),
        1 => server().prop_map(Op::LoseAnswer),
        1 => turn_page(),
        12 => into_progress(),
        6 => server().prop_map(|server| Op::Record { server }),
        10 => change(),
        9 => campaign(),
        5 => pass_time(),
        1 => (server(), pick()).prop_map(|(server, call)| Op::GiveUp { server, call }),
        1 => (0..SERVERS).prop_map(Op::Die),
    ]
}

fn into_a_batch() -> impl Strategy<Value = Op> {
    let vain = select(vec![
        Vain::UnknownUser,
        Vain::AnothersAgent,
        Vain::AnothersContact,
    ]);
    prop_oneof![
        12 => ask(),
        1 => (user(), vain).prop_map(|(of, why)| Op::AskInVain { of, why }),
        9 => (pick(), by(), select(Outcome::ALL.to_vec()), named())
            .prop_map(|(call, by, outcome, named)| Op::End { call, by, outcome, named }),
        6 => (pick(), rarely(), delay(), rarely())
            .prop_map(|(call, stale, delay, if_unknown)| Op::Return { call, stale, delay, if_unknown }),
        1 => pick().prop_map(Op::Disown),
        1 => by_key(),
    ]
}

fn pass_time() -> impl Strategy<Value = Op> {
    prop_oneof![
        (1..16_u32).prop_map(|n| Op::Advance(50 * n)),
        Just(Op::UntilSomethingIsDue)
    ]
}

/// Mostly the first: lanes are longer for it.
fn user() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(0), 3 => 0..USERS]
}

fn ask() -> impl Strategy<Value = Op> {
    (user(), maybe_soon(), maybe_soon()).prop_map(|(of, starts_in, expires_in)| Op::Ask {
        of,
        starts_in,
        expires_in,
    })
}

/// Mostly of one user: keys meet.
fn by_key() -> impl Strategy<Value = Op> {
    let body = prop_oneof![4 => Just(0_u8), 1 => Just(1_u8)];
    (0..2_usize, 0..KEYS, body).prop_map(|(of, key, body)| Op::AskByKey { of, key, body })
}

fn keep_answer() -> impl Strategy<Value = Op> {
    (0..2_usize, 0..KEYS).prop_map(|(of, key)| Op::KeepAnswer { of, key })
}

fn turn_page() -> impl Strategy<Value = Op> {
    let status = prop_oneof![3 => Just(None), 1 => select(ItemStatus::ALL.to_vec()).prop_map(Some)];
    (user(), 1..4_u16, status).prop_map(|(of, limit, status)| Op::TurnPage { of, limit, status })
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
        1 => keep_answer(),
    ]
}

fn change() -> impl Strategy<Value = Op> {
    let left = prop_oneof![Just(None), (0..3_i64).prop_map(Some)];
    prop_oneof![
        4 => waiting().prop_map(Op::Cancel),
        1 => waiting().prop_map(Op::CancelAnothers),
        3 => (user(), 0..=3_u32).prop_map(|(of, slots)| Op::UserLimit { of, slots }),
        3 => (0..=5_u32).prop_map(Op::SystemLimit),
        2 => (user(), 1..=4_u16).prop_map(|(of, turns)| Op::Weight { of, turns }),
        2 => (user(), 0..=2_u32).prop_map(|(of, slots)| Op::DirectReserved { of, slots }),
        1 => (user(), left).prop_map(|(of, left)| Op::Credits { of, left }),
        2 => (user(), most()).prop_map(|(of, most)| Op::MaxQueued { of, most }),
        2 => any::<bool>().prop_map(Op::Paused),
    ]
}

fn campaign_setting() -> impl Strategy<Value = Op> {
    let slots = prop_oneof![1 => Just(None), 3 => (1..=3_u32).prop_map(Some)];
    prop_oneof![
        (0..CAMPAIGNS, slots).prop_map(|(nth, slots)| Op::CampaignLimit { nth, slots }),
        (0..CAMPAIGNS, 1..=4_u16).prop_map(|(nth, turns)| Op::CampaignWeight { nth, turns }),
    ]
}

fn most() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![1 => Just(None), 2 => (0..5_u32).prop_map(Some)]
}

fn campaign() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (user(), 0..=CONTACTS).prop_map(|(of, contacts)| Op::Draft { of, contacts }),
        5 => (0..CAMPAIGNS).prop_map(Op::Start),
        1 => (0..CAMPAIGNS).prop_map(Op::Pause),
        1 => (0..CAMPAIGNS).prop_map(Op::Withdraw),
        1 => Just(Op::Maintain),
        2 => campaign_setting(),
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

/// Times are round, so that they meet.
fn maybe_soon() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![4 => Just(None), 1 => (0..15_u32).prop_map(|n| Some(100 * n))]
}

fn delay() -> impl Strategy<Value = u32> {
    (0..10_u32).prop_map(|n| 100 * n)
}

fn rarely() -> impl Strategy<Value = bool> {
    prop_oneof![6 => Just(false), 1 => Just(true)]
}
