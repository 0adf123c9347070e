//! Saying something else of a campaign, and deleting it.

use callq_domain::{Campaign, CampaignFields, CampaignStatus, StoreError};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Bool, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::contacts::name_items;
use super::{Owner, find, hours, insert_retry_rules, lock_agent, zones};
use crate::rows::campaign::NewCampaignRow;
use crate::schema::campaigns;
use crate::{Failure, functions};

/// Keeps a draft from being started or withdrawn until the end of the transaction. Before the
/// engine's lock, never after: whoever has it may hold it for seconds.
pub(super) fn lock_start(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<()> {
    sql_query(
        "SELECT pg_advisory_xact_lock(hashtextextended('callq campaign start ' || $1::text, 0))",
    )
    .bind::<SqlUuid, _>(campaign)
    .execute(conn)
    .map(drop)
}

/// Has those that lay out calls of a campaign come one after the other, each to the end of its
/// transaction: the numbers they give follow one another. Before [`lock_start`].
pub(super) fn lock_list(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<()> {
    sql_query(
        "SELECT pg_advisory_xact_lock(hashtextextended('callq campaign list ' || $1::text, 0))",
    )
    .bind::<SqlUuid, _>(campaign)
    .execute(conn)
    .map(drop)
}

/// The sentence for what cannot be done with a campaign that stands here.
pub(super) fn stands(status: CampaignStatus) -> Failure {
    StoreError::Conflict(format!("campaign is {}", status.as_str())).into()
}

/// Where a campaign stands, if it is the user's and was not deleted.
pub(super) fn status_of(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
) -> Result<CampaignStatus, Failure> {
    let found = find(conn, user, id)?.ok_or(StoreError::NotFound)?;
    Ok(found.into_campaign()?.status)
}

/// The hours of a campaign under way change with it, at once: it opens or closes by the new ones.
pub(super) fn update_campaign_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
    fields: &CampaignFields,
) -> Result<Campaign, Failure> {
    let row = find(conn, user, id)?.ok_or(StoreError::NotFound)?;
    let present = row.into_campaign()?;
    if present.status.is_over() {
        return Err(stands(present.status));
    }
    if present.fields.agent_id != fields.agent_id {
        change_agent(conn, user, id, fields.agent_id.as_uuid())?;
    }
    if present.fields.use_contact_timezone != fields.use_contact_timezone {
        change_clock(conn, user, id, fields.use_contact_timezone)?;
    }
    let at = functions::lock_engine(conn)?;
    let own = campaigns::table
        .find(id)
        .filter(campaigns::user_id.eq(user))
        .filter(campaigns::agent_id.eq(fields.agent_id.as_uuid()))
        .filter(campaigns::use_contact_timezone.eq(fields.use_contact_timezone))
        .filter(campaigns::status.ne_all(["completed", "cancelled"]));
    let said = NewCampaignRow::of(id, user, fields);
    let changed = diesel::update(own)
        .set((said, campaigns::updated_at.eq(at)))
        .execute(conn)?;
    let row = find(conn, user, id)?.ok_or(StoreError::NotFound)?;
    let campaign = row.into_campaign()?;
    if changed == 0 {
        // It ended, or got another agent or clock, since it was looked at.
        return Err(stands(campaign.status));
    }
    sql_query("DELETE FROM campaign_retries WHERE campaign_id = $1")
        .bind::<SqlUuid, _>(id)
        .execute(conn)?;
    insert_retry_rules(conn, id, &fields.retries)?;
    match campaign.status {
        CampaignStatus::Scheduled | CampaignStatus::Active => {
            hours::lay_out_anew(conn, &campaign, at)?;
        }
        CampaignStatus::Paused => hours::forget(conn, id)?,
        CampaignStatus::Draft | CampaignStatus::Completed | CampaignStatus::Cancelled => {}
    }
    find(conn, user, id)?
        .ok_or(StoreError::NotFound)?
        .into_campaign()
}

/// Gives a draft and all that is laid out for it another agent. The engine does not look at these
/// calls while it is a draft, so they change without its lock, however many they are.
fn change_agent(
    conn: &mut PgConnection,
    user: Uuid,
    campaign: Uuid,
    agent: Uuid,
) -> Result<(), Failure> {
    lock_list(conn, campaign)?;
    lock_start(conn, campaign)?;
    let status = status_of(conn, user, campaign)?;
    if status != CampaignStatus::Draft {
        return Err(stands(status));
    }
    lock_agent(conn, user, agent)?;
    for half in ["wakes_at IS NULL", "wakes_at IS NOT NULL"] {
        sql_query(format!(
            "UPDATE call_queue SET agent_id = $2 \
             WHERE campaign_id = $1 AND call_type = 'campaign' AND {half}"
        ))
        .bind::<SqlUuid, _>(campaign)
        .bind::<SqlUuid, _>(agent)
        .execute(conn)?;
    }
    sql_query("UPDATE campaigns SET agent_id = $2 WHERE id = $1 AND status = 'draft'")
        .bind::<SqlUuid, _>(campaign)
        .bind::<SqlUuid, _>(agent)
        .execute(conn)?;
    Ok(())
}

/// Has a draft go by its contacts' clocks, or by its own zone: what is laid out for it changes as in
/// [`change_agent`].
fn change_clock(
    conn: &mut PgConnection,
    user: Uuid,
    campaign: Uuid,
    by_zone: bool,
) -> Result<(), Failure> {
    lock_list(conn, campaign)?;
    lock_start(conn, campaign)?;
    let row = find(conn, user, campaign)?.ok_or(StoreError::NotFound)?;
    let present = row.into_campaign()?;
    if present.status != CampaignStatus::Draft {
        return Err(stands(present.status));
    }
    let owner = Owner {
        user,
        campaign,
        agent: present.fields.agent_id.as_uuid(),
        lapses_at: None,
        by_zone,
    };
    name_items(conn, campaign)?;
    zones::change(conn, owner)?;
    sql_query("UPDATE campaigns SET use_contact_timezone = $2 WHERE id = $1 AND status = 'draft'")
        .bind::<SqlUuid, _>(campaign)
        .bind::<Bool, _>(by_zone)
        .execute(conn)?;
    Ok(())
}

/// A draft is cancelled by it: what is laid out for it is withdrawn afterwards, as any cancelled
/// campaign's calls are.
pub(super) fn delete_campaign_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
) -> Result<(), Failure> {
    lock_start(conn, id)?;
    let at = functions::lock_engine(conn)?;
    let status = status_of(conn, user, id)?;
    if !status.may_be_deleted() {
        return Err(stands(status));
    }
    sql_query(
        "UPDATE campaigns SET deleted_at = $2, updated_at = $2, \
             status = CASE status WHEN 'draft' THEN 'cancelled' ELSE status END, \
             finished_at = coalesce(finished_at, $2) WHERE id = $1",
    )
    .bind::<SqlUuid, _>(id)
    .bind::<Timestamptz, _>(at)
    .execute(conn)?;
    Ok(())
}
