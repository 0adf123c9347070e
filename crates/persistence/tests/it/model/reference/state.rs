//! What must stand written, counted from the model's items.

use callq_domain::model::{self, Item};
use callq_domain::{
    CallType, CampaignProgress, CampaignStatus, ItemStatus, QueueItemId, QueueReason, SlotUse,
};
use chrono::DateTime;

use super::Reference;
use crate::model::answers::{ItemState, Pace, Place, Seen, State, Times, UserState};

impl Reference {
    pub(crate) fn state(&self) -> State {
        let system = self.queue.system();
        State {
            items: self.items.iter().map(|id| self.item_state(*id)).collect(),
            users: (0..self.universe.users.len())
                .map(|of| self.user_state(of))
                .collect(),
            system: SlotUse {
                limit: system.limit,
                active: system.active,
            },
            dispatch_paused: system.dispatch_paused,
            campaigns: (0..self.campaigns.len())
                .map(|nth| self.campaign_state(nth))
                .collect(),
        }
    }

    fn item_state(&self, id: QueueItemId) -> ItemState {
        let item = self.queue.item(id).unwrap();
        ItemState {
            item: self.number(id),
            of: self.user_number(item.user_id),
            call_type: item.origin.call_type(),
            status: item.status,
            attempts: item.attempts,
            position: self.queue.place(id).map(|place| place.position),
            called: item.call_id.is_some(),
            call: item.call_status.map(|status| status.to_string()),
            who: self.wishes[&id].who.clone(),
            reason: self.reason(item),
            times: self.times(item),
        }
    }

    fn reason(&self, item: &Item) -> Option<String> {
        match item.status {
            ItemStatus::Queued => self.words.get(&item.id).cloned(),
            ItemStatus::Processing => None,
            _ => {
                let outcome = || item.call_status.map(|status| status.to_string());
                self.records[&item.id].reason.clone().or_else(outcome)
            }
        }
    }

    fn times(&self, item: &Item) -> Times {
        let wish = &self.wishes[&item.id];
        let record = self.records.get(&item.id);
        let started = item.call_status.and(record);
        Times {
            scheduled_for: wish.scheduled_for,
            wakes_at: item.wakes_at,
            expires_at: item.expires_at,
            due_at: wish.due_at,
            started_at: started.map(|record| record.reserved_at),
            finished_at: record.and_then(|record| record.ended_at),
        }
    }

    pub(super) fn user_state(&self, of: usize) -> UserState {
        let user = self.universe.users[of];
        let direct = self.queue.counts(user, CallType::Direct);
        let campaign = self.queue.counts(user, CallType::Campaign);
        UserState {
            direct: (direct.queued, direct.processing),
            campaign: (campaign.queued - self.in_drafts(of), campaign.processing),
        }
    }

    pub(crate) fn campaign_state(&self, nth: usize) -> (CampaignStatus, CampaignProgress) {
        let campaign = &self.campaigns[nth];
        let mut progress = CampaignProgress::default();
        for item in self.queue.items() {
            if item.origin.campaign_id() != Some(campaign.id) {
                continue;
            }
            let count = match item.status {
                ItemStatus::Queued if campaign.status == CampaignStatus::Draft => {
                    &mut progress.pending
                }
                ItemStatus::Queued => &mut progress.queued,
                ItemStatus::Processing => &mut progress.processing,
                ItemStatus::Completed => &mut progress.completed,
                ItemStatus::Failed => &mut progress.failed,
                ItemStatus::Cancelled => &mut progress.cancelled,
                ItemStatus::Expired => &mut progress.expired,
            };
            *count += 1;
            progress.total += 1;
        }
        (campaign.status, progress)
    }

    /// A user's calls that are laid out but not in the queue: their campaigns are drafts.
    fn in_drafts(&self, of: usize) -> u64 {
        let drafts = self.campaigns.iter().enumerate();
        drafts
            .filter(|(_, c)| c.owner == of && c.status == CampaignStatus::Draft)
            .map(|(nth, _)| self.campaign_state(nth).1.pending)
            .sum()
    }

