//! What must become of progress: placements, lost answers, events; of ownership; and of
//! campaigns.

use callq_domain::model::{Batch, CampaignItem};
use callq_domain::{
    Attempt, CallId, CallStatus, CampaignId, CampaignStatus, ItemStatus, Priority, ProgressBatch,
    QueueItemId, ServerId, StatusEvent,
};

use super::{Campaign, Current, Reference, call_of, item_of};
use crate::model::answers::{Cancelled, Progressed};

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
        for (attempt, execution) in &asked.placed {
            let status = self.status(attempt.call_id);
            let news = self.own_attempt(server, attempt).is_some_and(|now| {
                let news = now.execution.is_none();
                now.execution.get_or_insert_with(|| execution.clone());
                news
            });
            if news && status == Some(CallStatus::Unknown) {
                self.queue.progress(attempt.call_id, CallStatus::Dialing);
            }
            told.placed.push(news);
        }
        for event in &asked.events {
            let moved = self.tell(event);
            let call = self.known_call(event.call_id);
            match told.events.iter_mut().find(|(of, _)| *of == call) {
                Some((_, any)) => *any |= moved,
                None => told.events.push((call, moved)),
            }
        }
        for (attempt, _) in &asked.unknown {
            let dialing = self.status(attempt.call_id) == Some(CallStatus::Dialing);
            let lost = dialing
                && self
                    .own_attempt(server, attempt)
                    .is_some_and(|now| now.execution.is_none());
            told.unknown
                .push(lost && self.queue.progress(attempt.call_id, CallStatus::Unknown));
        }
        told
    }

    fn tell(&mut self, event: &StatusEvent) -> bool {
        let Some(now) = self.attempts.get_mut(&item_of(event.call_id)) else {
            return false;
        };
        if !now.is_called(event.execution_id.as_ref()) {
            return false;
        }
        if now.execution.is_none() {
            now.execution.clone_from(&event.execution_id);
        }
        self.queue
            .progress(event.call_id, event.status.as_call_status())
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
            }
            kept.push(*id);
        }
        // The heir looks at the queue.
        self.queue.settle(self.now, &Batch::default());
        self.complete_campaigns();
        let mut kept: Vec<usize> = kept.into_iter().map(|id| self.number(id)).collect();
        kept.sort_unstable();
        kept
    }

    /// Withdraws a waiting item.
    pub(crate) fn cancel(&mut self, id: QueueItemId) -> Cancelled {
        let told = self.queue.cancel(id);
        self.complete_campaigns();
        told
    }

    /// Takes in a draft that was made with these calls.
    pub(crate) fn draft(&mut self, owner: usize, id: CampaignId, items: &[QueueItemId]) {
        let user = self.universe.users[owner];
        self.queue.add_campaign(user, id, false).unwrap();
        let calls: Vec<CampaignItem> = items
            .iter()
            .map(|id| CampaignItem {
                id: *id,
                priority: Priority::CAMPAIGN,
                wakes_at: None,
                expires_at: None,
            })
            .collect();
        self.queue.enqueue_campaign_items(id, &calls).unwrap();
        for id in items {
            self.count_in(*id);
        }
        self.campaigns.push(Campaign {
            id,
            owner,
            status: CampaignStatus::Draft,
        });
    }

    /// Moves a campaign to a status; false, and no change, where its present one does not allow
    /// it.
    pub(crate) fn set_campaign_status(&mut self, nth: usize, status: CampaignStatus) -> bool {
        let campaign = &mut self.campaigns[nth];
        if !campaign.status.may_become(status) {
            return false;
        }
        campaign.status = status;
        let id = campaign.id;
        let open = status == CampaignStatus::Active;
        self.queue.set_campaign_open(id, open).unwrap();
        if status == CampaignStatus::Cancelled {
            self.withdraw(id);
        }
        self.complete_campaigns();
        true
    }

    /// Withdraws what came back to campaigns that were cancelled meanwhile.
    pub(crate) fn maintain(&mut self) {
        let cancelled = self
            .campaigns
            .iter()
            .filter(|c| c.status == CampaignStatus::Cancelled);
        let cancelled: Vec<CampaignId> = cancelled.map(|campaign| campaign.id).collect();
        for id in cancelled {
            self.withdraw(id);
        }
    }

    fn withdraw(&mut self, campaign: CampaignId) {
        for id in self.items.clone() {
            let of = self
                .queue
                .item(id)
                .and_then(|item| item.origin.campaign_id());
            if of == Some(campaign) {
                self.queue.cancel(id);
            }
        }
    }

    /// A campaign under way whose every contact is accounted for is over.
    pub(super) fn complete_campaigns(&mut self) {
        for nth in 0..self.campaigns.len() {
            let Campaign { id, status, .. } = self.campaigns[nth];
            let under_way = matches!(status, CampaignStatus::Active | CampaignStatus::Paused);
            let left = |status| matches!(status, ItemStatus::Queued | ItemStatus::Processing);
            let any_left = self
                .queue
                .items()
                .any(|item| item.origin.campaign_id() == Some(id) && left(item.status));
            if under_way && !any_left {
                self.campaigns[nth].status = CampaignStatus::Completed;
                self.queue.set_campaign_open(id, false).unwrap();
            }
        }
    }
}
