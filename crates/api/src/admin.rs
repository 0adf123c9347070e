//! What operators see and change: the system's limit and pause, users and their limits, and the
//! queue by user. Role admin only. Single calls are in `operator_calls`.

use actix_web::{get, patch, post, put, web};
use callq_domain::{
    CallRate, ConcurrencyLimit, MAX_QUEUED_CALLS, NumberLimit, SystemState, User, UserChange,
    UserId, UserLoad,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::Api;
use crate::auth::Admin;
use crate::fields;
use crate::json::JsonBody;
use crate::params::{PageParams, PageResponse, PathId, Query};
use crate::problem::Problem;
use crate::queue::TypeCountResponse;

impl Admin {
    /// Records who changed what.
    pub(crate) fn log(&self, subject: &str, change: &str) {
        let admin_id = self.user_id.to_string();
        log::info!(
            request_id = self.request_id.as_str(),
            admin_id = admin_id.as_str(),
            subject,
            change;
            "an operator made a change"
        );
    }
}

/// The whole system.
#[derive(Serialize, ToSchema)]
pub(crate) struct SystemResponse {
    /// Calls that may be up at once, all users together.
    concurrent_calls_limit: u32,
    /// Calls that are.
    active: u32,
    /// What is left.
    available: u32,
    /// Whether an operator paused all dispatch.
    dispatch_paused: bool,
}

impl From<SystemState> for SystemResponse {
    fn from(state: SystemState) -> Self {
        Self {
            concurrent_calls_limit: state.slots.limit,
            active: state.slots.active,
            available: state.slots.available(),
            dispatch_paused: state.dispatch_paused,
        }
    }
}

/// A change of the system.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SystemRequest {
    /// Calls that may be up at once, all users together; 0 to 1,000,000. Lowering it ends no call.
    concurrent_calls_limit: i64,
}

/// A change of a user. What is left out stays as it is.
#[derive(Deserialize, ToSchema)]
pub(crate) struct UserChangeRequest {
    /// How many of its calls may be up at once, 0 to 1,000,000. Lowering it ends no call.
    concurrent_calls_limit: Option<i64>,
    /// How many of the last of these campaigns may not use.
    direct_reserved_slots: Option<i64>,
    /// How many of its direct calls may wait, 0 to 100,000,000; null for the default. Lowering it
    /// withdraws no call.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    max_queued_direct_calls: Option<Option<i64>>,
    /// How many of its campaign calls may wait, likewise.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    max_queued_campaign_calls: Option<Option<i64>>,
    /// How often its campaigns may call one number within any 24 hours, 1 to 1,000; null for any
    /// number of times.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    max_calls_per_number_per_day: Option<Option<i64>>,
    /// Its turns relative to others, 1 to 1,000.
    weight: Option<i64>,
    /// How many campaign calls of it may start in a second, 0.001 to 1,000; null for any number.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<f64>)]
    campaign_calls_per_second: Option<Option<f64>>,
    /// Calls it has paid for; null ends metering.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    credits: Option<Option<i64>>,
}

/// Tells a null from a field that is left out.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    reader: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(reader).map(Some)
}

fn limit_of(value: i64) -> Result<ConcurrencyLimit, Problem> {
    ConcurrencyLimit::new(value).map_err(|error| Problem::invalid("concurrent_calls_limit", error))
}

impl UserChangeRequest {
    fn into_change(self) -> Result<UserChange, Problem> {
        let reserved =
            |slots| fields::whole_number("direct_reserved_slots", slots, 0, ConcurrencyLimit::MAX);
        let cap = |field: &'static str, value: Option<Option<i64>>| {
            let read = |cap| fields::whole_number(field, cap, 0, MAX_QUEUED_CALLS);
            value.map(|value| value.map(read).transpose()).transpose()
        };
        if self.credits.flatten().is_some_and(|credits| credits < 0) {
            return Err(Problem::invalid("credits", "must be 0 or more, or null"));
        }
        let pace = |pace: Option<f64>| {
            let pace = pace.map(|calls| fields::call_rate("campaign_calls_per_second", calls));
            pace.transpose()
        };
        Ok(UserChange {
            campaign_calls_per_second: self.campaign_calls_per_second.map(pace).transpose()?,
            concurrent_calls_limit: self.concurrent_calls_limit.map(limit_of).transpose()?,
            direct_reserved_slots: self.direct_reserved_slots.map(reserved).transpose()?,
            weight: self.weight.map(fields::weight).transpose()?,
            max_queued_direct_calls: cap("max_queued_direct_calls", self.max_queued_direct_calls)?,
            max_queued_campaign_calls: cap(
                "max_queued_campaign_calls",
                self.max_queued_campaign_calls,
            )?,
            max_calls_per_number_per_day: self
                .max_calls_per_number_per_day
                .map(|limit| limit.map(fields::number_limit).transpose())
                .transpose()?,
            credits: self.credits,
        })
    }
}

