//! Rows of `users` and `api_tokens`.

use callq_domain::{
    ConcurrencyLimit, Email, Identity, NewToken, NewUser, NumberLimit, Role, TokenHash, TokenId,
    TypeCount, User, UserId, UserLoad, Weight,
};
use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{Insertable, Queryable, QueryableByName, Selectable};
use uuid::Uuid;

use super::{call_rate, count, small_count, unreadable};
use crate::Failure;
use crate::schema::{api_tokens, users};

/// A user.
#[derive(Queryable, QueryableByName, Selectable)]
#[diesel(table_name = users, check_for_backend(Pg))]
pub(crate) struct UserRow {
    pub(crate) id: Uuid,
    email: String,
    role: String,
    concurrent_calls_limit: i32,
    direct_reserved_slots: i32,
    weight: i32,
    campaign_calls_per_second: Option<f64>,
    time_zone: String,
    credits: Option<i64>,
    max_queued_direct_calls: Option<i32>,
    max_queued_campaign_calls: Option<i32>,
    max_calls_per_number_per_day: Option<i32>,
    created_at: DateTime<Utc>,
}

impl UserRow {
    pub(crate) fn into_user(self) -> Result<User, Failure> {
        let limit = self.concurrent_calls_limit;
        Ok(User {
            id: UserId::from(self.id),
            email: self
                .email
                .parse::<Email>()
                .map_err(|_| unreadable("users.email", "no e-mail address"))?,
            role: role(&self.role)?,
            concurrent_calls_limit: ConcurrencyLimit::new(i64::from(limit))
                .map_err(|_| unreadable("users.concurrent_calls_limit", limit))?,
            direct_reserved_slots: small_count(
                "users.direct_reserved_slots",
                self.direct_reserved_slots,
            )?,
            max_queued_direct_calls: cap(
                "users.max_queued_direct_calls",
                self.max_queued_direct_calls,
            )?,
            max_queued_campaign_calls: cap(
                "users.max_queued_campaign_calls",
                self.max_queued_campaign_calls,
            )?,
            max_calls_per_number_per_day: number_limit(self.max_calls_per_number_per_day)?,
            weight: Weight::new(i64::from(self.weight))
                .ok_or_else(|| unreadable("users.weight", self.weight))?,
            campaign_calls_per_second: (self.campaign_calls_per_second)
                .map(|calls| call_rate("users.campaign_calls_per_second", calls))
                .transpose()?,
            time_zone: self.time_zone,
            credits: self.credits,
            created_at: self.created_at,
        })
    }
}

/// A cap, where the row has its own.
fn cap(column: &'static str, value: Option<i32>) -> Result<Option<u32>, Failure> {
    value.map(|cap| small_count(column, cap)).transpose()
}

/// A limit on calls to one number, of a user or a campaign.
pub(crate) fn number_limit(value: Option<i32>) -> Result<Option<NumberLimit>, Failure> {
    let read = |value| {
        NumberLimit::new(i64::from(value))
            .ok_or_else(|| unreadable("max_calls_per_number_per_day", value))
    };
    value.map(read).transpose()
}

/// A cap as its column holds it.
pub(crate) fn cap_column(cap: u32) -> i32 {
    i32::try_from(cap).unwrap_or(i32::MAX)
}

fn role(name: &str) -> Result<Role, Failure> {
    Role::from_name(name).ok_or_else(|| unreadable("users.role", name))
}

/// A user to be inserted; the database adds the rest.
#[derive(Insertable)]
#[diesel(table_name = users)]
pub(crate) struct NewUserRow {
    id: Uuid,
    email: String,
    role: &'static str,
    concurrent_calls_limit: i32,
    time_zone: String,
    credits: Option<i64>,
}

impl From<NewUser> for NewUserRow {
    fn from(user: NewUser) -> Self {
        Self {
            id: user.id.into(),
            email: user.email.to_string(),
            role: user.role.as_str(),
            concurrent_calls_limit: limit_column(user.concurrent_calls_limit),
            time_zone: user.time_zone,
            credits: user.credits,
        }
    }
}

/// A limit as its column holds it.
pub(crate) fn limit_column(limit: ConcurrencyLimit) -> i32 {
    i32::try_from(limit.get()).unwrap_or(i32::MAX)
}

/// A token to be inserted.
#[derive(Insertable)]
#[diesel(table_name = api_tokens)]
pub(crate) struct NewTokenRow {
    id: Uuid,
    user_id: Uuid,
    token_hash: Vec<u8>,
    expires_at: Option<DateTime<Utc>>,
}

impl From<NewToken> for NewTokenRow {
    fn from(token: NewToken) -> Self {
        Self {
            id: token.id.into(),
            user_id: token.user_id.into(),
            token_hash: token.hash.0.to_vec(),
            expires_at: token.expires_at,
        }
    }
}

/// What a valid token proves.
#[derive(QueryableByName)]
pub(crate) struct IdentityRow {
    #[diesel(sql_type = Binary)]
    token_hash: Vec<u8>,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Text)]
    role: String,
    #[diesel(sql_type = SqlUuid)]
    token_id: Uuid,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
}

impl IdentityRow {
    pub(crate) fn into_identity(self) -> Result<(TokenHash, Identity), Failure> {
        let hash = <[u8; 32]>::try_from(self.token_hash)
            .map_err(|hash| unreadable("api_tokens.token_hash", hash.len()))?;
        let identity = Identity {
            user_id: UserId::from(self.user_id),
            role: role(&self.role)?,
            token_id: TokenId::from(self.token_id),
            token_expires_at: self.expires_at,
        };
        Ok((TokenHash(hash), identity))
    }
}

/// How many calls of each type wait and run: for one user, or summed over all.
#[derive(QueryableByName)]
pub(crate) struct LoadRow {
    #[diesel(sql_type = BigInt)]
    direct_queued: i64,
    #[diesel(sql_type = BigInt)]
    direct_processing: i64,
    #[diesel(sql_type = BigInt)]
    campaign_queued: i64,
    #[diesel(sql_type = BigInt)]
    campaign_processing: i64,
}

impl LoadRow {
    pub(crate) fn direct(&self) -> Result<TypeCount, Failure> {
        Ok(TypeCount {
            queued: count("direct_queued", self.direct_queued)?,
            processing: count("direct_processing", self.direct_processing)?,
        })
    }

    pub(crate) fn campaign(&self) -> Result<TypeCount, Failure> {
        Ok(TypeCount {
            queued: count("campaign_queued", self.campaign_queued)?,
            processing: count("campaign_processing", self.campaign_processing)?,
        })
    }
}

/// A user with its load.
#[derive(QueryableByName)]
pub(crate) struct UserLoadRow {
    #[diesel(embed)]
    pub(crate) user: UserRow,
    #[diesel(embed)]
    load: LoadRow,
}

impl UserLoadRow {
    pub(crate) fn into_load(self) -> Result<UserLoad, Failure> {
        Ok(UserLoad {
            direct: self.load.direct()?,
            campaign: self.load.campaign()?,
            user: self.user.into_user()?,
        })
    }
}
