//! The rules under random operations, each held against an oracle that looks only at answers and
//! items, never at the model's own reasoning.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::CallType::{Campaign, Direct};
use crate::{CallType, ItemStatus, QueueItemId, Refusal, UserId};

use super::scene::*;
use super::{Admission, Batch, Item, Newcomer, Queue, Settled};
use operations::*;

mod operations;

/// Due direct items that wait, as the items themselves tell it.
fn waiting_direct(queue: &Queue) -> impl Iterator<Item = &Item> {
    queue
        .items()
        .filter(|item| item.is_due() && item.origin.call_type() == Direct)
}

fn active(queue: &Queue, of: UserId) -> usize {
    queue
        .items()
        .filter(|item| item.user_id == of && is_up(item))
        .count()
}

/// No campaign call started while a direct call that should have gone first still waits.
fn direct_went_first(queue: &Queue, settled: &Settled) -> Result<(), TestCaseError> {
    for start in &settled.reserved {
        let item = queue.item(start.item_id).expect("it started");
        if item.origin.call_type() == Direct {
            continue;
        }
        for direct in waiting_direct(queue) {
            let owner = queue.user(direct.user_id).expect("there");
            let could_go = active(queue, direct.user_id) < owner.limit as usize
                && owner.direct.hold_until.is_none();
            prop_assert_ne!(direct.user_id, start.user_id);
            prop_assert!(
                !could_go,
                "{:?} was passed by {:?}",
                direct.id,
                start.item_id
            );
        }
    }
    Ok(())
}

/// Whatever started outranks all that still waits in its line, and has no lower priority than what
/// could go of the user's other campaigns; nobody at the door overtook.
fn lanes_kept_order(queue: &Queue, settled: &Settled) -> Result<(), TestCaseError> {
    let at_the_door = settled
        .admissions
        .iter()
        .filter_map(|admission| match admission {
            Admission::Started(start) => Some(start),
            _ => None,
        });
    for start in settled.reserved.iter().chain(at_the_door) {
        let first = queue.item(start.item_id).expect("it started");
        for other in queue.items().filter(|item| item.is_due()) {
            let same_lane = other.user_id == first.user_id
                && other.origin.call_type() == first.origin.call_type();
            if !same_lane {
                continue;
            }
            if other.origin == first.origin {
                prop_assert!(first.rank() < other.rank());
                continue;
            }
            let campaigns = &queue.user(other.user_id).expect("there").campaigns;
            let could_go = other.origin.campaign_id().is_some_and(|id| {
                campaigns[&id].open
                    && campaigns[&id]
                        .limit
                        .is_none_or(|n| campaigns[&id].active < n)
            });
            if could_go {
                prop_assert!(first.priority >= other.priority);
            }
        }
    }
    Ok(())
}

/// What a settlement says of itself agrees with what it left.
fn answers_are_true(queue: &Queue, batch: &Batch, settled: &Settled) -> Result<(), TestCaseError> {
    prop_assert_eq!(settled.endings.len(), batch.endings.len());
    prop_assert_eq!(settled.returns.len(), batch.returns.len());
    prop_assert_eq!(settled.admissions.len(), batch.admissions.len());
    prop_assert!(settled.reserved.len() <= batch.reserve as usize);
    let distinct: BTreeSet<_> = settled.reserved.iter().map(|start| start.item_id).collect();
    prop_assert_eq!(distinct.len(), settled.reserved.len());
    for (new, admission) in batch.admissions.iter().zip(&settled.admissions) {
        let status = queue.item(new.item_id).map(|item| item.status);
        let expected = match admission {
            Admission::Started(_) => Some(ItemStatus::Processing),
            Admission::Queued(_) => Some(ItemStatus::Queued),
            Admission::Refused(Refusal::QueueFull(full)) => {
                prop_assert!(full.waiting >= u64::from(full.limit));
                None
            }
            other => panic!("newcomers are new and users there: {other:?}"),
        };
        prop_assert_eq!(status, expected);
    }
    Ok(())
}

/// Nobody who came in queued where as many waited as may. What came back from its slot may stand
/// beyond that.
fn caps_hold(queue: &Queue, batch: &Batch, settled: &Settled) -> Result<(), TestCaseError> {
    for (id, user) in queue.users() {
        let Some(most) = user.max_queued_direct else {
            continue;
        };
        let queued = |(new, admission): &(&Newcomer, &Admission)| {
            new.user_id == id && matches!(admission, Admission::Queued(_))
        };
        let newcomers = batch.admissions.iter().zip(&settled.admissions);
        if newcomers.filter(queued).count() > 0 {
            let waits = |item: &&Item| {
                let direct = item.origin.call_type() == Direct;
                item.user_id == id && direct && item.status == ItemStatus::Queued
            };
            prop_assert!(queue.items().filter(waits).count() <= most as usize);
        }
    }
    Ok(())
}

