//! Users and their bearer tokens.

use async_trait::async_trait;
use callq_domain::{
    AccountStore, Email, Identity, NewToken, NewUser, StoreError, TokenHash, TokenId, User, UserId,
};
use diesel::dsl::now;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::Timestamptz;

use crate::rows::user::{NewTokenRow, NewUserRow, UserRow};
use crate::schema::{api_tokens, users};
use crate::{Failure, PostgresStore};

#[async_trait]
impl AccountStore for PostgresStore {
    async fn authenticate(&self, hash: TokenHash) -> Result<Option<Identity>, StoreError> {
        self.tokens.find(&self.database, hash).await
    }

    async fn create_user(&self, user: NewUser, token: NewToken) -> Result<User, StoreError> {
        if token.user_id != user.id {
            return Err(StoreError::Internal(
                "the first token of a user must be its own".into(),
            ));
        }
        self.database
            .run(move |conn| {
                let row: UserRow = diesel::insert_into(users::table)
                    .values(NewUserRow::from(user))
                    .returning(UserRow::as_returning())
                    .get_result(conn)
                    .map_err(email_taken)?;
                insert_token(conn, token)?;
                row.into_user()
            })
            .await
    }

    async fn user_by_email(&self, email: &Email) -> Result<Option<User>, StoreError> {
        let email = email.to_string();
        self.database
            .run(move |conn| {
                let row = users::table
                    .filter(users::email.eq(email))
                    .select(UserRow::as_select())
                    .first(conn)
                    .optional()?;
                row.map(UserRow::into_user).transpose()
            })
            .await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.database
            .run(move |conn| {
                let row = users::table
                    .find(id.as_uuid())
                    .select(UserRow::as_select())
                    .first(conn)
                    .optional()?;
                row.map(UserRow::into_user).transpose()
            })
            .await
    }

    async fn create_token(&self, token: NewToken) -> Result<(), StoreError> {
        self.database
            .run(move |conn| insert_token(conn, token))
            .await
    }

    async fn revoke_token(&self, id: TokenId) -> Result<(), StoreError> {
        self.database
            .run(move |conn| {
                let live = api_tokens::table
                    .find(id.as_uuid())
                    .filter(api_tokens::revoked_at.is_null());
                let revoked = diesel::update(live)
                    .set(api_tokens::revoked_at.eq(now.into_sql::<Timestamptz>().nullable()))
                    .execute(conn)?;
                match revoked {
                    0 => Err(StoreError::NotFound.into()),
                    _ => Ok(()),
                }
            })
            .await
    }
}

/// `NotFound` if the token's user does not exist.
fn insert_token(conn: &mut PgConnection, token: NewToken) -> Result<(), Failure> {
    diesel::insert_into(api_tokens::table)
        .values(NewTokenRow::from(token))
        .execute(conn)
        .map_err(missing_reference)?;
    Ok(())
}

fn email_taken(error: DieselError) -> Failure {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, ref violated)
            if violated.constraint_name() == Some("users_email_key") =>
        {
            StoreError::Conflict("a user with this email exists".into()).into()
        }
        other => other.into(),
    }
}

/// What an insert refers to is gone, or was never there.
pub(crate) fn missing_reference(error: DieselError) -> Failure {
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::ForeignKeyViolation, _) => {
            StoreError::NotFound.into()
        }
        other => other.into(),
    }
}
