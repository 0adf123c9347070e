//! Campaigns. A campaign's calls are laid out in the queue when it is made; one row of
//! `campaign_slots` says whether they may go, so starting and pausing cost the same whatever its
//! size. Cancelling withdraws them in small transactions, between which others get their turn.
//!
//! A campaign that was deleted is not found here, but for its figures.

mod change;
mod contacts;
mod figures;
mod hours;
mod imports;
mod lapse;
mod listing;
#[cfg(test)]
mod listing_tests;
mod requeue;
mod room;
mod zones;

use std::collections::HashSet;

use async_trait::async_trait;
use callq_domain::{
    Campaign, CampaignFields, CampaignId, CampaignStatistics, CampaignStatus, CampaignStore,
    CampaignSummary, ContactId, NewCampaign, Page, PageRequest, QueueItemId, RetryPolicy,
    StoreError, UserId,
};
use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::accounts::missing_reference;
use crate::cursor::{IdPage, List};
use crate::database::BRIEF_FROM_HERE;
use crate::functions::{self, IdRow};
use crate::rows::campaign::{CampaignRow, NewCampaignRow};
use crate::schema::campaigns;
use crate::{Database, Failure, PostgresStore, do_not_call};

/// How many waiting calls of a cancelled campaign one transaction withdraws. Dispatch waits
/// meanwhile: some 20 ms.
const WITHDRAW_CHUNK: usize = 500;

/// Why a call of a cancelled campaign ended.
const CANCELLED: &str = "campaign cancelled";

/// How many calls one statement lays out: few enough to stay far below the time a statement may
/// take.
const LAY_OUT_CHUNK: usize = 10_000;

#[async_trait]
impl CampaignStore for PostgresStore {
    async fn create_campaign(&self, campaign: NewCampaign) -> Result<Campaign, StoreError> {
        self.database
            .run_long_write(move |conn| create_campaign_on_conn(conn, campaign))
            .await
    }

    async fn campaigns(
        &self,
        user: UserId,
        page: PageRequest,
    ) -> Result<Page<Campaign>, StoreError> {
        let page = IdPage::new(List::Campaigns, &page)?;
        self.database
            .run(move |conn| {
                let rows: Vec<CampaignRow> = sql_query(format!(
                    "{} WHERE c.user_id = $1 AND c.id < $2 AND c.deleted_at IS NULL \
                     ORDER BY c.id DESC LIMIT $3",
                    CampaignRow::SELECT
                ))
                .bind::<SqlUuid, _>(user.as_uuid())
                .bind::<SqlUuid, _>(page.before)
                .bind::<BigInt, _>(page.fetch())
                .load(conn)?;
                page.of(rows, |row| row.id, CampaignRow::into_campaign)
            })
            .await
    }

    async fn campaign(&self, user: UserId, id: CampaignId) -> Result<Option<Campaign>, StoreError> {
        self.database
            .run(move |conn| {
                let row = find(conn, user.as_uuid(), id.as_uuid())?;
                row.map(CampaignRow::into_campaign).transpose()
            })
            .await
    }

    async fn set_campaign_status(
        &self,
        user: UserId,
        id: CampaignId,
        status: CampaignStatus,
    ) -> Result<Campaign, StoreError> {
        let changed = self
            .database
            .run(move |conn| {
                set_campaign_status_on_conn(conn, user.as_uuid(), id.as_uuid(), status)
            })
            .await?;
        if status != CampaignStatus::Cancelled {
            return Ok(changed);
        }
        if !self.withdraw_all(id).await? {
            return Ok(changed);
        }
        Ok(self.campaign(user, id).await?.unwrap_or(changed))
    }

    async fn update_campaign(
        &self,
        user: UserId,
        id: CampaignId,
        fields: CampaignFields,
    ) -> Result<Campaign, StoreError> {
        self.database
            .run_long_write(move |conn| {
                change::update_campaign_on_conn(conn, user.as_uuid(), id.as_uuid(), &fields)
            })
            .await
    }

