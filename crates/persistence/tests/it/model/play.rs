//! Plays a script on both sides and stops at the first difference.

use std::fmt;

use callq_domain::{
    EngineStore, ItemStatus, PageRequest, ProgressBatch, QueueItemId, SlotBatch, StoreError,
};

use super::answers::Progressed;
use super::operations::{Op, SERVERS, USERS};
use super::reference::Reference;
use super::stage::{OPENING, Stage};
use compare::{forgive, same};

mod changes;
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

/// How many items are looked at as their owners do, which takes as long as all else that is
/// compared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    /// One after every sixth operation; in the end what is listed for one user.
    AtSome,
    /// Every item after every operation; in the end everybody's lists.
    AtAll,
}

/// Plays a script from the beginning. `engine` is the store's own, or one that breaks a rule.
/// After each batch a millisecond passes.
pub(crate) async fn play(
    stage: &mut Stage,
    engine: &dyn EngineStore,
    script: &[Op],
    look: Look,
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
        bookmarks: [const { None }; USERS],
    };
    for (step, op) in script.iter().enumerate() {
        let played = match game.apply(*op).await {
            Ok(false) => Ok(()),
            Ok(true) => game.compare_states(step, look).await,
            Err(fault) => Err(fault),
        };
        let last = step + 1 == script.len();
        let played = match played {
            Ok(()) if last => game.compare_records(step, look).await,
            played => played,
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
    /// How far each user has read in its items.
    bookmarks: [Option<Bookmark>; USERS],
}

/// Where a reader of items is to go on.
struct Bookmark {
    status: Option<ItemStatus>,
    last: usize,
    cursor: String,
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
                self.pass_time(1);
            }
            Op::Resend(server) => match self.last[server].take() {
                None => return Ok(false),
                Some(batch) => {
                    self.settle(server, &batch).await?;
                    self.last[server] = Some(batch);
                    self.pass_time(1);
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
                self.pass_time(1);
            }
            Op::TurnPage { of, limit, status } => {
                self.turn_page(of, limit, status).await?;
                return Ok(false);
            }
            Op::Advance(ms) => {
                self.pass_time(ms.into());
                return Ok(false);
            }
            Op::UntilSomethingIsDue => {
                let next = self.reference.queue.next_timer(self.reference.now);
                self.pass_time(next.unwrap_or(0));
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
                self.pass_time(1);
            }
            Op::Cancel(_) | Op::CancelAnothers(_) => self.cancel(op).await?,
            Op::Draft { .. } | Op::Start(_) | Op::Pause(_) | Op::Withdraw(_) | Op::Maintain => {
                self.campaign(op).await?;
            }
            Op::CampaignLimit { nth, .. } | Op::CampaignWeight { nth, .. } => {
                self.change_campaign(op, nth);
            }
            Op::UserLimit { .. }
            | Op::SystemLimit(_)
            | Op::Weight { .. }
            | Op::DirectReserved { .. }
            | Op::Credits { .. }
            | Op::MaxQueued { .. }
            | Op::Paused(_) => self.change(op).await?,
            _ => {
                self.gather(op);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn pass_time(&mut self, ms: i64) {
        self.reference.now += ms;
        self.stage.clock.set(self.reference.now);
    }

    /// Reads on where the user stopped, or from the beginning.
    async fn turn_page(
        &mut self,
        of: usize,
        limit: u16,
        status: Option<ItemStatus>,
    ) -> Result<(), Fault> {
        let bookmark = self.bookmarks[of].take();
        let bookmark = bookmark.filter(|bookmark| bookmark.status == status);
        let after = bookmark.as_ref().map(|bookmark| bookmark.last);
        let request = PageRequest {
            limit,
            cursor: bookmark.map(|bookmark| bookmark.cursor),
        };
        let (expected, more) = self.reference.page(of, status, limit.into(), after);
        let page = self.stage.page(&self.reference, of, status, request);
        let (observed, cursor) = page.await?;
        same("a page of items", &expected, &observed)?;
        same("whether another follows", &more, &cursor.is_some())?;
        self.bookmarks[of] = cursor.zip(expected.last()).map(|(cursor, last)| Bookmark {
            status,
            last: *last,
            cursor,
        });
        Ok(())
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
}
