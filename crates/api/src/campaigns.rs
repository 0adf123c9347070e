//! Plain campaigns: contacts in, start, pause, resume, cancel.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, get, post, web};
use callq_domain::{
    CallRate, Campaign, CampaignId, CampaignProgress, CampaignStatus, ConcurrencyLimit, DayOfWeek,
    LegalHours, NumberLimit, RetryCause, RetryRule, StoreError,
};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::Api;
use crate::auth::Caller;
use crate::fields;
use crate::json::JsonBody;
use crate::params::{PageParams, PageResponse, PathId, Query};
use crate::problem::Problem;

pub(crate) mod change;
pub(crate) mod contacts;
pub(crate) mod figures;
mod request;

pub(crate) use request::CampaignRequest;

/// A list of contacts is longer than any other body.
const CAMPAIGN_BODY_LIMIT: usize = 8 * 1024 * 1024;

/// How far a campaign is. `total` is the sum of the others.
#[derive(Serialize, ToSchema)]
pub(crate) struct ProgressResponse {
    /// Contacts in the campaign.
    total: u64,
    /// Not queued yet: the campaign has not started.
    pending: u64,
    /// Waiting for a slot.
    queued: u64,
    /// Holding a slot.
    processing: u64,
    /// Call took place.
    completed: u64,
    /// Call did not take place.
    failed: u64,
    /// Withdrawn.
    cancelled: u64,
    /// Not started in time.
    expired: u64,
}

impl From<CampaignProgress> for ProgressResponse {
    fn from(progress: CampaignProgress) -> Self {
        Self {
            total: progress.total,
            pending: progress.pending,
            queued: progress.queued,
            processing: progress.processing,
            completed: progress.completed,
            failed: progress.failed,
            cancelled: progress.cancelled,
            expired: progress.expired,
        }
    }
}

/// A campaign.
#[derive(Serialize, ToSchema)]
pub(crate) struct CampaignResponse {
    /// Its identifier.
    id: Uuid,
    /// A name for people.
    name: String,
    /// Who talks.
    agent_id: Uuid,
    /// What the campaign is for.
    next_action: String,
    /// Local time from which calls may be made.
    first_call_time: NaiveTime,
    /// Local time until which calls may be made.
    last_call_time: NaiveTime,
    /// First local day.
    start_date: NaiveDate,
    /// Last local day; null means no end.
    end_date: Option<NaiveDate>,
    /// An IANA zone for the times above.
    campaign_timezone: Option<String>,
    /// Whether `campaign_timezone` holds rather than your own zone.
    use_custom_timezone: bool,
    /// Whether its hours go by the clock of each contact, where that is known.
    use_contact_timezone: bool,
    /// The days on which its hours begin.
    weekdays: Vec<&'static str>,
    /// Dates on which nobody is called.
    holidays: BTreeSet<NaiveDate>,
    /// Hours within which its own are cut.
    legal_hours: Option<&'static str>,
    /// The zone by whose clock all of this goes; with `use_contact_timezone` for contacts whose own
    /// is not known.
    time_zone: &'static str,
    /// The hours it is in, or else the next; null while it is not under way. With
    /// `use_contact_timezone` the first of those of contacts whose calls are due, in their zone.
    hours: Option<HoursResponse>,
    /// Calls to a contact after the first that did not get through.
    max_retries: u32,
    /// Minutes between them.
    retry_interval_minutes: u32,
    /// What holds instead after some outcomes.
    retries: BTreeMap<&'static str, RetryRuleResponse>,
    /// How many of its calls may be up at once; null for as many as you may have.
    max_concurrent_calls: Option<u32>,
    /// How many of its calls may start in a second; null for any number.
    calls_per_second: Option<f64>,
    /// Its turns beside those of your other campaigns.
    weight: u16,
    /// Where its lists are from; null means numbers are in international form.
    country: Option<String>,
    /// How often it may call one number within any 24 hours; null for what holds for all of yours.
    max_calls_per_number_per_day: Option<u16>,
    /// `draft`, `scheduled` (started, its first hours are still to come), `active`, `paused`, `completed` or `cancelled`.
    status: &'static str,
    /// How far it is.
    progress: ProgressResponse,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was started.
    started_at: Option<DateTime<Utc>>,
    /// When its last contact was accounted for, or it was withdrawn.
    finished_at: Option<DateTime<Utc>>,
}

