//! A plain ledger of a campaign's contacts beside the database: whatever happens, each contact is
//! in it once, and the campaign is over exactly when the last one is.

use std::collections::BTreeMap;

use callq_domain::{
    Attempt, CampaignProgress, CampaignStatus, Outcome, QueueItemId, RetriesMade, RetryCause,
    RetryPolicy,
};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::{Play, policy};

/// What may happen.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// Free slots are given to at most so many.
    Dispatch(u32),
    /// A carrier takes the nth call that is up.
    Place(usize),
    /// The nth call that is up is over.
    End(usize, Outcome, Option<&'static str>),
    /// Something that is over already is told again.
    Repeat(usize, Outcome),
    Pause,
    Resume,
    Cancel,
    /// Minutes pass.
    Pass(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let reason = prop_oneof![
        6 => Just(None),
        1 => select(vec![Some("machine"), Some("invalid-number"), Some("do-not-call")]),
    ];
    prop_oneof![
        8 => (1..4_u32).prop_map(Op::Dispatch),
        3 => (0..3_usize).prop_map(Op::Place),
        10 => (0..3_usize, select(Outcome::ALL.to_vec()), reason)
            .prop_map(|(nth, outcome, reason)| Op::End(nth, outcome, reason)),
        1 => (0..8_usize, select(Outcome::ALL.to_vec())).prop_map(|(nth, how)| Op::Repeat(nth, how)),
        1 => Just(Op::Pause),
        3 => Just(Op::Resume),
        // Seldom: nothing comes after it.
        1 => (0..10_u32).prop_map(|n| if n == 0 { Op::Cancel } else { Op::Resume }),
        6 => select(vec![1, 5, 15, 60]).prop_map(Op::Pass),
    ]
}

fn policies() -> impl Strategy<Value = RetryPolicy> {
    let some: &[(RetryCause, u32, &[u32])] = &[
        (RetryCause::Busy, 2, &[5, 15]),
        (RetryCause::Machine, 1, &[60]),
    ];
    let failed: &[(RetryCause, u32, &[u32])] = &[
        (RetryCause::Failed, 0, &[1]),
        (RetryCause::NoAnswer, 1, &[1]),
    ];
    select(vec![
        policy(0, &[]),
        policy(2, &[]),
        policy(3, some),
        policy(1, some),
        policy(2, failed),
    ])
}

/// Where a contact stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Waits { from: i64 },
    Up { attempt: Attempt, taken: bool },
    Over(Outcome),
}

struct Ledger {
    policy: RetryPolicy,
    status: CampaignStatus,
    contacts: BTreeMap<QueueItemId, (Stand, RetriesMade)>,
    over: Vec<Attempt>,
    unseen: u64,
}

impl Ledger {
    fn progress(&self) -> CampaignProgress {
        let mut progress = CampaignProgress {
            total: self.contacts.len() as u64 + self.unseen,
            ..CampaignProgress::default()
        };
        match self.status {
            CampaignStatus::Cancelled => progress.cancelled += self.unseen,
            _ => progress.queued += self.unseen,
        }
        for (stand, _) in self.contacts.values() {
            *match stand {
                Stand::Waits { .. } => &mut progress.queued,
                Stand::Up { .. } => &mut progress.processing,
                Stand::Over(Outcome::Completed) => &mut progress.completed,
                Stand::Over(Outcome::Cancelled) => &mut progress.cancelled,
                Stand::Over(_) => &mut progress.failed,
            } += 1;
        }
        progress
    }

    fn up(&self) -> Vec<(QueueItemId, Attempt, bool)> {
        let up = self
            .contacts
            .iter()
            .filter_map(|(id, (stand, _))| match stand {
                Stand::Up { attempt, taken } => Some((*id, *attempt, *taken)),
                _ => None,
            });
        up.collect()
    }

    fn end(&mut self, id: QueueItemId, how: (Outcome, Option<&str>), now: i64) {
        let goes_on = matches!(self.status, CampaignStatus::Active | CampaignStatus::Paused);
        let Some((stand, made)) = self.contacts.get_mut(&id) else {
            return;
        };
        let Stand::Up { attempt, taken } = *stand else {
            return;
        };
        self.over.push(attempt);
        let (outcome, reason) = how;
        let cause = RetryCause::of(outcome, reason, taken).filter(|_| goes_on);
        let next = cause.and_then(|cause| Some((cause, self.policy.next(made, cause)?)));
        *stand = match next {
            Some((cause, after)) => {
                *made.entry(cause).or_default() += 1;
                let after = i64::try_from(after.as_millis()).unwrap();
                Stand::Waits { from: now + after }
            }
            None => Stand::Over(outcome),
        };
    }

