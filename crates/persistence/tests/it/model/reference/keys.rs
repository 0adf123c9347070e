//! What must be said at the door before anybody looks at slots: what names another user's, and what is
//! asked under an idempotency key that is known.

use callq_domain::{
    IdempotencyKey, KeptAnswer, NewDirectCall, QueueItemId, Repeat, SavedAnswer, SlotBatch, UserId,
};

use super::{Leeway, Reference};
use crate::model::answers::Door;

const A_DAY: i64 = 24 * 3_600 * 1_000;
/// Longer than any placement takes.
const SIX_MINUTES: i64 = 6 * 60 * 1_000;

/// What is kept under a key.
pub(super) struct Kept {
    request_hash: [u8; 32],
    item: QueueItemId,
    at: i64,
    answer: Option<SavedAnswer>,
    /// Whoever asked was told no, and nobody will answer any more.
    left: bool,
}

impl Reference {
    /// The answers to those who get no further.
    pub(super) fn turn_away(
        &mut self,
        asked: &SlotBatch,
        leeway: &mut Leeway,
    ) -> Vec<Option<Door>> {
        let keys = asked.admissions.iter().filter_map(key_of);
        for key in keys {
            let old = |kept: &Kept| kept.at <= self.now - A_DAY;
            if self.keys.get(&key).is_some_and(old) {
                self.keys.remove(&key);
            }
        }
        let mut doors = Vec::new();
        let mut taken: Vec<(UserId, String)> = Vec::new();
        for (nth, call) in asked.admissions.iter().enumerate() {
            let refused = self.names_anothers(call).map(Door::Refused);
            let again = self.queue.item(call.item_id).is_some();
            let (Some(key), Some(idempotency), false) = (key_of(call), &call.idempotency, again)
            else {
                doors.push(refused);
                continue;
            };
            if let Some(kept) = self.keys.get(&key) {
                let door = self.door_of_kept(kept, idempotency);
                if !taken.contains(&key) {
                    doors.push(Some(door));
                    continue;
                }
                doors.push(refused.or(Some(door)));
                if says_otherwise(asked, call) {
                    leeway.keys_of_three.push(nth);
                }
                continue;
            }
            let user = self.queue.user(call.user_id);
            let pays = user.is_some_and(|user| user.credits.is_none_or(|left| left > 0));
            if refused.is_none() && pays {
                let kept = Kept {
                    request_hash: idempotency.request_hash,
                    item: call.item_id,
                    at: self.now,
                    answer: None,
                    left: false,
                };
                self.keys.insert(key.clone(), kept);
                taken.push(key);
            }
            doors.push(refused);
        }
        doors
    }

    fn door_of_kept(&self, kept: &Kept, asked: &IdempotencyKey) -> Door {
        if kept.request_hash != asked.request_hash {
            return Door::Repeated(Repeat::Mismatch);
        }
        match &kept.answer {
            Some(answer) => Door::Repeated(Repeat::Answered(answer.clone())),
            // Every server of a script lives.
            None if !kept.left && kept.at > self.now - SIX_MINUTES => {
                Door::Repeated(Repeat::InProgress)
            }
            None => Door::Before(self.number(kept.item)),
        }
    }

    /// What was told not to be accepted has no key any more, unless it was answered after all.
    pub(super) fn disown_keys(&mut self, items: &[QueueItemId]) {
        self.keys
            .retain(|_, kept| kept.answer.is_some() || !items.contains(&kept.item));
    }

    /// What was told not to be accepted, and is there all the same, is told to whoever asks again.
    pub(super) fn leave_keys(&mut self, items: &[QueueItemId]) {
        for kept in self.keys.values_mut() {
            kept.left |= items.contains(&kept.item);
        }
    }

    pub(super) fn keep_answers(&mut self, answers: &[KeptAnswer]) {
        for kept in answers {
            if let Some(own) = self.keys.get_mut(&(kept.user_id, kept.key.clone())) {
                own.answer = Some(kept.answer.clone());
            }
        }
    }
}

fn key_of(call: &NewDirectCall) -> Option<(UserId, String)> {
    let key = call.idempotency.as_ref()?;
    Some((call.user_id, key.key.clone()))
}

/// Whether anybody in the batch uses the call's key for another body.
fn says_otherwise(asked: &SlotBatch, call: &NewDirectCall) -> bool {
    let hash = |call: &NewDirectCall| call.idempotency.as_ref().map(|key| key.request_hash);
    let others = asked.admissions.iter();
    let mut others = others.filter(|other| key_of(other) == key_of(call));
    others.any(|other| hash(other) != hash(call))
}
