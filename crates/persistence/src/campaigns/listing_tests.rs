//! What a page of contacts reads: in proportion to the page, however many contacts there are and
//! wherever it begins. Planned as it is asked for, without statistics.

use callq_domain::ContactStatus;
use callq_testing::TestDatabase;
use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::listing::ContactPage;
use crate::cursor::ContactCursor;

const PAGE: u16 = 50;

/// Rows read for a contact at most: its line of the list, its item, what shows that the item is the
/// last, and those beside the page.
const ROWS_OF_A_CONTACT: i64 = 8;

#[derive(QueryableByName)]
struct CampaignRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
}

/// A campaign half of whose contacts are over, by turns in each way, every tenth of these queued
/// again; the rest waits, a third of it asleep. And as many calls of another campaign of its user.
fn fill(conn: &mut PgConnection, contacts: u32) -> CampaignRow {
    conn.batch_execute(&format!(
        "BEGIN; SET LOCAL session_replication_role = replica; \
         CREATE TEMPORARY TABLE p ON COMMIT DROP AS SELECT uuid_v7() AS user_id, \
             uuid_v7() AS agent_id, uuid_v7() AS id, uuid_v7() AS other; \
         INSERT INTO users (id, email) SELECT user_id, 'ada@example.com' FROM p; \
         INSERT INTO user_slots (user_id) SELECT user_id FROM p; \
         INSERT INTO campaigns (id, user_id, agent_id, name, next_action, first_call_time, \
                 last_call_time, start_date, status, created_at) \
             SELECT c, user_id, agent_id, CASE c WHEN id THEN 'Spring' ELSE 'Autumn' END, 'call', '00:00', '23:59', '2026-01-01', 'active', \
                 now() - interval '2 days' FROM p, unnest(ARRAY[id, other]) c; \
         INSERT INTO campaign_slots (campaign_id, user_id) SELECT c, user_id FROM p, unnest(ARRAY[id, other]) c; \
         CREATE TEMPORARY TABLE listed ON COMMIT DROP AS \
             SELECT n, uuid_v7() AS contact_id, uuid_v7() AS item_id, uuid_v7() AS old_id, \
                 n % 2 = 0 AS was_over, n % 20 = 0 AS again FROM generate_series(1, {contacts}) n; \
         INSERT INTO campaign_contacts (campaign_id, contact_id, ordinal, item_id, earlier_item_id) \
             SELECT p.id, contact_id, n, CASE WHEN was_over AND NOT again THEN old_id ELSE item_id END, \
                 CASE WHEN again THEN old_id END FROM listed, p; \
         INSERT INTO call_queue_history (id, user_id, agent_id, contact_id, campaign_id, call_type, \
                 priority, position, status, phone_number, due_at, due_since, queued_at, attempts, \
                 was_call, finished_at) \
             SELECT old_id, p.user_id, p.agent_id, contact_id, p.id, 'campaign', 0, n, \
                 (ARRAY['completed', 'failed', 'cancelled', 'expired', 'failed'])[1 + (n / 2 + 1) % 5], \
                 '+14155550100', now(), now(), now(), 1, true, now() - n * interval '1 second' \
             FROM listed, p WHERE was_over ORDER BY n DESC; \
         INSERT INTO call_queue (id, user_id, agent_id, contact_id, campaign_id, call_type, priority, \
                 position, phone_number, wakes_at) \
             SELECT item_id, p.user_id, p.agent_id, contact_id, p.id, 'campaign', 0, n, '+14155550100', \
                 CASE WHEN n % 3 = 0 THEN now() + n * interval '1 second' END \
             FROM listed, p WHERE NOT was_over OR again ORDER BY n; \
         INSERT INTO call_queue (user_id, agent_id, contact_id, campaign_id, call_type, priority, \
                 phone_number, wakes_at) \
             SELECT p.user_id, p.agent_id, contact_id, p.other, 'campaign', 0, '+14155550100', \
                 CASE WHEN n % 3 = 0 THEN now() + n * interval '1 second' END FROM listed, p; \
         COMMIT"
    ))
    .unwrap();
    sql_query("SELECT id, user_id FROM campaigns WHERE name = 'Spring'")
        .get_result(conn)
        .unwrap()
}

/// Rows of whatever table that this connection has read and not reported yet.
fn rows_noted(conn: &mut PgConnection) -> i64 {
    #[derive(QueryableByName)]
    struct ReadRow {
        #[diesel(sql_type = BigInt)]
        read: i64,
    }
    let row: ReadRow = sql_query(
        "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint AS read \
         FROM pg_stat_xact_user_tables",
    )
    .get_result(conn)
    .unwrap();
    row.read
}

/// What `work` answers, and how many rows it reads.
fn rows_read<T>(conn: &mut PgConnection, work: impl FnOnce(&mut PgConnection) -> T) -> (T, i64) {
    // Within one transaction nothing is reported in between.
    conn.batch_execute("BEGIN").unwrap();
    let before = rows_noted(conn);
    let done = work(conn);
    let read = rows_noted(conn) - before;
    conn.batch_execute("COMMIT").unwrap();
    (done, read)
}

/// Where a page from the middle begins, in the list of each status.
fn middle(conn: &mut PgConnection, contacts: u32, status: Option<ContactStatus>) -> ContactCursor {
    #[derive(QueryableByName)]
    struct NowRow {
        #[diesel(sql_type = Timestamptz)]
        at: DateTime<Utc>,
    }
    let half = i64::from(contacts / 2);
    let ended = "SELECT finished_at AS at FROM call_queue_history ORDER BY finished_at OFFSET";
    match status {
        None => ContactCursor::Listed(half),
        Some(ContactStatus::Queued) => ContactCursor::Due(0, half),
        Some(_) => {
            let at: NowRow = sql_query(format!("{ended} {} LIMIT 1", half / 2))
                .get_result(conn)
                .unwrap();
            ContactCursor::Over(at.at, Uuid::max())
        }
    }
}

#[test]
fn a_page_of_contacts_reads_in_proportion_to_itself_however_many_there_are() {
    let long = std::env::var("CALLQ_LONG_TESTS").is_ok_and(|value| value == "1");
    for contacts in [2_000, if long { 1_000_000 } else { 100_000 }] {
        let database = TestDatabase::new();
        let mut conn = PgConnection::establish(database.url()).unwrap();
        let campaign = fill(&mut conn, contacts);
        for status in [
            None,
            Some(ContactStatus::Queued),
            Some(ContactStatus::Processing),
            Some(ContactStatus::Completed),
            Some(ContactStatus::Failed),
            Some(ContactStatus::Expired),
        ] {
            let deep = middle(&mut conn, contacts, status).write();
            let is_up = status == Some(ContactStatus::Processing);
            let deep = Some(deep).filter(|_| !is_up);
            for cursor in [None, deep] {
                let page = callq_domain::PageRequest {
                    limit: PAGE,
                    cursor,
                };
                let page = ContactPage::new(status, &page).unwrap();
                let (found, read) = rows_read(&mut conn, |conn| {
                    page.load(conn, campaign.user_id, campaign.id).unwrap()
                });
                println!(
                    "{status:?} of {contacts}: {read} rows for {}",
                    found.items.len()
                );
                assert_eq!(found.items.len(), if is_up { 0 } else { usize::from(PAGE) });
                let most = i64::from(PAGE + 1) * ROWS_OF_A_CONTACT;
                assert!(read <= most, "{status:?} of {contacts}: {read} rows");
            }
        }
    }
}
