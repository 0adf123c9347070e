//! Lists of people into campaigns.
//!
//! One transaction reads the list into a temporary table, looks up what is called already and what may
//! not be called, and lays out contacts and calls behind those that the campaign has. Nobody else sees
//! any of it meanwhile and nobody waits for it, except whoever changes a contact on the list. Only then
//! does it take the engine's lock, to count the calls and file the lane: a statement and a commit.
//!
//! A list that is being read holds an advisory lock of its own, so that a second one for its campaign
//! is refused; only then, while its calls are laid out, the lock of the campaign's list, for which
//! whoever else adds to it waits.

mod calls;
mod faults;
mod plan;

use async_trait::async_trait;
use callq_domain::{
    CampaignStatus, ImportError, ImportId, ImportReport, ImportStore, ImportTarget, ListFault,
    ListRow, ListRows, NewImport, StoreError, UserId,
};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Bool, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use self::faults::Faults;
use self::plan::Plan;
use super::change::{lock_list, stands, status_of};
use super::{Owner, find, hours, lapse, lock_agent, lock_engine_and_look, room, withdraw_refused};
use crate::functions::{self, LaidOut};
use crate::rows::json::RawJson;
use crate::schema::{import_errors, import_rows};
use crate::{Failure, PostgresStore};

/// How many rows one `COPY` brings, and one statement lays out.
const CHUNK: usize = 10_000;

/// How many error files of a user are kept.
const KEPT_FILES: i64 = 20;

#[async_trait]
impl ImportStore for PostgresStore {
    async fn import_list(
        &self,
        import: NewImport,
        rows: ListRows,
    ) -> Result<ImportReport, ImportError> {
        self.database
            .run_import(move |conn| import_list_on_conn(conn, &import, rows))
            .await?
            .map_err(ImportError::List)
    }

    async fn import_errors(
        &self,
        user: UserId,
        id: ImportId,
    ) -> Result<Option<String>, StoreError> {
        self.database
            .run(move |conn| {
                let csv = import_errors::table
                    .find(id.as_uuid())
                    .filter(import_errors::user_id.eq(user.as_uuid()))
                    .select(import_errors::csv)
                    .first(conn)
                    .optional()?;
                Ok(csv)
            })
            .await
    }
}

/// A row of the temporary table. Its ids are made here, so that rows read together land together.
#[derive(Insertable)]
#[diesel(table_name = import_rows, treat_none_as_default_value = false)]
struct ImportRow {
    row: i64,
    item_id: Uuid,
    contact_id: Uuid,
    phone_number: String,
    name: Option<String>,
    time_zone: Option<String>,
    user_data: Option<RawJson>,
}

impl ImportRow {
    fn of(row: ListRow) -> Self {
        Self {
            row: i64::try_from(row.row).unwrap_or(i64::MAX),
            item_id: Uuid::now_v7(),
            contact_id: Uuid::now_v7(),
            phone_number: row.phone_number.as_str().to_owned(),
            name: row.name,
            time_zone: row.time_zone,
            user_data: row.user_data.map(RawJson),
        }
    }
}

/// The fault of a file is no failure of the transaction, which has written nothing by then.
fn import_list_on_conn(
    conn: &mut PgConnection,
    import: &NewImport,
    rows: ListRows,
) -> Result<Result<ImportReport, ListFault>, Failure> {
    let owner = hold_campaign(conn, import)?;
    let (read, mut faults) = match copy_rows(conn, rows)? {
        Ok(copied) => copied,
        Err(fault) => return Ok(Err(fault)),
    };
    let failed = faults.failed();
    let refused = failed > 0 && !import.partial;
    let may_change = !refused && !import.dry_run;
    let owner = match &import.target {
        ImportTarget::Existing(_) if may_change => hold_list(conn, owner)?,
        _ => owner,
    };
    let plan = Plan::make(conn, owner, &mut faults)?;
    let changes = may_change && plan.calls > 0;
    if changes {
        if let ImportTarget::New(new) = &import.target {
            calls::insert_draft(conn, owner, new)?;
        }
        plan::hold_contacts(conn)?;
        calls::lay_out(conn, owner, plan.calls)?;
        follow_clocks(conn, import, owner)?;
    }
    let (has_file, errors) = faults.keep(conn, import)?;
    if changes {
        // The last before the commit: from here on everybody waits.
        count_calls(conn, import, owner, &plan)?;
    }
    let is_new = matches!(import.target, ImportTarget::New(_));
    Ok(Ok(ImportReport {
        id: import.id,
        campaign_id: (changes || !is_new).then(|| owner.campaign.into()),
        made: changes && is_new,
        total_rows: read + failed,
        imported: if refused { 0 } else { plan.calls },
        skipped: plan.skipped,
        failed,
        errors,
        has_file,
        refused,
        dry_run: import.dry_run,
    }))
}

/// What is laid out gives up by the clocks of its contacts, if the campaign goes by these.
fn follow_clocks(conn: &mut PgConnection, import: &NewImport, owner: Owner) -> Result<(), Failure> {
    match &import.target {
        ImportTarget::New(new) => lapse::follow_clocks(conn, owner, &new.fields),
        ImportTarget::Existing(_) => {
            let row = find(conn, owner.user, owner.campaign)?.ok_or(StoreError::NotFound)?;
            lapse::follow_clocks(conn, owner, &row.into_campaign()?.fields)
        }
    }
}

