//! Campaigns and their contacts in memory.

use async_trait::async_trait;
use callq_domain::*;
use chrono::Utc;

use crate::fake::{Fake, page_of};

/// So many campaign calls may wait, and one does.
const FULL: u64 = 100;

pub(crate) fn full(asked: u64) -> StoreError {
    StoreError::QueueFull(QueueFull {
        call_type: CallType::Campaign,
        limit: u32::try_from(FULL).expect("a small number"),
        waiting: 1,
        asked,
        pace: Pace {
            slots: 1,
            samples: 0,
            mean_hold: std::time::Duration::ZERO,
        },
    })
}

#[async_trait]
impl CampaignStore for Fake {
    async fn create_campaign(&self, campaign: NewCampaign) -> Result<Campaign, StoreError> {
        let mut state = self.up()?;
        let (user, agent) = (campaign.user_id, campaign.fields.agent_id);
        let has_agent = |it: &Agent| it.id == agent && it.user_id == user;
        if !state.agents.iter().any(has_agent) {
            return Err(StoreError::NotFound);
        }
        for id in &campaign.contact_ids {
            let known = |it: &Contact| it.id == *id && it.user_id == user;
            if !state.contacts.iter().any(known) {
                return Err(StoreError::Conflict(format!("There is no contact {id}.")));
            }
        }
        let total = campaign.contact_ids.len() as u64;
        let made = Campaign {
            id: campaign.id,
            user_id: user,
            fields: campaign.fields,
            zone: "UTC".parse().expect("a zone"),
            status: CampaignStatus::Draft,
            window: None,
            is_open: false,
            progress: CampaignProgress {
                total,
                pending: total,
                ..CampaignProgress::default()
            },
            created_at: Utc::now(),
            started_at: None,
            finished_at: None,
        };
        state.campaigns.push(made.clone());
        Ok(made)
    }
    async fn campaigns(
        &self,
        user: UserId,
        page: PageRequest,
    ) -> Result<Page<Campaign>, StoreError> {
        let state = self.up()?;
        let mine = state.campaigns.iter().filter(|it| it.user_id == user);
        page_of(mine.cloned().collect(), &page)
    }
    async fn campaign(&self, user: UserId, id: CampaignId) -> Result<Option<Campaign>, StoreError> {
        let state = self.up()?;
        let mut mine = state.campaigns.iter().filter(|it| it.user_id == user);
        Ok(mine.find(|it| it.id == id).cloned())
    }
    async fn set_campaign_status(
        &self,
        user: UserId,
        id: CampaignId,
        status: CampaignStatus,
    ) -> Result<Campaign, StoreError> {
        let mut state = self.up()?;
        let mut mine = state.campaigns.iter_mut().filter(|it| it.user_id == user);
        let campaign = mine.find(|it| it.id == id).ok_or(StoreError::NotFound)?;
        if !campaign.status.may_become(status) {
            return Err(StoreError::Conflict("Not now.".into()));
        }
        if status == CampaignStatus::Active && campaign.progress.total >= FULL {
            return Err(full(campaign.progress.total));
        }
        campaign.status = status;
        Ok(campaign.clone())
    }
    async fn update_campaign(
        &self,
        user: UserId,
        id: CampaignId,
        fields: CampaignFields,
    ) -> Result<Campaign, StoreError> {
        let mut state = self.up()?;
        let has_agent = |it: &Agent| it.id == fields.agent_id && it.user_id == user;
        let knows_agent = state.agents.iter().any(has_agent);
        let mut mine = state.campaigns.iter_mut().filter(|it| it.user_id == user);
        let campaign = mine.find(|it| it.id == id).ok_or(StoreError::NotFound)?;
        let stays = campaign.fields.agent_id == fields.agent_id
            && campaign.fields.use_contact_timezone == fields.use_contact_timezone;
        if campaign.status.is_over() || !(stays || campaign.status == CampaignStatus::Draft) {
            return Err(StoreError::Conflict("Not now.".into()));
        }
        if !knows_agent {
            return Err(StoreError::NotFound);
        }
        let may_call = matches!(
            campaign.status,
            CampaignStatus::Scheduled | CampaignStatus::Active
        );
        if may_call
            && fields
                .end_date
                .is_some_and(|last| last < Utc::now().date_naive())
        {
            return Err(StoreError::Conflict("campaign has no hours left".into()));
        }
        campaign.fields = fields;
        Ok(campaign.clone())
    }
    async fn delete_campaign(&self, user: UserId, id: CampaignId) -> Result<(), StoreError> {
        let mut state = self.up()?;
        let is_it = |it: &Campaign| it.id == id && it.user_id == user;
        let index = state.campaigns.iter().position(is_it);
        let index = index.ok_or(StoreError::NotFound)?;
        if !state.campaigns[index].status.may_be_deleted() {
            return Err(StoreError::Conflict("Not now.".into()));
        }
        let gone = state.campaigns.remove(index);
        state.deleted_campaigns.push(gone);
        Ok(())
    }
    async fn campaign_statistics(
        &self,
        user: UserId,
        id: CampaignId,
    ) -> Result<Option<CampaignStatistics>, StoreError> {
        let state = self.up()?;
        let kept = state.campaigns.iter().map(|it| (it, None));
        let gone = state.deleted_campaigns.iter();
        let mut all = kept.chain(gone.map(|it| (it, Some(Utc::now()))));
        let found = all.find(|(it, _)| it.user_id == user && it.id == id);
        Ok(found.map(|(campaign, deleted_at)| CampaignStatistics {
            campaign: campaign.clone(),
            deleted_at,
            calls: state.campaign_calls,
        }))
    }
    async fn campaign_summary(&self, user: UserId) -> Result<CampaignSummary, StoreError> {
        let state = self.up()?;
        let mut summary = CampaignSummary::default();
        for campaign in state.campaigns.iter().filter(|it| it.user_id == user) {
            summary.by_status.push((campaign.status, 1));
            summary.progress = summary.progress.plus(campaign.progress);
        }
        summary.deleted = state.deleted_campaigns.len() as u64;
        Ok(summary)
    }
}

