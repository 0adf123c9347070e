//! Direct before campaign.

use crate::model::Batch;
use crate::model::scene::*;

#[test]
fn two_direct_calls_go_before_five_campaign_calls_that_came_first() {
    let mut scene = Scene::new(1, &[1]);
    scene.queue.set_paused(true);
    let campaign_calls = scene.enqueue(1, 1, 5);
    let direct_calls = scene.line_up(1, 2);

    assert_eq!(scene.sweep(), [direct_calls[0]]);
    assert_eq!(scene.end(direct_calls[0]), [direct_calls[1]]);
    assert_eq!(scene.end(direct_calls[1]), [campaign_calls[0]]);
}

#[test]
fn a_direct_call_of_one_user_goes_before_the_campaign_of_another() {
    let mut scene = Scene::new(1, &[1, 1]);
    scene.queue.set_paused(true);
    let campaign_calls = scene.enqueue(1, 1, 2);
    let direct_calls = scene.line_up(2, 1);

    assert_eq!(scene.sweep(), direct_calls);
    assert_eq!(scene.end(direct_calls[0]), [campaign_calls[0]]);
}

#[test]
fn a_newcomer_goes_before_a_waiting_campaign_call_of_anyone() {
    let mut scene = Scene::new(1, &[1, 1]);
    let campaign_calls = scene.enqueue(1, 1, 2);
    assert_eq!(scene.sweep(), [campaign_calls[0]]);
    let newcomer = scene.newcomer(2);

    let settled = scene.settle(&Batch {
        endings: vec![ending(campaign_calls[0], None)],
        admissions: vec![newcomer],
        ..sweep()
    });

    assert!(is_started(&settled.admissions[0]));
    assert_eq!(started(&settled), []);
}

#[test]
fn campaigns_wait_while_a_direct_lane_is_left_ready_by_a_small_budget() {
    let mut scene = Scene::new(10, &[1, 1, 1]);
    scene.queue.set_paused(true);
    scene.enqueue(3, 1, 1);
    let first = scene.line_up(1, 1);
    scene.line_up(2, 1);

    let settled = scene.settle(&Batch {
        reserve: 1,
        ..Batch::default()
    });

    assert_eq!(started(&settled), first);
    assert!(settled.more);
}

#[test]
fn a_held_direct_call_blocks_its_own_users_campaigns_but_nobody_elses() {
    let mut scene = Scene::new(2, &[2, 2]);
    let (direct, _) = scene.ask(1);
    scene.enqueue(1, 1, 1);
    let others = scene.enqueue(2, 2, 1);

    let settled = scene.put_back(direct, 1, 5_000);

    assert_eq!(started(&settled), others);
    assert_eq!(scene.sweep_at(4_999), []);
    assert_eq!(scene.sweep_at(5_000), [direct]);
}

#[test]
fn a_direct_call_without_a_slot_of_its_users_blocks_no_campaign() {
    let mut scene = Scene::new(2, &[1, 1]);
    scene.ask(1);
    scene.ask(1);
    let others = scene.enqueue(2, 2, 1);

    assert_eq!(scene.sweep(), others);
}

#[test]
fn campaigns_leave_the_reserved_slots_to_direct_calls() {
    let mut scene = Scene::new(10, &[3]);
    scene.queue.set_direct_reserved(user(1), 2).expect("there");
    let campaign_calls = scene.enqueue(1, 1, 5);

    assert_eq!(scene.sweep(), campaign_calls[..1]);
    assert!(is_started(&scene.ask(1).1));
    assert!(is_started(&scene.ask(1).1));
    assert!(!is_started(&scene.ask(1).1));
}

#[test]
fn more_reserved_slots_than_the_limit_has_leave_campaigns_none() {
    let mut scene = Scene::new(10, &[1]);
    scene.queue.set_direct_reserved(user(1), 7).expect("there");
    scene.enqueue(1, 1, 1);

    assert_eq!(scene.sweep(), []);
    assert!(is_started(&scene.ask(1).1));
}

#[test]
fn a_campaign_call_that_jumps_a_direct_one_is_a_violation() {
    let mut scene = Scene::new(2, &[2, 2]);
    scene.queue.set_paused(true);
    let campaign_calls = scene.enqueue(1, 1, 1);
    let direct_calls = scene.line_up(2, 1);

    scene.queue.start(campaign_calls[0]);

    let violations = scene.queue.priority_violations();
    assert_eq!(violations[0].campaign_item, campaign_calls[0]);
    assert_eq!(violations[0].direct_item, direct_calls[0]);
    assert_eq!(scene.queue.check().len(), 1);
}
