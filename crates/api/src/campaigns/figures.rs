//! Campaigns in figures, one by one and all together.

use std::collections::BTreeMap;

use actix_web::{get, web};
use callq_domain::{
    CampaignCalls, CampaignId, CampaignStatistics, CampaignStatus, CampaignSummary, Outcome,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ProgressResponse;
use crate::api::Api;
use crate::auth::Caller;
use crate::params::PathId;
use crate::problem::Problem;

/// A campaign in figures.
#[derive(Serialize, ToSchema)]
pub(crate) struct CampaignStatisticsResponse {
    /// The campaign.
    campaign_id: Uuid,
    /// Where it stands.
    status: &'static str,
    /// How far it is.
    #[serde(flatten)]
    progress: ProgressResponse,
    /// Share of contacts that are accounted for, 0 to 1.
    done_share: f64,
    /// Share of contacts called that were reached, 0 to 1; null before the first.
    completed_share: Option<f64>,
    /// How its calls went; null if more than 100,000 are over, as each would have to be looked at.
    calls: Option<CampaignCallsResponse>,
    /// When it was started.
    started_at: Option<DateTime<Utc>>,
    /// When its last contact was accounted for, or it was withdrawn.
    finished_at: Option<DateTime<Utc>>,
    /// When it was deleted, if it was.
    deleted_at: Option<DateTime<Utc>>,
}

impl From<CampaignStatistics> for CampaignStatisticsResponse {
    fn from(statistics: CampaignStatistics) -> Self {
        let campaign = statistics.campaign;
        let progress = campaign.progress;
        let made = progress.completed + progress.failed;
        let done = made + progress.cancelled + progress.expired;
        Self {
            campaign_id: campaign.id.into(),
            status: campaign.status.as_str(),
            progress: progress.into(),
            done_share: share(done, progress.total).unwrap_or(0.0),
            completed_share: share(progress.completed, made),
            calls: statistics.calls.map(CampaignCallsResponse::from),
            started_at: campaign.started_at,
            finished_at: campaign.finished_at,
            deleted_at: statistics.deleted_at,
        }
    }
}

/// How a campaign's calls went, each of them: a contact had several if its call was made again by the
/// rules of the campaign, or if it was queued again.
#[derive(Serialize, ToSchema)]
pub(crate) struct CampaignCallsResponse {
    /// Calls that are over.
    ended: u64,
    /// Those by how they ended: `completed`, `busy`, `no-answer`, `failed` and `cancelled`.
    by_outcome: BTreeMap<&'static str, u64>,
    /// Attempts they took.
    attempts: u64,
    /// Seconds talked, as providers tell.
    talk_seconds: u64,
}

impl From<CampaignCalls> for CampaignCallsResponse {
    fn from(calls: CampaignCalls) -> Self {
        let outcomes = Outcome::ALL.iter().map(|outcome| outcome.as_str());
        Self {
            ended: calls.ended,
            by_outcome: outcomes.zip(calls.by_outcome).collect(),
            attempts: calls.attempts,
            talk_seconds: calls.talk_seconds,
        }
    }
}

/// Your campaigns together.
#[derive(Serialize, ToSchema)]
pub(crate) struct CampaignSummaryResponse {
    /// Campaigns you have.
    total: u64,
    /// Those in each status.
    by_status: BTreeMap<&'static str, u64>,
    /// How far they are, all together.
    progress: ProgressResponse,
    /// Campaigns you deleted.
    deleted: DeletedCampaignsResponse,
}

/// Campaigns that were deleted. What they did still counts.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeletedCampaignsResponse {
    /// How many.
    total: u64,
    /// How far they got.
    progress: ProgressResponse,
}

impl From<CampaignSummary> for CampaignSummaryResponse {
    fn from(summary: CampaignSummary) -> Self {
        let none = CampaignStatus::ALL
            .iter()
            .map(|status| (status.as_str(), 0));
        let mut by_status: BTreeMap<&'static str, u64> = none.collect();
        for (status, campaigns) in &summary.by_status {
            *by_status.entry(status.as_str()).or_default() += campaigns;
        }
        Self {
            total: by_status.values().sum(),
            by_status,
            progress: summary.progress.into(),
            deleted: DeletedCampaignsResponse {
                total: summary.deleted,
                progress: summary.deleted_progress.into(),
            },
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Your campaigns by status, and how far they are all together.
#[utoipa::path(
    tag = "campaigns",
    responses((status = 200, description = "Now", body = CampaignSummaryResponse))
)]
#[get("/api/campaigns/summary")]
pub(crate) async fn show_campaign_summary(
    api: web::Data<Api>,
    caller: Caller,
) -> Result<web::Json<CampaignSummaryResponse>, Problem> {
    let summary = api.ports.campaigns.campaign_summary(caller.user()).await?;
    Ok(web::Json(summary.into()))
}

/// A campaign in figures. They outlive its deletion.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    responses(
        (status = 200, description = "Now", body = CampaignStatisticsResponse),
        (status = 404, description = "No such campaign, or another user's"),
    )
)]
#[get("/api/campaigns/{id}/statistics")]
pub(crate) async fn show_campaign_statistics(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
) -> Result<web::Json<CampaignStatisticsResponse>, Problem> {
    let store = &api.ports.campaigns;
    let statistics = store.campaign_statistics(caller.user(), id.0).await?;
    let statistics = statistics.ok_or_else(|| Problem::not_found("campaign"))?;
    Ok(web::Json(statistics.into()))
}