/// A user.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserResponse {
    /// Its identifier.
    id: Uuid,
    /// Its name.
    email: String,
    /// `user` or `admin`.
    role: &'static str,
    /// How many of its calls may be up at once.
    concurrent_calls_limit: u32,
    /// How many of the last of these campaigns may not use.
    direct_reserved_slots: u32,
    /// How many of its direct calls may wait; null for the default.
    max_queued_direct_calls: Option<u32>,
    /// How many of its campaign calls may wait; null for the default.
    max_queued_campaign_calls: Option<u32>,
    /// How often its campaigns may call one number within any 24 hours; null for any number of times.
    max_calls_per_number_per_day: Option<u16>,
    /// Its turns relative to others.
    weight: u16,
    /// How many campaign calls of it may start in a second; null for any number.
    campaign_calls_per_second: Option<f64>,
    /// Its home time zone.
    time_zone: String,
    /// Calls it has paid for; null means it is not metered.
    credits: Option<i64>,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<User> for UserResponse {
    fn from(user: User) -> Self {
        Self {
            id: user.id.into(),
            email: user.email.to_string(),
            role: user.role.as_str(),
            concurrent_calls_limit: user.concurrent_calls_limit.get(),
            direct_reserved_slots: user.direct_reserved_slots,
            max_queued_direct_calls: user.max_queued_direct_calls,
            max_queued_campaign_calls: user.max_queued_campaign_calls,
            max_calls_per_number_per_day: user.max_calls_per_number_per_day.map(NumberLimit::get),
            weight: user.weight.get(),
            campaign_calls_per_second: user.campaign_calls_per_second.map(CallRate::get),
            time_zone: user.time_zone,
            credits: user.credits,
            created_at: user.created_at,
        }
    }
}

/// A user with its queue.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserLoadResponse {
    #[serde(flatten)]
    user: UserResponse,
    /// Its calls that hold a slot.
    active: u64,
    /// Its direct calls.
    direct_calls: TypeCountResponse,
    /// Its campaign calls.
    campaign_calls: TypeCountResponse,
}

impl From<UserLoad> for UserLoadResponse {
    fn from(load: UserLoad) -> Self {
        Self {
            active: load.direct.processing + load.campaign.processing,
            user: load.user.into(),
            direct_calls: load.direct.into(),
            campaign_calls: load.campaign.into(),
        }
    }
}

/// A user's part of the queue.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserQueueResponse {
    /// The user.
    user_id: Uuid,
    /// Its name.
    email: String,
    /// How many of its calls may be up at once.
    limit: u32,
    /// How many are.
    active: u64,
    /// Its direct calls.
    direct_calls: TypeCountResponse,
    /// Its campaign calls.
    campaign_calls: TypeCountResponse,
}

impl From<UserLoad> for UserQueueResponse {
    fn from(load: UserLoad) -> Self {
        Self {
            user_id: load.user.id.into(),
            email: load.user.email.to_string(),
            limit: load.user.concurrent_calls_limit.get(),
            active: load.direct.processing + load.campaign.processing,
            direct_calls: load.direct.into(),
            campaign_calls: load.campaign.into(),
        }
    }
}

/// The system's limit, use and pause.
#[utoipa::path(
    tag = "admin",
    responses((status = 200, description = "Now", body = SystemResponse))
)]
#[get("/api/admin/system")]
pub(crate) async fn show_system(
    api: web::Data<Api>,
    _admin: Admin,
) -> Result<web::Json<SystemResponse>, Problem> {
    let state = api.ports.operators.system_state().await?;
    Ok(web::Json(state.into()))
}

/// Changes the system's limit.
#[utoipa::path(
    tag = "admin",
    request_body = SystemRequest,
    responses((status = 200, description = "As it is now", body = SystemResponse))
)]
#[put("/api/admin/system")]
pub(crate) async fn replace_system(
    api: web::Data<Api>,
    admin: Admin,
    body: JsonBody<SystemRequest>,
) -> Result<web::Json<SystemResponse>, Problem> {
    set_limit(&api, &admin, &body.value).await
}

