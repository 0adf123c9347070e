//! A plain ledger of every call beside the database: whatever happens, no number is called more often
//! within 24 hours than may be, no slot is idle that a call could have, and nobody is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use callq_domain::{
    Attempt, CampaignContactStore, CampaignId, CampaignStatus, CampaignStore, ContactSelection,
    ContactStatus, NumberLimit, Outcome, OwnershipStore, ReservedCall,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::{DAY, MINUTE, Play};
use crate::scene::texts;

const NUMBERS: usize = 4;
const CAMPAIGNS: usize = 3;

/// What may happen.
#[derive(Debug, Clone)]
enum Op {
    /// One more campaign under way, over some contacts.
    Campaign(Vec<usize>, Option<i64>, u32),
    /// Free slots are given to at most so many.
    Dispatch(u32),
    /// The nth call that is up is over.
    End(usize, Outcome),
    /// The nth call that is up reached nobody.
    GiveBack(usize),
    /// Those of the nth campaign that were not reached are queued again.
    Requeue(usize),
    Pause(usize),
    Resume(usize),
    UserLimit(Option<i64>),
    Maintain,
    /// Minutes pass.
    Pass(i64),
}

fn limits() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![1 => Just(None), 3 => (1..4_i64).prop_map(Some)]
}

fn op() -> impl Strategy<Value = Op> {
    let contacts = proptest::sample::subsequence((0..2 * NUMBERS).collect::<Vec<_>>(), 1..=6);
    prop_oneof![
        2 => (contacts, limits(), 0..4_u32).prop_map(|(who, limit, tries)| Op::Campaign(who, limit, tries)),
        9 => (1..10_u32).prop_map(Op::Dispatch),
        9 => (0..3_usize, select(Outcome::ALL.to_vec())).prop_map(|(nth, how)| Op::End(nth, how)),
        2 => (0..3_usize).prop_map(Op::GiveBack),
        2 => (0..CAMPAIGNS).prop_map(Op::Requeue),
        1 => (0..CAMPAIGNS).prop_map(Op::Pause),
        2 => (0..CAMPAIGNS).prop_map(Op::Resume),
        1 => limits().prop_map(Op::UserLimit),
        1 => Just(Op::Maintain),
        6 => select(vec![1, 5, 11, 60, 600, 1_439, 1_440]).prop_map(Op::Pass),
    ]
}

/// A call as the ledger has it.
struct Entry {
    number: String,
    at: i64,
    attempt: Attempt,
}

#[derive(Default)]
struct Ledger {
    user_limit: Option<i64>,
    campaigns: Vec<(CampaignId, Option<i64>)>,
    calls: Vec<Entry>,
    up: Vec<Attempt>,
    put_off: BTreeSet<String>,
}

impl Ledger {
    /// Every call in the order in which it was told, against what its number had by then.
    fn start(&mut self, play: &Play, calls: Vec<ReservedCall>) {
        for call in calls {
            let number = call.request.to.to_string();
            let of = call.request.origin.campaign_id().unwrap();
            let own = self.campaigns.iter().find(|(id, _)| *id == of).unwrap().1;
            let most = own.into_iter().chain(self.user_limit).min();
            let within = |entry: &&Entry| entry.number == number && entry.at > play.now - DAY;
            let before = self.calls.iter().filter(within).count();
            assert!(
                most.is_none_or(|most| before < usize::try_from(most).unwrap()),
                "{number} was called {before} times of {most:?}"
            );
            self.up.push(call.request.attempt);
            self.calls.push(Entry {
                number,
                at: play.now,
                attempt: call.request.attempt,
            });
        }
    }

