//! What must become of campaigns, and of what is withdrawn.

use callq_domain::model::CampaignItem;
use callq_domain::{CampaignId, CampaignStatus, ItemStatus, Priority, QueueItemId};

use super::{Campaign, Reference, Wish};
use crate::model::answers::{Cancelled, Step};

impl Reference {
    /// Withdraws a waiting item.
    pub(crate) fn cancel(&mut self, id: QueueItemId) -> Cancelled {
        let told = self.queue.cancel(id);
        if told == Some(Ok(())) {
            self.withdrawn(id, "cancelled", "cancelled by its owner", None);
        }
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
        for (id, (_, who)) in items.iter().zip(self.universe.contacts[owner].clone()) {
            self.count_in(*id);
            let wish = Wish {
                who,
                from: None,
                scheduled_for: None,
                due_at: None,
            };
            self.wishes.insert(*id, wish);
            let step = Step {
                at: None,
                attempt: None,
                status: "queued".into(),
                reason: None,
                server: None,
            };
            self.stories.insert(*id, vec![step]);
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
            if of == Some(campaign) && self.queue.cancel(id) == Some(Ok(())) {
                self.withdrawn(id, "cancelled", "campaign cancelled", None);
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