    /// A campaign is complete once nobody waits and nobody is up.
    fn look(&mut self) {
        let progress = self.progress();
        if matches!(self.status, CampaignStatus::Active | CampaignStatus::Paused)
            && progress.queued + progress.processing == 0
        {
            self.status = CampaignStatus::Completed;
        }
    }
}

async fn apply(play: &mut Play, ledger: &mut Ledger, op: Op) {
    play.pass(1);
    match op {
        Op::Dispatch(most) => {
            for call in play.scene.dispatch(most).await {
                assert_eq!(ledger.status, CampaignStatus::Active);
                let attempt = call.request.attempt;
                let up = Stand::Up {
                    attempt,
                    taken: false,
                };
                match ledger.contacts.get_mut(&call.item_id) {
                    Some((stand @ Stand::Waits { .. }, _)) => {
                        assert!(matches!(*stand, Stand::Waits { from } if from <= play.now));
                        assert!(
                            ledger
                                .over
                                .iter()
                                .all(|gone| gone.call_id != attempt.call_id)
                        );
                        *stand = up;
                    }
                    Some((stand, _)) => panic!("{stand:?} was started"),
                    None => {
                        ledger.unseen -= 1;
                        let made = RetriesMade::new();
                        ledger.contacts.insert(call.item_id, (up, made));
                    }
                }
            }
        }
        Op::Place(nth) => {
            if let Some((id, attempt, false)) = ledger.up().get(nth) {
                play.scene.place(*attempt).await;
                let taken = Stand::Up {
                    attempt: *attempt,
                    taken: true,
                };
                ledger.contacts.get_mut(id).unwrap().0 = taken;
            }
        }
        Op::End(nth, outcome, reason) => {
            if let Some((id, attempt, _)) = ledger.up().get(nth).copied() {
                play.scene
                    .end_because(attempt.call_id, outcome, reason)
                    .await;
                ledger.end(id, (outcome, reason), play.now);
            }
        }
        Op::Repeat(nth, outcome) => {
            if let Some(attempt) = ledger.over.get(nth) {
                play.scene.end(attempt.call_id, outcome).await;
            }
        }
        Op::Pass(minutes) => {
            play.pass(minutes * super::MINUTE);
        }
        Op::Pause => change(play, ledger, CampaignStatus::Paused).await,
        Op::Resume => change(play, ledger, CampaignStatus::Active).await,
        Op::Cancel => change(play, ledger, CampaignStatus::Cancelled).await,
    }
    ledger.look();
}

async fn change(play: &Play, ledger: &mut Ledger, to: CampaignStatus) {
    if !ledger.status.may_become(to) {
        return;
    }
    play.scene.set_status(play.user, play.campaign, to).await;
    ledger.status = to;
    if to == CampaignStatus::Cancelled {
        for (stand, _) in ledger.contacts.values_mut() {
            if matches!(stand, Stand::Waits { .. }) {
                *stand = Stand::Over(Outcome::Cancelled);
            }
        }
    }
}

async fn run(policy: RetryPolicy, contacts: usize, ops: &[Op]) {
    let mut play = Play::new(contacts, policy.clone()).await;
    let mut ledger = Ledger {
        policy,
        status: CampaignStatus::Active,
        contacts: BTreeMap::new(),
        over: Vec::new(),
        unseen: contacts as u64,
    };
    let to_the_end = [
        Op::Resume,
        Op::Pass(60),
        Op::Dispatch(3),
        Op::End(0, Outcome::Busy, None),
    ];
    let rest = to_the_end.iter().cycle().take(ops.len() * 4);
    for (nth, op) in ops.iter().chain(rest).enumerate() {
        apply(&mut play, &mut ledger, *op).await;
        let expected = (ledger.status, ledger.progress());
        assert_eq!(play.progress().await, expected, "after {nth}, {op:?}");
        if nth % 8 == 0 {
            play.scene.assert_counters_equal_rows().await;
        }
    }
    play.scene.assert_counters_equal_rows().await;
}

#[test]
fn whatever_happens_each_contact_is_accounted_for_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    });
    let script = (
        policies(),
        1..8_usize,
        proptest::collection::vec(op(), 10..60),
    );
    runner
        .run(&script, |(policy, contacts, ops)| {
            runtime.block_on(run(policy, contacts, &ops));
            Ok(())
        })
        .unwrap();
}
