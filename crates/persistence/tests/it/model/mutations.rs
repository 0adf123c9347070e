//! The net must hold: rules of the SQL are broken one at a time, and random scripts must notice.

use std::cell::RefCell;

use callq_persistence::connect;
use diesel::connection::SimpleConnection;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::play::Look;
use super::{SCRIPTS, Theatre, drawing};

/// A function, what it says, and what it is made to say.
struct Mutation {
    function: &'static str,
    says: &'static str,
    instead: &'static str,
}

const fn mutation(function: &'static str, says: &'static str, instead: &'static str) -> Mutation {
    Mutation {
        function,
        says,
        instead,
    }
}

const MUTATIONS: [Mutation; 22] = [
    // Limits.
    mutation(
        "admit_direct_calls",
        "k.nth_of_user <= s.slots",
        "k.nth_of_user <= 1 + s.slots",
    ),
    mutation(
        "admit_direct_calls",
        "LIMIT v_system.concurrent_calls_limit - v_system.active",
        "LIMIT 1 + v_system.concurrent_calls_limit - v_system.active",
    ),
    mutation(
        "hand_out",
        "least(due_campaign, campaign_room - due_direct",
        "least(due_campaign, room - due_direct",
    ),
    mutation(
        "choose_campaign_calls",
        "k.max_concurrent_calls - CASE",
        "k.max_concurrent_calls + 1 - CASE",
    ),
    // Order and turns.
    mutation(
        "choose_campaign_calls",
        "greatest(v_turns[v_i], v_vtime) < greatest(v_turns[v_best], v_vtime)",
        "v_turns[v_i] < v_turns[v_best]",
    ),
    mutation("hand_out", "720720 / k.weight", "720720"),
    mutation(
        "hand_out",
        "ORDER BY class, turn, user_id",
        "ORDER BY class, user_id, turn",
    ),
    mutation(
        "hand_out",
        "ORDER BY q.priority DESC, q.position LIMIT w.calls",
        "ORDER BY q.position DESC LIMIT w.calls",
    ),
    mutation(
        "hand_out",
        "coalesce(p.last_direct + s.stride",
        "coalesce(p.last_direct + 720720",
    ),
    mutation(
        "change_slots",
        "greatest(c.turn_direct, v_system.vtime_direct)",
        "c.turn_direct",
    ),
    // The door.
    mutation("admit_direct_calls", "s.due_direct = 0 AND", ""),
    mutation(
        "turn_away_from_full_queues",
        "coalesce(j.waiting + j.nth_to_wait > j.most, false)",
        "coalesce(j.waiting + j.nth_to_wait > j.most + 1, false)",
    ),
    // Fences.
    mutation(
        "end_calls",
        "a.attempt = i.attempt AND a.owner = p_server",
        "a.attempt >= i.attempt",
    ),
    mutation(
        "return_calls",
        "c.owner = p_server AND c.execution_id IS NULL",
        "c.owner = p_server",
    ),
    // Places.
    mutation(
        "get_call_queue_position",
        "o.campaign_id < me.campaign_id",
        "o.campaign_id > me.campaign_id",
    ),
    mutation("return_calls", "PERFORM close_gaps(v_items);", ""),
    mutation("wake_and_expire", "PERFORM close_gaps(v_items);", ""),
    mutation(
        "withdraw_items",
        "PERFORM open_gaps(v_types, v_lanes, v_ordinals);",
        "",
    ),
    mutation(
        "admit_direct_calls",
        "WHERE v.verdict = 'scheduled';",
        "WHERE false;",
    ),
    mutation(
        "change_slots",
        "greatest(0, i.active_direct + i.due_direct + i.later_direct)",
        "greatest(0, i.due_direct)",
    ),
    mutation(
        "gaps_before",
        "(2, p_ordinal >> 24 << 8, p_ordinal >> 16)",
        "(2, 0, 0)",
    ),
    // Lost answers.
    mutation(
        "settle",
        "a.owner = p_server AND a.batch > p_answered",
        "false",
    ),
];

impl Theatre {
    /// Has a function say something else from now on.
    fn mutate(&self, mutation: &Mutation) {
        let Mutation {
            function,
            says,
            instead,
        } = mutation;
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let sql = format!(
            "DO $mutate$ DECLARE v_was text := pg_get_functiondef('{function}'::regproc); BEGIN \
               IF strpos(v_was, {says}) = 0 THEN RAISE EXCEPTION '{function} does not say so'; END IF; \
               EXECUTE replace(v_was, {says}, {instead}); \
             END $mutate$",
            says = quoted(says),
            instead = quoted(instead),
        );
        let stage: &RefCell<_> = &self.stage;
        let url = stage.borrow().url().to_owned();
        connect(&url).unwrap().batch_execute(&sql).unwrap();
    }
}

#[test]
fn random_scripts_notice_each_rule_that_is_taken_out_of_the_sql() {
    let mut unnoticed = Vec::new();
    for mutation in &MUTATIONS {
        let theatre = Theatre::open();
        theatre.mutate(mutation);
        let seed = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(Config::default(), seed);
        let kinds = drawing::every_kind();
        let mut scripts = (0..SCRIPTS).flat_map(|_| &kinds);
        let noticed = scripts.any(|kind| {
            let script = kind.new_tree(&mut runner).unwrap().current();
            theatre.play(&script, Look::AtSome).is_err()
        });
        if !noticed {
            unnoticed.push((mutation.function, mutation.says));
        }
    }
    assert_eq!(unnoticed, []);
}
