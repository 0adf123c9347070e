//! No overtaking at the door.

use crate::model::scene::*;
use crate::model::{Admission, Batch, Newcomer};
use crate::{ItemStatus, Refusal};

#[test]
fn a_call_starts_at_once_where_a_slot_is_free_and_nobody_waits() {
    let mut scene = Scene::new(1, &[1]);
    assert!(is_started(&scene.ask(1).1));
}

#[test]
fn a_newcomer_queues_behind_a_held_call_of_its_user_though_a_slot_is_free() {
    let mut scene = Scene::new(5, &[5]);
    let (first, _) = scene.ask(1);
    scene.put_back(first, 1, 1_000);

    let (second, admission) = scene.ask(1);

    assert_eq!(
        reason(&admission),
        "Earlier direct calls are waiting (1 ahead)"
    );
    assert_eq!(scene.sweep_at(1_000), [first, second]);
}

#[test]
fn a_newcomer_queues_behind_a_ready_call_of_anyone_left_by_a_small_budget() {
    let mut scene = Scene::new(5, &[5, 5]);
    scene.line_up(1, 1);
    let newcomer = scene.newcomer(2);

    let settled = scene.settle(&Batch {
        admissions: vec![newcomer],
        ..Batch::default()
    });

    assert_eq!(
        reason(&settled.admissions[0]),
        "Earlier direct calls are waiting (0 ahead)"
    );
    assert!(settled.more);
}

#[test]
fn a_call_that_waits_for_its_time_blocks_no_newcomer() {
    let mut scene = Scene::new(5, &[5]);
    let later = Newcomer {
        scheduled_for: Some(60_000),
        ..scene.newcomer(1)
    };
    assert_eq!(
        reason(&scene.admit(later)),
        "Scheduled for 1970-01-01T00:01:00+00:00"
    );

    assert!(is_started(&scene.ask(1).1));
}

#[test]
fn a_call_scheduled_for_now_or_before_is_a_call_for_now() {
    let mut scene = Scene::new(5, &[5]);
    scene.now = 1_000;
    let new = Newcomer {
        scheduled_for: Some(1_000),
        ..scene.newcomer(1)
    };
    assert!(is_started(&scene.admit(new)));
}

#[test]
fn a_call_without_a_slot_of_its_user_blocks_no_newcomer_of_another() {
    let mut scene = Scene::new(5, &[1, 1]);
    scene.ask(1);
    scene.ask(1);

    assert!(is_started(&scene.ask(2).1));
}

#[test]
fn starts_at_the_door_use_up_none_of_the_budget() {
    let mut scene = Scene::new(5, &[1, 1]);
    let campaign_calls = scene.enqueue(2, 1, 2);
    let newcomer = scene.newcomer(1);

    let settled = scene.settle(&Batch {
        admissions: vec![newcomer],
        reserve: 1,
        ..Batch::default()
    });

    assert!(is_started(&settled.admissions[0]));
    assert_eq!(started(&settled), campaign_calls[..1]);
}

#[test]
fn the_nearest_obstacle_is_the_reason() {
    // Everything stands in the way; each step takes one obstacle away.
    let mut scene = Scene::new(1, &[1]);
    let (up, _) = scene.ask(1);
    scene.queue.set_paused(true);
    let later = Newcomer {
        scheduled_for: Some(1),
        ..scene.newcomer(1)
    };
    assert!(reason(&scene.admit(later)).starts_with("Scheduled"));
    scene.queue.cancel(later.item_id);
    let (paused, admission) = scene.ask(1);
    assert_eq!(reason(&admission), "Dispatch is paused by an operator");
    scene.queue.set_paused(false);
    assert!(reason(&scene.ask(1).1).starts_with("User has reached"));
    scene
        .queue
        .set_user_limit(user(1), limit(5))
        .expect("there");
    assert_eq!(
        reason(&scene.ask(1).1),
        "System has reached concurrency limit (1/1 active calls)"
    );
    scene.queue.set_system_limit(limit(2));
    let newcomer = scene.newcomer(1);
    let settled = scene.settle(&Batch {
        admissions: vec![newcomer],
        ..Batch::default()
    });
    assert_eq!(
        reason(&settled.admissions[0]),
        "Earlier direct calls are waiting (3 ahead)"
    );
    let waiting: Vec<_> = scene
        .queue
        .items()
        .filter(|i| i.is_due())
        .map(|i| i.id)
        .collect();
    for id in waiting {
        scene.queue.cancel(id);
    }
    assert!(is_started(&scene.ask(1).1));
    assert_eq!(
        scene.queue.item(paused).map(|i| i.status),
        Some(ItemStatus::Cancelled)
    );
    assert_eq!(
        scene.queue.item(up).map(|i| i.status),
        Some(ItemStatus::Processing)
    );
}

#[test]
fn a_user_without_credits_is_refused_and_nothing_is_written() {
    let mut scene = Scene::new(5, &[5]);
    scene.queue.set_credits(user(1), Some(0)).expect("there");
    let (id, admission) = scene.ask(1);

    assert_eq!(
        admission,
        Admission::Refused(Refusal::NoCredits { credits: 0 })
    );
    assert_eq!(scene.queue.item(id), None);
    assert_eq!(scene.queue.system().next_position, 1);

    scene.queue.set_credits(user(1), Some(1)).expect("there");
    assert!(is_started(&scene.ask(1).1));
}

#[test]
fn an_unknown_user_is_refused() {
    let mut scene = Scene::new(5, &[]);
    assert_eq!(scene.ask(1).1, Admission::Refused(Refusal::UnknownUser));
}

#[test]
fn an_admission_sent_twice_takes_effect_once() {
    let mut scene = Scene::new(5, &[5]);
    let new = scene.newcomer(1);
    assert!(is_started(&scene.admit(new)));

    assert_eq!(scene.admit(new), Admission::Known(ItemStatus::Processing));
    assert_eq!(scene.queue.system().active, 1);
}

#[test]
fn a_call_that_would_wait_in_a_full_queue_is_refused_and_one_that_can_start_is_not() {
    let mut scene = Scene::new(5, &[1]);
    scene
        .queue
        .set_max_queued_direct(user(1), Some(1))
        .expect("there");

    let (up, starts) = scene.ask(1);
    let (waits, queued) = scene.ask(1);
    let (refused, full) = scene.ask(1);

    assert!(is_started(&starts));
    assert!(matches!(queued, Admission::Queued(_)));
    let Admission::Refused(Refusal::QueueFull(full)) = full else {
        panic!("the queue is full: {full:?}");
    };
    assert_eq!((full.limit, full.waiting, full.asked), (1, 1, 1));
    assert!(scene.queue.item(refused).is_none());
    assert_eq!(scene.end(up), [waits]);
    assert!(matches!(scene.ask(1).1, Admission::Queued(_)));
}

#[test]
fn what_comes_back_from_its_slot_is_not_refused_by_a_full_queue() {
    let mut scene = Scene::new(5, &[1]);
    let (up, _) = scene.ask(1);
    scene
        .queue
        .set_max_queued_direct(user(1), Some(0))
        .expect("there");

    scene.put_back(up, 1, 1_000);

    assert_eq!(scene.queue.place(up).map(|place| place.position), Some(1));
    assert!(matches!(scene.ask(1).1, Admission::Refused(_)));
}
