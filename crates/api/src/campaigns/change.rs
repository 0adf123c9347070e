//! Saying something else of a campaign, and deleting it.

use actix_web::{HttpResponse, delete, put, web};
use callq_domain::{CampaignId, StoreError};

use super::request::CampaignRequest;
use super::{CampaignResponse, find, stands_elsewhere};
use crate::api::Api;
use crate::auth::Caller;
use crate::fields;
use crate::json::JsonBody;
use crate::params::PathId;
use crate::problem::Problem;

/// Replaces what is said of a campaign that is not over; what is left out is as if never said. Whom
/// it calls is not changed by this, and who talks, and whether it goes by its contacts' clocks, only
/// while it is a draft.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    request_body = CampaignRequest,
    responses(
        (status = 200, description = "As it is now", body = CampaignResponse),
        (status = 404, description = "No such campaign or agent, or another user's"),
        (status = 409, description = "It is over, calls already with another agent or by other clocks, or is under way and would have no hours left; see `field` and `current_status`"),
    )
)]
#[put("/api/campaigns/{id}")]
pub(crate) async fn replace_campaign(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
    body: JsonBody<CampaignRequest>,
) -> Result<web::Json<CampaignResponse>, Problem> {
    let said = body.value.into_replacement()?;
    let present = find(&api, caller, id.0).await?;
    let (agent, by_contact) = (said.agent_id, said.use_contact_timezone);
    let store = &api.ports.campaigns;
    match store.update_campaign(caller.user(), id.0, said).await {
        Ok(campaign) => {
            api.ports.door.wake();
            Ok(web::Json(campaign.into()))
        }
        Err(StoreError::NotFound) if present.fields.agent_id != agent => {
            Err(Problem::not_found("agent").with_field("agent_id"))
        }
        Err(StoreError::Conflict(why)) => {
            let present = find(&api, caller, id.0).await?;
            let status = present.status;
            if status.is_over() {
                return Err(stands_elsewhere(status));
            }
            let fixed = [
                ("agent_id", present.fields.agent_id == agent),
                (
                    "use_contact_timezone",
                    present.fields.use_contact_timezone == by_contact,
                ),
            ];
            let changed = fixed.iter().find(|(_, same)| !same);
            let (field, sentence) = match changed {
                Some((field, _)) => (
                    *field,
                    format!("`{field}` can be changed only while the campaign is a draft."),
                ),
                // It may, but for its hours: none are left.
                None => ("end_date", fields::sentence(why)),
            };
            Err(Problem::conflict(sentence)
                .with_field(field)
                .with_current_status(status.as_str()))
        }
        Err(error) => Err(Problem::of_store(error, "campaign")),
    }
}

/// Deletes a draft, or a campaign that is over. It is listed no more; its calls, their history and
/// its statistics stay.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "No such campaign, or another user's"),
        (status = 409, description = "It is not over: cancel it first; see `current_status`"),
    )
)]
#[delete("/api/campaigns/{id}")]
pub(crate) async fn delete_campaign(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
) -> Result<HttpResponse, Problem> {
    let store = &api.ports.campaigns;
    match store.delete_campaign(caller.user(), id.0).await {
        Ok(()) => Ok(HttpResponse::NoContent().finish()),
        Err(StoreError::Conflict(_)) => {
            let status = find(&api, caller, id.0).await?.status.as_str();
            let sentence = format!("The campaign is {status}; cancel it first, then delete it.");
            Err(Problem::conflict(sentence).with_current_status(status))
        }
        Err(error) => Err(Problem::of_store(error, "campaign")),
    }
}
