//! What PostgreSQL must answer: the model queue, and beside it what the model leaves out because
//! it moves no slot: who owns an attempt, what its provider calls it, which campaigns are drafts.

use std::collections::BTreeMap;
use std::time::Duration;

use callq_domain::model::{self, Batch, Newcomer, Queue};
use callq_domain::{
    AgentId, CallId, CampaignId, CampaignStatus, ConcurrencyLimit, ContactId, Ending, ExecutionId,
    ItemStatus, NewDirectCall, Outcome, QueueItemId, Refusal, Return, ServerId, SlotBatch, Target,
    UserId,
};

use super::answers::{Holds, Place, Record, Settled, Start, Step, Wait, Who};

mod campaigns;
mod door;
mod keys;
mod lists;
mod lost;
mod progress;
mod state;
mod story;

/// No item has so many attempts: what names this one is not the current one's to say.
const NEVER: u32 = u32::MAX;

/// The users of every script, each with an agent and contacts of its own.
#[derive(Debug, Clone)]
pub(crate) struct Universe {
    pub(crate) users: Vec<UserId>,
    pub(crate) agents: Vec<AgentId>,
    /// Who carries the calls of each agent, and which caller id they show.
    pub(crate) carriers: Vec<(String, Option<String>)>,
    pub(crate) contacts: Vec<Vec<(ContactId, Who)>>,
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
    keys: BTreeMap<(UserId, String), keys::Kept>,
    wishes: BTreeMap<QueueItemId, Wish>,
    records: BTreeMap<QueueItemId, Record>,
    stories: BTreeMap<QueueItemId, Vec<Step>>,
    holds: BTreeMap<UserId, Holds>,
}

/// What was asked for with an item.
struct Wish {
    who: Who,
    from: Option<String>,
    scheduled_for: Option<i64>,
    due_at: Option<i64>,
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
    pub(super) since: i64,
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
    /// Admissions under a key that another of their batch has, where a third says otherwise.
    pub(crate) keys_of_three: Vec<usize>,
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
            keys: BTreeMap::new(),
            wishes: BTreeMap::new(),
            records: BTreeMap::new(),
            stories: BTreeMap::new(),
            holds: BTreeMap::new(),
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
        let turned_away = self.turn_away(asked, &mut leeway);
        let endings = asked
            .endings
            .iter()
            .map(|end| self.fence_ending(server, end));
        let newcomers = asked.admissions.iter().zip(&turned_away);
        let batch = Batch {
            endings: endings.chain(disowned).collect(),
            returns: unheard
                .iter()
                .chain(&asked.returns)
                .map(|back| self.fence_return(server, back))
                .collect(),
            admissions: newcomers
                .filter(|(_, turned_away)| turned_away.is_none())
                .map(|(call, _)| self.newcomer(call))
                .collect(),
            reserve: asked.reserve,
        };

        let mut settled = self.queue.settle(self.now, &batch);
        let gone = settled.endings.split_off(asked.endings.len());
        let (own, disowned) = batch.endings.split_at(asked.endings.len());
        self.note_endings(server, disowned, &gone);
        let holds = self.holds.clone();
        self.note_endings(server, own, &settled.endings);
        self.note_returns(server, unheard.iter().chain(&asked.returns), &settled);
        settled.returns.drain(..unheard.len());
        for id in &settled.expired {
            self.withdrawn(
                *id,
                "expired",
                "did not start before its expiry",
                Some(server),
            );
        }
        self.note_wishes(server, asked, &settled, &turned_away);
        self.note_starts(server, &settled);
        let admissions = self.doors(server, &mut settled, asked, turned_away, &mut leeway);
        self.complete_campaigns();
        let told = Settled {
            endings: settled.endings,
            // Told before it counts how long what ended held its slots.
            returns: settled
                .returns
                .iter()
                .map(|back| back.as_ref().map(|wait| self.wait(wait, &holds)))
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
                fenced.reason = Some("timed_out".into());
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

    /// Why a call is refused whose user is known, for what is not that user's.
    fn names_anothers(&self, call: &NewDirectCall) -> Option<Refusal> {
        let of = self.user_number(call.user_id);
        let agent = self.universe.agents.get(of)?;
        let contacts = &self.universe.contacts[of];
        if self.queue.item(call.item_id).is_some() {
            return None;
        }
        if *agent != call.agent_id {
            return Some(Refusal::UnknownAgent);
        }
        match call.target {
            Target::Contact(contact) if contacts.iter().all(|(own, _)| *own != contact) => {
                Some(Refusal::UnknownContact)
            }
            _ => None,
        }
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
        self.started(start.item_id, start.attempt.number)
    }

    fn started(&self, id: QueueItemId, attempt: u32) -> Start {
        let item = self.queue.item(id).unwrap();
        let of = self.user_number(item.user_id);
        let (provider, shown) = &self.universe.carriers[of];
        let wish = &self.wishes[&id];
        Start {
            item: self.number(id),
            of,
            call_type: item.origin.call_type(),
            attempt,
            who: wish.who.clone(),
            provider: provider.clone(),
            from: wish.from.clone().or_else(|| shown.clone()),
        }
    }

    fn wait(&self, waiting: &model::Waiting, holds: &BTreeMap<UserId, Holds>) -> Wait {
        let item = self.queue.item(waiting.item_id).unwrap();
        let mut place = self.in_queue(item, waiting.place);
        place.pace.holds = holds.get(&item.user_id).copied().unwrap_or_default();
        Wait {
            item: self.number(waiting.item_id),
            reason: waiting.reason.to_string(),
            place,
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