impl From<Campaign> for CampaignResponse {
    fn from(campaign: Campaign) -> Self {
        let fields = campaign.fields;
        Self {
            id: campaign.id.into(),
            name: fields.name,
            agent_id: fields.agent_id.into(),
            next_action: fields.next_action,
            first_call_time: fields.first_call_time,
            last_call_time: fields.last_call_time,
            start_date: fields.start_date,
            end_date: fields.end_date,
            campaign_timezone: fields.campaign_timezone,
            use_custom_timezone: fields.use_custom_timezone,
            use_contact_timezone: fields.use_contact_timezone,
            weekdays: fields.weekdays.iter().map(DayOfWeek::as_str).collect(),
            holidays: fields.holidays,
            legal_hours: fields.legal_hours.map(LegalHours::as_str),
            time_zone: campaign.zone.name(),
            hours: campaign.window.map(|window| HoursResponse {
                opens_at: window.opens_at,
                closes_at: window.closes_at,
                open: campaign.is_open,
            }),
            max_concurrent_calls: fields
                .pacing
                .max_concurrent_calls
                .map(ConcurrencyLimit::get),
            calls_per_second: fields.pacing.calls_per_second.map(CallRate::get),
            weight: fields.pacing.weight.get(),
            max_retries: fields.retries.max_retries,
            retry_interval_minutes: fields.retries.interval_minutes,
            retries: fields
                .retries
                .rules
                .iter()
                .map(RetryRuleResponse::of)
                .collect(),
            country: fields.country.map(|country| country.to_string()),
            max_calls_per_number_per_day: fields.max_calls_per_number_per_day.map(NumberLimit::get),
            status: campaign.status.as_str(),
            progress: campaign.progress.into(),
            created_at: campaign.created_at,
            started_at: campaign.started_at,
            finished_at: campaign.finished_at,
        }
    }
}

/// A time during which a campaign may call.
#[derive(Serialize, ToSchema)]
pub(crate) struct HoursResponse {
    /// When it begins, or began; for hours that had begun when they were worked out, then.
    opens_at: DateTime<Utc>,
    /// The first instant at which nobody is called; null for never.
    closes_at: Option<DateTime<Utc>>,
    /// Whether waiting calls may go now, or some of them.
    open: bool,
}

/// How often to call again after one outcome.
#[derive(Serialize, ToSchema)]
pub(crate) struct RetryRuleResponse {
    /// So many times at most.
    times: u32,
    /// Minutes before the first, the second, and so on; the last holds for all that follow.
    after_minutes: Vec<u32>,
}

impl RetryRuleResponse {
    fn of((cause, rule): (&RetryCause, &RetryRule)) -> (&'static str, Self) {
        let rule = Self {
            times: rule.times(),
            after_minutes: rule.after_minutes().to_vec(),
        };
        (cause.as_str(), rule)
    }
}

/// Makes a campaign. It calls nobody until it is started.
#[utoipa::path(
    tag = "campaigns",
    request_body = CampaignRequest,
    responses(
        (status = 201, description = "Made, as a draft", body = CampaignResponse),
        (status = 404, description = "No such agent or contact, or another user's"),
    )
)]
#[post("/api/campaigns")]
pub(crate) async fn create_campaign(
    api: web::Data<Api>,
    caller: Caller,
    body: JsonBody<CampaignRequest, CAMPAIGN_BODY_LIMIT>,
) -> Result<HttpResponse, Problem> {
    let campaign = body.value.into_campaign(caller.user())?;
    let created = api.ports.campaigns.create_campaign(campaign).await;
    let campaign = created.map_err(|error| match error {
        StoreError::NotFound => Problem::not_found("agent").with_field("agent_id"),
        StoreError::Conflict(sentence) => {
            Problem::unknown_reference(sentence).with_field("contact_ids")
        }
        other => other.into(),
    })?;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/api/campaigns/{}", campaign.id)))
        .json(CampaignResponse::from(campaign)))
}

/// Your campaigns, newest first.
#[utoipa::path(
    tag = "campaigns",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<CampaignResponse>),
        (status = 400, description = "`limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/campaigns")]
pub(crate) async fn list_campaigns(
    api: web::Data<Api>,
    caller: Caller,
    query: Query,
) -> Result<web::Json<PageResponse<CampaignResponse>>, Problem> {
    let page = query.page()?;
    let page = api.ports.campaigns.campaigns(caller.user(), page).await?;
    Ok(web::Json(PageResponse::of(page, CampaignResponse::from)))
}

/// One campaign.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    responses(
        (status = 200, description = "It", body = CampaignResponse),
        (status = 404, description = "No such campaign, or another user's"),
    )
)]
#[get("/api/campaigns/{id}")]
pub(crate) async fn show_campaign(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
) -> Result<web::Json<CampaignResponse>, Problem> {
    let campaign = find(&api, caller, id.0).await?;
    Ok(web::Json(campaign.into()))
}

