//! Do-not-call lists. Why nothing that is listed can wait is said where the table is made, in the
//! migration `list_do_not_call`.

use async_trait::async_trait;
use callq_domain::{
    DoNotCallEntry, DoNotCallList, DoNotCallStore, Listed, Listing, Page, PageRequest, PhoneNumber,
    StoreError, UserId,
};
use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::accounts::missing_reference;
use crate::cursor::{IdPage, List};
use crate::functions::{self, IdRow};
use crate::{Database, PostgresStore};

/// How many numbers one transaction adds, and how many waiting calls it withdraws. Dispatch waits
/// meanwhile: some 20 ms for each.
const LIST_CHUNK: usize = 500;
const WITHDRAW_CHUNK: i32 = 500;

#[async_trait]
impl DoNotCallStore for PostgresStore {
    async fn list_numbers(
        &self,
        list: DoNotCallList,
        numbers: Vec<PhoneNumber>,
        reason: Option<String>,
    ) -> Result<Listed, StoreError> {
        // A task of its own: a client that goes away does not leave it half done.
        let listing = list_in_chunks(self.database.clone(), list, numbers, reason);
        let listed = tokio::spawn(listing).await;
        listed.unwrap_or_else(|error| Err(StoreError::Internal(error.to_string())))
    }

    async fn do_not_call_entries(
        &self,
        list: DoNotCallList,
        page: PageRequest,
    ) -> Result<Page<DoNotCallEntry>, StoreError> {
        let (tag, on_list) = match list {
            DoNotCallList::Global => (List::GlobalDoNotCall, "user_id IS NULL AND $1 IS NULL"),
            DoNotCallList::Of(_) => (List::DoNotCall, "user_id = $1"),
        };
        let page = IdPage::new(tag, &page)?;
        self.database
            .run(move |conn| {
                let rows: Vec<EntryRow> = sql_query(format!(
                    "SELECT id, user_id, phone_number, reason, created_at FROM do_not_call \
                     WHERE {on_list} AND id < $2 ORDER BY id DESC LIMIT $3"
                ))
                .bind::<Nullable<SqlUuid>, _>(owner(list))
                .bind::<SqlUuid, _>(page.before)
                .bind::<BigInt, _>(page.fetch())
                .load(conn)?;
                page.of(rows, |row| row.id, |row| Ok(row.into()))
            })
            .await
    }

    async fn listing(
        &self,
        user: Option<UserId>,
        number: PhoneNumber,
    ) -> Result<Listing, StoreError> {
        self.database
            .run(move |conn| {
                let rows: Vec<EntryRow> = sql_query(
                    "SELECT id, user_id, phone_number, reason, created_at FROM do_not_call \
                     WHERE user_id IS NULL AND phone_number = $2 \
                     UNION ALL \
                     SELECT id, user_id, phone_number, reason, created_at FROM do_not_call \
                     WHERE user_id = $1 AND phone_number = $2",
                )
                .bind::<Nullable<SqlUuid>, _>(user.map(|user| user.as_uuid()))
                .bind::<Text, _>(number.as_str())
                .load(conn)?;
                let mut listing = Listing::default();
                for row in rows {
                    let place = match row.user_id {
                        None => &mut listing.global,
                        Some(_) => &mut listing.own,
                    };
                    *place = Some(row.into());
                }
                Ok(listing)
            })
            .await
    }

    async fn unlist_number(
        &self,
        list: DoNotCallList,
        number: PhoneNumber,
    ) -> Result<(), StoreError> {
        let on_list = match list {
            DoNotCallList::Global => "user_id IS NULL AND $1 IS NULL",
            DoNotCallList::Of(_) => "user_id = $1",
        };
        self.database
            .run(move |conn| {
                let gone = sql_query(format!(
                    "DELETE FROM do_not_call WHERE {on_list} AND phone_number = $2"
                ))
                .bind::<Nullable<SqlUuid>, _>(owner(list))
                .bind::<Text, _>(number.as_str())
                .execute(conn)?;
                match gone {
                    0 => Err(StoreError::NotFound.into()),
                    _ => Ok(()),
                }
            })
            .await
    }
}

