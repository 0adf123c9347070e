//! Backlogs. Users and contacts come by SQL, the calls by callq's own paths: campaigns made and
//! started, direct calls admitted in batches while all dispatch is paused. So a backlog is what
//! production would hold, and survives a change of the engine's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use callq_domain::{
    Admission, CallType, CampaignFields, CampaignId, CampaignStatus, CampaignStore,
    ConcurrencyLimit, EngineStore, NewCampaign, NewDirectCall, OperatorStore, OwnershipStore,
    Pacing, ProviderName, QueueItemId, RetryPolicy, ServerId, SlotBatch, StoreError, Target,
    Weekdays,
};
use callq_persistence::{Database, PostgresStore, connect};
use chrono::{NaiveDate, NaiveTime};
use futures_util::{TryStreamExt, stream};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::cluster::BenchDatabase;
use crate::witness::{Limits, Witness};
use crate::{numbering, sql};

/// Direct calls among the waiting, in percent.
pub(crate) const DIRECT_PERCENT: u32 = 20;

/// Admissions settled in one transaction, as many as an engine gathers at most.
const ADMISSION_BATCH: usize = 500;

/// How long the server that admits them all lives.
const SEEDING: Duration = Duration::from_secs(3600);

/// Contacts of one campaign at most: more than most have, and few enough to be laid out in time.
const CAMPAIGN_SIZE: usize = 100_000;

/// Campaigns made at the same time.
const AT_ONCE: usize = 4;

/// The name the bench's carrier goes by.
pub(crate) fn provider_name() -> anyhow::Result<ProviderName> {
    ProviderName::new("bench").context("not a provider's name")
}

/// What waits before a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backlog {
    pub users: u32,
    pub waiting: u32,
    pub limits: Limits,
    pub order: Order,
    /// Contacts beyond those that are called at first, for calls that come later.
    pub spare_contacts: u32,
}

/// How the waiting calls lie in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Users mixed at random.
    Shuffled,
    /// Each user's calls side by side.
    Clustered,
}

impl Backlog {
    pub(crate) fn direct(&self) -> u32 {
        u32::try_from(u64::from(self.waiting) * u64::from(DIRECT_PERCENT) / 100).unwrap_or(0)
    }

    /// Contact `n` is called once: the first ones directly, the others by campaigns; each kind is
    /// dealt out to the users in turn.
    fn user_of(&self, contact: u32) -> u32 {
        let direct = self.direct();
        let nth = if contact < direct {
            contact
        } else {
            contact - direct
        };
        nth % self.users
    }

    /// One of the spare contacts of a user, who has `spare_contacts / users` of them.
    pub(crate) fn spare_contact(&self, user: u32, nth: u32) -> u32 {
        self.waiting + nth * self.users + user
    }

    fn contacts_in_order(&self, mut contacts: Vec<u32>) -> Vec<u32> {
        match self.order {
            // The same order each time: runs are compared.
            Order::Shuffled => contacts.shuffle(&mut StdRng::seed_from_u64(1)),
            Order::Clustered => contacts.sort_by_key(|it| (self.user_of(*it), *it)),
        }
        contacts
    }
}

