//! What must be said at the door.

use callq_domain::{
    CallType, ItemStatus, QueueItemId, QueueReason, Refusal, ServerId, SlotBatch, SlotUse, model,
};

use super::{Leeway, Reference};
use crate::model::answers::{Door, Wait};

impl Reference {
    pub(super) fn doors(
        &mut self,
        server: ServerId,
        settled: &mut model::Settled,
        asked: &SlotBatch,
        turned_away: Vec<Option<Door>>,
        leeway: &mut Leeway,
    ) -> Vec<Door> {
        let full = self.full_at_the_door(settled);
        let mut verdicts = std::mem::take(&mut settled.admissions).into_iter();
        let mut doors = Vec::new();
        for (nth, (call, turned_away)) in asked.admissions.iter().zip(turned_away).enumerate() {
            if let Some(door) = turned_away {
                doors.push(door);
                continue;
            }
            let verdict = verdicts.next().unwrap();
            doors.push(match verdict {
                model::Admission::Started(start) => Door::Started(self.start(&start)),
                model::Admission::Queued(waiting) => {
                    if matches!(waiting.reason, QueueReason::Scheduled(_)) {
                        let place = self.place(call.item_id).unwrap();
                        leeway.places_in_the_end.push((nth, place));
                    }
                    if let (QueueReason::EarlierDirectCalls { .. }, Some(full)) =
                        (&waiting.reason, &full)
                    {
                        leeway.reasons_in_the_end.push((nth, full.to_string()));
                    }
                    Door::Waits(self.wait(&waiting, &self.holds))
                }
                model::Admission::Refused(Refusal::QueueFull(full)) => {
                    self.disown_keys(&[call.item_id]);
                    let holds = self.holds.get(&call.user_id).copied().unwrap_or_default();
                    Door::full(&full, holds)
                }
                model::Admission::Refused(refusal) => Door::Refused(refusal),
                model::Admission::Known(status) => {
                    leeway.repeated.push(nth);
                    settled
                        .reserved
                        .retain(|start| start.item_id != call.item_id);
                    self.door_of_known(server, asked, call.item_id, status)
                }
            });
        }
        doors
    }

    /// That the system was full when all newcomers had been judged, and no campaign call had
    /// started yet, if it was.
    fn full_at_the_door(&self, settled: &model::Settled) -> Option<QueueReason> {
        let system = self.queue.system();
        let campaign = |start: &&model::Start| self.start(start).call_type == CallType::Campaign;
        let later = settled.reserved.iter().filter(campaign).count();
        let slots = SlotUse {
            limit: system.limit,
            active: system.active - u32::try_from(later).unwrap(),
        };
        (slots.available() == 0).then_some(QueueReason::SystemLimit(slots))
    }

    /// What is said of a call that came before. One that started is its caller's to place only
    /// where nobody was told of it.
    fn door_of_known(
        &mut self,
        server: ServerId,
        asked: &SlotBatch,
        id: QueueItemId,
        status: ItemStatus,
    ) -> Door {
        let unheard = self.is_unheard(server, asked, id);
        if let Some(now) = self.attempts.get_mut(&id).filter(|_| unheard) {
            now.settlement = self.settlements[&server];
        }
        let item = self.queue.item(id).unwrap();
        match status {
            ItemStatus::Processing if unheard => Door::Started(self.started(id, item.attempts)),
            ItemStatus::Queued => Door::Waits(Wait {
                item: self.number(id),
                reason: String::new(),
                place: self.place(id).unwrap(),
                expires_at: item.expires_at,
            }),
            _ => Door::Before(self.number(id)),
        }
    }
}
