//! What must become of progress: placements, lost answers, events; and of ownership.

use callq_domain::model::Batch;
use callq_domain::{
    Attempt, CallId, CallStatus, ExecutionId, ProgressBatch, ReportedStatus, ServerId, StatusEvent,
};

use super::{Current, Reference, call_of, item_of};
use crate::model::answers::Progressed;

impl Reference {
    /// Records progress in the order in which a store does.
    pub(crate) fn record_progress(
        &mut self,
        server: ServerId,
        asked: &ProgressBatch,
    ) -> Progressed {
        let mut told = Progressed {
            placed: Vec::new(),
            unknown: Vec::new(),
            events: Vec::new(),
        };
        self.keep_answers(&asked.answers);
        for (attempt, execution) in &asked.placed {
            told.placed.push(self.take(server, attempt, execution));
        }
        for event in &asked.events {
            let call = self.known_call(event.call_id);
            if told.events.iter().all(|(of, _)| *of != call) {
                told.events
                    .push((call, self.tell(server, event.call_id, asked)));
            }
        }
        for (attempt, reason) in &asked.unknown {
            told.unknown.push(self.lose(server, attempt, reason));
        }
        told
    }

    fn take(&mut self, server: ServerId, attempt: &Attempt, execution: &ExecutionId) -> bool {
        let status = self.status(attempt.call_id);
        let news = self.own_attempt(server, attempt).is_some_and(|now| {
            let news = now.execution.is_none();
            now.execution.get_or_insert_with(|| execution.clone());
            news
        });
        if news {
            let id = item_of(attempt.call_id);
            if status == Some(CallStatus::Unknown) {
                self.queue.progress(attempt.call_id, CallStatus::Dialing);
            }
            let record = self.records.get_mut(&id).unwrap();
            record.execution = Some(execution.to_string());
            record.reason = None;
            self.tell_of(id, "placed", Some(attempt.number), None, Some(server));
        }
        news
    }

    fn lose(&mut self, server: ServerId, attempt: &Attempt, reason: &str) -> bool {
        let dialing = self.status(attempt.call_id) == Some(CallStatus::Dialing);
        let nameless = |now: &mut Current| now.execution.is_none();
        let lost = dialing && self.own_attempt(server, attempt).is_some_and(nameless);
        if lost {
            let id = item_of(attempt.call_id);
            self.queue.progress(attempt.call_id, CallStatus::Unknown);
            self.records.get_mut(&id).unwrap().reason = Some(reason.into());
            let number = Some(attempt.number);
            self.tell_of(id, "unknown", number, Some(reason), Some(server));
        }
        lost
    }

    /// Of several events for one call the furthest of its own execution counts.
    fn tell(&mut self, server: ServerId, call: CallId, asked: &ProgressBatch) -> bool {
        let id = item_of(call);
        let Some(now) = self.attempts.get_mut(&id) else {
            return false;
        };
        let events = asked.events.iter().filter(|event| event.call_id == call);
        let own = |event: &&StatusEvent| now.is_called(event.execution_id.as_ref());
        let own: Vec<&StatusEvent> = events.filter(own).collect();
        let name = own.iter().find_map(|event| event.execution_id.clone());
        if now.execution.is_none() && name.is_some() {
            now.execution.clone_from(&name);
            let record = self.records.get_mut(&id).unwrap();
            record.execution = name.map(|name| name.to_string());
        }
        let number = now.number;
        let far = |event: &&&StatusEvent| match event.status {
            ReportedStatus::Initiated => 0,
            ReportedStatus::Ringing => 1,
            _ => 2,
        };
        let Some(furthest) = own.iter().max_by_key(far) else {
            return false;
        };
        let status = furthest.status.as_call_status();
        if !self.queue.progress(call, status) {
            return false;
        }
        let record = self.records.get_mut(&id).unwrap();
        record.reason.clone_from(&furthest.reason);
        if status == CallStatus::InProgress {
            record.answered_at = Some(self.now);
        }
        let reason = furthest.reason.as_deref();
        self.tell_of(id, status.as_str(), Some(number), reason, Some(server));
        true
    }

    /// A call goes on being known when its item waits again, and when it is withdrawn there.
    fn known_call(&self, call: CallId) -> Option<usize> {
        let item = self.queue.item(item_of(call))?;
        item.call_id.map(|_| self.number(item.id))
    }

    /// Whether a call is up and its provider's name for it is known.
    pub(crate) fn is_named(&self, call: CallId) -> bool {
        let now = self.attempts.get(&item_of(call));
        now.is_some_and(|now| now.execution.is_some())
    }

    fn status(&self, call: CallId) -> Option<CallStatus> {
        self.queue.item(item_of(call))?.call_status
    }

    fn own_attempt(&mut self, server: ServerId, attempt: &Attempt) -> Option<&mut Current> {
        let now = self.attempts.get_mut(&item_of(attempt.call_id))?;
        (now.owner == server && now.number == attempt.number).then_some(now)
    }

    /// From now on the call ends as failed.
    pub(crate) fn give_up(&mut self, server: ServerId, attempt: &Attempt) {
        if let Some(now) = self.own_attempt(server, attempt) {
            now.overdue = true;
        }
    }

    /// Takes a dead server's calls over: what was being dialled is unknown. Returns what the heir
    /// now holds.
    pub(crate) fn take_over(&mut self, dead: ServerId, heir: ServerId) -> Vec<usize> {
        let mut kept = Vec::new();
        let owned = self
            .attempts
            .iter_mut()
            .filter(|(_, now)| now.owner == dead);
        for (id, now) in owned {
            now.owner = heir;
            now.settlement = 0;
            let status = self.queue.item(*id).and_then(|item| item.call_status);
            if status == Some(CallStatus::Dialing) && now.execution.is_none() {
                self.queue.progress(call_of(*id), CallStatus::Unknown);
                let record = self.records.get_mut(id).unwrap();
                record.reason = Some("its server stopped while dialing".into());
            }
            kept.push((*id, now.number));
        }
        for (id, number) in &kept {
            let status = self.status(call_of(*id)).unwrap();
            let why = "taken over from a server that is gone";
            self.tell_of(*id, status.as_str(), Some(*number), Some(why), Some(heir));
        }
        // The heir looks at the queue.
        let settled = self.queue.settle(self.now, &Batch::default());
        for id in settled.expired {
            self.withdrawn(id, "expired", "did not start before its expiry", Some(heir));
        }
        self.complete_campaigns();
        let mut kept: Vec<usize> = kept.iter().map(|(id, _)| self.number(*id)).collect();
        kept.sort_unstable();
        kept
    }
}