/// The campaign, which takes no other list until the end of the transaction. One to be made has its
/// agent locked, and nobody else can know of it.
fn hold_campaign(conn: &mut PgConnection, import: &NewImport) -> Result<Owner, Failure> {
    let user = import.user_id.as_uuid();
    let id = match &import.target {
        ImportTarget::New(new) => {
            let agent = new.fields.agent_id.as_uuid();
            lock_agent(conn, user, agent)?;
            return Ok(Owner {
                user,
                campaign: new.id.as_uuid(),
                agent,
                lapses_at: lapse::lapses_at(conn, user, &new.fields)?,
                by_zone: new.fields.use_contact_timezone,
            });
        }
        ImportTarget::Existing(id) => id.as_uuid(),
    };
    let owner = open_campaign(conn, user, id)?;
    #[derive(QueryableByName)]
    struct HeldRow {
        #[diesel(sql_type = Bool)]
        held: bool,
    }
    let row: HeldRow = sql_query(
        "SELECT pg_try_advisory_xact_lock( \
             hashtextextended('callq campaign import ' || $1::text, 0)) AS held",
    )
    .bind::<SqlUuid, _>(id)
    .get_result(conn)?;
    if !row.held {
        let sentence = "another list is being imported into this campaign; wait until it is done";
        return Err(StoreError::Conflict(sentence.to_owned()).into());
    }
    Ok(owner)
}

/// Nobody else adds to the campaign from now on, nor gives it another agent; it may have got one
/// since.
fn hold_list(conn: &mut PgConnection, owner: Owner) -> Result<Owner, Failure> {
    lock_list(conn, owner.campaign)?;
    open_campaign(conn, owner.user, owner.campaign)
}

/// A campaign that takes calls.
fn open_campaign(conn: &mut PgConnection, user: Uuid, id: Uuid) -> Result<Owner, Failure> {
    let row = find(conn, user, id)?.ok_or(StoreError::NotFound)?;
    let campaign = row.into_campaign()?;
    if campaign.status.is_over() {
        return Err(stands(campaign.status));
    }
    Ok(Owner {
        user,
        campaign: id,
        agent: campaign.fields.agent_id.as_uuid(),
        lapses_at: lapse::lapses_at(conn, user, &campaign.fields)?,
        by_zone: campaign.fields.use_contact_timezone,
    })
}

/// Good rows go into the temporary table; how many, and what is wrong with the others.
fn copy_rows(
    conn: &mut PgConnection,
    rows: ListRows,
) -> Result<Result<(u64, Faults), ListFault>, Failure> {
    conn.batch_execute(
        "CREATE TEMPORARY TABLE import_rows (row bigint PRIMARY KEY, item_id uuid NOT NULL, \
             contact_id uuid NOT NULL, phone_number text NOT NULL, name text, time_zone text, \
             user_data jsonb) ON COMMIT DROP",
    )?;
    let mut faults = Faults::default();
    let mut good = 0;
    let mut chunk = Vec::with_capacity(CHUNK);
    for row in rows {
        match row {
            Ok(Ok(row)) => chunk.push(ImportRow::of(row)),
            Ok(Err(fault)) => faults.fail(fault),
            Err(fault) => return Ok(Err(fault)),
        }
        if chunk.len() == CHUNK {
            good += copy(
                conn,
                std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)),
            )?;
        }
    }
    good += copy(conn, chunk)?;
    Ok(Ok((good, faults)))
}

fn copy(conn: &mut PgConnection, rows: Vec<ImportRow>) -> QueryResult<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let copied = diesel::copy_from(import_rows::table)
        .from_insertable(rows)
        .execute(conn)?;
    Ok(copied as u64)
}

/// Takes the engine's lock, counts what was laid out, and withdraws what was listed meanwhile.
fn count_calls(
    conn: &mut PgConnection,
    import: &NewImport,
    owner: Owner,
    plan: &Plan,
) -> Result<(), Failure> {
    let calls =
        i32::try_from(plan.calls).map_err(|_| StoreError::Internal("too many rows".into()))?;
    let (at, refused) = lock_engine_and_look(conn, owner, plan.seen)?;
    // It may have ended, or been cancelled, since the list was begun.
    let status = status_of(conn, owner.user, owner.campaign)?;
    if status.is_over() {
        return Err(stands(status));
    }
    let laid_out = LaidOut {
        calls,
        ..LaidOut::default()
    };
    functions::count_laid_out(conn, owner.campaign, laid_out)?;
    if owner.by_zone {
        hours::lay_out_missing(conn, owner.campaign, at)?;
    }
    if let Some(country) = import.country {
        sql_query(
            "UPDATE campaigns SET country = $2, updated_at = $3 \
             WHERE id = $1 AND country IS DISTINCT FROM $2",
        )
        .bind::<SqlUuid, _>(owner.campaign)
        .bind::<Text, _>(country.to_string())
        .bind::<Timestamptz, _>(at)
        .execute(conn)?;
    }
    withdraw_refused(conn, &refused, at)?;
    if status != CampaignStatus::Draft {
        room::check_room(conn, owner.user, plan.calls)?;
    }
    Ok(())
}
