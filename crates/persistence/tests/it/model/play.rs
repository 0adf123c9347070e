//! Plays a script on both sides and stops at the first difference.

use std::fmt;

use callq_domain::{
    CampaignStatus, ConcurrencyLimit, EngineStore, OperatorStore, OwnershipStore, ProgressBatch,
    QueueItemId, SlotBatch, StoreError, UserChange, Weight,
};

use super::answers::Progressed;
use super::operations::{CAMPAIGNS, Op, SERVERS};
use super::reference::Reference;
use super::stage::{OPENING, Stage};
use compare::{forgive, same};

mod compare;
mod gather;

/// Where the two sides part.
#[derive(Debug)]
pub(crate) struct Difference {
    step: usize,
    op: Op,
    what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, op, what } = self;
        write!(f, "after operation {step}, {op:?}:\n{what}")
    }
}

/// Plays a script from the beginning. `engine` is the store's own, or one that breaks a rule.
pub(crate) async fn play(
    stage: &mut Stage,
    engine: &dyn EngineStore,
    script: &[Op],
) -> Result<(), Difference> {
    stage.go_back();
    stage.clock.set(OPENING);
    let mut game = Game {
        reference: Reference::new(stage.universe.clone(), OPENING),
        stage,
        engine,
        asked: 0,
        slots: SlotBatch::default(),
        progress: ProgressBatch::default(),
        last: [const { None }; SERVERS],
        settled: [0; SERVERS],
        lost: [const { None }; SERVERS],
    };
    for (step, op) in script.iter().enumerate() {
        let played = match game.apply(*op).await {
            Ok(false) => Ok(()),
            Ok(true) => game.compare_states(step).await,
            Err(fault) => Err(fault),
        };
        played.map_err(|Fault(what)| Difference {
            step,
            op: *op,
            what,
        })?;
    }
    Ok(())
}

/// What is wrong, in words.
struct Fault(String);

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self(format!("the store answered: {error:?}"))
    }
}

struct Game<'a> {
    stage: &'a mut Stage,
    engine: &'a dyn EngineStore,
    reference: Reference,
    /// Direct calls asked for so far.
    asked: u128,
    slots: SlotBatch,
    progress: ProgressBatch,
    /// The last batch of each server.
    last: [Option<SlotBatch>; SERVERS],
    /// How many settlements each server has sent.
    settled: [u64; SERVERS],
    /// What each server knows of answers that it lost.
    lost: [Option<Lost>; SERVERS],
}

/// Settlements that were not answered.
struct Lost {
    /// The last before them.
    answered: u64,
    /// What was asked by callers who were told no.
    disowned: Vec<QueueItemId>,
}