#[async_trait]
impl CampaignContactStore for Fake {
    async fn campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        status: Option<ContactStatus>,
        page: PageRequest,
    ) -> Result<Page<CampaignContact>, StoreError> {
        self.campaign(user, campaign)
            .await?
            .ok_or(StoreError::NotFound)?;
        let state = self.up()?;
        let wanted = |it: &&CampaignContact| status.is_none_or(|only| only == it.status);
        page_of(
            state
                .campaign_contacts
                .iter()
                .filter(wanted)
                .cloned()
                .collect(),
            &page,
        )
    }
    async fn add_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        contacts: Vec<ContactId>,
    ) -> Result<ContactsAdded, StoreError> {
        self.open_campaign(user, campaign, CampaignStatus::is_over)?;
        let state = self.up()?;
        let known = |id: &ContactId| {
            state
                .contacts
                .iter()
                .any(|it| it.id == *id && it.user_id == user)
        };
        if let Some(unknown) = contacts.iter().find(|id| !known(id)) {
            return Ok(ContactsAdded::UnknownContact(*unknown));
        }
        let listed = |id: &ContactId| {
            state
                .campaign_contacts
                .iter()
                .any(|it| it.contact_id == *id)
        };
        let (skipped, added): (Vec<_>, Vec<_>) = contacts.into_iter().partition(listed);
        Ok(ContactsAdded::Added {
            added: added.len() as u64,
            skipped,
        })
    }
    async fn cancel_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        which: ContactSelection,
    ) -> Result<u64, StoreError> {
        self.open_campaign(user, campaign, CampaignStatus::is_over)?;
        Ok(self.selected(&which, &[ContactStatus::Queued]))
    }
    async fn requeue_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        which: ContactSelection,
        ended: Vec<ContactStatus>,
    ) -> Result<u64, StoreError> {
        self.open_campaign(user, campaign, |status| !status.may_be_repeated())?;
        Ok(self.selected(&which, &ended))
    }
}

impl Fake {
    fn open_campaign(
        &self,
        user: UserId,
        id: CampaignId,
        refuses: impl Fn(CampaignStatus) -> bool,
    ) -> Result<(), StoreError> {
        let state = self.up()?;
        let mut mine = state.campaigns.iter().filter(|it| it.user_id == user);
        let campaign = mine.find(|it| it.id == id).ok_or(StoreError::NotFound)?;
        if refuses(campaign.status) {
            return Err(StoreError::Conflict("Not now.".into()));
        }
        Ok(())
    }

    fn selected(&self, which: &ContactSelection, of: &[ContactStatus]) -> u64 {
        let state = self.state();
        let meant = |it: &&CampaignContact| match which {
            ContactSelection::All => true,
            ContactSelection::These(ids) => ids.contains(&it.contact_id),
        };
        let alike = state
            .campaign_contacts
            .iter()
            .filter(|it| of.contains(&it.status));
        alike.filter(meant).count() as u64
    }
}
