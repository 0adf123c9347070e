//! No idle slot: what frees a slot, or makes a call due, hands it on.

use crate::model::scene::*;
use crate::model::{Batch, CampaignItem, Newcomer};
use crate::{CallType, ItemStatus};

#[test]
fn the_settlement_that_frees_a_slot_gives_it_to_the_next() {
    let mut scene = Scene::new(1, &[1]);
    let (up, _) = scene.ask(1);
    let (next, _) = scene.ask(1);

    assert_eq!(scene.end(up), [next]);
}

#[test]
fn cancelling_the_last_direct_call_lets_campaigns_go() {
    let mut scene = Scene::new(2, &[2]);
    let (held, _) = scene.ask(1);
    scene.put_back(held, 1, 1_000);
    let campaign_calls = scene.enqueue(1, 1, 1);
    assert_eq!(scene.sweep(), []);

    assert_eq!(scene.queue.cancel(held), Some(Ok(())));

    assert_eq!(scene.sweep(), campaign_calls);
}

#[test]
fn a_call_that_has_started_cannot_be_cancelled() {
    let mut scene = Scene::new(2, &[2]);
    let (up, _) = scene.ask(1);

    assert_eq!(scene.queue.cancel(up), Some(Err(ItemStatus::Processing)));
    assert_eq!(scene.queue.cancel(item(99)), None);
    assert_eq!(scene.queue.system().active, 1);
}

#[test]
fn a_scheduled_call_has_a_timer_and_starts_when_it_fires() {
    let mut scene = Scene::new(1, &[1]);
    let new = Newcomer {
        scheduled_for: Some(700),
        ..scene.newcomer(1)
    };
    scene.admit(new);
    assert_eq!(scene.queue.next_timer(100), Some(600));
    assert_eq!(scene.queue.next_timer(900), Some(0));

    assert_eq!(scene.sweep_at(699), []);
    assert_eq!(scene.sweep_at(700), [new.item_id]);
    assert_eq!(scene.queue.next_timer(700), None);
}

#[test]
fn a_waiting_call_expires_on_its_time_even_if_it_would_start_then() {
    let mut scene = Scene::new(1, &[1]);
    let (up, _) = scene.ask(1);
    let new = Newcomer {
        expires_at: Some(500),
        ..scene.newcomer(1)
    };
    scene.admit(new);
    assert_eq!(scene.queue.next_timer(0), Some(500));
    scene.now = 500;

    let settled = scene.settle(&Batch {
        endings: vec![ending(up, None)],
        ..sweep()
    });

    assert_eq!(settled.expired, [new.item_id]);
    assert_eq!(started(&settled), []);
    let status = scene.queue.item(new.item_id).map(|i| i.status);
    assert_eq!(status, Some(ItemStatus::Expired));
}

#[test]
fn a_call_in_progress_does_not_expire() {
    let mut scene = Scene::new(1, &[1]);
    let new = Newcomer {
        expires_at: Some(500),
        ..scene.newcomer(1)
    };
    scene.admit(new);

    scene.sweep_at(1_000);

    let status = scene.queue.item(new.item_id).map(|i| i.status);
    assert_eq!(status, Some(ItemStatus::Processing));
}

#[test]
fn a_campaign_call_wakes_and_goes() {
    let mut scene = Scene::new(1, &[1]);
    scene
        .queue
        .add_campaign(user(1), campaign(1), true)
        .expect("new");
    let sleeping = CampaignItem {
        wakes_at: Some(10),
        ..campaign_item(50, 0)
    };
    scene
        .queue
        .enqueue_campaign_items(campaign(1), &[sleeping])
        .expect("there");

    assert_eq!(scene.sweep(), []);
    assert_eq!(scene.sweep_at(10), [item(50)]);
}

#[test]
fn nothing_starts_while_dispatch_is_paused_and_all_of_it_after() {
    let mut scene = Scene::new(5, &[5]);
    let waiting = scene.line_up(1, 2);
    scene.queue.set_paused(true);
    assert_eq!(scene.sweep(), []);

    scene.queue.set_paused(false);

    assert_eq!(scene.sweep(), waiting);
}

#[test]
fn an_opened_campaigns_calls_go() {
    let mut scene = Scene::new(5, &[5]);
    scene
        .queue
        .add_campaign(user(1), campaign(1), false)
        .expect("new");
    let waiting = scene.enqueue(1, 1, 2);
    assert_eq!(scene.sweep(), []);

    scene
        .queue
        .set_campaign_open(campaign(1), true)
        .expect("there");

    assert_eq!(scene.sweep(), waiting);
}

#[test]
fn a_return_holds_the_whole_lane_until_its_delay_is_over() {
    let mut scene = Scene::new(5, &[5]);
    let calls = scene.enqueue(1, 1, 1);
    assert_eq!(scene.sweep(), calls);
    let more = scene.enqueue(1, 1, 1);

    assert_eq!(started(&scene.put_back(calls[0], 1, 300)), []);
    assert_eq!(scene.queue.next_timer(0), Some(300));
    assert!(!scene.queue.is_ready(user(1), CallType::Campaign));
    assert_eq!(scene.sweep_at(300), [calls[0], more[0]]);
}

#[test]
fn a_shorter_delay_does_not_shorten_a_hold() {
    let mut scene = Scene::new(5, &[5]);
    let (first, second) = (scene.ask(1).0, scene.ask(1).0);
    scene.put_back(first, 1, 300);
    scene.put_back(second, 1, 100);

    assert_eq!(scene.sweep_at(100), []);
    assert_eq!(scene.sweep_at(300), [first, second]);
}

#[test]
fn from_its_fourth_attempt_a_returned_call_sleeps_and_stands_in_nobodys_way() {
    let mut scene = Scene::new(5, &[5]);
    let (stubborn, _) = scene.ask(1);
    for attempt in 1..=3 {
        scene.put_back(stubborn, attempt, 10);
        assert_eq!(scene.queue.item(stubborn).and_then(|i| i.wakes_at), None);
        let again = scene.now + 10;
        assert_eq!(scene.sweep_at(again), [stubborn]);
    }

    scene.put_back(stubborn, 4, 1_000);

    assert_eq!(
        scene.queue.item(stubborn).and_then(|i| i.wakes_at),
        Some(1_030)
    );
    assert!(is_started(&scene.ask(1).1));
    assert_eq!(scene.sweep_at(1_030), [stubborn]);
}

#[test]
fn a_call_that_comes_back_without_a_delay_never_sleeps() {
    let mut scene = Scene::new(5, &[5]);
    let (stubborn, _) = scene.ask(1);
    for attempt in 1..=5 {
        let settled = scene.put_back(stubborn, attempt, 0);

        let waiting = settled.returns[0].as_ref().expect("it was current");
        assert_eq!(waiting.place.position, 1);
        assert_eq!(started(&settled), [stubborn]);
    }
}

#[test]
fn more_tells_that_a_larger_budget_would_have_started_more() {
    let mut scene = Scene::new(2, &[5]);
    scene.line_up(1, 3);
    let one = Batch {
        reserve: 1,
        ..Batch::default()
    };
    assert!(scene.settle(&one).more);
    assert!(!scene.settle(&one).more, "the system is full");
}
