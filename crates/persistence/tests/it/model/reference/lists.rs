//! What must be listed: pages of items, calls up and ended, and a user's queue in figures.

use std::cmp::Reverse;

use callq_domain::model::Item;
use callq_domain::{
    CallStatus, CallType, CampaignStatus, ItemStatus, Outcome, QueueItemId, ServerId, SlotUse,
};

use super::Reference;
use crate::model::answers::{Figures, Glance, OnRecord, Who};

impl Reference {
    fn of_user(&self, of: usize) -> impl Iterator<Item = &Item> {
        let user = self.universe.users[of];
        let items = self.items.iter().map(|id| self.queue.item(*id).unwrap());
        items.filter(move |item| item.user_id == user)
    }

    fn is_draft(&self, item: &Item) -> bool {
        let drafts = self.campaigns.iter();
        let mut drafts = drafts.filter(|campaign| campaign.status == CampaignStatus::Draft);
        drafts.any(|campaign| item.origin.campaign_id() == Some(campaign.id))
    }

    /// The items of one page, and whether another page follows: those after one that was seen
    /// last, direct before campaign, newest due first.
    pub(crate) fn page(
        &self,
        of: usize,
        status: Option<ItemStatus>,
        limit: usize,
        after: Option<usize>,
    ) -> (Vec<usize>, bool) {
        let key = |id: &QueueItemId| {
            let campaign = self.queue.item(*id).unwrap().origin.campaign_id();
            // Campaigns are due as of when they were made.
            let made = self.campaigns.iter().position(|c| Some(c.id) == campaign);
            (
                campaign.is_some(),
                Reverse((made, self.wishes[id].due_at, id.as_uuid())),
            )
        };
        let after = after.map(|nth| key(&self.items[nth]));
        let wanted = self.of_user(of).filter(|item| {
            !self.is_draft(item) && status.is_none_or(|status| item.status == status)
        });
        let mut ids: Vec<QueueItemId> = wanted.map(|item| item.id).collect();
        ids.sort_by_key(key);
        ids.retain(|id| after.is_none_or(|after| key(id) > after));
        let more = ids.len() > limit;
        ids.truncate(limit);
        (ids.iter().map(|id| self.number(*id)).collect(), more)
    }

    /// A user's calls: those that are up, the last to start first, then those that ended.
    pub(crate) fn calls(&self, of: usize) -> Vec<usize> {
        let calls = self.of_user(of).filter(|item| item.call_status.is_some());
        let mut ids: Vec<QueueItemId> = calls.map(|item| item.id).collect();
        ids.sort_by_key(|id| {
            let record = &self.records[id];
            let ended = record.ended_at;
            let at = ended.unwrap_or(record.reserved_at);
            (ended.is_some(), Reverse((at, id.as_uuid())))
        });
        ids.iter().map(|id| self.number(*id)).collect()
    }

    /// Calls that hold a slot, by number.
    pub(crate) fn up(&self) -> Vec<(usize, CallStatus)> {
        let status = |id: &QueueItemId| self.queue.item(*id).and_then(|item| item.call_status);
        let items = self.items.iter().enumerate();
        items
            .filter_map(|(nth, id)| Some((nth, status(id)?)))
            .filter(|(_, status)| !status.is_terminal())
            .collect()
    }

    /// Those of a server that are to be asked about.
    pub(crate) fn doubtful(&self, server: ServerId) -> Vec<usize> {
        let up = self.up().into_iter();
        let unknown = up.filter(|(_, status)| *status == CallStatus::Unknown);
        unknown
            .map(|(nth, _)| nth)
            .filter(|nth| self.attempts[&self.items[*nth]].owner == server)
            .collect()
    }

    /// A call as its owner finds it on record; none for an item that never had one. While its item
    /// waits again its slot is the next thing it will have; withdrawn there it is cancelled.
    pub(crate) fn on_record(&self, id: QueueItemId) -> Option<OnRecord> {
        let item = self.queue.item(id)?;
        item.call_id?;
        let status = match (item.status, item.call_status) {
            (_, Some(status)) => status,
            (ItemStatus::Queued, None) => CallStatus::Reserved,
            (_, None) => CallStatus::Ended(Outcome::Cancelled),
        };
        let of = self.user_number(item.user_id);
        Some(OnRecord {
            item: self.number(id),
            status,
            attempts: item.attempts,
            // What is passed to the provider is not on a call's record.
            who: Who {
                data: None,
                ..self.wishes[&id].who.clone()
            },
            provider: self.universe.carriers[of].0.clone(),
            record: self.records[&id].clone(),
            history: self.stories[&id].len(),
        })
    }

    /// A user's queue at a glance.
    pub(crate) fn glance(&self, of: usize) -> Glance {
        let id = self.universe.users[of];
        let (user, system) = (self.queue.user(id).unwrap(), self.queue.system());
        let direct = |item: &&Item| item.origin.call_type() == CallType::Direct;
        let waiting = self.of_user(of).filter(direct).filter(|item| item.is_due());
        let next = waiting.min_by_key(|item| (Reverse(item.priority), item.position));
        Glance {
            counts: self.user_state(of),
            next_direct: next.map(|item| self.number(item.id)),
            own: SlotUse {
                limit: user.limit,
                active: user.active(),
            },
            system: SlotUse {
                limit: system.limit,
                active: system.active,
            },
            direct_reserved_slots: user.direct_reserved_slots,
        }
    }

    /// A user's queue in figures, which all fall into the last hour.
    pub(crate) fn figures(&self, of: usize) -> Figures {
        let counted = |call_type, status| {
            let items = self.of_user(of).filter(|item| {
                item.origin.call_type() == call_type
                    && item.status == status
                    // What was withdrawn from a draft is over, and counted.
                    && (status != ItemStatus::Queued || !self.is_draft(item))
            });
            items.count() as u64
        };
        let types = CallType::ALL.into_iter();
        let counts = types.flat_map(|call_type| {
            let count = move |status| (call_type, status, counted(call_type, status));
            ItemStatus::ALL.map(count)
        });
        let over = |item: &&Item| item.call_status.is_some_and(CallStatus::is_terminal);
        let called = self.of_user(of).filter(|item| item.call_status.is_some());
        Figures {
            counts: counts.collect(),
            started: called.count() as u64,
            finished: self.of_user(of).filter(over).count() as u64,
        }
    }
}