    /// Whatever was put off since the last look sleeps until a call to its number is a day old.
    fn look_at_put_off(&mut self, play: &Play) {
        let put_off = "SELECT concat_ws(' ', id, phone_number, (extract(epoch FROM wakes_at) * 1000)::bigint) \
            FROM call_queue WHERE wakes_at IS NOT NULL AND reason LIKE 'its number may be called%'";
        for told in texts(&mut play.scene.connection(), put_off) {
            let words: Vec<&str> = told.split(' ').collect();
            let until: i64 = words[2].parse().unwrap();
            let stands_against = |call: &Entry| call.number == words[1] && call.at + DAY == until;
            assert!(
                self.put_off.contains(&told) || self.calls.iter().any(stands_against),
                "{told}"
            );
            self.put_off.insert(told);
        }
    }

    fn is_over(&mut self, nth: usize) -> Option<Attempt> {
        (!self.up.is_empty()).then(|| self.up.remove(nth % self.up.len()))
    }
}

/// Gives slots away until nobody can have one any more.
async fn dispatch(play: &Play, ledger: &mut Ledger, most: u32) {
    loop {
        let settled = play.settle(most).await;
        let again = settled.next_timer == Some(Duration::ZERO);
        ledger.start(play, settled.reserved);
        if !again {
            break;
        }
    }
    ledger.look_at_put_off(play);
    if most >= 9 {
        let idle = "SELECT count(*) FROM call_queue q JOIN campaign_slots c USING (campaign_id) \
            JOIN user_slots s ON s.user_id = q.user_id \
            WHERE q.wakes_at IS NULL AND c.open AND s.held_campaign IS NULL \
                AND s.active_direct + s.active_campaign < s.campaign_slots";
        assert_eq!(play.scene.count(idle), 0, "a slot is idle");
    }
}

async fn apply(play: &mut Play, ledger: &mut Ledger, op: &Op) {
    play.pass(1);
    match op {
        Op::Campaign(who, limit, tries) => {
            if ledger.campaigns.len() < CAMPAIGNS {
                let own = limit.and_then(NumberLimit::new);
                let id = play.campaign(who, own, *tries).await;
                ledger.campaigns.push((id, *limit));
            }
        }
        Op::Dispatch(most) => dispatch(play, ledger, *most).await,
        Op::End(nth, outcome) => {
            if let Some(attempt) = ledger.is_over(*nth) {
                play.scene.end(attempt.call_id, *outcome).await;
            }
        }
        Op::GiveBack(nth) => {
            if let Some(attempt) = ledger.is_over(*nth) {
                play.scene.give_back(attempt).await;
                ledger.calls.retain(|entry| entry.attempt != attempt);
            }
        }
        Op::Requeue(nth) => {
            if let Some((id, _)) = ledger.campaigns.get(*nth) {
                let ended = ContactStatus::REPEATABLE.to_vec();
                let (store, all) = (&play.scene.store, ContactSelection::All);
                store
                    .requeue_campaign_contacts(play.user, *id, all, ended)
                    .await
                    .unwrap();
            }
        }
        Op::Pause(nth) => change(play, ledger, *nth, CampaignStatus::Paused).await,
        Op::Resume(nth) => change(play, ledger, *nth, CampaignStatus::Active).await,
        Op::UserLimit(limit) => {
            play.user_limit(limit.and_then(NumberLimit::new)).await;
            ledger.user_limit = *limit;
        }
        Op::Maintain => {
            play.scene.store.maintain().await.unwrap();
        }
        Op::Pass(minutes) => play.pass(minutes * MINUTE),
    }
}

async fn change(play: &Play, ledger: &Ledger, nth: usize, to: CampaignStatus) {
    let Some((id, _)) = ledger.campaigns.get(nth) else {
        return;
    };
    let now = play
        .scene
        .store
        .campaign(play.user, *id)
        .await
        .unwrap()
        .unwrap();
    if now.status.may_become(to) {
        play.scene.set_status(play.user, *id, to).await;
    }
}