/// Starts a draft: every contact is queued.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    responses(
        (status = 200, description = "As it is now", body = CampaignResponse),
        (status = 404, description = "No such campaign, or another user's"),
        (status = 409, description = "It is no draft, or has no hours left in which it may call; see `current_status`"),
        (status = 503, description = "As many campaign calls of yours wait as may; nothing was changed. See `limit` and `waiting`"),
    )
)]
#[post("/api/campaigns/{id}/start")]
pub(crate) async fn start_campaign(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
) -> Result<web::Json<CampaignResponse>, Problem> {
    let (from, to) = (&[CampaignStatus::Draft], CampaignStatus::Active);
    change(&api, caller, id.0, from, to).await
}

/// Holds a campaign's waiting calls. Calls in progress go on.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    responses(
        (status = 200, description = "As it is now", body = CampaignResponse),
        (status = 404, description = "No such campaign, or another user's"),
        (status = 409, description = "It is not active; see `current_status`"),
    )
)]
#[post("/api/campaigns/{id}/pause")]
pub(crate) async fn pause_campaign(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
) -> Result<web::Json<CampaignResponse>, Problem> {
    let from = &[CampaignStatus::Active, CampaignStatus::Scheduled];
    let to = CampaignStatus::Paused;
    change(&api, caller, id.0, from, to).await
}

/// Lets a paused campaign go on.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    responses(
        (status = 200, description = "As it is now", body = CampaignResponse),
        (status = 404, description = "No such campaign, or another user's"),
        (status = 409, description = "It is not paused, or has no hours left in which it may call; see `current_status`"),
    )
)]
#[post("/api/campaigns/{id}/resume")]
pub(crate) async fn resume_campaign(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
) -> Result<web::Json<CampaignResponse>, Problem> {
    let (from, to) = (&[CampaignStatus::Paused], CampaignStatus::Active);
    change(&api, caller, id.0, from, to).await
}

/// Withdraws a campaign's waiting calls for good. Calls in progress go on.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    responses(
        (status = 200, description = "As it is now", body = CampaignResponse),
        (status = 404, description = "No such campaign, or another user's"),
        (status = 409, description = "It is over; see `current_status`"),
    )
)]
#[post("/api/campaigns/{id}/cancel")]
pub(crate) async fn cancel_campaign(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
) -> Result<web::Json<CampaignResponse>, Problem> {
    use CampaignStatus::{Active, Cancelled, Draft, Paused, Scheduled};
    let from = &[Draft, Scheduled, Active, Paused];
    change(&api, caller, id.0, from, Cancelled).await
}

async fn find(api: &Api, caller: Caller, id: CampaignId) -> Result<Campaign, Problem> {
    let found = api.ports.campaigns.campaign(caller.user(), id).await?;
    found.ok_or_else(|| Problem::not_found("campaign"))
}

/// Moves a campaign from one of `from` to `to`. Whether it may is the store's to decide; `from`
/// tells start and resume apart, which lead to the same status.
async fn change(
    api: &Api,
    caller: Caller,
    id: CampaignId,
    from: &[CampaignStatus],
    to: CampaignStatus,
) -> Result<web::Json<CampaignResponse>, Problem> {
    let present = find(api, caller, id).await?.status;
    if !from.contains(&present) {
        return Err(stands_elsewhere(present));
    }
    let store = &api.ports.campaigns;
    match store.set_campaign_status(caller.user(), id, to).await {
        Ok(campaign) => {
            api.ports.door.wake();
            Ok(web::Json(campaign.into()))
        }
        Err(StoreError::Conflict(sentence)) => {
            let now = find(api, caller, id).await?.status;
            Err(if now == present {
                Problem::conflict(fields::sentence(sentence)).with_current_status(now.as_str())
            } else {
                // Someone else was faster: say where it stands now.
                stands_elsewhere(now)
            })
        }
        Err(error) => Err(refused(api, caller, error)),
    }
}

/// What a change could not be made for; a full queue is counted and logged.
pub(crate) fn refused(api: &Api, caller: Caller, error: StoreError) -> Problem {
    if let StoreError::QueueFull(full) = &error {
        api.metrics.count_campaign_queue_full();
        log::warn!(user_id:% = caller.user(); "contacts of a campaign were not queued: {full}");
    }
    Problem::of_store(error, "campaign")
}

fn stands_elsewhere(status: CampaignStatus) -> Problem {
    let status = status.as_str();
    Problem::conflict(format!(
        "The campaign is {status}; this cannot be done now."
    ))
    .with_current_status(status)
}
