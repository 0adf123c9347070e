//! The place of each waiting item, derived from numbers and gaps, against a count of those before
//! it, after each of many random operations on deep lanes. The model's scripts compare places too,
//! over all that can be asked of the engine, but of a few calls only.

use std::fmt::Write as _;
use std::time::Duration;

use callq_domain::{
    Attempt, CallId, CampaignId, CampaignStatus, CampaignStore, Ending, EngineStore, Outcome,
    OwnershipStore, Return, SlotBatch, Target, UserId,
};
use chrono::{TimeDelta, Utc};
use diesel::PgConnection;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::scene::{Scene, direct_call, parsed, texts};

/// Operations of a script.
const OPERATIONS: usize = 40;
const CAMPAIGNS: usize = 3;
/// Where the numbers of the user's direct calls begin: blocks of 256, of 65,536 and of 16,777,216
/// end soon behind.
const TAILS: [i64; 4] = [0, 240, 65_500, 16_777_180];

/// Some of the items there are, in order: so many, after the first few, each nth of them.
#[derive(Debug, Clone, Copy)]
struct Part {
    after: usize,
    each: usize,
    many: usize,
}

#[derive(Debug, Clone)]
enum Op {
    /// Direct calls at the door at once; true for one that is scheduled.
    Ask(Vec<bool>),
    Start(u32),
    End(Part),
    Return(Part, u64),
    Withdraw(Part),
    Expire(Part),
    Wake(Part),
    /// Somebody changes priorities in psql.
    Prefer(Part, i32),
    Open(usize),
    Pause(usize),
    Maintain,
}

fn part(most: usize) -> impl Strategy<Value = Part> {
    (0..most, prop_oneof![Just(1), 1..5_usize], 1..most).prop_map(|(after, each, many)| Part {
        after,
        each,
        many,
    })
}

/// Where the numbers begin, the user's limit, and what is done.
type Script = (i64, i64, Vec<Op>);

/// Everything there is, on lanes of hundreds.
fn any_script() -> impl Strategy<Value = Script> {
    let scheduled = prop_oneof![3 => Just(false), 1 => Just(true)];
    let op = prop_oneof![
        6 => vec(scheduled, 1..60).prop_map(Op::Ask),
        6 => (1..12_u32).prop_map(Op::Start),
        4 => part(6).prop_map(Op::End),
        6 => coming_back(),
        5 => part(100).prop_map(Op::Withdraw),
        2 => part(100).prop_map(Op::Expire),
        4 => part(40).prop_map(Op::Wake),
        1 => (part(30), select(vec![100, 0, 7, 200])).prop_map(|(part, to)| Op::Prefer(part, to)),
        2 => (0..CAMPAIGNS).prop_map(Op::Open),
        1 => (0..CAMPAIGNS).prop_map(Op::Pause),
        1 => Just(Op::Maintain),
    ];
    (select(TAILS.to_vec()), 1..8_i64, vec(op, 1..=OPERATIONS))
}

/// Calls that start, come back in any order and start again, and hardly any behind them.
fn restless_script() -> impl Strategy<Value = Script> {
    let op = prop_oneof![
        4 => vec(Just(false), 1..6).prop_map(Op::Ask),
        1 => vec(any::<bool>(), 1..3).prop_map(Op::Ask),
        8 => (1..8_u32).prop_map(Op::Start),
        2 => part(4).prop_map(Op::End),
        12 => coming_back(),
        1 => part(4).prop_map(Op::Withdraw),
        1 => part(4).prop_map(Op::Wake),
    ];
    (
        select(TAILS.to_vec()),
        4..16_i64,
        vec(op, 1..=2 * OPERATIONS),
    )
}

fn coming_back() -> impl Strategy<Value = Op> {
    (part(6), select(vec![0, 1])).prop_map(|(part, delay)| Op::Return(part, delay))
}