/// Fills an empty database. All dispatch is paused afterwards.
pub(crate) async fn seed(
    database: &BenchDatabase,
    backlog: Backlog,
) -> anyhow::Result<Arc<Witness>> {
    let store = hasty_store(database)?;
    store.set_dispatch_paused(true).await?;
    let limit = ConcurrencyLimit::new(i64::from(backlog.limits.system))?;
    store.set_system_limit(limit).await?;

    let url = database.hasty_url();
    tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let mut conn = connect(&url)?;
        sql::insert_users(&mut conn, backlog.users, backlog.limits.user)?;
        sql::insert_contacts(&mut conn, 0, backlog.direct(), backlog.users)?;
        let (direct, waiting) = (backlog.direct(), backlog.waiting);
        sql::insert_contacts(&mut conn, direct, waiting, backlog.users)?;
        let all = waiting + backlog.spare_contacts;
        sql::insert_contacts(&mut conn, waiting, all, backlog.users)?;
        Ok(())
    })
    .await??;

    let witness = Arc::new(Witness::new(
        backlog.limits,
        backlog.users,
        backlog.waiting + backlog.spare_contacts,
    ));
    queue_direct_calls(&store, &witness, backlog)
        .await
        .context("the direct calls cannot be queued")?;
    log::info!("direct calls are queued");
    start_campaigns(&store, &witness, backlog)
        .await
        .context("the campaigns cannot be started")?;
    log::info!("campaigns are started");

    let url = database.hasty_url();
    tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
        let mut conn = connect(&url)?;
        if backlog.order == Order::Shuffled {
            sql::shuffle_queue(&mut conn)?;
        }
        sql::vacuum(&mut conn)?;
        Ok(())
    })
    .await??;
    Ok(witness)
}

/// A store whose commits are not waited for: what it writes is only the stage.
pub(crate) fn hasty_store(database: &BenchDatabase) -> anyhow::Result<PostgresStore> {
    let pool = Database::new(&database.hasty_url(), 8)?;
    Ok(PostgresStore::new(pool, provider_name()?))
}

async fn queue_direct_calls(
    store: &PostgresStore,
    witness: &Witness,
    backlog: Backlog,
) -> anyhow::Result<()> {
    let contacts = backlog.contacts_in_order((0..backlog.direct()).collect());
    let server = ServerId::new();
    store.renew_lease(server, SEEDING).await?;
    for chunk in contacts.chunks(ADMISSION_BATCH) {
        let mut batch = SlotBatch::default();
        for contact in chunk {
            let user = backlog.user_of(*contact);
            witness.expect(user, *contact, CallType::Direct);
            batch.admissions.push(direct_call(user, *contact));
        }
        let outcome = loop {
            match store.settle(server, &batch).await {
                Err(StoreError::Unavailable(cause)) => pause(&cause).await,
                settled => break settled?,
            }
            batch.answered = Some(0);
        };
        let all_wait = outcome
            .admissions
            .iter()
            .all(|it| matches!(it, Admission::Queued(_)));
        ensure!(
            all_wait,
            "a direct call was not queued while all was paused"
        );
    }
    Ok(())
}

/// A direct call to a contact of the bench.
pub(crate) fn direct_call(user: u32, contact: u32) -> NewDirectCall {
    NewDirectCall {
        item_id: QueueItemId::new(),
        user_id: numbering::user(user),
        agent_id: numbering::agent(user),
        target: Target::Contact(numbering::contact(contact)),
        contact_name: None,
        user_data: None,
        caller_id: None,
        scheduled_for: None,
        expires_in: None,
        idempotency: None,
    }
}

async fn start_campaigns(
    store: &PostgresStore,
    witness: &Witness,
    backlog: Backlog,
) -> anyhow::Result<()> {
    let mut contacts = vec![Vec::new(); backlog.users as usize];
    for contact in backlog.direct()..backlog.waiting {
        let user = backlog.user_of(contact);
        witness.expect(user, contact, CallType::Campaign);
        contacts[user as usize].push(contact);
    }
    let campaigns = contacts.iter().zip(0..).flat_map(|(contacts, user)| {
        let campaigns = contacts.chunks(CAMPAIGN_SIZE);
        campaigns.map(move |contacts| Ok::<_, anyhow::Error>((contacts, user)))
    });
    stream::iter(campaigns)
        .try_for_each_concurrent(AT_ONCE, |(contacts, user)| {
            start_campaign(store, user, contacts)
        })
        .await
}

