//! Gathers operations into the next batch, with whom they mean as things stand.

use std::time::Duration;

use callq_domain::{
    Attempt, Ending, ExecutionId, IdempotencyKey, ItemStatus, KeptAnswer, NewDirectCall,
    QueueItemId, ReportedStatus, Return, SavedAnswer, StatusEvent, Target, UserId,
};
use chrono::DateTime;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Game;
use crate::model::known_differences as known;
use crate::model::operations::{By, Named, Op, Pick, USERS, Vain};
use crate::model::reference::call_of;
use crate::model::stage::OPENING;
use crate::scene::{direct_call, phone_number};

impl Game<'_> {
    /// Puts an operation into the next batch.
    pub(super) fn gather(&mut self, op: Op) {
        match op {
            Op::Ask {
                of,
                starts_in,
                expires_in,
            } => {
                let user = self.stage.universe.users[of];
                let mut call = self.direct_call(user, of);
                let at = starts_in.map(|ms| self.reference.now + i64::from(ms));
                call.scheduled_for = at.map(|ms| DateTime::from_timestamp_millis(ms).unwrap());
                call.expires_in = expires_in.map(|ms| Duration::from_millis(ms.into()));
                self.slots.admissions.push(call);
            }
            Op::AskByKey { of, key, body } => {
                let user = self.stage.universe.users[of];
                let mut call = self.direct_call(user, of);
                call.idempotency = Some(IdempotencyKey {
                    key: name_of(key),
                    request_hash: [body; 32],
                });
                self.slots.admissions.push(call);
            }
            Op::AskInVain { of, why } => {
                let user = self.stage.universe.users[of];
                let call = match why {
                    Vain::UnknownUser => {
                        self.direct_call(UserId::from(Uuid::from_u128(0xdead)), of)
                    }
                    Vain::AnothersAgent => self.direct_call(user, (of + 1) % USERS),
                    Vain::AnothersContact => {
                        let anothers = &self.stage.universe.contacts[(of + 1) % USERS];
                        let contact = anothers[0].0;
                        let mut call = self.direct_call(user, of);
                        call.target = Target::Contact(contact);
                        call
                    }
                };
                self.slots.admissions.push(call);
            }
            Op::End {
                call,
                by,
                outcome,
                named,
            } => {
                let attempt = match by {
                    By::TheCarrier => None,
                    By::ThisAttempt => Some(self.attempt(call, false).number),
                    By::AnEarlierAttempt => Some(self.attempt(call, true).number),
                };
                let ending = Ending {
                    call_id: call_of(self.pick(call)),
                    attempt,
                    outcome,
                    execution_id: self.execution(call, named),
                    reason: matches!(by, By::ThisAttempt).then(|| "refused".into()),
                    duration_seconds: matches!(named, Named::ItsName).then_some(7),
                };
                self.slots.endings.push(ending);
            }
            Op::Return {
                call,
                stale,
                delay,
                if_unknown,
            } => {
                let attempt = self.attempt(call, stale);
                self.slots.returns.push(Return {
                    attempt,
                    delay: Duration::from_millis(delay.into()),
                    reason: format!("no room, said at {}", self.reference.now - OPENING),
                    if_unknown,
                });
            }
            Op::Disown(pick) => {
                // Only direct calls are asked for at the door.
                let id = self.pick(pick);
                let item = self.reference.queue.item(id);
                if item.is_none_or(|item| item.origin.campaign_id().is_none()) {
                    self.slots.disowned.push(id);
                }
            }
            Op::Placed { call, stale } => {
                let name = self.execution(call, Named::ItsName).unwrap();
                self.progress.placed.push((self.attempt(call, stale), name));
            }
            Op::Lost { call, stale } => {
                let lost = (self.attempt(call, stale), "the answer was lost".to_owned());
                self.progress.unknown.push(lost);
            }
            Op::Tell {
                call,
                status,
                named,
            } => self.tell(call, status, named),
            Op::KeepAnswer { of, key } => {
                let user_id = self.stage.universe.users[of];
                let key = name_of(key);
                let mut kept = self.progress.answers.iter();
                if kept.all(|other| other.user_id != user_id || other.key != key) {
                    let answer = SavedAnswer {
                        status: 202,
                        body: format!("answered at {}", self.reference.now - OPENING),
                    };
                    self.progress.answers.push(KeptAnswer {
                        user_id,
                        key,
                        answer,
                    });
                }
            }
            other => unreachable!("{other:?} goes into no batch"),
        }
    }

    fn tell(&mut self, call: Pick, status: ReportedStatus, named: Named) {
        let id = self.pick(call);
        // Words for some, and the same for each of a status.
        let says = self.reference.number(id).is_multiple_of(3);
        let event = StatusEvent {
            event_id: "event".into(),
            call_id: call_of(id),
            execution_id: self.execution(call, named),
            status,
            occurred_at: DateTime::from_timestamp_millis(self.reference.now).unwrap(),
            duration_seconds: None,
            reason: says.then(|| format!("it is {}", status.as_str())),
        };
        let other_name = |of: &StatusEvent| {
            of.call_id == event.call_id
                && of.execution_id.is_some()
                && of.execution_id != event.execution_id
        };
        let named = event.execution_id.is_some();
        let differ = named && self.progress.events.iter().any(other_name);
        let nameless = !self.reference.is_named(event.call_id);
        if !(differ && nameless && known::NAMES_A_CALL_BY_ITS_FURTHEST_EVENT) {
            self.progress.events.push(event);
        }
    }

    /// To a number or to a contact, with a word of its own or without.
    fn direct_call(&mut self, user: UserId, agent: usize) -> NewDirectCall {
        self.asked += 1;
        let nth = self.asked;
        let universe = &self.stage.universe;
        let own = universe.users.iter().position(|of| *of == user);
        let target = match own.map(|of| &universe.contacts[of]) {
            Some(contacts) if nth.is_multiple_of(3) => {
                Target::Contact(contacts[usize::try_from(nth).unwrap() % contacts.len()].0)
            }
            _ => {
                let number = phone_number(u32::try_from(nth).unwrap());
                Target::Number(number.parse().unwrap())
            }
        };
        let data = nth
            .is_multiple_of(5)
            .then(|| format!("{{\"asked\": {nth}}}"));
        NewDirectCall {
            item_id: QueueItemId::from(Uuid::from_u128(0xd000_0000 + nth)),
            contact_name: nth.is_multiple_of(4).then(|| format!("Eve {nth}")),
            user_data: data.map(|data| RawValue::from_string(data).unwrap()),
            caller_id: nth.is_multiple_of(7).then(|| phone_number(4_001)),
            ..direct_call(user, universe.agents[agent], target)
        }
    }

    pub(super) fn pick(&self, pick: Pick) -> QueueItemId {
        let items = self.reference.items.iter().copied();
        let of_status = |status| {
            let queue = &self.reference.queue;
            items
                .clone()
                .filter(move |id| queue.item(*id).unwrap().status == status)
        };
        let (nth, among): (usize, Vec<QueueItemId>) = match pick {
            Pick::Up(nth) => (nth, of_status(ItemStatus::Processing).collect()),
            Pick::Waiting(nth) => (nth, of_status(ItemStatus::Queued).collect()),
            Pick::Any(nth) => (nth, items.collect()),
            Pick::Nobody => (0, Vec::new()),
        };
        match among.len() {
            0 => QueueItemId::from(Uuid::from_u128(0xdead)),
            count => among[nth % count],
        }
    }

    fn attempts(&self, pick: Pick) -> u32 {
        let item = self.reference.queue.item(self.pick(pick));
        item.map_or(0, |item| item.attempts)
    }

    pub(super) fn attempt(&self, pick: Pick, stale: bool) -> Attempt {
        Attempt {
            call_id: call_of(self.pick(pick)),
            number: self.attempts(pick).saturating_sub(stale.into()),
        }
    }

    fn execution(&self, pick: Pick, named: Named) -> Option<ExecutionId> {
        let item = self.reference.number(self.pick(pick));
        let name = match named {
            Named::Unnamed => return None,
            Named::ItsName => format!("call {item}, attempt {}", self.attempts(pick)),
            Named::AnotherName => "another".to_owned(),
        };
        ExecutionId::new(name)
    }
}

fn name_of(key: u8) -> String {
    format!("key {key}")
}