/// Each due item whose place is not what it takes to reach it, and what the audit finds. The turns of
/// campaigns are counted out here; calls of another priority have turns of their own.
const FAULTS: &str = "
    WITH due AS MATERIALIZED (
        SELECT q.*, c.open, coalesce(q.campaign_id, q.user_id) AS lane,
            CASE WHEN q.campaign_id IS NULL THEN q.position ELSE
                greatest(c.turn, s.campaign_vtime) + 720720 / k.weight * (row_number() OVER (
                    PARTITION BY q.campaign_id, q.priority ORDER BY q.position) - 1) END AS turn
        FROM call_queue q
        JOIN user_slots s ON s.user_id = q.user_id
        LEFT JOIN campaigns k ON k.id = q.campaign_id
        LEFT JOIN campaign_slots c ON c.campaign_id = q.campaign_id
        WHERE q.wakes_at IS NULL
    )
    SELECT concat_ws(' ', me.call_type, me.priority, me.position, 'number', me.ordinal, 'is said to be at',
        get_call_queue_position(me.id), 'and is at', t.place)
    FROM due me
    CROSS JOIN LATERAL (
        SELECT count(*) AS place FROM due q
        WHERE q.user_id = me.user_id AND q.call_type = me.call_type
            AND (q.campaign_id IS NULL OR q.open OR q.campaign_id = me.campaign_id)
            AND (q.priority > me.priority OR (q.priority = me.priority AND (q.turn, q.lane) <= (me.turn, me.lane)))
    ) t
    WHERE get_call_queue_position(me.id) IS DISTINCT FROM t.place
    UNION ALL
    SELECT concat_ws(' ', counter, subject, kept, counted) FROM audit_counters()";

/// A user with direct calls and campaigns, and what was done to them.
struct Play {
    scene: Scene,
    connection: PgConnection,
    user: UserId,
    campaigns: Vec<CampaignId>,
}

impl Play {
    async fn new(tail: i64, limit: i64) -> Self {
        let scene = Scene::new().await;
        let user = scene.user().await;
        scene.limit(user, limit).await;
        scene.sql(&format!("UPDATE user_slots SET direct_tail = {tail}"));
        let mut campaigns = Vec::new();
        for contacts in [120, 40, 15] {
            campaigns.push(scene.draft(user, contacts).await);
        }
        Self {
            connection: scene.connection(),
            scene,
            user,
            campaigns,
        }
    }

    async fn apply(&mut self, op: &Op) {
        match op {
            Op::Ask(scheduled) => {
                let agent = self.scene.agent(self.user).await;
                let call = |scheduled: &bool| {
                    let number = Target::Number(parsed("+14155552671"));
                    let mut call = direct_call(self.user, agent, number);
                    call.scheduled_for = scheduled.then(|| Utc::now() + TimeDelta::hours(1));
                    call
                };
                let admissions = scheduled.iter().map(call).collect();
                self.settle(SlotBatch {
                    admissions,
                    ..SlotBatch::default()
                })
                .await;
            }
            Op::Start(reserve) => {
                self.settle(SlotBatch {
                    reserve: *reserve,
                    ..SlotBatch::default()
                })
                .await;
            }
            Op::End(part) => {
                let endings = self.up(*part).into_iter().map(|attempt| Ending {
                    call_id: attempt.call_id,
                    attempt: None,
                    outcome: Outcome::Completed,
                    execution_id: None,
                    reason: None,
                    duration_seconds: None,
                });
                let endings = endings.collect();
                self.settle(SlotBatch {
                    endings,
                    ..SlotBatch::default()
                })
                .await;
            }
            Op::Return(part, delay) => {
                let returns = self.up(*part).into_iter().map(|attempt| Return {
                    attempt,
                    delay: Duration::from_millis(*delay),
                    reason: "no room".into(),
                    if_unknown: false,
                });
                let returns = returns.collect();
                self.settle(SlotBatch {
                    returns,
                    ..SlotBatch::default()
                })
                .await;
            }
            Op::Withdraw(part) => self.scene.sql(&format!(
                "BEGIN; SELECT lock_engine(); \
                 SELECT withdraw_items(ARRAY({}), 'cancelled', 'for a test', NULL, now()); COMMIT",
                items("true", *part)
            )),
            Op::Expire(part) => {
                self.touch("expires_at = now() - interval '1 minute'", "true", *part);
                self.settle(SlotBatch::default()).await;
            }
            Op::Wake(part) => {
                let asleep = "wakes_at IS NOT NULL";
                self.touch("wakes_at = now() - interval '1 minute'", asleep, *part);
                self.settle(SlotBatch::default()).await;
            }
            Op::Prefer(part, priority) => {
                self.touch(&format!("priority = {priority}"), "true", *part);
            }
            Op::Open(nth) => self.set_status(*nth, CampaignStatus::Active).await,
            Op::Pause(nth) => self.set_status(*nth, CampaignStatus::Paused).await,
            Op::Maintain => self.scene.store.maintain().await.unwrap(),
        }
    }

