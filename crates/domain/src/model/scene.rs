//! A stage for the model's tests: small numbers for ids, a clock that is moved by hand, and a
//! check of every invariant after each settlement.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    Attempt, CallId, CallType, CampaignId, ConcurrencyLimit, Ending, Outcome, Priority,
    QueueItemId, Return, UserId, Weight,
};

use super::{Admission, Batch, CampaignItem, Item, Newcomer, Queue, Settled};

pub(super) fn user(n: u128) -> UserId {
    UserId::from(Uuid::from_u128(n))
}

pub(super) fn campaign(n: u128) -> CampaignId {
    CampaignId::from(Uuid::from_u128(n))
}

pub(super) fn item(n: u128) -> QueueItemId {
    QueueItemId::from(Uuid::from_u128(n))
}

pub(super) fn limit(slots: u32) -> ConcurrencyLimit {
    ConcurrencyLimit::new(slots.into()).expect("a small number")
}

pub(super) fn weight(turns: u16) -> Weight {
    Weight::new(turns.into()).expect("in range")
}

/// Nothing to settle but what waits and what time brings.
pub(super) fn sweep() -> Batch {
    Batch {
        reserve: u32::MAX,
        ..Batch::default()
    }
}

pub(super) fn ending(item: QueueItemId, attempt: Option<u32>) -> Ending {
    Ending {
        call_id: CallId::from(item.as_uuid()),
        attempt,
        outcome: Outcome::Completed,
        execution_id: None,
        reason: None,
        duration_seconds: None,
    }
}

pub(super) fn back(item: QueueItemId, number: u32, delay_ms: u64) -> Return {
    Return {
        attempt: Attempt {
            call_id: CallId::from(item.as_uuid()),
            number,
        },
        delay: Duration::from_millis(delay_ms),
        reason: "the provider has no room".into(),
        if_unknown: false,
    }
}

pub(super) fn campaign_item(id: u128, priority: i32) -> CampaignItem {
    CampaignItem {
        id: item(id),
        priority: Priority::new(priority),
        wakes_at: None,
        expires_at: None,
    }
}

/// A queue, the time, and the next unused item id.
pub(super) struct Scene {
    pub(super) queue: Queue,
    pub(super) now: i64,
    next_item: u128,
}

impl Scene {
    /// A system of so many slots, with users 1, 2, … of these limits.
    pub(super) fn new(system: u32, users: &[u32]) -> Self {
        let mut queue = Queue::new(limit(system));
        for (n, slots) in (1..).zip(users) {
            queue.add_user(user(n), limit(*slots)).expect("new");
        }
        Self {
            queue,
            now: 0,
            next_item: 1,
        }
    }

    pub(super) fn settle(&mut self, batch: &Batch) -> Settled {
        let settled = self.queue.settle(self.now, batch);
        assert_eq!(self.queue.check(), []);
        settled
    }

    /// Settles nothing new; the items that started.
    pub(super) fn sweep(&mut self) -> Vec<QueueItemId> {
        started(&self.settle(&sweep()))
    }

    pub(super) fn sweep_at(&mut self, now: i64) -> Vec<QueueItemId> {
        self.now = now;
        self.sweep()
    }

    /// A newcomer with the next id.
    pub(super) fn newcomer(&mut self, of: u128) -> Newcomer {
        self.next_item += 1;
        Newcomer::now(item(self.next_item - 1), user(of))
    }

    /// Brings one newcomer to the door.
    pub(super) fn admit(&mut self, new: Newcomer) -> Admission {
        let batch = Batch {
            admissions: vec![new],
            ..sweep()
        };
        self.settle(&batch).admissions.remove(0)
    }

    /// A direct call now; its id, and what the door said.
    pub(super) fn ask(&mut self, of: u128) -> (QueueItemId, Admission) {
        let new = self.newcomer(of);
        (new.item_id, self.admit(new))
    }

    /// So many direct calls that all wait, because nothing may start while they come.
    pub(super) fn line_up(&mut self, of: u128, count: usize) -> Vec<QueueItemId> {
        let admissions: Vec<_> = (0..count).map(|_| self.newcomer(of)).collect();
        let ids = admissions.iter().map(|new| new.item_id).collect();
        self.queue.set_paused(true);
        self.settle(&Batch {
            admissions,
            ..Batch::default()
        });
        self.queue.set_paused(false);
        ids
    }

    /// So many items of priority 0 in a campaign, made and opened if it is new.
    pub(super) fn enqueue(
        &mut self,
        of: u128,
        in_campaign: u128,
        count: usize,
    ) -> Vec<QueueItemId> {
        let _ = self
            .queue
            .add_campaign(user(of), campaign(in_campaign), true);
        let first = self.next_item;
        self.next_item += count as u128;
        let items: Vec<_> = (first..self.next_item)
            .map(|id| campaign_item(id, 0))
            .collect();
        self.queue
            .enqueue_campaign_items(campaign(in_campaign), &items)
            .expect("the campaign is there");
        items.into_iter().map(|item| item.id).collect()
    }

    /// Ends a call and hands on its slot; the items that started.
    pub(super) fn end(&mut self, ended: QueueItemId) -> Vec<QueueItemId> {
        let batch = Batch {
            endings: vec![ending(ended, None)],
            ..sweep()
        };
        started(&self.settle(&batch))
    }

    /// Returns an attempt and hands on its slot.
    pub(super) fn put_back(&mut self, id: QueueItemId, number: u32, delay_ms: u64) -> Settled {
        let batch = Batch {
            returns: vec![back(id, number, delay_ms)],
            ..sweep()
        };
        self.settle(&batch)
    }

    /// Starts calls one at a time, each when the one before has ended; the users in the order of
    /// their turns. Leaves no call up.
    pub(super) fn turns(&mut self, class: CallType, count: usize) -> Vec<UserId> {
        let went = self.one_by_one(class, count).into_iter();
        went.map(|item| item.user_id).collect()
    }

    /// As [`Scene::turns`]; the campaigns.
    pub(super) fn campaign_turns(&mut self, count: usize) -> Vec<CampaignId> {
        let went = self.one_by_one(CallType::Campaign, count).into_iter();
        went.filter_map(|item| item.origin.campaign_id()).collect()
    }

    fn one_by_one(&mut self, class: CallType, count: usize) -> Vec<Item> {
        let mut order = Vec::new();
        while order.len() < count {
            let next = Batch {
                reserve: 1,
                ..Batch::default()
            };
            let settled = self.queue.settle(self.now, &next);
            let Some(start) = settled.reserved.first() else {
                break;
            };
            let item = self.queue.item(start.item_id).expect("it started");
            assert_eq!(item.origin.call_type(), class);
            order.push(item.clone());
            let end = Batch {
                endings: vec![ending(start.item_id, None)],
                ..Batch::default()
            };
            self.queue.settle(self.now, &end);
        }
        assert_eq!(self.queue.check(), []);
        order
    }
}

pub(super) fn started(settled: &Settled) -> Vec<QueueItemId> {
    settled.reserved.iter().map(|start| start.item_id).collect()
}

/// The door's reason to let a call wait.
pub(super) fn reason(admission: &Admission) -> String {
    match admission {
        Admission::Queued(waiting) => waiting.reason.to_string(),
        other => panic!("it should wait: {other:?}"),
    }
}

pub(super) fn is_started(admission: &Admission) -> bool {
    matches!(admission, Admission::Started(_))
}
