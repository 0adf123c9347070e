//! Counters equal rows, and the check sees it when they, or anything else, do not.

use crate::CallType::{Campaign, Direct};
use crate::model::scene::*;
use crate::model::{Fault, ItemCounts, ModelError, Queue};
use crate::{CallStatus, ItemStatus, Outcome};

/// One call up, one waiting, one campaign call waiting.
fn scene() -> Scene {
    let mut scene = Scene::new(5, &[1]);
    scene.ask(1);
    scene.ask(1);
    scene.enqueue(1, 1, 1);
    scene.sweep();
    scene
}

/// What the check says of the scene once it was tampered with.
fn faults_of(tamper: impl FnOnce(&mut Queue)) -> Vec<Fault> {
    let mut scene = scene();
    tamper(&mut scene.queue);
    scene.queue.check()
}

#[test]
fn counts_tell_what_stands_where() {
    let mut scene = scene();
    let counted = ItemCounts {
        queued: 1,
        due: 1,
        processing: 1,
        ..ItemCounts::default()
    };
    assert_eq!(scene.queue.counts(user(1), Direct), counted);

    scene
        .queue
        .set_campaign_open(campaign(1), false)
        .expect("there");

    let counts = scene.queue.counts(user(1), Campaign);
    assert_eq!((counts.queued, counts.due), (1, 0));
}

#[test]
fn a_drifted_counter_is_found() {
    let system = faults_of(|queue| queue.system.active = 0);
    assert!(matches!(
        system[..],
        [Fault::WrongCounter {
            kept: 0,
            counted: 1,
            ..
        }]
    ));

    let lane = faults_of(|queue| queue.users.get_mut(&user(1)).expect("there").direct.active = 0);
    assert!(matches!(
        lane[0],
        Fault::WrongCounter {
            kept: 0,
            counted: 1,
            ..
        }
    ));
}

#[test]
fn a_slot_taken_over_the_limit_is_found() {
    let faults = faults_of(|queue| {
        queue.start(item(2));
    });
    assert!(faults.contains(&Fault::StartWithoutSlot(item(2))));
    assert!(faults.iter().any(|f| matches!(
        f,
        Fault::OverLimit {
            active: 2,
            limit: 1,
            ..
        }
    )));
}

#[test]
fn a_slot_that_a_lowered_limit_took_away_is_not_given_again() {
    let mut scene = Scene::new(5, &[3]);
    let calls = [scene.ask(1).0, scene.ask(1).0, scene.ask(1).0];
    let (waiting, _) = scene.ask(1);
    scene
        .queue
        .set_user_limit(user(1), limit(1))
        .expect("there");
    scene.end(calls[0]);

    scene.queue.start(waiting);

    let over = |fault: &Fault| {
        matches!(
            fault,
            Fault::OverLimit {
                active: 3,
                limit: 1,
                ..
            }
        )
    };
    assert!(scene.queue.check().iter().any(over));
}

#[test]
fn a_start_out_of_order_is_found() {
    let mut scene = Scene::new(5, &[5]);
    let ids = scene.line_up(1, 2);
    scene.queue.start(ids[1]);
    assert_eq!(scene.queue.check(), [Fault::OutOfOrder(ids[1])]);
}

#[test]
fn an_idle_slot_is_found() {
    let faults = faults_of(|queue| queue.users.get_mut(&user(1)).expect("there").limit = 2);
    assert_eq!(
        faults,
        [Fault::IdleSlot {
            user: user(1),
            class: Direct
        }]
    );
}

#[test]
fn a_ready_lane_filed_in_the_past_is_found() {
    let faults = faults_of(|queue| {
        queue.set_user_limit(user(1), limit(2)).expect("there");
        queue.users.get_mut(&user(1)).expect("there").direct.turn = -1;
    });
    assert_eq!(
        faults,
        [Fault::FiledInThePast {
            user: user(1),
            class: Direct
        }]
    );
}

#[test]
fn a_due_item_missing_from_its_line_is_found() {
    let faults = faults_of(|queue| queue.leave_line(item(2)));
    assert_eq!(faults, [Fault::WrongLine { user: user(1) }]);
}

#[test]
fn a_position_given_twice_is_found() {
    let faults = faults_of(|queue| {
        queue.items.get_mut(&item(1)).expect("there").position = 2;
    });
    assert_eq!(faults, [Fault::WrongPosition(item(2))]);
}

#[test]
fn an_item_that_contradicts_its_call_is_found() {
    let faults = faults_of(|queue| {
        let up = queue.items.get_mut(&item(1)).expect("there");
        up.call_status = Some(CallStatus::Ended(Outcome::Busy));
    });
    assert!(faults.contains(&Fault::Contradiction(item(1))));
}

#[test]
fn a_step_the_state_machine_does_not_have_is_found() {
    let faults = faults_of(|queue| {
        queue.cancel(item(2));
        queue.set_status(item(2), ItemStatus::Expired);
    });
    let (from, to) = (ItemStatus::Cancelled, ItemStatus::Expired);
    assert_eq!(
        faults,
        [Fault::IllegalStep {
            item: item(2),
            from,
            to
        }]
    );
}

#[test]
fn operations_on_what_is_not_there_say_so() {
    let mut queue = scene().queue;
    assert_eq!(
        queue.add_user(user(1), limit(1)),
        Err(ModelError::UserExists(user(1)))
    );
    assert_eq!(
        queue.set_direct_reserved(user(9), 1),
        Err(ModelError::UnknownUser(user(9)))
    );
    assert_eq!(
        queue.add_campaign(user(1), campaign(1), true),
        Err(ModelError::CampaignExists(campaign(1)))
    );
    assert_eq!(
        queue.enqueue_campaign_items(campaign(9), &[]),
        Err(ModelError::UnknownCampaign(campaign(9)))
    );
}