    async fn settle(&self, batch: SlotBatch) {
        self.scene
            .store
            .settle(self.scene.server, &batch)
            .await
            .unwrap();
    }

    fn touch(&self, change: &str, which: &str, part: Part) {
        self.scene.sql(&format!(
            "UPDATE call_queue SET {change} WHERE id IN ({})",
            items(which, part)
        ));
    }

    async fn set_status(&self, campaign: usize, status: CampaignStatus) {
        // One that may not is left as it is.
        let changed =
            self.scene
                .store
                .set_campaign_status(self.user, self.campaigns[campaign], status);
        changed.await.ok();
    }

    /// Calls that are up, in no order that means anything.
    fn up(&mut self, part: Part) -> Vec<Attempt> {
        let query = format!(
            "SELECT call_id || ' ' || attempt FROM ( \
                 SELECT *, row_number() OVER (ORDER BY md5(call_id::text)) AS n FROM active_calls) a \
             WHERE n > {} AND n % {} = 0 LIMIT {}",
            part.after % 3,
            part.each,
            part.many
        );
        let attempt = |row: &String| {
            let (call, number) = row.split_once(' ').unwrap();
            Attempt {
                call_id: CallId::from(call.parse::<uuid::Uuid>().unwrap()),
                number: number.parse().unwrap(),
            }
        };
        texts(&mut self.connection, &query)
            .iter()
            .map(attempt)
            .collect()
    }
}

/// The ids of some waiting items.
fn items(which: &str, part: Part) -> String {
    format!(
        "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY call_type, position) AS n \
             FROM call_queue WHERE {which}) q \
         WHERE n > {} AND n % {} = 0 LIMIT {}",
        part.after, part.each, part.many
    )
}

async fn play(tail: i64, limit: i64, script: &[Op]) -> Result<(), String> {
    let mut play = Play::new(tail, limit).await;
    for (step, op) in script.iter().enumerate() {
        play.apply(op).await;
        let faults = texts(&mut play.connection, FAULTS);
        if !faults.is_empty() {
            let mut told = format!("after operation {step}, {op:?}:");
            for fault in &faults {
                write!(told, "\n  {fault}").unwrap();
            }
            return Err(told);
        }
    }
    Ok(())
}

fn play_scripts(scripts: impl Strategy<Value = Script>) {
    let config = Config {
        cases: if crate::is_long() { 500 } else { 10 },
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let mut runner = if crate::is_long() {
        TestRunner::new(config)
    } else {
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = runner.run(&scripts, |(tail, limit, script)| {
        runtime
            .block_on(play(tail, limit, &script))
            .map_err(TestCaseError::fail)
    });
    if let Err(fault) = outcome {
        panic!("{fault}");
    }
}

#[test]
fn every_place_is_what_a_count_says_whatever_becomes_of_those_before() {
    play_scripts(any_script());
}

#[test]
fn every_place_is_what_a_count_says_when_calls_come_back_in_any_order() {
    play_scripts(restless_script());
}

#[tokio::test]
async fn housekeeping_forgets_gaps_that_nobody_is_behind() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.limit(user, 0).await;
    let campaign = scene.campaign(user, 12).await;
    let withdraw = |positions: &str| {
        scene.sql(&format!(
            "BEGIN; SELECT lock_engine(); SELECT withdraw_items(ARRAY( \
                 SELECT id FROM call_queue WHERE ordinal IN ({positions})), 'cancelled', 'for a test', NULL, now()); COMMIT"
        ));
    };
    let gaps = || {
        let query = "SELECT lane || ' ' || block || ' ' || absent FROM lane_gaps WHERE level = 0 ORDER BY block";
        texts(&mut scene.connection(), query)
    };
    withdraw("3, 4, 5");
    withdraw("8");
    withdraw("1, 2, 6");
    assert_eq!(
        gaps(),
        [format!("{campaign} 3 3"), format!("{campaign} 8 1")]
    );

    scene.store.maintain().await.unwrap();
    assert_eq!(gaps(), [format!("{campaign} 8 1")]);

    withdraw("7, 9, 10, 11, 12");
    scene.store.maintain().await.unwrap();
    assert_eq!(scene.count("SELECT count(*) FROM lane_gaps"), 0);
}
