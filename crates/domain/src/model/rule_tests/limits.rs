//! Limits are never exceeded.

use crate::QueueReason;
use crate::model::scene::*;
use crate::model::{Admission, Batch};

#[test]
fn of_200_calls_at_once_a_limit_of_2_starts_2_and_numbers_the_rest() {
    let mut scene = Scene::new(10, &[2]);
    let admissions: Vec<_> = (0..200).map(|_| scene.newcomer(1)).collect();

    let settled = scene.settle(&Batch {
        admissions,
        ..sweep()
    });

    let (starts, rest) = settled.admissions.split_at(2);
    assert!(starts.iter().all(is_started));
    for (position, admission) in (1..).zip(rest) {
        let Admission::Queued(waiting) = admission else {
            panic!("two started already: {admission:?}")
        };
        assert_eq!(waiting.place.position, position);
        assert_eq!(waiting.place.total_in_queue, position);
        assert_eq!(
            waiting.reason.to_string(),
            "User has reached concurrency limit (2/2 active calls)"
        );
    }
    assert_eq!(rest.len(), 198);
}

#[test]
fn of_200_users_at_once_a_system_limit_of_10_starts_10() {
    let mut scene = Scene::new(10, &[2; 200]);
    let admissions: Vec<_> = (1..=200).map(|n| scene.newcomer(n)).collect();

    let settled = scene.settle(&Batch {
        admissions,
        ..sweep()
    });

    let starts = settled.admissions.iter().filter(|a| is_started(a)).count();
    assert_eq!(starts, 10);
    assert_eq!(
        reason(&settled.admissions[10]),
        "System has reached concurrency limit (10/10 active calls)"
    );
    assert_eq!(scene.queue.system().active, 10);
}

#[test]
fn direct_and_campaign_calls_share_the_users_limit() {
    let mut scene = Scene::new(10, &[2]);
    scene.enqueue(1, 1, 5);
    assert_eq!(scene.sweep().len(), 2);

    let (_, admission) = scene.ask(1);

    assert!(
        matches!(admission, Admission::Queued(w) if matches!(w.reason, QueueReason::UserLimit(_)))
    );
}

#[test]
fn a_lowered_limit_stops_new_starts_and_ends_no_call() {
    let mut scene = Scene::new(10, &[3]);
    let calls: Vec<_> = (0..3).map(|_| scene.ask(1).0).collect();
    let (waiting, _) = scene.ask(1);

    scene
        .queue
        .set_user_limit(user(1), limit(1))
        .expect("there");

    assert_eq!(scene.end(calls[0]), []);
    assert_eq!(scene.queue.user(user(1)).expect("there").active(), 2);
    assert_eq!(scene.end(calls[1]), []);
    assert_eq!(scene.end(calls[2]), [waiting]);
}

#[test]
fn a_lowered_system_limit_stops_new_starts_and_ends_no_call() {
    let mut scene = Scene::new(2, &[5]);
    let (first, second) = (scene.ask(1).0, scene.ask(1).0);
    let (waiting, _) = scene.ask(1);

    scene.queue.set_system_limit(limit(1));

    assert_eq!(scene.end(first), []);
    assert_eq!(scene.end(second), [waiting]);
}

#[test]
fn a_raised_limit_lets_waiting_calls_go() {
    let mut scene = Scene::new(10, &[0]);
    let waiting = [scene.ask(1).0, scene.ask(1).0];

    scene
        .queue
        .set_user_limit(user(1), limit(2))
        .expect("there");

    assert_eq!(scene.sweep(), waiting);
}