    async fn delete_campaign(&self, user: UserId, id: CampaignId) -> Result<(), StoreError> {
        self.database
            .run(move |conn| change::delete_campaign_on_conn(conn, user.as_uuid(), id.as_uuid()))
            .await?;
        self.withdraw_all(id).await?;
        Ok(())
    }

    async fn campaign_statistics(
        &self,
        user: UserId,
        id: CampaignId,
    ) -> Result<Option<CampaignStatistics>, StoreError> {
        self.database
            .run_long_read(move |conn| {
                figures::campaign_statistics_on_conn(conn, user.as_uuid(), id.as_uuid())
            })
            .await
    }

    async fn campaign_summary(&self, user: UserId) -> Result<CampaignSummary, StoreError> {
        self.database
            .run_long_read(move |conn| figures::campaign_summary_on_conn(conn, user.as_uuid()))
            .await
    }
}

impl PostgresStore {
    /// Withdraws what waits of a campaign that was cancelled. Answers whether all of it was: if not,
    /// housekeeping does the rest.
    async fn withdraw_all(&self, id: CampaignId) -> Result<bool, StoreError> {
        // A task of its own: a client that goes away does not leave it half done.
        let withdrawal = withdraw_waiting(self.database.clone(), id.as_uuid());
        match tokio::spawn(withdrawal).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) => {
                log::warn!(campaign_id:% = id; "housekeeping will withdraw the rest of a cancelled campaign: {error}");
                Ok(false)
            }
            Err(error) => Err(StoreError::Internal(error.to_string())),
        }
    }
}

fn find(conn: &mut PgConnection, user: Uuid, id: Uuid) -> QueryResult<Option<CampaignRow>> {
    sql_query(format!(
        "{} WHERE c.id = $1 AND c.user_id = $2 AND c.deleted_at IS NULL",
        CampaignRow::SELECT
    ))
    .bind::<SqlUuid, _>(id)
    .bind::<SqlUuid, _>(user)
    .get_result(conn)
    .optional()
}

fn create_campaign_on_conn(
    conn: &mut PgConnection,
    mut campaign: NewCampaign,
) -> Result<Campaign, Failure> {
    let mut seen = HashSet::with_capacity(campaign.contact_ids.len());
    campaign.contact_ids.retain(|contact| seen.insert(*contact));
    let (id, user) = (campaign.id.as_uuid(), campaign.user_id.as_uuid());
    let agent = campaign.fields.agent_id.as_uuid();
    let contacts: Vec<Uuid> = campaign.contact_ids.iter().map(|id| id.as_uuid()).collect();

    lock_agent(conn, user, agent)?;
    lock_contacts(conn, user, &contacts)?;
    insert_campaign(conn, &campaign)?;
    let owner = Owner {
        user,
        campaign: id,
        agent,
        lapses_at: lapse::lapses_at(conn, user, &campaign.fields)?,
        by_zone: campaign.fields.use_contact_timezone,
    };
    lay_out_calls(conn, owner, &campaign.fields, &contacts)?;
    find(conn, user, id)?
        .ok_or(StoreError::NotFound)?
        .into_campaign()
}

/// Keeps a user's agent until what names it is there.
fn lock_agent(conn: &mut PgConnection, user: Uuid, agent: Uuid) -> Result<(), Failure> {
    let own_agents =
        sql_query("SELECT id FROM agents WHERE id = $1 AND user_id = $2 FOR KEY SHARE")
            .bind::<SqlUuid, _>(agent)
            .bind::<SqlUuid, _>(user)
            .execute(conn)?;
    match own_agents {
        0 => Err(StoreError::NotFound.into()),
        _ => Ok(()),
    }
}

/// What is said of a campaign; its calls are laid out apart.
fn insert_campaign(conn: &mut PgConnection, campaign: &NewCampaign) -> Result<(), Failure> {
    diesel::insert_into(campaigns::table)
        .values(NewCampaignRow::new(campaign))
        .execute(conn)
        .map_err(missing_reference)?;
    insert_retry_rules(conn, campaign.id.as_uuid(), &campaign.fields.retries)?;
    Ok(())
}

