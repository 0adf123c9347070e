//! Calling contacts once more that were not reached: each gets a new item at the end of its
//! campaign's order, and is no longer counted as what it ended as. What it went through stays.

use callq_domain::{CampaignStatus, ContactSelection, ContactStatus, StoreError};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::change::{lock_list, stands, status_of};
use super::contacts::{end_of_list, name_items};
use super::{
    LAY_OUT_CHUNK, NewCalls, Owner, find, hours, insert_calls, lapse, lock_engine_and_look,
    new_items, number, room, zones,
};
use crate::functions::{self, LaidOut};
use crate::rows::unreadable;
use crate::{Failure, do_not_call};

/// A contact whose item is over, and how it ended.
#[derive(QueryableByName)]
struct EndedRow {
    #[diesel(sql_type = SqlUuid)]
    contact_id: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Integer)]
    attempts: i32,
}

pub(super) fn requeue_contacts_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
    campaign: Uuid,
    which: ContactSelection,
    ended: &[ContactStatus],
) -> Result<u64, Failure> {
    lock_list(conn, campaign)?;
    let present = find(conn, user, campaign)?
        .ok_or(StoreError::NotFound)?
        .into_campaign()?;
    if !present.status.may_be_repeated() {
        return Err(stands(present.status));
    }
    name_items(conn, campaign)?;
    let seen = do_not_call::last_listed(conn)?;
    let rows = ended_contacts(conn, campaign, which, ended)?;
    if rows.is_empty() {
        return Ok(0);
    }

    let owner = Owner {
        user,
        campaign,
        agent: present.fields.agent_id.as_uuid(),
        lapses_at: lapse::lapses_at(conn, user, &present.fields)?,
        by_zone: present.fields.use_contact_timezone,
    };
    let tail = end_of_list(conn, campaign)?.tail;
    for (nth, chunk) in rows.chunks(LAY_OUT_CHUNK).enumerate() {
        let before = number(nth * LAY_OUT_CHUNK);
        let contacts: Vec<Uuid> = chunk.iter().map(|row| row.contact_id).collect();
        let calls = NewCalls {
            items: new_items(chunk.len()),
            zones: zones::of_contacts(conn, owner, &contacts)?,
            contacts,
        };
        let laid_out = insert_calls(conn, owner, &calls, tail + before)?;
        if laid_out != chunk.len() {
            return Err(StoreError::Internal("a locked contact is gone".into()).into());
        }
        name_new_items(conn, campaign, chunk, &calls)?;
    }
    lapse::follow_clocks(conn, owner, &present.fields)?;

    let (at, refused) = lock_engine_and_look(conn, owner, seen)?;
    let status = status_of(conn, user, campaign)?;
    if !status.may_be_repeated() {
        return Err(stands(status));
    }
    functions::count_laid_out(conn, campaign, by_end(&rows)?)?;
    if status == CampaignStatus::Completed {
        sql_query(
            "UPDATE campaigns SET status = 'active', finished_at = NULL, updated_at = $2 \
             WHERE id = $1",
        )
        .bind::<SqlUuid, _>(campaign)
        .bind::<Timestamptz, _>(at)
        .execute(conn)?;
        let again = find(conn, user, campaign)?.ok_or(StoreError::NotFound)?;
        hours::lay_out_anew(conn, &again.into_campaign()?, at)?;
    } else if owner.by_zone {
        hours::lay_out_missing(conn, campaign, at)?;
    }
    let withdrawn = match refused.is_empty() {
        true => 0,
        false => functions::withdraw_listed(conn, &refused, at)?,
    };
    let requeued = (rows.len() as u64).saturating_sub(u64::try_from(withdrawn).unwrap_or(0));
    if status != CampaignStatus::Draft {
        room::check_room(conn, user, requeued)?;
    }
    Ok(requeued)
}

