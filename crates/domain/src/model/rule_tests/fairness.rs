//! Fair between users.

use std::collections::BTreeMap;

use crate::CallType::{Campaign, Direct};
use crate::model::scene::*;

#[test]
fn two_users_with_one_system_slot_alternate() {
    let mut scene = Scene::new(1, &[2, 2]);
    scene.line_up(1, 3);
    scene.line_up(2, 3);

    let turns = scene.turns(Direct, 6);

    assert_eq!(
        turns,
        [user(1), user(2), user(1), user(2), user(1), user(2)]
    );
}

#[test]
fn a_user_with_a_great_backlog_and_one_with_a_single_call_wait_alike() {
    let mut scene = Scene::new(1, &[1, 1]);
    scene.enqueue(1, 1, 10_000);
    scene.turns(Campaign, 10);
    scene.enqueue(2, 2, 1);

    let turns = scene.turns(Campaign, 4);

    assert_eq!(turns, [user(2), user(1), user(1), user(1)]);
}

#[test]
fn a_user_who_was_away_has_saved_up_no_turns() {
    let mut scene = Scene::new(1, &[1, 1]);
    scene.enqueue(1, 1, 200);
    scene.turns(Campaign, 100);
    scene.enqueue(2, 2, 10);

    let turns = scene.turns(Campaign, 6);

    assert_eq!(turns, [2, 1, 2, 1, 2, 1].map(user));
}

#[test]
fn a_user_who_runs_dry_and_comes_back_gets_no_extra_turn() {
    let mut scene = Scene::new(1, &[1, 1]);
    scene.enqueue(1, 1, 100);
    let mut got = 0;
    for _ in 0..10 {
        scene.enqueue(2, 2, 1);
        let turns = scene.turns(Campaign, 2);
        got += turns.iter().filter(|of| **of == user(2)).count();
    }
    assert_eq!(got, 10);
}

#[test]
fn weights_share_each_round() {
    let mut scene = Scene::new(1, &[1, 1, 1]);
    for (n, turns) in [(1, 1), (2, 2), (3, 5)] {
        scene
            .queue
            .set_weight(user(n), weight(turns))
            .expect("there");
        scene.line_up(n, 60);
    }

    let turns = scene.turns(Direct, 80);

    for round in turns.windows(8) {
        let mut got = BTreeMap::new();
        for of in round {
            *got.entry(*of).or_insert(0) += 1;
        }
        assert_eq!(
            got,
            BTreeMap::from([(user(1), 1), (user(2), 2), (user(3), 5)])
        );
    }
}

#[test]
fn a_call_that_starts_at_the_door_takes_a_turn() {
    let mut scene = Scene::new(1, &[2, 2]);
    let (at_the_door, _) = scene.ask(1);
    scene.ask(1);
    let (first_of_2, _) = scene.ask(2);

    assert_eq!(scene.end(at_the_door), [first_of_2]);
}

#[test]
fn at_equal_turns_the_smaller_user_id_goes_first() {
    let mut scene = Scene::new(1, &[1, 1, 1]);
    for n in [3, 1, 2] {
        scene.line_up(n, 1);
    }

    assert_eq!(scene.turns(Direct, 3), [user(1), user(2), user(3)]);
}

#[test]
fn turns_of_direct_calls_cost_no_turns_of_campaign_calls() {
    let mut scene = Scene::new(1, &[1, 1]);
    scene.line_up(1, 3);
    assert_eq!(scene.turns(Direct, 3).len(), 3);
    scene.enqueue(1, 1, 1);
    scene.enqueue(2, 2, 1);
    let lane = |scene: &Scene, n| scene.queue.user(user(n)).expect("there").campaign;

    assert_eq!(lane(&scene, 1).turn, lane(&scene, 2).turn);
}

#[test]
fn a_changed_weight_leaves_the_next_turn_where_it_is() {
    let mut scene = Scene::new(1, &[1]);
    scene.line_up(1, 2);
    scene.turns(Direct, 1);
    let turn = |scene: &Scene| scene.queue.user(user(1)).expect("there").direct.turn;
    let before = turn(&scene);

    scene.queue.set_weight(user(1), weight(2)).expect("there");
    assert_eq!(turn(&scene), before);

    scene.turns(Direct, 1);
    assert_eq!(turn(&scene), before + weight(2).stride());
}