fn insert_retry_rules(
    conn: &mut PgConnection,
    campaign: Uuid,
    retries: &RetryPolicy,
) -> QueryResult<()> {
    for (cause, rule) in &retries.rules {
        let after: Vec<i64> = rule.after_minutes().iter().map(|m| i64::from(*m)).collect();
        sql_query(
            "INSERT INTO campaign_retries (campaign_id, outcome, times, after_minutes) \
             VALUES ($1, $2, $3::integer, $4::integer[])",
        )
        .bind::<SqlUuid, _>(campaign)
        .bind::<Text, _>(cause.as_str())
        .bind::<BigInt, _>(i64::from(rule.times()))
        .bind::<Array<BigInt>, _>(after)
        .execute(conn)?;
    }
    Ok(())
}

/// Keeps the contacts as they are until the calls to them exist, so that a change to one of them
/// comes before all of it or reaches its call too.
fn lock_contacts(conn: &mut PgConnection, user: Uuid, contacts: &[Uuid]) -> Result<(), Failure> {
    match unknown_contact(conn, user, contacts)? {
        None => Ok(()),
        Some(missing) => {
            Err(StoreError::Conflict(format!("contact {missing} does not exist")).into())
        }
    }
}

/// As [`lock_contacts`], and answers the first that does not exist or is another user's.
fn unknown_contact(
    conn: &mut PgConnection,
    user: Uuid,
    contacts: &[Uuid],
) -> QueryResult<Option<ContactId>> {
    #[derive(QueryableByName)]
    struct CountRow {
        #[diesel(sql_type = BigInt)]
        found: i64,
    }
    let row: CountRow = sql_query(
        "SELECT count(*) AS found FROM \
         (SELECT FROM contacts WHERE id = ANY ($1) AND user_id = $2 FOR SHARE) c",
    )
    .bind::<Array<SqlUuid>, _>(contacts)
    .bind::<SqlUuid, _>(user)
    .get_result(conn)?;
    if usize::try_from(row.found) == Ok(contacts.len()) {
        return Ok(None);
    }
    let missing: IdRow = sql_query(
        "SELECT i.id FROM unnest($1) WITH ORDINALITY i (id, nth) \
         WHERE NOT EXISTS (SELECT FROM contacts c WHERE c.id = i.id AND c.user_id = $2) \
         ORDER BY i.nth LIMIT 1",
    )
    .bind::<Array<SqlUuid>, _>(contacts)
    .bind::<SqlUuid, _>(user)
    .get_result(conn)?;
    Ok(Some(ContactId::from(missing.id)))
}

/// Everything a campaign is besides its own row. The database checks what each call refers to one
/// by one, which is most of the time that this takes.
///
/// Who must not be called gets a call that is over: cancelled, `do-not-call`.
fn lay_out_calls(
    conn: &mut PgConnection,
    owner: Owner,
    fields: &CampaignFields,
    contacts: &[Uuid],
) -> Result<(), Failure> {
    let laid_out = list_and_lay_out(conn, owner, contacts, 0, 0)?;
    lapse::follow_clocks(conn, owner, fields)?;
    insert_slots(conn, owner, laid_out.waiting, laid_out.refused)?;
    let (at, refused) = lock_engine_and_look(conn, owner, laid_out.seen)?;
    withdraw_refused(conn, &refused, at)?;
    Ok(())
}

/// The counters of a campaign that nobody else has seen yet.
fn insert_slots(
    conn: &mut PgConnection,
    owner: Owner,
    waiting: usize,
    refused: usize,
) -> QueryResult<()> {
    sql_query(
        "INSERT INTO campaign_slots (campaign_id, user_id, due, tail, cancelled) \
         VALUES ($1, $2, $3, $3, $4)",
    )
    .bind::<SqlUuid, _>(owner.campaign)
    .bind::<SqlUuid, _>(owner.user)
    .bind::<BigInt, _>(number(waiting))
    .bind::<BigInt, _>(number(refused))
    .execute(conn)
    .map(drop)
}

/// Whose calls are laid out, and when they give up.
#[derive(Clone, Copy)]
struct Owner {
    user: Uuid,
    campaign: Uuid,
    agent: Uuid,
    lapses_at: Option<DateTime<Utc>>,
    /// Whether each goes by the zone of its contact.
    by_zone: bool,
}

