//! Agents and contacts.
//!
//! Deleting looks for what still needs the row first, without a lock, so that the usual refusal
//! costs nothing; the foreign keys then refuse what came up in between.

use async_trait::async_trait;
use callq_domain::{
    Agent, AgentFields, AgentId, Contact, ContactFields, ContactId, DirectoryStore, Page,
    PageRequest, StoreError, UserId,
};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_query;
use diesel::sql_types::{Array, Bool, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::accounts::missing_reference;
use crate::cursor::{IdPage, List};
use crate::functions::{self, IdRow};
use crate::rows::directory::{AgentFieldsRow, AgentRow, ContactFieldsRow, ContactRow};
use crate::schema::{agents, contacts};
use crate::{Failure, PostgresStore};

#[async_trait]
impl DirectoryStore for PostgresStore {
    async fn create_agent(
        &self,
        id: AgentId,
        user: UserId,
        fields: AgentFields,
    ) -> Result<Agent, StoreError> {
        self.database
            .run(move |conn| {
                let owner = (
                    agents::id.eq(id.as_uuid()),
                    agents::user_id.eq(user.as_uuid()),
                );
                diesel::insert_into(agents::table)
                    .values((owner, AgentFieldsRow::from(fields)))
                    .returning(AgentRow::as_returning())
                    .get_result(conn)
                    .map_err(missing_reference)?
                    .into_agent()
            })
            .await
    }

    async fn agents(&self, user: UserId, page: PageRequest) -> Result<Page<Agent>, StoreError> {
        let page = IdPage::new(List::Agents, &page)?;
        self.database
            .run(move |conn| {
                let rows = agents::table
                    .filter(agents::user_id.eq(user.as_uuid()))
                    .filter(agents::id.lt(page.before))
                    .order(agents::id.desc())
                    .limit(page.fetch())
                    .select(AgentRow::as_select())
                    .load(conn)?;
                page.of(rows, |row| row.id, AgentRow::into_agent)
            })
            .await
    }

    async fn agent(&self, user: UserId, id: AgentId) -> Result<Option<Agent>, StoreError> {
        self.database
            .run(move |conn| {
                let row = agents::table
                    .find(id.as_uuid())
                    .filter(agents::user_id.eq(user.as_uuid()))
                    .select(AgentRow::as_select())
                    .first(conn)
                    .optional()?;
                row.map(AgentRow::into_agent).transpose()
            })
            .await
    }

    async fn update_agent(
        &self,
        user: UserId,
        id: AgentId,
        fields: AgentFields,
    ) -> Result<Agent, StoreError> {
        self.database
            .run(move |conn| {
                let own = agents::table
                    .find(id.as_uuid())
                    .filter(agents::user_id.eq(user.as_uuid()));
                diesel::update(own)
                    .set((AgentFieldsRow::from(fields), agents::updated_at.eq(now)))
                    .returning(AgentRow::as_returning())
                    .get_result(conn)?
                    .into_agent()
            })
            .await
    }

    async fn delete_agent(&self, user: UserId, id: AgentId) -> Result<(), StoreError> {
        self.database
            .run(move |conn| delete_agent_on_conn(conn, user.as_uuid(), id.as_uuid()))
            .await
    }

    async fn create_contact(
        &self,
        id: ContactId,
        user: UserId,
        fields: ContactFields,
    ) -> Result<Contact, StoreError> {
        self.database
            .run(move |conn| {
                let owner = (
                    contacts::id.eq(id.as_uuid()),
                    contacts::user_id.eq(user.as_uuid()),
                );
                diesel::insert_into(contacts::table)
                    .values((owner, ContactFieldsRow::from(fields)))
                    .returning(ContactRow::as_returning())
                    .get_result(conn)
                    .map(Contact::from)
                    .map_err(missing_reference)
            })
            .await
    }

    async fn contacts(&self, user: UserId, page: PageRequest) -> Result<Page<Contact>, StoreError> {
        let page = IdPage::new(List::Contacts, &page)?;
        self.database
            .run(move |conn| {
                let rows = contacts::table
                    .filter(contacts::user_id.eq(user.as_uuid()))
                    .filter(contacts::id.lt(page.before))
                    .order(contacts::id.desc())
                    .limit(page.fetch())
                    .select(ContactRow::as_select())
                    .load(conn)?;
                page.of(rows, |row| row.id, |row| Ok(row.into()))
            })
            .await
    }

    async fn contact(&self, user: UserId, id: ContactId) -> Result<Option<Contact>, StoreError> {
        self.database
            .run(move |conn| {
                let row = contacts::table
                    .find(id.as_uuid())
                    .filter(contacts::user_id.eq(user.as_uuid()))
                    .select(ContactRow::as_select())
                    .first(conn)
                    .optional()?;
                Ok(row.map(Contact::from))
            })
            .await
    }

    /// Calls that wait follow the contact to its new number, and are withdrawn if that one must not
    /// be called. One that is accepted in the same instant may keep the old one, as one accepted
    /// just before and started would.
    async fn update_contact(
        &self,
        user: UserId,
        id: ContactId,
        fields: ContactFields,
    ) -> Result<Contact, StoreError> {
        self.database
            .run(move |conn| update_contact_on_conn(conn, user.as_uuid(), id.as_uuid(), fields))
            .await
    }

    async fn delete_contact(&self, user: UserId, id: ContactId) -> Result<(), StoreError> {
        self.database
            .run(move |conn| delete_contact_on_conn(conn, user.as_uuid(), id.as_uuid()))
            .await
    }
}

fn update_contact_on_conn(
    conn: &mut PgConnection,
    user: Uuid,
    id: Uuid,
    fields: ContactFields,
) -> Result<Contact, Failure> {
    // The contact first: a campaign being made may hold it for seconds, and nobody may wait for
    // that with the engine's lock in hand.
    let own = contacts::table.find(id).filter(contacts::user_id.eq(user));
    let old_name: Option<String> = own.select(contacts::name).for_no_key_update().first(conn)?;
    let waiting =
        "SELECT id FROM call_queue WHERE user_id = $1 AND contact_id = $2 AND status = 'queued'";
    let waiting = |conn: &mut PgConnection| {
        sql_query(waiting)
            .bind::<SqlUuid, _>(user)
            .bind::<SqlUuid, _>(id)
            .load::<IdRow>(conn)
    };
    let mut waiting_now = waiting(conn)?;
    let mut locked_at = None;
    if !waiting_now.is_empty() {
        // Queue rows are locked after the system's row, or not at all.
        locked_at = Some(functions::lock_engine(conn)?);
        waiting_now = waiting(conn)?;
    }
    let waiting_now: Vec<Uuid> = waiting_now.into_iter().map(|row| row.id).collect();
    let fields = ContactFieldsRow::from(fields);
    let (number, name) = (fields.phone_number.clone(), fields.name.clone());
    let row = diesel::update(own)
        .set((fields, contacts::updated_at.eq(now)))
        .returning(ContactRow::as_returning())
        .get_result(conn)?;
    // A name that was given with the call rather than taken from the contact stays.
    sql_query(
        "UPDATE call_queue SET phone_number = $2, contact_name = \
         CASE WHEN contact_name IS NOT DISTINCT FROM $3 THEN $4 ELSE contact_name END \
         WHERE id = ANY ($1) AND status = 'queued'",
    )
    .bind::<Array<SqlUuid>, _>(&waiting_now)
    .bind::<Text, _>(number)
    .bind::<Nullable<Text>, _>(old_name)
    .bind::<Nullable<Text>, _>(name)
    .execute(conn)?;
    if let Some(at) = locked_at {
        functions::withdraw_listed(conn, &waiting_now, at)?;
    }
    Ok(row.into())
}

fn delete_agent_on_conn(conn: &mut PgConnection, user: Uuid, id: Uuid) -> Result<(), Failure> {
    let calls = "SELECT EXISTS (SELECT FROM call_queue WHERE user_id = $1 AND agent_id = $2) \
        OR EXISTS (SELECT FROM active_calls WHERE user_id = $1 AND agent_id = $2) AS yes";
    if holds(conn, calls, user, id)? {
        return Err(conflict("calls of this agent are not over"));
    }
    let own = agents::table.find(id).filter(agents::user_id.eq(user));
    match diesel::delete(own).execute(conn).map_err(still_used)? {
        0 => Err(StoreError::NotFound.into()),
        _ => Ok(()),
    }
}

fn delete_contact_on_conn(conn: &mut PgConnection, user: Uuid, id: Uuid) -> Result<(), Failure> {
    let calls = "SELECT EXISTS (SELECT FROM call_queue WHERE user_id = $1 AND contact_id = $2) \
        OR EXISTS (SELECT FROM active_calls WHERE user_id = $1 AND contact_id = $2) AS yes";
    if holds(conn, calls, user, id)? {
        return Err(conflict("calls to this contact are not over"));
    }
    let campaigns = "SELECT EXISTS (SELECT FROM campaigns c \
        JOIN campaign_contacts m ON m.campaign_id = c.id AND m.contact_id = $2 \
        WHERE c.user_id = $1 AND c.status NOT IN ('completed', 'cancelled')) AS yes";
    if holds(conn, campaigns, user, id)? {
        return Err(conflict("a campaign that is not over lists this contact"));
    }
    sql_query(
        "DELETE FROM campaign_contacts m USING campaigns c WHERE c.id = m.campaign_id \
         AND c.user_id = $1 AND m.contact_id = $2 AND c.status IN ('completed', 'cancelled')",
    )
    .bind::<SqlUuid, _>(user)
    .bind::<SqlUuid, _>(id)
    .execute(conn)?;
    let own = contacts::table.find(id).filter(contacts::user_id.eq(user));
    match diesel::delete(own).execute(conn).map_err(still_used)? {
        0 => Err(StoreError::NotFound.into()),
        _ => Ok(()),
    }
}

#[derive(QueryableByName)]
struct AnswerRow {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

fn holds(conn: &mut PgConnection, question: &str, user: Uuid, id: Uuid) -> QueryResult<bool> {
    sql_query(question)
        .bind::<SqlUuid, _>(user)
        .bind::<SqlUuid, _>(id)
        .get_result::<AnswerRow>(conn)
        .map(|row| row.yes)
}

fn still_used(error: DieselError) -> Failure {
    let DieselError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, violated) = &error
    else {
        return error.into();
    };
    conflict(match violated.constraint_name() {
        Some("campaigns_agent_id_fkey") => {
            "campaigns use this agent, and keep it when they are over"
        }
        Some("campaign_contacts_contact_id_fkey") => {
            "a campaign that is not over lists this contact"
        }
        _ => "calls that need it are not over",
    })
}

fn conflict(sentence: &str) -> Failure {
    StoreError::Conflict(sentence.to_owned()).into()
}
