//! What PostgreSQL must answer: the model queue, and beside it what the model leaves out because
//! it moves no slot: who owns an attempt, what its provider calls it, which campaigns are drafts.

use std::collections::BTreeMap;
use std::time::Duration;

use callq_domain::model::{self, Batch, Newcomer, Queue};
use callq_domain::{
    AgentId, CallId, CampaignId, CampaignStatus, ConcurrencyLimit, Ending, ExecutionId, ItemStatus,
    NewDirectCall, Outcome, QueueItemId, Return, ServerId, SlotBatch, UserId,
};

use super::answers::{Place, Settled, Start, Wait};

mod door;
mod lost;
mod progress;
mod state;

/// No item has so many attempts: what names this one is not the current one's to say.
const NEVER: u32 = u32::MAX;

/// The users of every script, each with an agent of its own.
#[derive(Debug, Clone)]
pub(crate) struct Universe {
    pub(crate) users: Vec<UserId>,
    pub(crate) agents: Vec<AgentId>,
    pub(crate) user_limit: ConcurrencyLimit,
    pub(crate) system_limit: ConcurrencyLimit,
}

pub(crate) struct Reference {
    pub(crate) queue: Queue,
    /// Milliseconds since the Unix epoch.
    pub(crate) now: i64,
    pub(crate) universe: Universe,
    /// Every item there ever was, in the order in which they were made.
    pub(crate) items: Vec<QueueItemId>,
    numbers: BTreeMap<QueueItemId, usize>,
    pub(crate) campaigns: Vec<Campaign>,
    /// One for each item that holds a slot.
    pub(super) attempts: BTreeMap<QueueItemId, Current>,
    /// The words with which an item last came back, until it starts again.
    pub(super) words: BTreeMap<QueueItemId, String>,
    /// How many settlements each server has sent.
    settlements: BTreeMap<ServerId, u64>,
}

pub(crate) struct Campaign {
    pub(crate) id: CampaignId,
    pub(crate) owner: usize,
    pub(crate) status: CampaignStatus,
}

/// The attempt that holds an item's slot.
pub(super) struct Current {
    pub(super) number: u32,
    pub(super) owner: ServerId,
    /// The settlement of its owner that started it, counted from 1; 0 if it was taken over.
    pub(super) settlement: u64,
    pub(super) execution: Option<ExecutionId>,
    pub(super) overdue: bool,
}

/// Where several answers are right.
#[derive(Default)]
pub(crate) struct Leeway {
    /// Admissions whose place may also be told as it is once the batch is done.
    pub(crate) places_in_the_end: Vec<(usize, Place)>,
    /// Admissions that wait behind earlier calls, and why else they would once the whole batch is
    /// at the door.
    pub(crate) reasons_in_the_end: Vec<(usize, String)>,
    /// Admissions that came before: why they wait is not told anew.
    pub(crate) repeated: Vec<usize>,
}

impl Reference {
    pub(crate) fn new(universe: Universe, now: i64) -> Self {
        let mut queue = Queue::new(universe.system_limit);
        for user in &universe.users {
            queue.add_user(*user, universe.user_limit).unwrap();
        }
        Self {
            queue,
            now,
            universe,
            items: Vec::new(),
            numbers: BTreeMap::new(),
            campaigns: Vec::new(),
            attempts: BTreeMap::new(),
            words: BTreeMap::new(),
            settlements: BTreeMap::new(),
        }
    }

    /// The number of an item; one that there is not has the largest.
    pub(crate) fn number(&self, id: QueueItemId) -> usize {
        self.numbers.get(&id).copied().unwrap_or(usize::MAX)
    }

    pub(crate) fn user_number(&self, id: UserId) -> usize {
        let found = self.universe.users.iter().position(|user| *user == id);
        found.unwrap_or(usize::MAX)
    }

    pub(crate) fn count_in(&mut self, id: QueueItemId) {
        self.numbers.insert(id, self.items.len());
        self.items.push(id);
    }

    /// Settles a batch in which calls go by their items' ids.
    pub(crate) fn settle(&mut self, server: ServerId, asked: &SlotBatch) -> (Settled, Leeway) {
        let mut leeway = Leeway::default();
        *self.settlements.entry(server).or_default() += 1;
        let disowned = self.disown(server, asked);
        let unheard = self.unheard(server, asked);
        let endings = asked
            .endings
            .iter()
            .map(|end| self.fence_ending(server, end));
        let batch = Batch {
            endings: endings.chain(disowned).collect(),
            returns: unheard
                .iter()
                .chain(&asked.returns)
                .map(|back| self.fence_return(server, back))
                .collect(),
            admissions: asked
                .admissions
                .iter()
                .filter(|call| !self.is_anothers_agent(call))
                .map(|call| self.newcomer(call))
                .collect(),
            reserve: asked.reserve,
        };
        let anothers = asked
            .admissions
            .iter()
            .map(|call| self.is_anothers_agent(call));
        let anothers: Vec<bool> = anothers.collect();

        let mut settled = self.queue.settle(self.now, &batch);
        settled.endings.truncate(asked.endings.len());
        self.note_returns(unheard.iter().chain(&asked.returns), &settled);
        settled.returns.drain(..unheard.len());
        self.note_starts(server, &settled);
        let admissions = self.doors(server, &mut settled, asked, &anothers, &mut leeway);
        self.complete_campaigns();
        let told = Settled {
            endings: settled.endings,
            returns: settled
                .returns
                .iter()
                .map(|back| back.as_ref().map(|wait| self.wait(wait)))
                .collect(),
            admissions,
            reserved: settled
                .reserved
                .iter()
                .map(|start| self.start(start))
                .collect(),
            more: settled.more,
            next_timer: settled
                .next_timer
                .map(|ms| Duration::from_millis(ms.unsigned_abs())),
        };
        (told, leeway)
    }

