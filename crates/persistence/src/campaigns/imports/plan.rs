//! Which rows of a list become calls: each number once, none that the campaign calls already, none
//! that may not be called; and whose contact each is.

use callq_domain::{RowFault, SkippedRows};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text, Uuid as SqlUuid};

use super::faults::{FILED, Faults};
use crate::Failure;
use crate::campaigns::Owner;
use crate::do_not_call;
use crate::rows::{count, unreadable};

/// What becomes of the rows, in figures. Which row is which call stands in `import_plan`.
pub(super) struct Plan {
    pub(super) calls: u64,
    pub(super) skipped: SkippedRows,
    /// The last entry of the do-not-call lists that was looked at.
    pub(super) seen: i64,
}

/// A contact is found by the user and the number, the oldest of several.
const PLAN: &str = "\
    INSERT INTO import_plan (row, skip, contact_id, nth) \
    SELECT f.row, f.skip, f.contact_id, CASE WHEN f.skip IS NULL \
        THEN count(*) FILTER (WHERE f.skip IS NULL) OVER (ORDER BY f.row) END \
    FROM ( \
        SELECT r.row, k.id AS contact_id, CASE \
            WHEN EXISTS (SELECT FROM do_not_call d \
                    WHERE d.user_id IS NULL AND d.phone_number = r.phone_number) \
                OR EXISTS (SELECT FROM do_not_call d \
                    WHERE d.user_id = $1 AND d.phone_number = r.phone_number) \
            THEN 'do_not_call' \
            WHEN EXISTS ( \
                SELECT FROM contacts c JOIN campaign_contacts m ON m.contact_id = c.id \
                WHERE c.user_id = $1 AND c.phone_number = r.phone_number AND m.campaign_id = $2 \
            ) THEN 'in_campaign' \
            WHEN r.copy > 1 THEN 'duplicate' END AS skip \
        FROM ( \
            SELECT i.row, i.phone_number, \
                row_number() OVER (PARTITION BY i.phone_number ORDER BY i.row) AS copy \
            FROM import_rows i \
        ) r \
        LEFT JOIN LATERAL ( \
            SELECT c.id FROM contacts c \
            WHERE c.user_id = $1 AND c.phone_number = r.phone_number ORDER BY c.id LIMIT 1 \
        ) k ON true \
    ) f";

impl Plan {
    /// Tells `faults` which rows are skipped.
    pub(super) fn make(
        conn: &mut PgConnection,
        owner: Owner,
        faults: &mut Faults,
    ) -> Result<Self, Failure> {
        conn.batch_execute(
            "ANALYZE import_rows; \
             CREATE TEMPORARY TABLE import_plan (row bigint PRIMARY KEY, skip text, \
                 contact_id uuid, nth bigint UNIQUE) ON COMMIT DROP",
        )?;
        let seen = do_not_call::last_listed(conn)?;
        sql_query(PLAN)
            .bind::<SqlUuid, _>(owner.user)
            .bind::<SqlUuid, _>(owner.campaign)
            .execute(conn)?;
        conn.batch_execute("ANALYZE import_plan")?;
        let mut plan = Self {
            calls: 0,
            skipped: SkippedRows::default(),
            seen,
        };
        #[derive(QueryableByName)]
        struct CountRow {
            #[diesel(sql_type = Nullable<Text>)]
            skip: Option<String>,
            #[diesel(sql_type = BigInt)]
            rows: i64,
        }
        let counts = sql_query("SELECT skip, count(*) AS rows FROM import_plan GROUP BY skip");
        for row in counts.load::<CountRow>(conn)? {
            let rows = count("import_plan", row.rows)?;
            match row.skip.as_deref() {
                None => plan.calls = rows,
                Some("do_not_call") => plan.skipped.do_not_call = rows,
                Some("in_campaign") => plan.skipped.in_campaign = rows,
                Some("duplicate") => plan.skipped.duplicate = rows,
                Some(other) => return Err(unreadable("import_plan.skip", other)),
            }
        }
        if plan.skipped.total() > 0 {
            faults.skip(plan.skipped.total(), skips(conn)?);
        }
        Ok(plan)
    }
}

/// Keeps the contacts on the list as they are until the calls to them exist, so that a change to one of
/// them comes before all of it or reaches its call too. One that was changed or deleted since it was
/// found is not the row's any more.
pub(super) fn hold_contacts(conn: &mut PgConnection) -> QueryResult<()> {
    sql_query(
        "SELECT count(*) FROM ( \
             SELECT FROM contacts c \
             WHERE c.id IN (SELECT p.contact_id FROM import_plan p WHERE p.nth IS NOT NULL) \
             FOR SHARE) held",
    )
    .execute(conn)?;
    sql_query(
        "UPDATE import_plan p SET contact_id = NULL FROM import_rows r \
         WHERE r.row = p.row AND p.nth IS NOT NULL AND p.contact_id IS NOT NULL AND NOT EXISTS ( \
             SELECT FROM contacts c WHERE c.id = p.contact_id AND c.phone_number = r.phone_number)",
    )
    .execute(conn)
    .map(drop)
}

fn skips(conn: &mut PgConnection) -> Result<Vec<RowFault>, Failure> {
    #[derive(QueryableByName)]
    struct SkipRow {
        #[diesel(sql_type = BigInt)]
        at: i64,
        #[diesel(sql_type = Text)]
        skip: String,
    }
    let rows: Vec<SkipRow> = sql_query(
        "SELECT row AS at, skip FROM import_plan WHERE skip IS NOT NULL ORDER BY row LIMIT $1",
    )
    .bind::<BigInt, _>(i64::try_from(FILED).unwrap_or(i64::MAX))
    .load(conn)?;
    rows.into_iter()
        .map(|row| {
            let error = match row.skip.as_str() {
                "do_not_call" => "is on a do-not-call list",
                "in_campaign" => "is in the campaign already",
                _ => "stands further up in the file",
            };
            Ok(RowFault {
                row: count("import_plan.row", row.at)?,
                field: "phone_number".to_owned(),
                error: error.to_owned(),
            })
        })
        .collect()
}
