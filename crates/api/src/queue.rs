//! The queue as its owner sees it: at a glance, item by item, in figures; and limits with their use.

use actix_web::{delete, get, web};
use callq_domain::{
    CallType, Concurrency, ItemFilter, ItemStatus, QueueItemId, QueueStatistics, QueueStatus,
    SlotUse, TypeCount,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::Api;
use crate::auth::Caller;
use crate::params::{PageParams, PageResponse, PathId, Query};
use crate::problem::Problem;

mod item;

use item::{PlacedItemResponse, QueueItemResponse};

/// Waiting and running calls of one type.
#[derive(Serialize, ToSchema)]
pub(crate) struct TypeCountResponse {
    /// Waiting, due or not.
    queued: u64,
    /// Holding a slot.
    processing: u64,
    /// Both.
    total: u64,
}

impl From<TypeCount> for TypeCountResponse {
    fn from(count: TypeCount) -> Self {
        Self {
            queued: count.queued,
            processing: count.processing,
            total: count.queued + count.processing,
        }
    }
}

/// Direct calls, and which of them goes next.
#[derive(Serialize, ToSchema)]
pub(crate) struct DirectCallsResponse {
    /// Waiting, due or not.
    queued: u64,
    /// Holding a slot.
    processing: u64,
    /// Both.
    total: u64,
    /// The next to go; null while none waits.
    next_call: Option<NextCallResponse>,
}

/// The direct call that goes next.
#[derive(Serialize, ToSchema)]
pub(crate) struct NextCallResponse {
    /// Its queue item.
    id: Uuid,
    /// The number to dial.
    phone_number: String,
    /// The name of the person called.
    contact_name: Option<String>,
    /// Always 1.
    position: u64,
    /// When it was accepted.
    queued_at: DateTime<Utc>,
}

/// A limit and its use.
#[derive(Serialize, ToSchema)]
pub(crate) struct SlotUseResponse {
    /// Calls that may be up at once.
    limit: u32,
    /// Calls that are.
    active: u32,
    /// What is left.
    available: u32,
}

impl From<SlotUse> for SlotUseResponse {
    fn from(slots: SlotUse) -> Self {
        Self {
            limit: slots.limit,
            active: slots.active,
            available: slots.available(),
        }
    }
}

/// Your limit and the system's, with their use.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConcurrencyResponse {
    /// Yours.
    user: SlotUseResponse,
    /// Everyone's.
    system: SlotUseResponse,
    /// How many of your last slots campaigns may not use.
    direct_reserved_slots: u32,
}

impl From<Concurrency> for ConcurrencyResponse {
    fn from(concurrency: Concurrency) -> Self {
        Self {
            user: concurrency.user.into(),
            system: concurrency.system.into(),
            direct_reserved_slots: concurrency.direct_reserved_slots,
        }
    }
}

/// Your queue at a glance.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueStatusResponse {
    /// Direct calls.
    direct_calls: DirectCallsResponse,
    /// Campaign calls.
    campaign_calls: TypeCountResponse,
    /// Limits and use.
    limits: ConcurrencyResponse,
}

impl From<QueueStatus> for QueueStatusResponse {
    fn from(status: QueueStatus) -> Self {
        let TypeCountResponse {
            queued,
            processing,
            total,
        } = status.direct.into();
        let next_call = status.next_direct.map(|item| NextCallResponse {
            id: item.id.into(),
            phone_number: item.phone_number.to_string(),
            contact_name: item.contact_name,
            position: 1,
            queued_at: item.queued_at,
        });
        Self {
            direct_calls: DirectCallsResponse {
                queued,
                processing,
                total,
                next_call,
            },
            campaign_calls: status.campaign.into(),
            limits: status.concurrency.into(),
        }
    }
}

/// Items of one type and status.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemCountResponse {
    /// `direct` or `campaign`.
    call_type: &'static str,
    /// Where they stand.
    status: &'static str,
    /// How many.
    count: u64,
}

/// Seconds between due and started.
#[derive(Serialize, ToSchema)]
pub(crate) struct WaitTimesResponse {
    /// Half waited less.
    p50: f64,
    /// Nine in ten waited less.
    p90: f64,
    /// All but one in a hundred waited less.
    p99: f64,
}

/// Your queue in figures.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueStatisticsResponse {
    /// Items by type and status; those that ended count for the last 24 hours.
    counts: Vec<ItemCountResponse>,
    /// Over the last hour; null if nothing started.
    wait_seconds: Option<WaitTimesResponse>,
    /// Over the last hour.
    started_per_minute: f64,
    /// Over the last hour.
    finished_per_minute: f64,
}

impl From<QueueStatistics> for QueueStatisticsResponse {
    fn from(statistics: QueueStatistics) -> Self {
        let counts = statistics.counts.into_iter();
        Self {
            counts: counts
                .map(|(call_type, status, count)| ItemCountResponse {
                    call_type: call_type.as_str(),
                    status: status.as_str(),
                    count,
                })
                .collect(),
            wait_seconds: statistics
                .wait_seconds
                .map(|[p50, p90, p99]| WaitTimesResponse { p50, p90, p99 }),
            started_per_minute: statistics.started_per_minute,
            finished_per_minute: statistics.finished_per_minute,
        }
    }
}

