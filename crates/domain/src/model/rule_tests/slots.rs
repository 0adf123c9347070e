//! A slot is held from reservation to terminal state, and freed exactly once.

use crate::model::Batch;
use crate::model::scene::*;
use crate::{CallId, CallStatus, EndingEffect, ItemStatus, Outcome};

#[test]
fn an_ending_that_repeats_frees_one_slot() {
    let mut scene = Scene::new(2, &[2]);
    let (first, _) = scene.ask(1);
    scene.ask(1);

    let settled = scene.settle(&Batch {
        endings: vec![ending(first, None), ending(first, Some(1))],
        ..sweep()
    });
    let again = scene.settle(&Batch {
        endings: vec![ending(first, None)],
        ..sweep()
    });

    assert_eq!(
        settled.endings,
        [EndingEffect::Ended, EndingEffect::Ignored]
    );
    assert_eq!(again.endings, [EndingEffect::Ignored]);
    assert_eq!(scene.queue.system().active, 1);
}

#[test]
fn an_ending_or_return_of_an_older_attempt_changes_nothing() {
    let mut scene = Scene::new(2, &[2]);
    let (id, _) = scene.ask(1);
    scene.put_back(id, 1, 0);
    assert_eq!(scene.queue.item(id).map(|i| i.attempts), Some(2));

    let settled = scene.settle(&Batch {
        endings: vec![ending(id, Some(1))],
        returns: vec![back(id, 1, 0)],
        ..sweep()
    });

    assert_eq!(settled.endings, [EndingEffect::Ignored]);
    assert_eq!(settled.returns, [None]);
    assert_eq!(scene.queue.system().active, 1);
}

#[test]
fn an_ending_and_a_return_that_cross_free_one_slot() {
    let mut scene = Scene::new(2, &[2]);
    let (id, _) = scene.ask(1);

    let settled = scene.settle(&Batch {
        endings: vec![ending(id, None)],
        returns: vec![back(id, 1, 0)],
        ..sweep()
    });

    assert_eq!(settled.endings, [EndingEffect::Ended]);
    assert_eq!(settled.returns, [None]);
    assert_eq!(scene.queue.system().active, 0);
}

#[test]
fn a_call_that_never_had_a_slot_cannot_end() {
    let mut scene = Scene::new(2, &[0]);
    let (waiting, _) = scene.ask(1);

    let settled = scene.settle(&Batch {
        endings: vec![ending(waiting, None), ending(item(99), None)],
        ..sweep()
    });

    assert_eq!(settled.endings, [EndingEffect::UnknownCall; 2]);
}

#[test]
fn an_unknown_call_keeps_its_slot_until_it_is_proven() {
    let mut scene = Scene::new(1, &[1]);
    let (id, _) = scene.ask(1);
    let (next, _) = scene.ask(1);
    let call = CallId::from(id.as_uuid());
    assert!(scene.queue.progress(call, CallStatus::Unknown));
    assert_eq!(scene.sweep_at(1_000_000_000), []);

    let settled = scene.put_back(id, 1, 10);

    assert!(settled.returns[0].is_some());
    assert_eq!(scene.sweep_at(1_000_000_010), [id]);
    assert_eq!(scene.end(id), [next]);
}

#[test]
fn a_call_that_was_heard_ringing_cannot_be_returned() {
    let mut scene = Scene::new(1, &[1]);
    let (id, _) = scene.ask(1);
    let call = CallId::from(id.as_uuid());
    assert!(scene.queue.progress(call, CallStatus::Ringing));

    assert_eq!(scene.put_back(id, 1, 0).returns, [None]);
    assert_eq!(scene.queue.system().active, 1);
}

#[test]
fn progress_goes_forward_only_and_never_ends_a_call() {
    let mut scene = Scene::new(1, &[1]);
    let (id, _) = scene.ask(1);
    let call = CallId::from(id.as_uuid());
    assert!(scene.queue.progress(call, CallStatus::InProgress));

    assert!(!scene.queue.progress(call, CallStatus::Ringing));
    assert!(
        !scene
            .queue
            .progress(call, CallStatus::Ended(Outcome::Completed))
    );
    let status = scene.queue.item(id).and_then(|i| i.call_status);
    assert_eq!(status, Some(CallStatus::InProgress));
}

#[test]
fn every_outcome_ends_the_item_as_its_state_machine_says() {
    for outcome in Outcome::ALL {
        let mut scene = Scene::new(1, &[1]);
        let (id, _) = scene.ask(1);
        let mut end = ending(id, Some(1));
        end.outcome = outcome;

        scene.settle(&Batch {
            endings: vec![end],
            ..sweep()
        });

        let item = scene.queue.item(id).expect("there");
        assert_eq!(item.status, ItemStatus::from(outcome));
        assert_eq!(item.call_status, Some(CallStatus::Ended(outcome)));
    }
}