/// Changes the system's limit.
#[utoipa::path(
    tag = "admin",
    request_body = SystemRequest,
    responses((status = 200, description = "As it is now", body = SystemResponse))
)]
#[patch("/api/admin/system")]
pub(crate) async fn change_system(
    api: web::Data<Api>,
    admin: Admin,
    body: JsonBody<SystemRequest>,
) -> Result<web::Json<SystemResponse>, Problem> {
    set_limit(&api, &admin, &body.value).await
}

async fn set_limit(
    api: &Api,
    admin: &Admin,
    request: &SystemRequest,
) -> Result<web::Json<SystemResponse>, Problem> {
    let limit = limit_of(request.concurrent_calls_limit)?;
    let state = api.ports.operators.set_system_limit(limit).await?;
    api.ports.door.wake();
    admin.log("system", &format!("limit {limit}"));
    Ok(web::Json(state.into()))
}

/// Pauses all dispatch: nothing starts, nothing ends.
#[utoipa::path(
    tag = "admin",
    responses((status = 200, description = "As it is now", body = SystemResponse))
)]
#[post("/api/admin/dispatch/pause")]
pub(crate) async fn pause_dispatch(
    api: web::Data<Api>,
    admin: Admin,
) -> Result<web::Json<SystemResponse>, Problem> {
    set_paused(&api, &admin, true).await
}

/// Resumes dispatch.
#[utoipa::path(
    tag = "admin",
    responses((status = 200, description = "As it is now", body = SystemResponse))
)]
#[post("/api/admin/dispatch/resume")]
pub(crate) async fn resume_dispatch(
    api: web::Data<Api>,
    admin: Admin,
) -> Result<web::Json<SystemResponse>, Problem> {
    set_paused(&api, &admin, false).await
}

async fn set_paused(
    api: &Api,
    admin: &Admin,
    paused: bool,
) -> Result<web::Json<SystemResponse>, Problem> {
    let state = api.ports.operators.set_dispatch_paused(paused).await?;
    api.ports.door.wake();
    admin.log(
        "system",
        if paused {
            "dispatch paused"
        } else {
            "dispatch resumed"
        },
    );
    Ok(web::Json(state.into()))
}

/// Users with their load, newest first.
#[utoipa::path(
    tag = "admin",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<UserLoadResponse>),
        (status = 400, description = "`limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/admin/users")]
pub(crate) async fn list_users(
    api: web::Data<Api>,
    _admin: Admin,
    query: Query,
) -> Result<web::Json<PageResponse<UserLoadResponse>>, Problem> {
    let page = api.ports.operators.user_loads(query.page()?).await?;
    Ok(web::Json(PageResponse::of(page, UserLoadResponse::from)))
}

/// One user with its load.
#[utoipa::path(
    tag = "admin",
    params(("id" = Uuid, Path, description = "The user")),
    responses(
        (status = 200, description = "It", body = UserLoadResponse),
        (status = 404, description = "No such user"),
    )
)]
#[get("/api/admin/users/{id}")]
pub(crate) async fn show_user(
    api: web::Data<Api>,
    _admin: Admin,
    id: PathId<UserId>,
) -> Result<web::Json<UserLoadResponse>, Problem> {
    let load = api.ports.operators.user_load(id.0).await?;
    let load = load.ok_or_else(|| Problem::not_found("user"))?;
    Ok(web::Json(load.into()))
}

/// Changes a user.
#[utoipa::path(
    tag = "admin",
    params(("id" = Uuid, Path, description = "The user")),
    request_body = UserChangeRequest,
    responses(
        (status = 200, description = "As it is now", body = UserResponse),
        (status = 404, description = "No such user"),
    )
)]
#[patch("/api/admin/users/{id}")]
pub(crate) async fn change_user(
    api: web::Data<Api>,
    admin: Admin,
    id: PathId<UserId>,
    body: JsonBody<UserChangeRequest>,
) -> Result<web::Json<UserResponse>, Problem> {
    let change = body.value.into_change()?;
    let told = format!("{change:?}");
    let changed = api.ports.operators.update_user(id.0, change).await;
    let user = changed.map_err(|error| Problem::of_store(error, "user"))?;
    api.ports.door.wake();
    admin.log(&user.id.to_string(), &told);
    Ok(web::Json(user.into()))
}

/// The queue by user, newest user first.
#[utoipa::path(
    tag = "admin",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<UserQueueResponse>),
        (status = 400, description = "`limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/admin/queue")]
pub(crate) async fn list_queue_by_user(
    api: web::Data<Api>,
    _admin: Admin,
    query: Query,
) -> Result<web::Json<PageResponse<UserQueueResponse>>, Problem> {
    let page = api.ports.operators.user_loads(query.page()?).await?;
    Ok(web::Json(PageResponse::of(page, UserQueueResponse::from)))
}