/// The places of those that can go run from 1; those that cannot yet stand behind them; nobody
/// stands further back than the lane is long.
fn places_are_a_line(queue: &Queue) -> Result<(), TestCaseError> {
    let mut lanes: BTreeMap<(UserId, CallType), Vec<u64>> = BTreeMap::new();
    for item in queue.items().filter(|item| item.is_due()) {
        let owner = queue.user(item.user_id).expect("there");
        let campaign = item.origin.campaign_id();
        if campaign.is_none_or(|id| owner.campaigns[&id].open) {
            let place = queue.place(item.id).expect("it waits");
            let lane = lanes.entry((item.user_id, item.origin.call_type()));
            lane.or_default().push(place.position);
        }
    }
    for places in lanes.values_mut() {
        places.sort_unstable();
        prop_assert!(places.iter().copied().eq(1..=places.len() as u64));
    }
    for item in queue.items() {
        if let Some(place) = queue.place(item.id) {
            prop_assert!((1..=place.total_in_queue).contains(&place.position));
            let lane = lanes.get(&(item.user_id, item.origin.call_type()));
            let can_go = lane.map_or(0, |places| places.len() as u64);
            prop_assert!(item.is_due() || place.position > can_go);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_operations_break_no_invariant(ops in vec(any_op(), 1..80)) {
        let mut scene = stage();
        for op in &ops {
            let answer = apply(&mut scene, op);
            prop_assert_eq!(scene.queue.check(), []);
            if let Some((batch, settled)) = answer {
                answers_are_true(&scene.queue, &batch, &settled)?;
                caps_hold(&scene.queue, &batch, &settled)?;
                direct_went_first(&scene.queue, &settled)?;
                lanes_kept_order(&scene.queue, &settled)?;
            }
        }
        places_are_a_line(&scene.queue)?;
    }

    #[test]
    fn nothing_accepted_is_lost(ops in vec(any_op(), 1..60)) {
        let mut scene = stage();
        for op in &ops {
            apply(&mut scene, op);
        }
        // Whatever stood in the way goes, and every call that starts ends.
        scene.queue.set_paused(false);
        scene.queue.set_system_limit(limit(3));
        for of in 1..=USERS {
            scene.queue.set_user_limit(user(of), limit(1)).expect("there");
            scene.queue.set_direct_reserved(user(of), 0).expect("there");
        }
        for id in 1..=USERS * CAMPAIGNS_EACH {
            scene.queue.set_campaign_open(campaign(id), true).expect("there");
            scene.queue.set_campaign_limit(campaign(id), None).expect("there");
        }
        scene.now += 10_000;
        let items = scene.queue.items().count();
        for _ in 0..=items {
            let up = scene.queue.items().filter(|item| is_up(item));
            let endings = up.map(|item| ending(item.id, None)).collect();
            scene.settle(&Batch { endings, ..sweep() });
        }
        prop_assert!(scene.queue.items().all(|item| item.status.is_terminal()));
    }

    #[test]
    fn the_same_operations_give_the_same_answers(ops in vec(any_op(), 1..40)) {
        let (mut one, mut two) = (stage(), stage());
        for op in &ops {
            let answers = (apply(&mut one, op), apply(&mut two, op));
            prop_assert_eq!(answers.0.map(|a| a.1), answers.1.map(|a| a.1));
        }
    }

    #[test]
    fn two_users_alternate_whatever_their_backlogs(
        backlogs in (1..60_usize, 1..60_usize), class in proptest::sample::select(&CallType::ALL[..])
    ) {
        let mut scene = Scene::new(1, &[1, 1]);
        for (of, backlog) in [(1, backlogs.0), (2, backlogs.1)] {
            scene.wait(class, of, backlog);
        }
        let both = 2 * backlogs.0.min(backlogs.1);
        let turns = scene.turns(class, both);
        prop_assert!(turns.chunks(2).all(|pair| pair == [user(1), user(2)]));
    }

    #[test]
    fn one_waiting_call_gets_the_next_turn_after_any_backlogs(
        backlog in 2..1_000_usize, gone in 1..20_usize
    ) {
        let mut scene = Scene::new(1, &[1, 1]);
        scene.enqueue(1, 1, backlog + gone);
        scene.turns(Campaign, gone);
        scene.enqueue(2, 2, 1);
        prop_assert_eq!(scene.turns(Campaign, 2), [user(2), user(1)]);
    }

    #[test]
    fn weights_are_honoured_within_one_call_over_every_round(weights in vec(1..=16_u16, 2..6)) {
        let round: usize = weights.iter().map(|turns| usize::from(*turns)).sum();
        let mut scene = Scene::new(1, &vec![1; weights.len()]);
        for (of, turns) in (1..).zip(&weights) {
            scene.queue.set_weight(user(of), weight(*turns)).expect("there");
            scene.enqueue(of, of, 4 * usize::from(*turns));
        }
        let turns = scene.turns(Campaign, 3 * round);
        for window in turns.windows(round) {
            for (of, turns) in (1..).zip(&weights) {
                let got = window.iter().filter(|id| **id == user(of)).count();
                prop_assert!(got.abs_diff(usize::from(*turns)) <= 1, "user {of} got {got}");
            }
        }
    }

    #[test]
    fn a_users_campaigns_go_by_their_weights_within_one_call_over_every_round(
        weights in vec(1..=16_u16, 2..6)
    ) {
        let round: usize = weights.iter().map(|turns| usize::from(*turns)).sum();
        let mut scene = Scene::new(1, &[1]);
        for (id, turns) in (2..).zip(&weights) {
            scene.queue.add_campaign(user(1), campaign(id), true).expect("new");
            scene.queue.set_campaign_weight(campaign(id), weight(*turns)).expect("there");
            scene.enqueue(1, id, 4 * usize::from(*turns));
        }
        let turns = scene.campaign_turns(3 * round);
        for window in turns.windows(round) {
            for (id, turns) in (2..).zip(&weights) {
                let got = window.iter().filter(|one| **one == campaign(id)).count();
                prop_assert!(got.abs_diff(usize::from(*turns)) <= 1, "campaign {id} got {got}");
            }
        }
    }

    #[test]
    fn no_ready_lane_waits_longer_than_one_round(
        weights in vec(1..=6_u16, USERS as usize), ops in vec(any_op(), 1..120)
    ) {
        let mut scene = stage();
        for (of, turns) in (1..).zip(&weights) {
            scene.queue.set_weight(user(of), weight(*turns)).expect("there");
        }
        // How often each other user went, by class, since a lane became ready.
        let mut passed: BTreeMap<(CallType, UserId), BTreeMap<UserId, i64>> = BTreeMap::new();
        let stays = |op: &&Op| !matches!(op, Op::Weight(..));
        for op in ops.iter().filter(stays) {
            let settled = apply(&mut scene, op).map(|(_, settled)| settled);
            let starts = settled.map(|settled| started(&settled)).unwrap_or_default();
            count_turns(&scene.queue, &starts, &mut passed)?;
        }
    }
}

/// Counts for every lane that stays ready how often the others went, and compares it with their
/// share of a round: the ratio of weights, rounded up, and one for the turn they were in.
fn count_turns(
    queue: &Queue,
    starts: &[QueueItemId],
    passed: &mut BTreeMap<(CallType, UserId), BTreeMap<UserId, i64>>,
) -> Result<(), TestCaseError> {
    let starts = starts.iter().map(|id| queue.item(*id).expect("it started"));
    for start in starts {
        let class = start.origin.call_type();
        passed.remove(&(class, start.user_id));
        let others = passed
            .iter_mut()
            .filter(|((of_class, _), _)| *of_class == class);
        for (_, went) in others {
            *went.entry(start.user_id).or_default() += 1;
        }
    }
    passed.retain(|(class, of), _| queue.is_ready(*of, *class));
    for class in CallType::ALL {
        for (of, _) in queue.users().filter(|(of, _)| queue.is_ready(*of, class)) {
            passed.entry((class, of)).or_default();
        }
    }
    for ((_, of), went) in passed {
        let stride = |id: UserId| queue.user(id).expect("there").weight.stride();
        for (other, times) in went {
            prop_assert!(*times <= stride(*of) / stride(*other) + 1);
        }
    }
    Ok(())
}

impl Scene {
    /// So many calls of a class that wait.
    fn wait(&mut self, class: CallType, of: u128, count: usize) -> Vec<QueueItemId> {
        match class {
            Direct => self.line_up(of, count),
            Campaign => self.enqueue(of, of, count),
        }
    }
}