/// What was laid out, and up to which entry of the do-not-call lists these were asked.
struct LaidOutCalls {
    waiting: usize,
    refused: usize,
    seen: i64,
}

/// Puts contacts on a campaign's list, behind the place `listed`, and their calls into the queue,
/// behind the number `tail`; those of contacts that must not be called into the history.
fn list_and_lay_out(
    conn: &mut PgConnection,
    owner: Owner,
    contacts: &[Uuid],
    listed: i64,
    tail: i64,
) -> QueryResult<LaidOutCalls> {
    let mut laid_out = LaidOutCalls {
        waiting: 0,
        refused: 0,
        seen: do_not_call::last_listed(conn)?,
    };
    for (nth, chunk) in contacts.chunks(LAY_OUT_CHUNK).enumerate() {
        let before = number(nth * LAY_OUT_CHUNK);
        let items = new_items(chunk.len());
        let zones = zones::of_contacts(conn, owner, chunk)?;
        sql_query(
            "INSERT INTO campaign_contacts (campaign_id, contact_id, item_id, ordinal, zone) \
             SELECT $1, i.id, i.item_id, $4 + i.nth, i.zone \
             FROM unnest($2, $3, $5) WITH ORDINALITY i (id, item_id, zone, nth)",
        )
        .bind::<SqlUuid, _>(owner.campaign)
        .bind::<Array<SqlUuid>, _>(chunk)
        .bind::<Array<SqlUuid>, _>(&items)
        .bind::<BigInt, _>(listed + before)
        .bind::<Array<Nullable<Text>>, _>(&zones)
        .execute(conn)?;
        let refused: HashSet<Uuid> = do_not_call::listed_contacts(conn, owner.user, chunk)?
            .into_iter()
            .collect();
        let mut calls = NewCalls::default();
        let mut over = Vec::new();
        for ((contact, item), zone) in chunk.iter().zip(items).zip(zones) {
            if refused.contains(contact) {
                over.push((*contact, item));
            } else {
                calls.push(*contact, item, zone);
            }
        }
        let behind = tail + number(laid_out.waiting);
        insert_calls(conn, owner, &calls, behind)?;
        insert_refused_calls(conn, owner, &over)?;
        laid_out.waiting += calls.contacts.len();
        laid_out.refused += over.len();
    }
    Ok(laid_out)
}

/// Takes the engine's lock, last: who lists a number after that sees the calls laid out. Answers
/// those of them to numbers listed meanwhile, by those who could not see them.
fn lock_engine_and_look(
    conn: &mut PgConnection,
    owner: Owner,
    seen: i64,
) -> QueryResult<(DateTime<Utc>, Vec<Uuid>)> {
    // However many they are, only the last few are looked for under the lock.
    let seen_next = do_not_call::last_listed(conn)?;
    let listed_since = |conn: &mut PgConnection, seen| {
        do_not_call::calls_listed_since(conn, owner.user, owner.campaign, seen)
    };
    let mut refused = listed_since(conn, seen)?;
    conn.batch_execute(BRIEF_FROM_HERE)?;
    let at = functions::lock_engine(conn)?;
    refused.extend(listed_since(conn, seen_next)?);
    Ok((at, refused))
}

/// Withdraws what [`lock_engine_and_look`] found, once it is counted. Needs the engine's lock.
fn withdraw_refused(
    conn: &mut PgConnection,
    refused: &[Uuid],
    at: DateTime<Utc>,
) -> QueryResult<()> {
    if !refused.is_empty() {
        functions::withdraw_listed(conn, refused, at)?;
    }
    Ok(())
}

/// A count as the database keeps it.
fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn new_items(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| QueueItemId::new().into()).collect()
}

/// Calls to be laid out, in order.
#[derive(Default)]
struct NewCalls {
    contacts: Vec<Uuid>,
    items: Vec<Uuid>,
    /// As [`zones::of_contacts`] tells them.
    zones: Vec<Option<String>>,
}

impl NewCalls {
    fn push(&mut self, contact: Uuid, item: Uuid, zone: Option<String>) {
        self.contacts.push(contact);
        self.items.push(item);
        self.zones.push(zone);
    }
}

