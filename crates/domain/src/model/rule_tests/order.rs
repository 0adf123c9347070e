//! In order within a user and class.

use std::collections::BTreeSet;

use crate::model::scene::*;
use crate::model::{Admission, Batch};

#[test]
fn higher_priority_goes_first_then_the_earlier_position() {
    let mut scene = Scene::new(1, &[1]);
    scene
        .queue
        .add_campaign(user(1), campaign(1), true)
        .expect("new");
    let items = [(1, 0), (2, 5), (3, 0), (4, 5), (5, -1)].map(|(id, p)| campaign_item(id, p));
    scene
        .queue
        .enqueue_campaign_items(campaign(1), &items)
        .expect("there");

    let mut up = scene.sweep();
    for expected in [2, 4, 1, 3, 5] {
        assert_eq!(up, [item(expected)]);
        up = scene.end(up[0]);
    }
}

#[test]
fn a_users_open_campaigns_form_one_lane() {
    let mut scene = Scene::new(1, &[1]);
    let first = scene.enqueue(1, 1, 1);
    let second = scene.enqueue(1, 2, 1);
    let third = scene.enqueue(1, 1, 1);

    assert_eq!(scene.sweep(), first);
    assert_eq!(scene.end(first[0]), second);
    assert_eq!(scene.end(second[0]), third);
}

#[test]
fn a_closed_campaigns_calls_keep_their_places() {
    let mut scene = Scene::new(1, &[1]);
    let closed = scene.enqueue(1, 1, 1);
    let open = scene.enqueue(1, 2, 2);
    scene
        .queue
        .set_campaign_open(campaign(1), false)
        .expect("there");
    // It would go first were its campaign open; as it is, nobody waits for it.
    let place = |id| {
        scene
            .queue
            .place(id)
            .map(|p| (p.position, p.total_in_queue))
    };
    assert_eq!(place(closed[0]), Some((1, 3)));
    assert_eq!(place(open[0]), Some((1, 3)));
    assert_eq!(scene.sweep(), [open[0]]);

    scene
        .queue
        .set_campaign_open(campaign(1), true)
        .expect("there");

    assert_eq!(scene.end(open[0]), closed);
}

#[test]
fn a_call_that_could_not_be_placed_keeps_its_place() {
    let mut scene = Scene::new(2, &[2]);
    let ids = scene.line_up(1, 4);
    assert_eq!(scene.sweep(), ids[..2]);
    let before = scene.queue.item(ids[0]).expect("there").clone();

    let settled = scene.put_back(ids[0], 1, 1_000);

    let waiting = settled.returns[0]
        .as_ref()
        .expect("the attempt was current");
    assert_eq!(
        (waiting.place.position, waiting.place.total_in_queue),
        (1, 3)
    );
    let after = scene.queue.item(ids[0]).expect("there");
    assert_eq!(
        (after.position, after.priority, after.call_id),
        (before.position, before.priority, before.call_id)
    );
    assert_eq!(scene.sweep_at(1_000), [ids[0]]);
}

#[test]
fn a_call_that_started_at_the_door_returns_to_the_head_of_those_that_came_after() {
    let mut scene = Scene::new(5, &[1]);
    let (first, admission) = scene.ask(1);
    assert!(is_started(&admission));
    scene.ask(1);

    let settled = scene.put_back(first, 1, 500);

    let waiting = settled.returns[0]
        .as_ref()
        .expect("the attempt was current");
    assert_eq!(waiting.place.position, 1);
    assert_eq!(scene.sweep_at(500), [first]);
}

#[test]
fn returns_of_one_batch_are_placed_once_all_are_back() {
    let mut scene = Scene::new(5, &[2]);
    let (first, second) = (scene.ask(1).0, scene.ask(1).0);

    let settled = scene.settle(&Batch {
        returns: vec![back(second, 1, 500), back(first, 1, 500)],
        ..sweep()
    });

    let places = settled.returns.iter().flatten().map(|w| w.place.position);
    assert_eq!(places.collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn positions_are_never_given_twice() {
    let mut scene = Scene::new(1, &[1]);
    let mut positions = BTreeSet::new();
    for _ in 0..5 {
        let id = scene.line_up(1, 1)[0];
        positions.insert(scene.queue.item(id).expect("there").position);
        scene.queue.cancel(id);
    }
    assert_eq!(positions.len(), 5);
}

#[test]
fn those_that_sleep_are_placed_behind_those_that_are_due_by_the_time_they_wake() {
    let mut scene = Scene::new(1, &[0]);
    let mut ids = Vec::new();
    for scheduled_for in [Some(2_000), Some(1_000), None] {
        let new = crate::model::Newcomer {
            scheduled_for,
            ..scene.newcomer(1)
        };
        ids.push(new.item_id);
        assert!(matches!(scene.admit(new), Admission::Queued(_)));
    }
    let place = |id| scene.queue.place(id).map(|p| p.position);

    assert_eq!(
        [place(ids[2]), place(ids[1]), place(ids[0])],
        [Some(1), Some(2), Some(3)]
    );
}

#[test]
fn a_campaign_item_queued_twice_stands_in_line_once() {
    let mut scene = Scene::new(1, &[0]);
    scene.enqueue(1, 1, 1);

    scene
        .queue
        .enqueue_campaign_items(campaign(1), &[campaign_item(1, 9)])
        .expect("there");

    let only = scene.queue.item(item(1)).expect("there");
    assert_eq!((only.priority.get(), only.position), (0, 1));
    assert_eq!(scene.queue.items().count(), 1);
}