    /// An ending that is not this server's to tell, or speaks of another execution, is made one of
    /// an attempt that there never was.
    fn fence_ending(&self, server: ServerId, ending: &Ending) -> Ending {
        let mut fenced = ending.clone();
        if let Some(now) = self.attempts.get(&item_of(ending.call_id)) {
            let own = ending.attempt.is_none() || now.owner == server;
            if !own || !now.is_called(ending.execution_id.as_ref()) {
                fenced.attempt = Some(NEVER);
            }
            if now.overdue {
                fenced.outcome = Outcome::Failed;
            }
        }
        fenced
    }

    fn fence_return(&self, server: ServerId, back: &Return) -> Return {
        let mut fenced = back.clone();
        if let Some(now) = self.attempts.get(&item_of(back.attempt.call_id))
            && (now.owner != server || now.execution.is_some())
        {
            fenced.attempt.number = NEVER;
        }
        fenced
    }

    fn is_anothers_agent(&self, call: &NewDirectCall) -> bool {
        let of = self.user_number(call.user_id);
        let own = self.universe.agents.get(of);
        self.queue.item(call.item_id).is_none() && own.is_some_and(|agent| *agent != call.agent_id)
    }

    fn newcomer(&self, call: &NewDirectCall) -> Newcomer {
        let lasts = call
            .expires_in
            .map(|after| i64::try_from(after.as_millis()).unwrap());
        Newcomer {
            item_id: call.item_id,
            user_id: call.user_id,
            scheduled_for: call.scheduled_for.map(|at| at.timestamp_millis()),
            expires_at: lasts.map(|ms| self.now + ms),
        }
    }

    fn note_returns<'a>(
        &mut self,
        asked: impl Iterator<Item = &'a Return>,
        settled: &model::Settled,
    ) {
        for (back, waits) in asked.zip(&settled.returns) {
            if let Some(waits) = waits {
                self.words.insert(waits.item_id, back.reason.clone());
            }
        }
    }

    fn note_starts(&mut self, server: ServerId, settled: &model::Settled) {
        self.forget_ended();
        let at_the_door = settled
            .admissions
            .iter()
            .filter_map(|admission| match admission {
                model::Admission::Started(start) => Some(start),
                _ => None,
            });
        for start in settled.reserved.iter().chain(at_the_door) {
            self.words.remove(&start.item_id);
            let now = Current {
                number: start.attempt.number,
                owner: server,
                settlement: self.settlements[&server],
                execution: None,
                overdue: false,
            };
            self.attempts.insert(start.item_id, now);
        }
    }

    /// Forgets attempts that no longer hold a slot.
    fn forget_ended(&mut self) {
        let queue = &self.queue;
        self.attempts.retain(|id, now| {
            queue.item(*id).is_some_and(|item| {
                item.status == ItemStatus::Processing && item.attempts == now.number
            })
        });
    }

    fn start(&self, start: &model::Start) -> Start {
        Start {
            item: self.number(start.item_id),
            of: self.user_number(start.user_id),
            call_type: self.queue.item(start.item_id).unwrap().origin.call_type(),
            attempt: start.attempt.number,
        }
    }

    fn wait(&self, waiting: &model::Waiting) -> Wait {
        let item = self.queue.item(waiting.item_id).unwrap();
        Wait {
            item: self.number(waiting.item_id),
            reason: waiting.reason.to_string(),
            place: self.in_queue(item, waiting.place),
            expires_at: item.expires_at,
        }
    }
}

impl Current {
    /// Whether an event that names this execution, or none, may be about this attempt.
    pub(super) fn is_called(&self, named: Option<&ExecutionId>) -> bool {
        let known = self.execution.as_ref();
        named.is_none_or(|named| known.is_none_or(|known| known == named))
    }
}

/// The item a call serves, where calls go by their items' ids.
pub(crate) fn item_of(call: CallId) -> QueueItemId {
    QueueItemId::from(call.as_uuid())
}

/// What a call goes by on the model's side.
pub(crate) fn call_of(item: QueueItemId) -> CallId {
    CallId::from(item.as_uuid())
}