/// Your queue at a glance.
#[utoipa::path(
    tag = "queue",
    responses((status = 200, description = "Now", body = QueueStatusResponse))
)]
#[get("/api/calls/queue/status")]
pub(crate) async fn show_queue_status(
    api: web::Data<Api>,
    caller: Caller,
) -> Result<web::Json<QueueStatusResponse>, Problem> {
    let status = api.ports.queue.queue_status(caller.user()).await?;
    Ok(web::Json(status.into()))
}

/// Which items.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `item_filter` reads")]
pub(crate) struct ItemParams {
    /// Only of this status.
    status: Option<String>,
    /// Only `direct` or only `campaign`.
    call_type: Option<String>,
    /// Only of this campaign.
    campaign_id: Option<Uuid>,
}

fn item_filter(query: &Query) -> Result<ItemFilter, Problem> {
    let statuses = ItemStatus::ALL.map(ItemStatus::as_str).join(", ");
    let status = query.filter(
        "status",
        &format!("one of {statuses}"),
        ItemStatus::from_name,
    )?;
    let call_type = query.filter("call_type", "direct or campaign", CallType::from_name)?;
    let campaign_id = query.filter("campaign_id", "a UUID", |text| text.parse().ok())?;
    Ok(ItemFilter {
        status,
        call_type,
        campaign_id,
    })
}

/// Your queue items, direct before campaign, newest due first.
#[utoipa::path(
    tag = "queue",
    params(ItemParams, PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<QueueItemResponse>),
        (status = 400, description = "A filter, `limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/queue")]
pub(crate) async fn list_queue_items(
    api: web::Data<Api>,
    caller: Caller,
    query: Query,
) -> Result<web::Json<PageResponse<QueueItemResponse>>, Problem> {
    let (filter, page) = (item_filter(&query)?, query.page()?);
    let page = api.ports.queue.items(caller.user(), filter, page).await?;
    Ok(web::Json(PageResponse::of(page, QueueItemResponse::from)))
}

/// Your queue in figures.
#[utoipa::path(
    tag = "queue",
    responses((status = 200, description = "Now", body = QueueStatisticsResponse))
)]
#[get("/api/queue/statistics")]
pub(crate) async fn show_queue_statistics(
    api: web::Data<Api>,
    caller: Caller,
) -> Result<web::Json<QueueStatisticsResponse>, Problem> {
    let statistics = api.ports.queue.queue_statistics(caller.user()).await?;
    Ok(web::Json(statistics.into()))
}

/// One item with its place in line.
#[utoipa::path(
    tag = "queue",
    params(("id" = Uuid, Path, description = "The queue item")),
    responses(
        (status = 200, description = "It", body = PlacedItemResponse),
        (status = 404, description = "No such queue item, or another user's"),
    )
)]
#[get("/api/queue/{id}")]
pub(crate) async fn show_queue_item(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<QueueItemId>,
) -> Result<web::Json<PlacedItemResponse>, Problem> {
    let placed = api.ports.queue.item(caller.user(), id.0).await?;
    let placed = placed.ok_or_else(|| Problem::not_found("queue item"))?;
    Ok(web::Json(PlacedItemResponse::of(placed, api.now())))
}

/// Withdraws a waiting item.
#[utoipa::path(
    tag = "queue",
    params(("id" = Uuid, Path, description = "The queue item")),
    responses(
        (status = 200, description = "It is cancelled", body = QueueItemResponse),
        (status = 404, description = "No such queue item, or another user's"),
        (status = 409, description = "It waits no longer; `current_status` says where it stands"),
    )
)]
#[delete("/api/queue/{id}")]
pub(crate) async fn cancel_queue_item(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<QueueItemId>,
) -> Result<web::Json<QueueItemResponse>, Problem> {
    let cancelled = api.ports.queue.cancel_item(caller.user(), id.0).await;
    match cancelled.map_err(|error| Problem::of_store(error, "queue item"))? {
        Ok(item) => {
            // Those behind it may have waited for it alone.
            api.ports.door.wake();
            Ok(web::Json(item.into()))
        }
        Err(status) => {
            let message = format!("The item waits no longer: it is {status}.");
            Err(Problem::conflict(message).with_current_status(status.as_str()))
        }
    }
}

/// Limits and use.
#[utoipa::path(
    tag = "queue",
    responses((status = 200, description = "Now", body = ConcurrencyResponse))
)]
#[get("/api/settings/concurrency")]
pub(crate) async fn show_concurrency(
    api: web::Data<Api>,
    caller: Caller,
) -> Result<web::Json<ConcurrencyResponse>, Problem> {
    let concurrency = api.ports.queue.concurrency(caller.user()).await?;
    Ok(web::Json(concurrency.into()))
}
