//! By which clock each call of a campaign goes that goes by its contacts' clocks. It is told when a
//! call is laid out, from the contact as it is then, and stays with the call. Here alone zones are
//! found; the database keeps their names, and none is the campaign's own.

use std::collections::{BTreeSet, HashMap};

use callq_domain::{PhoneNumber, zone_of_contact};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use super::{LAY_OUT_CHUNK, Owner};

/// Calls that go by their campaign's own zone: all of them, or those of contacts whose zone nobody
/// knows.
pub(super) const OWN: &str = "";

#[derive(QueryableByName)]
struct ContactRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = Nullable<Text>)]
    time_zone: Option<String>,
}

impl ContactRow {
    fn zone(self) -> String {
        let number = PhoneNumber::from_trusted(self.phone_number);
        let zone = zone_of_contact(self.time_zone.as_deref(), &number);
        zone.map_or(OWN, |zone| zone.name()).to_owned()
    }
}

/// The zone by which the call to each of these contacts goes, in their order, and notes that its
/// campaign has calls of it. None of each if the campaign goes by its own zone. Needs the list lock,
/// or a campaign that nobody else sees yet.
pub(super) fn of_contacts(
    conn: &mut PgConnection,
    owner: Owner,
    contacts: &[Uuid],
) -> QueryResult<Vec<Option<String>>> {
    if !owner.by_zone {
        return Ok(vec![None; contacts.len()]);
    }
    let rows: Vec<ContactRow> = sql_query(
        "SELECT id, phone_number, time_zone FROM contacts WHERE id = ANY ($1) AND user_id = $2",
    )
    .bind::<Array<SqlUuid>, _>(contacts)
    .bind::<SqlUuid, _>(owner.user)
    .load(conn)?;
    let zones: HashMap<Uuid, String> = rows.into_iter().map(|row| (row.id, row.zone())).collect();
    let different: BTreeSet<&str> = zones.values().map(String::as_str).collect();
    sql_query(
        "INSERT INTO campaign_zones (campaign_id, zone) SELECT $1, i.zone FROM unnest($2) i (zone) \
         ON CONFLICT DO NOTHING",
    )
    .bind::<SqlUuid, _>(owner.campaign)
    .bind::<Array<Text>, _>(different.into_iter().collect::<Vec<_>>())
    .execute(conn)?;
    let zone = |contact| Some(zones.get(contact).map_or(OWN, String::as_str).to_owned());
    Ok(contacts.iter().map(zone).collect())
}

/// The zones by which calls of a campaign go; its own if it does not go by contacts' clocks.
pub(super) fn of_campaign(conn: &mut PgConnection, campaign: Uuid) -> QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct ZoneRow {
        #[diesel(sql_type = Text)]
        zone: String,
    }
    let query = "SELECT z.zone FROM campaign_zones z JOIN campaigns c ON c.id = z.campaign_id \
        WHERE c.id = $1 AND c.use_contact_timezone ORDER BY z.zone";
    let rows = sql_query(query).bind::<SqlUuid, _>(campaign);
    let rows = rows.load::<ZoneRow>(conn)?;
    let mut zones: Vec<String> = rows.into_iter().map(|row| row.zone).collect();
    if zones.is_empty() {
        zones.push(OWN.to_owned());
    }
    Ok(zones)
}

/// Gives all that is laid out for a draft its zones, or takes them away. Needs the list lock and the
/// start lock.
pub(super) fn change(conn: &mut PgConnection, owner: Owner) -> QueryResult<()> {
    #[derive(QueryableByName)]
    struct ListedRow {
        #[diesel(sql_type = SqlUuid)]
        contact_id: Uuid,
        #[diesel(sql_type = BigInt)]
        ordinal: i64,
    }
    sql_query("DELETE FROM campaign_zones WHERE campaign_id = $1")
        .bind::<SqlUuid, _>(owner.campaign)
        .execute(conn)?;
    let mut behind = i64::MIN;
    loop {
        let listed: Vec<ListedRow> = sql_query(
            "SELECT contact_id, ordinal::bigint AS ordinal FROM campaign_contacts \
             WHERE campaign_id = $1 AND ordinal > $2 ORDER BY ordinal LIMIT $3",
        )
        .bind::<SqlUuid, _>(owner.campaign)
        .bind::<BigInt, _>(behind)
        .bind::<BigInt, _>(super::number(LAY_OUT_CHUNK))
        .load(conn)?;
        let Some(last) = listed.last() else {
            return Ok(());
        };
        behind = last.ordinal;
        let contacts: Vec<Uuid> = listed.into_iter().map(|row| row.contact_id).collect();
        assign(conn, owner, &contacts)?;
    }
}

/// Gives what is laid out for these contacts their zones, or takes them away. Nothing of it may be
/// handed out meanwhile.
pub(super) fn assign(conn: &mut PgConnection, owner: Owner, contacts: &[Uuid]) -> QueryResult<()> {
    let zones = of_contacts(conn, owner, contacts)?;
    sql_query(
        "WITH listed AS ( \
             UPDATE campaign_contacts m SET zone = i.zone \
             FROM unnest($2, $3) i (contact_id, zone) \
             WHERE m.campaign_id = $1 AND m.contact_id = i.contact_id \
             RETURNING m.item_id, i.zone \
         ) UPDATE call_queue q SET zone = l.zone FROM listed l WHERE q.id = l.item_id",
    )
    .bind::<SqlUuid, _>(owner.campaign)
    .bind::<Array<SqlUuid>, _>(contacts)
    .bind::<Array<Nullable<Text>>, _>(zones)
    .execute(conn)
    .map(drop)
}