/// The column `user_id` of a list's entries.
fn owner(list: DoNotCallList) -> Option<Uuid> {
    match list {
        DoNotCallList::Global => None,
        DoNotCallList::Of(user) => Some(user.as_uuid()),
    }
}

#[derive(QueryableByName)]
struct EntryRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    user_id: Option<Uuid>,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Timestamptz)]
    created_at: DateTime<Utc>,
}

impl From<EntryRow> for DoNotCallEntry {
    fn from(row: EntryRow) -> Self {
        Self {
            phone_number: PhoneNumber::from_trusted(row.phone_number),
            reason: row.reason,
            created_at: row.created_at,
        }
    }
}

async fn list_in_chunks(
    database: Database,
    list: DoNotCallList,
    numbers: Vec<PhoneNumber>,
    reason: Option<String>,
) -> Result<Listed, StoreError> {
    let mut listed = Listed::default();
    for chunk in numbers.chunks(LIST_CHUNK) {
        let chunk: Vec<String> = chunk.iter().map(ToString::to_string).collect();
        // The entries first, then what waits, until nothing is left.
        loop {
            let (numbers, reason) = (chunk.clone(), reason.clone());
            let done = database
                .run_statement(move |conn| {
                    let (owner, reason) = (owner(list), reason.as_deref());
                    functions::list_do_not_call(conn, owner, &numbers, reason, WITHDRAW_CHUNK)
                        .map_err(missing_reference)
                })
                .await?;
            listed.added += u64::try_from(done.added).unwrap_or(0);
            listed.withdrawn += u64::try_from(done.withdrawn).unwrap_or(0);
            if !done.more {
                break;
            }
        }
    }
    Ok(listed)
}

/// Up to which entry a look at the lists has seen them all: they come into effect in this order.
pub(crate) fn last_listed(conn: &mut PgConnection) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct LastRow {
        #[diesel(sql_type = BigInt)]
        last: i64,
    }
    sql_query("SELECT coalesce(max(nth), 0) AS last FROM do_not_call")
        .get_result::<LastRow>(conn)
        .map(|row| row.last)
}

/// Those of a user's contacts that must not be called.
pub(crate) fn listed_contacts(
    conn: &mut PgConnection,
    user: Uuid,
    contacts: &[Uuid],
) -> QueryResult<Vec<Uuid>> {
    let rows: Vec<IdRow> = sql_query(
        "SELECT c.id FROM contacts c WHERE c.id = ANY ($2) AND ( \
             EXISTS (SELECT FROM do_not_call d \
                 WHERE d.user_id IS NULL AND d.phone_number = c.phone_number) \
             OR EXISTS (SELECT FROM do_not_call d \
                 WHERE d.user_id = $1 AND d.phone_number = c.phone_number))",
    )
    .bind::<SqlUuid, _>(user)
    .bind::<Array<SqlUuid>, _>(contacts)
    .load(conn)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// The waiting calls of a campaign to numbers that were listed after this entry.
pub(crate) fn calls_listed_since(
    conn: &mut PgConnection,
    user: Uuid,
    campaign: Uuid,
    seen: i64,
) -> QueryResult<Vec<Uuid>> {
    let rows: Vec<IdRow> = sql_query(
        "SELECT q.id FROM do_not_call d CROSS JOIN LATERAL ( \
             SELECT c.id, c.campaign_id FROM call_queue c \
             WHERE c.phone_number = d.phone_number AND c.user_id = $1 OFFSET 0 \
         ) q \
         WHERE d.nth > $3 AND (d.user_id IS NULL OR d.user_id = $1) AND q.campaign_id = $2",
    )
    .bind::<SqlUuid, _>(user)
    .bind::<SqlUuid, _>(campaign)
    .bind::<BigInt, _>(seen)
    .load(conn)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}