impl Game<'_> {
    /// Applies an operation to both sides and compares what they answer. Whether anything may
    /// have changed.
    async fn apply(&mut self, op: Op) -> Result<bool, Fault> {
        match op {
            Op::Settle { server, reserve } => {
                let mut batch = std::mem::take(&mut self.slots);
                batch.reserve = reserve;
                let answered = self.settled[server];
                if let Some(lost) = self.lost[server].take() {
                    batch.answered = Some(lost.answered);
                    batch.disowned.extend(lost.disowned);
                }
                self.settle(server, &batch).await?;
                batch.answered.get_or_insert(answered);
                self.last[server] = Some(batch);
            }
            Op::Resend(server) => match self.last[server].take() {
                None => return Ok(false),
                Some(batch) => {
                    self.settle(server, &batch).await?;
                    self.last[server] = Some(batch);
                }
            },
            Op::LoseAnswer(server) => {
                if let Some(batch) = self.last[server].take() {
                    self.lose_answer(server, batch);
                }
                return Ok(false);
            }
            Op::Record { server } => {
                let batch = std::mem::take(&mut self.progress);
                self.record(server, &batch).await?;
            }
            Op::Advance(ms) => {
                self.reference.now += i64::from(ms);
                self.stage.clock.set(self.reference.now);
                return Ok(false);
            }
            Op::GiveUp { server, call } => {
                let attempt = self.attempt(call, false);
                self.stage.give_up(server, attempt).await?;
                self.reference.give_up(self.stage.servers[server], &attempt);
            }
            Op::Die(dead) => {
                let heir = (dead + 1) % SERVERS;
                let (from, to) = (self.stage.servers[dead], self.stage.servers[heir]);
                let expected = self.reference.take_over(from, to);
                let observed = self.stage.die(dead, heir, &self.reference).await?;
                same("what was taken over", &expected, &observed)?;
            }
            Op::Cancel(_) | Op::CancelAnothers(_) => self.cancel(op).await?,
            Op::Draft { .. } | Op::Start(_) | Op::Pause(_) | Op::Withdraw(_) | Op::Maintain => {
                self.campaign(op).await?;
            }
            Op::UserLimit { .. }
            | Op::SystemLimit(_)
            | Op::Weight { .. }
            | Op::DirectReserved { .. }
            | Op::Credits { .. }
            | Op::Paused(_) => self.change(op).await?,
            _ => {
                self.gather(op);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The server's next batch will say what it missed, and whom it told no.
    fn lose_answer(&mut self, server: usize, batch: SlotBatch) {
        let asked = batch.admissions.iter().map(|call| call.item_id);
        let disowned = asked.chain(batch.disowned.iter().copied()).collect();
        self.lost[server] = batch.answered.map(|answered| Lost { answered, disowned });
    }

    async fn settle(&mut self, server: usize, batch: &SlotBatch) -> Result<(), Fault> {
        self.settled[server] += 1;
        let (expected, leeway) = self.reference.settle(self.stage.servers[server], batch);
        let settled = self
            .stage
            .settle(self.engine, server, batch, &self.reference);
        let mut observed = settled.await?;
        forgive(&expected, &leeway, &mut observed);
        same("endings", &expected.endings, &observed.endings)?;
        same("returns", &expected.returns, &observed.returns)?;
        same("admissions", &expected.admissions, &observed.admissions)?;
        same("reserved", &expected.reserved, &observed.reserved)?;
        same("more", &expected.more, &observed.more)?;
        same("the next timer", &expected.next_timer, &observed.next_timer)
    }

    async fn record(&mut self, server: usize, batch: &ProgressBatch) -> Result<(), Fault> {
        let expected = self
            .reference
            .record_progress(self.stage.servers[server], batch);
        let recorded = self
            .stage
            .record_progress(self.engine, server, batch, &self.reference);
        let observed: Progressed = recorded.await?;
        same("placed", &expected.placed, &observed.placed)?;
        same("events", &expected.events, &observed.events)?;
        same("unknown", &expected.unknown, &observed.unknown)
    }

    async fn cancel(&mut self, op: Op) -> Result<(), Fault> {
        let (Op::Cancel(pick) | Op::CancelAnothers(pick)) = op else {
            unreachable!("it cancels");
        };
        let id = self.pick(pick);
        let owner = self.reference.queue.item(id).map(|item| item.user_id);
        let users = &self.stage.universe.users;
        let own = matches!(op, Op::Cancel(_));
        let asks = match owner {
            Some(owner) if own => owner,
            owner => users
                .iter()
                .copied()
                .find(|user| Some(*user) != owner)
                .unwrap(),
        };
        let observed = self.stage.cancel(asks, id).await?;
        let expected = if own { self.reference.cancel(id) } else { None };
        same("the cancellation", &expected, &observed)
    }

    async fn change(&mut self, op: Op) -> Result<(), Fault> {
        let queue = &mut self.reference.queue;
        let user = |of: usize| self.stage.universe.users[of];
        let store = &self.stage.store;
        let limit = |slots: u32| ConcurrencyLimit::new(slots.into()).unwrap();
        let mut change = UserChange::default();
        let of = match op {
            Op::SystemLimit(slots) => {
                queue.set_system_limit(limit(slots));
                store.set_system_limit(limit(slots)).await?;
                return Ok(());
            }
            Op::Paused(paused) => {
                queue.set_paused(paused);
                store.set_dispatch_paused(paused).await?;
                return Ok(());
            }
            Op::UserLimit { of, slots } => {
                queue.set_user_limit(user(of), limit(slots)).unwrap();
                change.concurrent_calls_limit = Some(limit(slots));
                of
            }
            Op::Weight { of, turns } => {
                let weight = Weight::new(turns.into()).unwrap();
                queue.set_weight(user(of), weight).unwrap();
                change.weight = Some(weight);
                of
            }
            Op::DirectReserved { of, slots } => {
                queue.set_direct_reserved(user(of), slots).unwrap();
                change.direct_reserved_slots = Some(slots);
                of
            }
            Op::Credits { of, left } => {
                queue.set_credits(user(of), left).unwrap();
                change.credits = Some(left);
                of
            }
            other => unreachable!("{other:?} changes nothing"),
        };
        store.update_user(user(of), change).await?;
        Ok(())
    }

    async fn campaign(&mut self, op: Op) -> Result<(), Fault> {
        let (nth, status) = match op {
            Op::Draft { of, contacts } => {
                if self.reference.campaigns.len() < CAMPAIGNS {
                    self.stage.draft(of, contacts, &mut self.reference).await?;
                }
                return Ok(());
            }
            Op::Maintain => {
                self.reference.maintain();
                self.stage.store.maintain().await?;
                return Ok(());
            }
            Op::Start(nth) => (nth, CampaignStatus::Active),
            Op::Pause(nth) => (nth, CampaignStatus::Paused),
            Op::Withdraw(nth) => (nth, CampaignStatus::Cancelled),
            other => unreachable!("{other:?} is about no campaign"),
        };
        let campaigns = self.reference.campaigns.len();
        if campaigns == 0 {
            return Ok(());
        }
        let nth = nth % campaigns;
        let observed = self
            .stage
            .set_campaign_status(&self.reference, nth, status)
            .await?;
        let expected = self.reference.set_campaign_status(nth, status);
        same("whether the campaign may", &expected, &observed)
    }
}
