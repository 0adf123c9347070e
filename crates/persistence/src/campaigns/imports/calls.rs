//! What an import leaves behind: contacts that were not there, and calls to everybody on the list,
//! some at a time, so that each statement stays far below the time that it may take.

use callq_domain::NewCampaign;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::CHUNK;
use crate::Failure;
use crate::campaigns::contacts::end_of_list;
use crate::campaigns::{Owner, insert_campaign, insert_slots, zones};
use crate::functions::IdRow;

const NEW_CONTACTS: &str = "\
    INSERT INTO contacts (id, user_id, phone_number, name, time_zone, user_data) \
    SELECT r.contact_id, $1, r.phone_number, r.name, r.time_zone, r.user_data \
    FROM import_plan p JOIN import_rows r ON r.row = p.row \
    WHERE p.nth IS NOT NULL AND p.contact_id IS NULL AND p.row BETWEEN $2 AND $3 \
        AND r.row BETWEEN $2 AND $3 ORDER BY p.row";

const MEMBERS: &str = "\
    INSERT INTO campaign_contacts (campaign_id, contact_id, item_id, ordinal) \
    SELECT $1, coalesce(p.contact_id, r.contact_id), r.item_id, $2 + p.nth \
    FROM import_plan p JOIN import_rows r ON r.row = p.row \
    WHERE p.nth IS NOT NULL AND p.row BETWEEN $3 AND $4 AND r.row BETWEEN $3 AND $4 \
    ORDER BY p.row";

/// What the row says goes with the call; where it says nothing, what the contact says.
const CALLS: &str = "\
    INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, call_type, priority, \
        position, status, phone_number, contact_name, user_data, queued_at, due_at, due_since, \
        ordinal, expires_at) \
    SELECT i.item_id, $1, $2, i.contact_id, $3, 'campaign', 0, \
        nextval('call_queue_position_seq'), 'queued', i.phone_number, i.name, i.user_data, now(), \
        now(), now(), $4 + i.nth, $7 \
    FROM ( \
        SELECT r.item_id, coalesce(p.contact_id, r.contact_id) AS contact_id, r.phone_number, \
            coalesce(r.name, c.name) AS name, coalesce(r.user_data, c.user_data) AS user_data, \
            p.nth \
        FROM import_plan p JOIN import_rows r ON r.row = p.row \
        LEFT JOIN LATERAL ( \
            SELECT k.name, k.user_data FROM contacts k WHERE k.id = p.contact_id OFFSET 0 \
        ) c ON true \
        WHERE p.nth IS NOT NULL AND p.row BETWEEN $5 AND $6 AND r.row BETWEEN $5 AND $6 \
        ORDER BY p.row \
    ) i";

/// The rows from the first to the last of the next calls. They are found by these: each statement
/// reads its own part of the list, and no other, however long it is.
fn rows_of(conn: &mut PgConnection, before: i64) -> QueryResult<(i64, i64)> {
    #[derive(QueryableByName)]
    struct RangeRow {
        #[diesel(sql_type = BigInt)]
        from: i64,
        #[diesel(sql_type = BigInt)]
        until: i64,
    }
    let range: RangeRow = sql_query(
        "SELECT min(row) AS from, max(row) AS until FROM import_plan \
         WHERE nth > $1 AND nth <= $2",
    )
    .bind::<BigInt, _>(before)
    .bind::<BigInt, _>(before + CHUNK as i64)
    .get_result(conn)?;
    Ok((range.from, range.until))
}

/// The contacts of these rows who are called.
fn contacts_of(conn: &mut PgConnection, from: i64, until: i64) -> QueryResult<Vec<Uuid>> {
    let rows: Vec<IdRow> = sql_query(
        "SELECT coalesce(p.contact_id, r.contact_id) AS id \
         FROM import_plan p JOIN import_rows r ON r.row = p.row \
         WHERE p.nth IS NOT NULL AND p.row BETWEEN $1 AND $2 AND r.row BETWEEN $1 AND $2",
    )
    .bind::<BigInt, _>(from)
    .bind::<BigInt, _>(until)
    .load(conn)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// A campaign without calls so far.
pub(super) fn insert_draft(
    conn: &mut PgConnection,
    owner: Owner,
    new: &NewCampaign,
) -> Result<(), Failure> {
    insert_campaign(conn, new)?;
    insert_slots(conn, owner, 0, 0)?;
    Ok(())
}

/// Lays out the calls of `import_plan`, numbered from behind the campaign's last. Needs the list lock,
/// unless nobody else knows of the campaign.
pub(super) fn lay_out(conn: &mut PgConnection, owner: Owner, calls: u64) -> Result<(), Failure> {
    let end = end_of_list(conn, owner.campaign)?;
    let calls = i64::try_from(calls).unwrap_or(i64::MAX);
    for before in (0..calls).step_by(CHUNK) {
        let (from, until) = rows_of(conn, before)?;
        sql_query(NEW_CONTACTS)
            .bind::<SqlUuid, _>(owner.user)
            .bind::<BigInt, _>(from)
            .bind::<BigInt, _>(until)
            .execute(conn)?;
        sql_query(MEMBERS)
            .bind::<SqlUuid, _>(owner.campaign)
            .bind::<BigInt, _>(end.listed)
            .bind::<BigInt, _>(from)
            .bind::<BigInt, _>(until)
            .execute(conn)?;
        sql_query(CALLS)
            .bind::<SqlUuid, _>(owner.user)
            .bind::<SqlUuid, _>(owner.agent)
            .bind::<SqlUuid, _>(owner.campaign)
            .bind::<BigInt, _>(end.tail)
            .bind::<BigInt, _>(from)
            .bind::<BigInt, _>(until)
            .bind::<Nullable<Timestamptz>, _>(owner.lapses_at)
            .execute(conn)?;
        if owner.by_zone {
            let contacts = contacts_of(conn, from, until)?;
            zones::assign(conn, owner, &contacts)?;
        }
    }
    Ok(())
}