    /// One item as its owner sees it.
    pub(crate) fn seen(&self, id: QueueItemId) -> Seen {
        let item = self.queue.item(id).unwrap();
        let place = self.place(id);
        Seen {
            item: self.number(id),
            status: item.status,
            place,
            waiting_reason: place.and_then(|place| self.waiting_reason(item, place)),
        }
    }

    /// A waiting item's place, as things stand.
    pub(crate) fn place(&self, id: QueueItemId) -> Option<Place> {
        let place = self.queue.place(id)?;
        Some(self.in_queue(self.queue.item(id)?, place))
    }

    /// The model counts drafts; whoever looks at another's place does not.
    pub(super) fn in_queue(&self, item: &Item, place: model::Place) -> Place {
        let campaign = item.origin.campaign_id();
        let own = self.campaigns.iter().find(|c| Some(c.id) == campaign);
        let others_drafts = match own {
            None => 0,
            Some(own) => {
                let own_draft = self
                    .campaigns
                    .iter()
                    .position(|c| c.id == own.id && c.status == CampaignStatus::Draft);
                let shown = own_draft.map_or(0, |nth| self.campaign_state(nth).1.pending);
                self.in_drafts(own.owner) - shown
            }
        };
        let user = self.queue.user(item.user_id).unwrap();
        Place {
            position: place.position,
            total: place.total_in_queue - others_drafts,
            pace: Pace {
                slots: user.limit.min(self.queue.system().limit),
                holds: self.holds.get(&item.user_id).copied().unwrap_or_default(),
            },
        }
    }

    /// The first thing that would have to change for a waiting item to start; none if that is the
    /// start of its campaign, or only its turn.
    fn waiting_reason(&self, item: &Item, place: Place) -> Option<QueueReason> {
        let user = self.queue.user(item.user_id).unwrap();
        let system = self.queue.system();
        let class = item.origin.call_type();
        let words = self.words.get(&item.id).cloned();
        if item
            .origin
            .campaign_id()
            .is_some_and(|id| !user.campaigns[&id].open)
        {
            let own = |c: &&super::Campaign| Some(c.id) == item.origin.campaign_id();
            let status = self.campaigns.iter().find(own).map(|own| own.status);
            return (status == Some(CampaignStatus::Paused)).then_some(QueueReason::CampaignPaused);
        }
        if let Some(at) = item.wakes_at {
            let at = DateTime::from_timestamp_millis(at).unwrap();
            return Some(words.map_or(QueueReason::Scheduled(at), QueueReason::Provider));
        }
        if system.dispatch_paused {
            return Some(QueueReason::DispatchPaused);
        }
        if user.lane(class).hold_until.is_some() {
            let words = words.unwrap_or_else(|| "The provider asked to wait".into());
            return Some(QueueReason::Provider(words));
        }
        let own = SlotUse {
            limit: match class {
                CallType::Direct => user.limit,
                CallType::Campaign => user.limit.saturating_sub(user.direct_reserved_slots),
            },
            active: user.active(),
        };
        let of_all = SlotUse {
            limit: system.limit,
            active: system.active,
        };
        let ahead = match class {
            CallType::Direct => place.position - 1,
            CallType::Campaign => self.queue.counts(item.user_id, CallType::Direct).due,
        };
        if own.available() == 0 {
            Some(QueueReason::UserLimit(own))
        } else if of_all.available() == 0 {
            Some(QueueReason::SystemLimit(of_all))
        } else if ahead > 0 {
            Some(QueueReason::EarlierDirectCalls { ahead })
        } else {
            let campaign = item.origin.campaign_id().map(|id| &user.campaigns[&id]);
            let full = campaign.and_then(|campaign| {
                let (limit, active) = (campaign.limit?, campaign.active);
                (active >= limit).then_some(SlotUse { limit, active })
            });
            full.map(QueueReason::CampaignLimit)
        }
    }
}