/// Makes a campaign over these contacts and starts it.
pub(crate) async fn start_campaign(
    store: &PostgresStore,
    user: u32,
    contacts: &[u32],
) -> anyhow::Result<()> {
    let id = CampaignId::new();
    let fields = CampaignFields {
        name: "bench".into(),
        agent_id: numbering::agent(user),
        next_action: "none".into(),
        first_call_time: NaiveTime::MIN,
        last_call_time: NaiveTime::MIN,
        start_date: NaiveDate::default(),
        end_date: None,
        campaign_timezone: None,
        use_custom_timezone: false,
        use_contact_timezone: false,
        weekdays: Weekdays::ALL,
        holidays: BTreeSet::new(),
        legal_hours: None,
        retries: RetryPolicy {
            max_retries: 0,
            interval_minutes: 60,
            rules: BTreeMap::new(),
        },
        pacing: Pacing::FREE,
        country: None,
        max_calls_per_number_per_day: None,
    };
    let campaign = NewCampaign {
        id,
        user_id: numbering::user(user),
        fields,
        contact_ids: contacts.iter().map(|it| numbering::contact(*it)).collect(),
    };
    make(store, &campaign).await?;
    activate(store, &campaign).await
}

/// Makes a campaign. A disk that is busy with what was written before may take longer than callq
/// waits, and then nobody knows whether it was made: it is looked for.
async fn make(store: &PostgresStore, campaign: &NewCampaign) -> anyhow::Result<()> {
    loop {
        match store.create_campaign(campaign.clone()).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Unavailable(cause)) => pause(&cause).await,
            Err(error) => return Err(error.into()),
        }
        if status_of(store, campaign).await.is_some() {
            return Ok(());
        }
    }
}

async fn activate(store: &PostgresStore, campaign: &NewCampaign) -> anyhow::Result<()> {
    loop {
        let (user, id) = (campaign.user_id, campaign.id);
        match store
            .set_campaign_status(user, id, CampaignStatus::Active)
            .await
        {
            Ok(_) => return Ok(()),
            Err(StoreError::Unavailable(cause)) => pause(&cause).await,
            Err(error) => return Err(error.into()),
        }
        if status_of(store, campaign).await == Some(CampaignStatus::Active) {
            return Ok(());
        }
    }
}

async fn status_of(store: &PostgresStore, campaign: &NewCampaign) -> Option<CampaignStatus> {
    let found = store.campaign(campaign.user_id, campaign.id).await;
    found.ok().flatten().map(|campaign| campaign.status)
}

async fn pause(cause: &str) {
    log::warn!("while seeding: {cause}");
    tokio::time::sleep(Duration::from_secs(1)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(order: Order) -> Backlog {
        Backlog {
            users: 3,
            waiting: 50,
            limits: Limits { user: 2, system: 4 },
            order,
            spare_contacts: 6,
        }
    }

    #[test]
    fn a_fifth_of_the_calls_is_direct_and_every_user_has_its_share() {
        let backlog = backlog(Order::Clustered);
        let mut shares = [0; 3];
        for contact in 0..backlog.direct() {
            shares[backlog.user_of(contact) as usize] += 1;
        }
        assert_eq!(shares, [4, 3, 3]);
        assert_eq!(backlog.user_of(backlog.direct()), 0);
    }

    #[test]
    fn spare_contacts_come_after_the_others_and_are_dealt_out_in_turn() {
        let backlog = backlog(Order::Clustered);
        let spare: Vec<u32> = (0..3)
            .flat_map(|user| [0, 1].map(|nth| backlog.spare_contact(user, nth)))
            .collect();
        assert_eq!(spare, [50, 53, 51, 54, 52, 55]);
    }

    #[test]
    fn clustered_calls_lie_by_user_and_shuffled_ones_do_not() {
        let users = |order| -> Vec<u32> {
            let backlog = backlog(order);
            let contacts = backlog.contacts_in_order((0..10).collect());
            contacts.iter().map(|it| backlog.user_of(*it)).collect()
        };
        assert!(users(Order::Clustered).is_sorted());
        assert!(!users(Order::Shuffled).is_sorted());
    }
}