/// A function, what it says, and what it is made to say.
type Mutation = (&'static str, &'static str, &'static str);

async fn run(ops: &[Op], broken: Option<Mutation>) {
    let mut play = Play::new(2 * NUMBERS).await;
    if let Some((function, says, instead)) = broken {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        play.scene.sql(&format!(
            "DO $mutate$ DECLARE v_was text := pg_get_functiondef('{function}'::regproc); BEGIN \
               IF strpos(v_was, {says}) = 0 THEN RAISE EXCEPTION '{function} does not say so'; END IF; \
               EXECUTE replace(v_was, {says}, {instead}); \
             END $mutate$",
            says = quoted(says),
            instead = quoted(instead),
        ));
    }
    // Two contacts each have one number.
    for nth in 0..NUMBERS {
        play.scene.sql(&format!(
            "UPDATE contacts SET phone_number = (SELECT phone_number FROM contacts WHERE id = '{}') \
             WHERE id = '{}'",
            play.contacts[nth],
            play.contacts[NUMBERS + nth]
        ));
    }
    let mut ledger = Ledger::default();
    for (nth, op) in ops.iter().enumerate() {
        apply(&mut play, &mut ledger, op).await;
        if nth % 4 == 0 {
            play.scene.assert_counters_equal_rows().await;
        }
    }
    // Nobody is lost: as the days go by, everyone is called.
    for nth in 0..CAMPAIGNS {
        change(&play, &ledger, nth, CampaignStatus::Active).await;
    }
    for _ in 0..400 {
        if play.scene.count("SELECT count(*) FROM call_queue") == 0 && ledger.up.is_empty() {
            break;
        }
        dispatch(&play, &mut ledger, 9).await;
        while let Some(attempt) = ledger.is_over(0) {
            play.pass(1);
            play.scene.end(attempt.call_id, Outcome::Completed).await;
        }
        play.pass(60 * MINUTE);
    }
    play.scene.assert_counters_equal_rows().await;
    let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, _) in &ledger.campaigns {
        let over = play
            .scene
            .store
            .campaign(play.user, *id)
            .await
            .unwrap()
            .unwrap();
        *by_status.entry(over.status.as_str()).or_default() += 1;
        assert_eq!((over.progress.queued, over.progress.processing), (0, 0));
        play.scene
            .assert_each_contact_counts_once(play.user, *id)
            .await;
    }
    assert!(
        by_status.keys().all(|status| *status == "completed"),
        "{by_status:?}"
    );
}

/// Plays random scripts, the same at every run unless it is a long test.
fn play(cases: u32, broken: Option<Mutation>) -> Result<(), TestError<Vec<Op>>> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if broken.is_some() { 0 } else { 500 },
        ..Config::default()
    };
    let mut runner = match crate::is_long() && broken.is_none() {
        true => TestRunner::new(config),
        false => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    runner.run(&proptest::collection::vec(op(), 20..90), |ops| {
        runtime.block_on(run(&ops, broken));
        Ok(())
    })
}

#[test]
fn whatever_happens_no_number_is_called_more_often_than_may_be_and_nobody_is_lost() {
    play(if crate::is_long() { 200 } else { 16 }, None).unwrap();
}

#[test]
fn the_ledger_notices_each_rule_that_is_taken_out_of_the_sql() {
    let day = "n.called_at > p_now - interval '24 hours'";
    let mutations: [Mutation; 5] = [
        (
            "spare_numbers",
            "OFFSET v_call.most - 1",
            "OFFSET v_call.most",
        ),
        (
            "spare_numbers",
            day,
            "n.called_at > p_now - interval '20 hours'",
        ),
        // Two in one settlement.
        (
            "spare_numbers",
            "ORDER BY n.called_at DESC",
            "AND n.called_at < p_now ORDER BY n.called_at DESC",
        ),
        ("count_number_calls", "IF NOT FOUND THEN", "IF true THEN"),
        // What reached nobody.
        ("return_calls", "n.call_id = q.call_id", "false"),
    ];
    for mutation in mutations {
        let outcome = play(100, Some(mutation));
        assert!(
            matches!(outcome, Err(TestError::Fail(..))),
            "{mutation:?} went by unseen"
        );
    }
}
