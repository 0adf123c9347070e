//! Contacts of a campaign that is there already: added behind the others, and withdrawn.
//!
//! Adding writes all rows first, which nobody sees, and takes the engine's lock for one look and one
//! count at the end: dispatch waits for that alone, whatever the number.

use std::collections::HashSet;

use async_trait::async_trait;
use callq_domain::{
    CampaignContact, CampaignContactStore, CampaignId, CampaignStatus, ContactId, ContactSelection,
    ContactStatus, ContactsAdded, Page, PageRequest, StoreError, UserId,
};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Uuid as SqlUuid};
use uuid::Uuid;

use super::change::{lock_list, lock_start, stands, status_of};
use super::listing::ContactPage;
use super::{
    Owner, WITHDRAW_CHUNK, find, hours, lapse, list_and_lay_out, lock_engine_and_look, requeue,
    room, unknown_contact, withdraw_refused, withdraw_some,
};
use crate::functions::{self, IdRow, LaidOut};
use crate::{Failure, PostgresStore};

#[async_trait]
impl CampaignContactStore for PostgresStore {
    async fn campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        status: Option<ContactStatus>,
        page: PageRequest,
    ) -> Result<Page<CampaignContact>, StoreError> {
        let page = ContactPage::new(status, &page)?;
        let (user, campaign) = (user.as_uuid(), campaign.as_uuid());
        let look = move |conn: &mut PgConnection| match has_unnamed_items(conn, campaign)? {
            true => Ok(None),
            false => page.load(conn, user, campaign).map(Some),
        };
        if let Some(found) = self.database.run(look).await? {
            return Ok(found);
        }
        self.database
            .run_long_write(move |conn| {
                lock_list(conn, campaign)?;
                Ok(functions::name_listed_items(conn, campaign)?)
            })
            .await?;
        self.database
            .run(move |conn| page.load(conn, user, campaign))
            .await
    }

    async fn add_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        contacts: Vec<ContactId>,
    ) -> Result<ContactsAdded, StoreError> {
        self.database
            .run_long_write(move |conn| {
                add_contacts_on_conn(conn, user.as_uuid(), campaign.as_uuid(), contacts)
            })
            .await
    }

    async fn cancel_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        which: ContactSelection,
    ) -> Result<u64, StoreError> {
        let store = self.clone();
        // A task of its own: a client that goes away does not leave it half done.
        let withdrawal = async move {
            let (user, campaign) = (user.as_uuid(), campaign.as_uuid());
            match which {
                ContactSelection::All => store.withdraw_all_contacts(user, campaign).await,
                ContactSelection::These(ids) => store.withdraw_contacts(user, campaign, ids).await,
            }
        };
        let withdrawn = tokio::spawn(withdrawal).await;
        withdrawn.unwrap_or_else(|error| Err(StoreError::Internal(error.to_string())))
    }

    async fn requeue_campaign_contacts(
        &self,
        user: UserId,
        campaign: CampaignId,
        which: ContactSelection,
        ended: Vec<ContactStatus>,
    ) -> Result<u64, StoreError> {
        self.database
            .run_long_write(move |conn| {
                requeue::requeue_contacts_on_conn(
                    conn,
                    user.as_uuid(),
                    campaign.as_uuid(),
                    which,
                    &ended,
                )
            })
            .await
    }
}

impl PostgresStore {
    async fn withdraw_all_contacts(&self, user: Uuid, campaign: Uuid) -> Result<u64, StoreError> {
        let mut withdrawn = 0;
        loop {
            let some = self
                .database
                .run(move |conn| {
                    lock_start(conn, campaign)?;
                    let at = functions::lock_engine(conn)?;
                    // The first look is what the answer goes by, the others work off the rest.
                    let status = status_of(conn, user, campaign)?;
                    if status.is_over() {
                        return Ok(Err(stands(status)));
                    }
                    withdraw_some(conn, campaign, None, "cancelled", WITHDRAWN, at).map(Ok)
                })
                .await?;
            match some {
                Ok(some) => {
                    withdrawn += some as u64;
                    if some < WITHDRAW_CHUNK {
                        return Ok(withdrawn);
                    }
                }
                // Withdrawing the last of them may have completed it.
                Err(_) if withdrawn > 0 => return Ok(withdrawn),
                Err(failure) => return Err(failure.0),
            }
        }
    }

    async fn withdraw_contacts(
        &self,
        user: Uuid,
        campaign: Uuid,
        contacts: Vec<ContactId>,
    ) -> Result<u64, StoreError> {
        let items = self
            .database
            .run_long_write(move |conn| items_of(conn, user, campaign, &contacts))
            .await?;
        let mut withdrawn = 0;
        for chunk in items.chunks(WITHDRAW_CHUNK) {
            let chunk = chunk.to_vec();
            withdrawn += self
                .database
                .run(move |conn| {
                    lock_start(conn, campaign)?;
                    let at = functions::lock_engine(conn)?;
                    let gone = functions::withdraw_items(conn, &chunk, "cancelled", WITHDRAWN, at)?;
                    Ok(gone.len() as u64)
                })
                .await?;
        }
        Ok(withdrawn)
    }
}

