//! Fairness measured: a thousand users, slots for few of them, and the figures that say how evenly
//! turns were given. The same is measured on PostgreSQL in the persistence crate's tests.

use crate::fairness::{Turns, jain_index, round};
use crate::{QueueItemId, UserId};

use super::scene::*;
use super::{Admission, Batch};

/// Slots of the system.
const SLOTS: usize = 50;

/// A backlog for each user, from 1 to `largest`, as many of them below ten as between ten and a
/// hundred.
fn backlogs(users: usize, largest: f64) -> Vec<usize> {
    let step = |nth: usize| nth as f64 / (users - 1) as f64;
    (0..users)
        .map(|nth| largest.powf(step(nth)).round() as usize)
        .collect()
}

/// Ends all that is up and starts the next, until so many calls were started.
fn serve(scene: &mut Scene, services: u64) -> Turns {
    let mut turns = Turns::default();
    let mut up: Vec<QueueItemId> = Vec::new();
    while turns.total() < services {
        let batch = Batch {
            endings: up.iter().map(|id| ending(*id, None)).collect(),
            ..sweep()
        };
        let settled = scene.queue.settle(scene.now, &batch);
        if settled.reserved.is_empty() {
            break;
        }
        up = started(&settled);
        for start in &settled.reserved {
            turns.record(start.user_id);
        }
    }
    assert_eq!(scene.queue.check(), []);
    turns
}

#[test]
fn a_thousand_users_are_served_at_one_rate_whatever_their_backlogs() {
    const USERS: usize = 1_000;
    let backlogs = backlogs(USERS, 100.0);
    let mut scene = Scene::new(SLOTS as u32, &[2; USERS]);
    for (of, backlog) in (1..).zip(&backlogs) {
        scene.enqueue(of, of, *backlog);
    }

    // So many that those served last have no less than 16 turns: one turn more or less, which
    // must be, is then less than a thousandth of the index.
    let turns = serve(&mut scene, 10_000);

    let users = || (1..).map(user).zip(&backlogs);
    let ready = users().filter(|(of, backlog)| turns.given(*of) < **backlog as u64);
    let ready: Vec<UserId> = ready.map(|(of, _)| of).collect();
    let rates: Vec<f64> = ready.iter().map(|of| turns.share(*of)).collect();
    let jain = jain_index(&rates).expect("they were served");
    let gap = users().map(|(of, _)| turns.longest_gap(of)).max();
    let gap = gap.max(ready.iter().map(|of| turns.since_last(*of)).max());
    println!(
        "{} of {USERS} users ready throughout {} turns: Jain's index {jain:.6}, longest gap {gap:?}",
        ready.len(),
        turns.total()
    );
    assert!(ready.len() > 300, "{}", ready.len());
    assert!(jain >= 0.999, "{jain}");
    assert!(gap <= Some(USERS as u64), "{gap:?}");
}

#[test]
fn weights_are_honoured_within_1_percent() {
    const ROUNDS: u64 = 100;
    let weights: Vec<u16> = (0..20).map(|nth| nth % 4 + 1).collect();
    let of_round: u64 = weights.iter().map(|turns| u64::from(*turns)).sum();
    let mut scene = Scene::new(SLOTS as u32, &[SLOTS as u32; 20]);
    for (of, turns) in (1..).zip(&weights) {
        scene
            .queue
            .set_weight(user(of), weight(*turns))
            .expect("there");
        scene.enqueue(of, of, usize::from(*turns) * (ROUNDS as usize + 1));
    }

    let turns = serve(&mut scene, ROUNDS * of_round);

    let mut worst: f64 = 0.0;
    for (nth, own) in (0..).zip(&weights) {
        let of = user(nth + 1);
        let due = f64::from(*own) / of_round as f64;
        worst = worst.max((turns.share(of) / due - 1.0).abs());
        let others = (0..).zip(&weights).filter(|(other, _)| *other != nth);
        let round = round(weight(*own), others.map(|(_, turns)| weight(*turns)));
        assert!(turns.longest_gap(of) <= round, "user {nth} of weight {own}");
    }
    println!(
        "{} turns by weight: the worst share is off by {worst:.4}",
        turns.total()
    );
    assert!(worst <= 0.01, "{worst}");
}

/// How many calls of any type started from each direct call's arrival to its own start. Every
/// step all that is up ends, and some direct calls more come.
fn direct_waits(campaign_calls_each: usize) -> Vec<u64> {
    const USERS: u128 = 100;
    let mut scene = Scene::new(10, &[10; USERS as usize]);
    let mut arrived: Vec<(QueueItemId, u64)> = Vec::new();
    for of in 1..=USERS {
        scene.enqueue(of, of, campaign_calls_each);
        let ids = scene.line_up(of, 3);
        arrived.extend(ids.into_iter().map(|id| (id, 0)));
    }
    let mut services = 0;
    let mut started_at = std::collections::BTreeMap::new();
    let mut up: Vec<QueueItemId> = Vec::new();
    for step in 0..250_u128 {
        // Item ids must not depend on how many campaign calls there are.
        let come: Vec<QueueItemId> = (0..8).map(|n| item(1_000_000 + 8 * step + n)).collect();
        arrived.extend(come.iter().map(|id| (*id, services)));
        let admissions = come
            .iter()
            .zip(0..)
            .map(|(id, n)| super::Newcomer::now(*id, user((8 * step + n) * 7 % USERS + 1)));
        let batch = Batch {
            endings: up.iter().map(|id| ending(*id, None)).collect(),
            admissions: admissions.collect(),
            ..sweep()
        };
        let settled = scene.queue.settle(scene.now, &batch);
        let at_the_door = settled
            .admissions
            .iter()
            .filter_map(|admission| match admission {
                Admission::Started(start) => Some(start),
                _ => None,
            });
        // Direct calls that waited, newcomers, campaign calls: as they go.
        let direct = |id| {
            scene
                .queue
                .item(id)
                .expect("there")
                .origin
                .campaign_id()
                .is_none()
        };
        let (waited, campaign): (Vec<_>, Vec<_>) = settled
            .reserved
            .iter()
            .partition(|start| direct(start.item_id));
        up.clear();
        for start in waited.into_iter().chain(at_the_door).chain(campaign) {
            started_at.insert(start.item_id, services);
            services += 1;
            up.push(start.item_id);
        }
    }
    assert_eq!(scene.queue.check(), []);
    let waits = arrived
        .iter()
        .filter_map(|(id, at)| Some(started_at.get(id)? - at));
    waits.collect()
}

#[test]
fn the_wait_of_direct_calls_is_untouched_by_a_campaign_backlog() {
    let alone = direct_waits(0);
    let beside = direct_waits(30);

    let mean = |waits: &[u64]| waits.iter().sum::<u64>() as f64 / waits.len() as f64;
    println!(
        "{} direct calls waited {:.1} services alone, {:.1} beside 3,000 campaign calls",
        alone.len(),
        mean(&alone),
        mean(&beside)
    );
    assert!(alone.len() > 1_500);
    assert_eq!(alone, beside);
}
