//! What must be noted of what happens: who asked for what, how calls went, how long they lasted.

use callq_domain::model;
use callq_domain::{
    CallStatus, Ending, EndingEffect, NewDirectCall, QueueItemId, Return, ServerId, SlotBatch,
    Target,
};

use super::{Current, Reference, Wish, item_of};
use crate::model::answers::{Door, Record, Step, Who};

impl Reference {
    pub(super) fn tell_of(
        &mut self,
        id: QueueItemId,
        status: &str,
        attempt: Option<u32>,
        reason: Option<&str>,
        server: Option<ServerId>,
    ) {
        let step = Step {
            at: Some(self.now),
            attempt,
            status: status.into(),
            reason: reason.map(Into::into),
            server,
        };
        self.stories.entry(id).or_default().push(step);
    }

    pub(super) fn note_endings(
        &mut self,
        server: ServerId,
        endings: &[Ending],
        effects: &[EndingEffect],
    ) {
        let mut held: Vec<(_, i64)> = Vec::new();
        for (ending, _) in endings
            .iter()
            .zip(effects)
            .filter(|(_, e)| **e == EndingEffect::Ended)
        {
            let id = item_of(ending.call_id);
            let now = &self.attempts[&id];
            let execution = now.execution.as_ref().or(ending.execution_id.as_ref());
            let execution = execution.map(ToString::to_string);
            let (number, lasted) = (now.number, self.now - now.since);
            if execution.is_some() {
                held.push((self.queue.item(id).unwrap().user_id, lasted));
            }
            let record = self.records.get_mut(&id).unwrap();
            record.execution = execution;
            record.reason.clone_from(&ending.reason);
            record.duration = ending.duration_seconds;
            record.ended_at = Some(self.now);
            let ended_as = CallStatus::Ended(ending.outcome);
            let reason = ending.reason.as_deref();
            self.tell_of(id, ended_as.as_str(), Some(number), reason, Some(server));
        }
        for user in self.universe.users.clone() {
            let of_user = held.iter().filter(|(of, _)| *of == user);
            let lasted: Vec<i64> = of_user.map(|(_, ms)| *ms).collect();
            self.count_holds(user, &lasted);
        }
    }

    /// The mean of a batch weighs as much as its calls would have one after the other.
    fn count_holds(&mut self, user: callq_domain::UserId, lasted_ms: &[i64]) {
        let Ok(count) = u32::try_from(lasted_ms.len()) else {
            return;
        };
        if count == 0 {
            return;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "the milliseconds of a short script"
        )]
        let mean = lasted_ms.iter().sum::<i64>() as f64 / f64::from(count);
        let holds = self.holds.entry(user).or_default();
        let weight = if holds.samples == 0 {
            1.0
        } else {
            1.0 - 0.8_f64.powi(count.cast_signed())
        };
        holds.mean_ms += weight * (mean - holds.mean_ms);
        holds.samples += count;
    }

    pub(super) fn note_returns<'a>(
        &mut self,
        server: ServerId,
        asked: impl Iterator<Item = &'a Return>,
        settled: &model::Settled,
    ) {
        for (back, waits) in asked.zip(&settled.returns) {
            let Some(waits) = waits else {
                continue;
            };
            let id = waits.item_id;
            self.words.insert(id, back.reason.clone());
            self.records.get_mut(&id).unwrap().reason = Some(back.reason.clone());
            let (attempt, reason) = (Some(back.attempt.number), Some(back.reason.as_str()));
            self.tell_of(id, "queued", attempt, reason, Some(server));
        }
    }

    /// An item ends that holds no slot.
    pub(super) fn withdrawn(
        &mut self,
        id: QueueItemId,
        status: &str,
        reason: &str,
        server: Option<ServerId>,
    ) {
        let record = self.records.entry(id).or_default();
        record.reason = Some(reason.into());
        record.ended_at = Some(self.now);
        self.tell_of(id, status, None, Some(reason), server);
    }

    /// Notes what those asked for who are accepted at the door.
    pub(super) fn note_wishes(
        &mut self,
        server: ServerId,
        asked: &SlotBatch,
        settled: &model::Settled,
        turned_away: &[Option<Door>],
    ) {
        let admitted = asked.admissions.iter().zip(turned_away);
        let admitted = admitted.filter(|(_, turned_away)| turned_away.is_none());
        for ((call, _), verdict) in admitted.zip(&settled.admissions) {
            match verdict {
                model::Admission::Queued(_) => {
                    self.count_in(call.item_id);
                    self.tell_of(call.item_id, "queued", None, None, Some(server));
                }
                model::Admission::Started(_) => self.count_in(call.item_id),
                _ => continue,
            }
            let scheduled_for = self.queue.item(call.item_id).unwrap().wakes_at;
            let wish = Wish {
                who: self.who(call),
                from: call.caller_id.clone(),
                scheduled_for,
                due_at: Some(scheduled_for.unwrap_or(self.now)),
            };
            self.wishes.insert(call.item_id, wish);
        }
    }

    fn who(&self, call: &NewDirectCall) -> Who {
        let mut who = match &call.target {
            Target::Number(number) => Who {
                number: number.to_string(),
                name: None,
                data: None,
            },
            Target::Contact(contact) => {
                let own = &self.universe.contacts[self.user_number(call.user_id)];
                own.iter().find(|(id, _)| id == contact).unwrap().1.clone()
            }
        };
        if let Some(name) = &call.contact_name {
            who.name = Some(name.clone());
        }
        if let Some(data) = &call.user_data {
            who.data = Some(data.get().to_owned());
        }
        who
    }

    pub(super) fn note_starts(&mut self, server: ServerId, settled: &model::Settled) {
        self.forget_ended();
        let admissions = settled.admissions.iter();
        let at_the_door = admissions.filter_map(|admission| match admission {
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
                since: self.now,
            };
            self.attempts.insert(start.item_id, now);
            let record = Record {
                reserved_at: self.now,
                ..Record::default()
            };
            self.records.insert(start.item_id, record);
            for status in ["reserved", "dialing"] {
                let attempt = Some(start.attempt.number);
                self.tell_of(start.item_id, status, attempt, None, Some(server));
            }
        }
    }

    /// What happened to an item, step by step.
    pub(crate) fn story(&self, id: QueueItemId) -> Vec<Step> {
        let mut story = self.stories[&id].clone();
        story.sort();
        story
    }
}