/// Why a contact's call is over that its user withdrew.
const WITHDRAWN: &str = "cancelled by its owner";

fn has_unnamed_items(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct AnswerRow {
        #[diesel(sql_type = Bool)]
        yes: bool,
    }
    sql_query(
        "SELECT EXISTS (SELECT FROM campaign_contacts \
         WHERE campaign_id = $1 AND item_id IS NULL) AS yes",
    )
    .bind::<SqlUuid, _>(campaign)
    .get_result::<AnswerRow>(conn)
    .map(|row| row.yes)
}

/// Sees that each contact's item is known. Needs the list lock.
pub(super) fn name_items(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<()> {
    if has_unnamed_items(conn, campaign)? {
        functions::name_listed_items(conn, campaign)?;
    }
    Ok(())
}

/// The items that stand for these contacts of a campaign that is not over.
fn items_of(
    conn: &mut PgConnection,
    user: Uuid,
    campaign: Uuid,
    contacts: &[ContactId],
) -> Result<Vec<Uuid>, Failure> {
    let status = status_of(conn, user, campaign)?;
    if status.is_over() {
        return Err(stands(status));
    }
    if has_unnamed_items(conn, campaign)? {
        lock_list(conn, campaign)?;
        functions::name_listed_items(conn, campaign)?;
    }
    let contacts: Vec<Uuid> = contacts.iter().map(|id| id.as_uuid()).collect();
    let rows: Vec<IdRow> = sql_query(
        "SELECT m.item_id AS id FROM unnest($2) i (id) \
         JOIN campaign_contacts m ON m.campaign_id = $1 AND m.contact_id = i.id",
    )
    .bind::<SqlUuid, _>(campaign)
    .bind::<Array<SqlUuid>, _>(contacts)
    .load(conn)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

fn add_contacts_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
    campaign: Uuid,
    mut contacts: Vec<ContactId>,
) -> Result<ContactsAdded, Failure> {
    let mut seen = HashSet::with_capacity(contacts.len());
    contacts.retain(|contact| seen.insert(*contact));
    let mut ids: Vec<Uuid> = contacts.iter().map(|id| id.as_uuid()).collect();
    lock_list(conn, campaign)?;
    let present = find(conn, user, campaign)?
        .ok_or(StoreError::NotFound)?
        .into_campaign()?;
    if present.status.is_over() {
        return Err(stands(present.status));
    }
    if let Some(unknown) = unknown_contact(conn, user, &ids)? {
        return Ok(ContactsAdded::UnknownContact(unknown));
    }
    let listed: Vec<IdRow> = sql_query(
        "SELECT contact_id AS id FROM campaign_contacts \
         WHERE campaign_id = $1 AND contact_id = ANY ($2)",
    )
    .bind::<SqlUuid, _>(campaign)
    .bind::<Array<SqlUuid>, _>(&ids)
    .load(conn)?;
    let listed: HashSet<Uuid> = listed.into_iter().map(|row| row.id).collect();
    ids.retain(|id| !listed.contains(id));
    contacts.retain(|contact| listed.contains(&contact.as_uuid()));
    let added = ContactsAdded::Added {
        added: ids.len() as u64,
        skipped: contacts,
    };
    if ids.is_empty() {
        return Ok(added);
    }

    let owner = Owner {
        user,
        campaign,
        agent: present.fields.agent_id.as_uuid(),
        lapses_at: lapse::lapses_at(conn, user, &present.fields)?,
        by_zone: present.fields.use_contact_timezone,
    };
    let end = end_of_list(conn, campaign)?;
    let calls = list_and_lay_out(conn, owner, &ids, end.listed, end.tail)?;
    lapse::follow_clocks(conn, owner, &present.fields)?;
    let (at, refused) = lock_engine_and_look(conn, owner, calls.seen)?;
    let status = status_of(conn, user, campaign)?;
    if status.is_over() {
        return Err(stands(status));
    }
    let laid_out = LaidOut {
        calls: i32::try_from(calls.waiting).unwrap_or(i32::MAX),
        cancelled: -i32::try_from(calls.refused).unwrap_or(i32::MAX),
        ..LaidOut::default()
    };
    functions::count_laid_out(conn, campaign, laid_out)?;
    if owner.by_zone {
        hours::lay_out_missing(conn, campaign, at)?;
    }
    withdraw_refused(conn, &refused, at)?;
    if status != CampaignStatus::Draft {
        room::check_room(conn, user, calls.waiting as u64)?;
    }
    Ok(added)
}

/// Where a campaign's list ends, and the last number that a call of it was given.
#[derive(QueryableByName)]
pub(super) struct EndRow {
    #[diesel(sql_type = BigInt)]
    pub(super) listed: i64,
    #[diesel(sql_type = BigInt)]
    pub(super) tail: i64,
}

/// Needs the list lock, under which alone it moves.
pub(super) fn end_of_list(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<EndRow> {
    sql_query(
        "SELECT s.tail, coalesce((SELECT max(m.ordinal) FROM campaign_contacts m \
             WHERE m.campaign_id = s.campaign_id), 0)::bigint AS listed \
         FROM campaign_slots s WHERE s.campaign_id = $1",
    )
    .bind::<SqlUuid, _>(campaign)
    .get_result(conn)
}