/// A queue item for each contact, in order, numbered from behind those laid out before. Answers how
/// many there are: fewer if contacts are gone.
fn insert_calls(
    conn: &mut PgConnection,
    owner: Owner,
    calls: &NewCalls,
    before: i64,
) -> QueryResult<usize> {
    sql_query(
        "INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, call_type, \
             priority, position, status, phone_number, contact_name, user_data, queued_at, due_at, \
             due_since, ordinal, expires_at, zone) \
         SELECT i.item_id, $1, $2, i.id, $3, 'campaign', 0, nextval('call_queue_position_seq'), \
             'queued', i.phone_number, i.name, i.user_data, now(), now(), now(), $6 + i.nth, $7, \
             i.zone \
         FROM ( \
             SELECT n.item_id, n.zone, n.nth, c.id, c.phone_number, c.name, c.user_data \
             FROM unnest($4, $5, $8) WITH ORDINALITY n (item_id, contact_id, zone, nth) \
             JOIN contacts c ON c.id = n.contact_id \
             ORDER BY n.nth \
         ) i",
    )
    .bind::<SqlUuid, _>(owner.user)
    .bind::<SqlUuid, _>(owner.agent)
    .bind::<SqlUuid, _>(owner.campaign)
    .bind::<Array<SqlUuid>, _>(&calls.items)
    .bind::<Array<SqlUuid>, _>(&calls.contacts)
    .bind::<BigInt, _>(before)
    .bind::<Nullable<Timestamptz>, _>(owner.lapses_at)
    .bind::<Array<Nullable<Text>>, _>(&calls.zones)
    .execute(conn)
}

/// A call that is over for each contact that must not be called. It never waited, and has no number.
/// Each comes with its item's id.
fn insert_refused_calls(
    conn: &mut PgConnection,
    owner: Owner,
    refused: &[(Uuid, Uuid)],
) -> QueryResult<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let (contacts, items): (Vec<Uuid>, Vec<Uuid>) = refused.iter().copied().unzip();
    sql_query(
        "INSERT INTO call_queue_history (id, user_id, agent_id, contact_id, campaign_id, \
             call_type, priority, position, status, phone_number, contact_name, user_data, \
             queued_at, due_at, due_since, attempts, was_call, reason, finished_at) \
         SELECT i.item_id, $1, $2, i.id, $3, 'campaign', 0, nextval('call_queue_position_seq'), \
             'cancelled', i.phone_number, i.name, i.user_data, now(), now(), now(), 0, false, \
             'do-not-call', now() \
         FROM ( \
             SELECT n.item_id, c.id, c.phone_number, c.name, c.user_data \
             FROM unnest($4, $5) WITH ORDINALITY n (item_id, contact_id, nth) \
             JOIN contacts c ON c.id = n.contact_id \
             ORDER BY n.nth \
         ) i",
    )
    .bind::<SqlUuid, _>(owner.user)
    .bind::<SqlUuid, _>(owner.agent)
    .bind::<SqlUuid, _>(owner.campaign)
    .bind::<Array<SqlUuid>, _>(items)
    .bind::<Array<SqlUuid>, _>(contacts)
    .execute(conn)
    .map(drop)
}

