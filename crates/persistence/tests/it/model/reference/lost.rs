//! What must become of that which settlements took whose answers were lost.

use std::time::Duration;

use callq_domain::{Attempt, Ending, Outcome, QueueItemId, Return, ServerId, SlotBatch};

use super::{Reference, call_of};

impl Reference {
    /// Whether an item's slot was taken by a settlement of this server that was not answered.
    pub(super) fn is_unheard(&self, server: ServerId, asked: &SlotBatch, id: QueueItemId) -> bool {
        let now = self.attempts.get(&id).filter(|now| now.owner == server);
        now.is_some_and(|now| {
            asked
                .answered
                .is_some_and(|answered| now.settlement > answered)
        })
    }

    /// The returns of what nobody was told of and nobody asks for again.
    pub(super) fn unheard(&self, server: ServerId, asked: &SlotBatch) -> Vec<Return> {
        let asked_again = |id| asked.admissions.iter().any(|call| call.item_id == id);
        let attempts = self.attempts.iter();
        attempts
            .filter(|(id, _)| self.is_unheard(server, asked, **id))
            .filter(|(id, _)| !asked.disowned.contains(id) && !asked_again(**id))
            .map(|(id, now)| Return {
                attempt: Attempt {
                    call_id: call_of(*id),
                    number: now.number,
                },
                delay: Duration::ZERO,
                reason: "the answer that reserved it was lost".into(),
                if_unknown: false,
            })
            .collect()
    }

    /// Withdraws what was told not to be accepted; the endings of what nobody was told has a slot.
    pub(super) fn disown(&mut self, server: ServerId, asked: &SlotBatch) -> Vec<Ending> {
        const TOLD_NO: &str = "its caller was told that it was not accepted";
        let mut endings = Vec::new();
        for id in &asked.disowned {
            if self.queue.cancel(*id) == Some(Ok(())) {
                self.withdrawn(*id, "cancelled", TOLD_NO, Some(server));
                self.disown_keys(&[*id]);
            }
            if self.is_unheard(server, asked, *id) {
                self.disown_keys(&[*id]);
                let ending = Ending {
                    call_id: call_of(*id),
                    attempt: None,
                    outcome: Outcome::Cancelled,
                    execution_id: None,
                    reason: Some(TOLD_NO.into()),
                    duration_seconds: None,
                };
                endings.push(self.fence_ending(server, &ending));
            }
        }
        self.leave_keys(&asked.disowned);
        endings
    }
}
