//! Fairness measured on PostgreSQL: many users, slots for few of their calls, and the figures that
//! say how evenly turns were given. `CALLQ_LONG_TESTS=1` measures with backlogs up to 100,000.

use std::collections::BTreeMap;

use callq_domain::fairness::{jain_index, round};
use callq_domain::{QueueItemId, UserId, Weight};

use crowd::Crowd;

mod crowd;

/// Slots of the system, for a thousand users.
const SLOTS: u32 = 50;
const USERS: usize = 1_000;

/// A backlog for each user, from 1 to `largest`: of all but five as many stand below ten as between
/// ten and a hundred, and so on; the last five have most of what waits.
fn backlogs(largest: f64) -> Vec<usize> {
    const GIANTS: usize = 5;
    let common = largest.powf(0.6);
    let spread = |from: f64, to: f64, count: usize| {
        let step = move |nth: usize| nth as f64 / (count - 1) as f64;
        (0..count).map(move |nth| (from * (to / from).powf(step(nth))).round() as usize)
    };
    let giants = spread(common, largest, GIANTS);
    spread(1.0, common, USERS - GIANTS).chain(giants).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_users_are_served_at_one_rate_whatever_their_backlogs() {
    let (largest, services) = if crate::is_long() {
        (100_000.0, 40_000)
    } else {
        (1_000.0, 10_000)
    };
    let backlogs = backlogs(largest);
    let crowd = Crowd::new(USERS, SLOTS).await;
    crowd.start_campaigns(&backlogs).await;

    let turns = crowd.serve(services).await;

    let users = || crowd.users.iter().copied().zip(&backlogs);
    let ready = users().filter(|(of, backlog)| turns.given(*of) < **backlog as u64);
    let ready: Vec<UserId> = ready.map(|(of, _)| of).collect();
    let rates: Vec<f64> = ready.iter().map(|of| turns.share(*of)).collect();
    let jain = jain_index(&rates).unwrap();
    let gap = users().map(|(of, _)| turns.longest_gap(of)).max();
    let gap = gap.max(ready.iter().map(|of| turns.since_last(*of)).max());
    println!(
        "{} calls waited; {} of {USERS} users were ready throughout {} turns: \
         Jain's index {jain:.6}, longest gap {gap:?}",
        backlogs.iter().sum::<usize>(),
        ready.len(),
        turns.total(),
    );
    assert!(ready.len() > 200, "{}", ready.len());
    assert!(jain >= 0.999, "{jain}");
    assert!(gap <= Some(USERS as u64), "{gap:?}");
    crowd.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_ten_calls_and_one_with_a_long_list_finish_their_first_ten_side_by_side() {
    let long = if crate::is_long() { 100_000 } else { 5_000 };
    let crowd = Crowd::new(2, 1).await;
    crowd.start_campaigns(&[long, 10]).await;

    let turns = crowd.serve(20).await;

    for of in &crowd.users {
        assert_eq!((turns.given(*of), turns.longest_gap(*of)), (10, 2));
    }
    crowd.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_honoured_within_1_percent() {
    let users = if crate::is_long() { USERS } else { 40 };
    const ROUNDS: u64 = 100;
    let weights: Vec<u16> = (0..).take(users).map(|nth: u16| nth % 4 + 1).collect();
    let of_round: u64 = weights.iter().map(|turns| u64::from(*turns)).sum();
    let crowd = Crowd::new(users, SLOTS).await;
    let weight = |turns: u16| Weight::new(turns.into()).unwrap();
    for (of, turns) in crowd.users.iter().zip(&weights) {
        crowd.set_weight(*of, weight(*turns)).await;
    }
    let enough = |turns: &u16| usize::from(*turns) * (ROUNDS as usize + 1);
    crowd
        .start_campaigns(&weights.iter().map(enough).collect::<Vec<_>>())
        .await;

    let turns = crowd.serve(ROUNDS * of_round).await;

    let (mut worst_share, mut longest): (f64, BTreeMap<u16, (u64, u64)>) = (0.0, BTreeMap::new());
    for (nth, of) in crowd.users.iter().enumerate() {
        let due = f64::from(weights[nth]) / of_round as f64;
        worst_share = worst_share.max((turns.share(*of) / due - 1.0).abs());
        let others = weights
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != nth);
        let round = round(
            weight(weights[nth]),
            others.map(|(_, turns)| weight(*turns)),
        );
        let gap = longest.entry(weights[nth]).or_insert((0, round));
        gap.0 = gap.0.max(turns.longest_gap(*of));
    }
    println!(
        "{} turns of {users} users of weights 1 to 4: the worst share is off by {:.3} %; \
         longest gap and its bound by weight: {longest:?}",
        turns.total(),
        100.0 * worst_share,
    );
    assert!(worst_share <= 0.01, "{worst_share}");
    assert!(
        longest.values().all(|(gap, round)| gap <= round),
        "{longest:?}"
    );
    crowd.assert_counters_equal_rows().await;
}

/// How many calls of any type started from each direct call's arrival to its own start. At every
/// step all that is up ends, and some direct calls more come.
async fn direct_waits(users: usize, campaign_calls_each: usize) -> Vec<u64> {
    const STEPS: usize = 60;
    const COMING: usize = 8;
    let crowd = Crowd::new(users, 10).await;
    crowd
        .start_campaigns(&vec![campaign_calls_each; users])
        .await;
    let mut arrived: Vec<(QueueItemId, u64)> = Vec::new();
    for id in crowd.line_up_direct_calls(1).await {
        arrived.push((id, 0));
    }
    let (mut services, mut started_at, mut up) = (0, BTreeMap::new(), Vec::new());
    for step in 0..STEPS {
        let asking = (0..COMING).map(|n| (COMING * step + n) * 7 % users);
        let asking = crowd.direct_calls(asking);
        arrived.extend(asking.iter().map(|call| (call.item_id, services)));
        let started = crowd.step(&up, asking).await;
        for call in &started {
            started_at.insert(call.item_id, services);
            services += 1;
        }
        up = started
            .iter()
            .map(|call| call.request.attempt.call_id)
            .collect();
    }
    crowd.assert_counters_equal_rows().await;
    arrived
        .iter()
        .filter_map(|(id, at)| Some(started_at.get(id)? - at))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wait_of_direct_calls_is_untouched_by_a_campaign_backlog() {
    let users = 50;
    let campaign_calls_each = if crate::is_long() { 2_000 } else { 50 };

    let alone = direct_waits(users, 0).await;
    let beside = direct_waits(users, campaign_calls_each).await;

    let mean = |waits: &[u64]| waits.iter().sum::<u64>() as f64 / waits.len() as f64;
    println!(
        "{} direct calls waited {:.2} services alone, {:.2} beside {} campaign calls",
        alone.len(),
        mean(&alone),
        mean(&beside),
        users * campaign_calls_each,
    );
    assert_eq!(alone.len(), 50 + 60 * 8);
    assert!(mean(&alone) > 5.0, "they hardly waited");
    assert_eq!(alone, beside);
}