fn set_campaign_status_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
    next: CampaignStatus,
) -> Result<Campaign, Failure> {
    change::lock_start(conn, id)?;
    let at = functions::lock_engine(conn)?;
    let present = find(conn, user, id)?
        .ok_or(StoreError::NotFound)?
        .status()?;
    let asked = matches!(
        next,
        CampaignStatus::Active | CampaignStatus::Paused | CampaignStatus::Cancelled
    );
    if !asked || !present.may_become(next) {
        let sentence = format!("campaign is {}", present.as_str());
        return Err(StoreError::Conflict(sentence).into());
    }
    sql_query(
        "UPDATE campaigns SET status = $2, updated_at = $3, \
         started_at = CASE $2 WHEN 'active' THEN coalesce(started_at, $3) ELSE started_at END, \
         finished_at = CASE $2 WHEN 'cancelled' THEN $3 END WHERE id = $1",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Text, _>(next.as_str())
    .bind::<Timestamptz, _>(at)
    .execute(conn)?;
    if next == CampaignStatus::Active {
        let campaign = find(conn, user, id)?.ok_or(StoreError::NotFound)?;
        let campaign = campaign.into_campaign()?;
        hours::lay_out_anew(conn, &campaign, at)?;
        if present == CampaignStatus::Draft {
            room::check_room(conn, user, campaign.progress.queued)?;
        }
    } else {
        functions::reopen_campaign(conn, id)?;
    }
    // One with nothing left to do is over at once.
    functions::complete_campaigns(conn, &[id], at)?;
    find(conn, user, id)?
        .ok_or(StoreError::NotFound)?
        .into_campaign()
}

async fn withdraw_waiting(database: Database, campaign: Uuid) -> Result<(), StoreError> {
    while database
        .run(move |conn| {
            let at = functions::lock_engine(conn)?;
            withdraw_chunk(conn, campaign, None, "cancelled", CANCELLED, at)
        })
        .await?
    {}
    Ok(())
}

/// As [`withdraw_some`]. Answers whether there may be more.
fn withdraw_chunk(
    conn: &mut PgConnection,
    campaign: Uuid,
    zone: Option<&str>,
    status: &str,
    reason: &str,
    at: DateTime<Utc>,
) -> Result<bool, Failure> {
    Ok(withdraw_some(conn, campaign, zone, status, reason, at)? == WITHDRAW_CHUNK)
}

/// Ends at most [`WITHDRAW_CHUNK`] of the waiting calls of a campaign, of all or of one zone, and
/// answers how many. Needs the engine's lock.
fn withdraw_some(
    conn: &mut PgConnection,
    campaign: Uuid,
    zone: Option<&str>,
    status: &str,
    reason: &str,
    at: DateTime<Utc>,
) -> Result<usize, Failure> {
    // Two halves, each the left edge of a partial index.
    let which = zone.map_or("$3 IS NULL", |_| "zone = $3");
    let waiting: Vec<IdRow> = sql_query(format!(
        "(SELECT id FROM call_queue WHERE campaign_id = $1 AND {which} \
             AND call_type = 'campaign' AND wakes_at IS NULL LIMIT $2) \
         UNION ALL \
         (SELECT id FROM call_queue WHERE campaign_id = $1 AND {which} \
             AND call_type = 'campaign' AND wakes_at IS NOT NULL LIMIT $2) \
         LIMIT $2"
    ))
    .bind::<SqlUuid, _>(campaign)
    .bind::<BigInt, _>(i64::try_from(WITHDRAW_CHUNK).unwrap_or(i64::MAX))
    .bind::<Nullable<Text>, _>(zone)
    .load(conn)?;
    if waiting.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = waiting.into_iter().map(|row| row.id).collect();
    functions::withdraw_items(conn, &ids, status, reason, at)?;
    Ok(ids.len())
}

/// Withdraws some of the calls that still wait although their campaign is cancelled: a server died
/// between the two, or a call came back to the queue since. Answers whether there may be more.
pub(crate) fn withdraw_cancelled_campaigns_chunk(conn: &mut PgConnection) -> Result<bool, Failure> {
    let unfinished: Option<IdRow> = sql_query(
        "SELECT c.id FROM campaign_slots s JOIN campaigns c ON c.id = s.campaign_id \
         WHERE s.due + s.later > 0 AND c.status = 'cancelled' AND ( \
             EXISTS (SELECT FROM call_queue q WHERE q.campaign_id = c.id \
                 AND q.call_type = 'campaign' AND q.wakes_at IS NULL) \
             OR EXISTS (SELECT FROM call_queue q WHERE q.campaign_id = c.id \
                 AND q.wakes_at IS NOT NULL)) \
         LIMIT 1",
    )
    .get_result(conn)
    .optional()?;
    let Some(IdRow { id }) = unfinished else {
        return Ok(false);
    };
    let at = functions::lock_engine(conn)?;
    withdraw_chunk(conn, id, None, "cancelled", CANCELLED, at)?;
    Ok(true)
}