/// Contacts whose item ended so and is the last word on them, in the order of the list. Each is kept
/// as it is until its call exists, as when a campaign is made. Who must not be called stays as it is.
fn ended_contacts(
    conn: &mut PgConnection,
    campaign: Uuid,
    which: ContactSelection,
    ended: &[ContactStatus],
) -> QueryResult<Vec<EndedRow>> {
    let these: Option<Vec<Uuid>> = match which {
        ContactSelection::All => None,
        ContactSelection::These(ids) => Some(ids.iter().map(|id| id.as_uuid()).collect()),
    };
    let ended: Vec<&str> = ended
        .iter()
        .filter(|status| ContactStatus::REPEATABLE.contains(status))
        .map(|status| status.as_str())
        .collect();
    sql_query(
        "SELECT e.contact_id, e.status, e.attempts FROM ( \
             SELECT m.contact_id, m.ordinal, h.status, h.attempts \
             FROM campaign_contacts m \
             CROSS JOIN LATERAL (SELECT l.status, l.attempts::integer AS attempts \
                 FROM call_queue_history l WHERE l.id = m.item_id \
                 ORDER BY l.finished_at DESC LIMIT 1) h \
             WHERE m.campaign_id = $1 AND ($2 IS NULL OR m.contact_id = ANY ($2)) \
                 AND h.status = ANY ($3) \
                 AND NOT EXISTS (SELECT FROM call_queue q WHERE q.id = m.item_id) \
                 AND NOT EXISTS (SELECT FROM active_calls a WHERE a.call_id = m.item_id) \
                 AND NOT EXISTS (SELECT FROM active_calls a \
                     WHERE a.item_id = m.item_id AND a.item_id <> a.call_id) \
             OFFSET 0 \
         ) e JOIN contacts c ON c.id = e.contact_id \
         WHERE NOT EXISTS (SELECT FROM do_not_call d \
             WHERE d.user_id IS NULL AND d.phone_number = c.phone_number) \
         AND NOT EXISTS (SELECT FROM do_not_call d \
             WHERE d.user_id = c.user_id AND d.phone_number = c.phone_number) \
         ORDER BY e.ordinal FOR SHARE OF c",
    )
    .bind::<SqlUuid, _>(campaign)
    .bind::<Nullable<Array<SqlUuid>>, _>(these)
    .bind::<Array<Text>, _>(ended)
    .load(conn)
}

/// Notes the new items, and what went before them.
fn name_new_items(
    conn: &mut PgConnection,
    campaign: Uuid,
    ended: &[EndedRow],
    calls: &NewCalls,
) -> QueryResult<()> {
    let attempts: Vec<i32> = ended.iter().map(|row| row.attempts).collect();
    sql_query(
        "UPDATE campaign_contacts m SET earlier_item_id = m.item_id, item_id = i.item_id, \
             earlier_attempts = m.earlier_attempts + i.attempts, zone = i.zone \
         FROM unnest($2, $3, $4, $5) i (contact_id, item_id, attempts, zone) \
         WHERE m.campaign_id = $1 AND m.contact_id = i.contact_id",
    )
    .bind::<SqlUuid, _>(campaign)
    .bind::<Array<SqlUuid>, _>(&calls.contacts)
    .bind::<Array<SqlUuid>, _>(&calls.items)
    .bind::<Array<Integer>, _>(attempts)
    .bind::<Array<Nullable<Text>>, _>(&calls.zones)
    .execute(conn)
    .map(drop)
}

fn by_end(rows: &[EndedRow]) -> Result<LaidOut, Failure> {
    let mut laid_out = LaidOut::default();
    for row in rows {
        laid_out.calls += 1;
        match ContactStatus::from_name(&row.status) {
            Some(ContactStatus::Failed) => laid_out.failed += 1,
            Some(ContactStatus::Cancelled) => laid_out.cancelled += 1,
            Some(ContactStatus::Expired) => laid_out.expired += 1,
            _ => return Err(unreadable("call_queue_history.status", &row.status)),
        }
    }
    Ok(laid_out)
}
