//! The contacts of a campaign: where each stands, and adding, withdrawing and queueing them again.

use actix_web::{get, post, web};
use callq_domain::{
    CampaignContact, CampaignId, ContactSelection, ContactStatus, ContactsAdded, StoreError,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::request::contacts_of;
use super::{CAMPAIGN_BODY_LIMIT, find, refused, stands_elsewhere};
use crate::api::Api;
use crate::auth::Caller;
use crate::json::JsonBody;
use crate::params::{PageParams, PageResponse, PathId, Query};
use crate::problem::Problem;

/// A contact of a campaign.
#[derive(Serialize, ToSchema)]
pub(crate) struct CampaignContactResponse {
    /// The contact.
    contact_id: Uuid,
    /// The number that is dialled, or was.
    phone_number: String,
    /// The name that goes with it.
    name: Option<String>,
    /// `pending` while the campaign is a draft, then `queued`, `processing`, `completed`, `failed`,
    /// `cancelled` or `expired`.
    status: &'static str,
    /// Attempts made so far, those before it was queued again among them.
    attempts: u32,
    /// How its last call ended, if one did: `completed`, `busy`, `no-answer`, `failed` or
    /// `cancelled`.
    last_outcome: Option<&'static str>,
    /// Why it waits, or ended so.
    reason: Option<String>,
    /// Its queue item.
    queue_id: Uuid,
    /// Its call, once it has one.
    call_id: Option<Uuid>,
    /// When it is next tried, if that is known: null while it only waits for its turn.
    next_attempt_at: Option<DateTime<Utc>>,
    /// When its call last started.
    started_at: Option<DateTime<Utc>>,
    /// When it was accounted for.
    finished_at: Option<DateTime<Utc>>,
}

impl From<CampaignContact> for CampaignContactResponse {
    fn from(contact: CampaignContact) -> Self {
        Self {
            contact_id: contact.contact_id.into(),
            phone_number: contact.phone_number.to_string(),
            name: contact.name,
            status: contact.status.as_str(),
            attempts: contact.attempts,
            last_outcome: contact.outcome.map(|outcome| outcome.as_str()),
            reason: contact.reason,
            queue_id: contact.item_id.into(),
            call_id: contact.call_id.map(Uuid::from),
            next_attempt_at: contact.next_attempt_at,
            started_at: contact.started_at,
            finished_at: contact.finished_at,
        }
    }
}

/// Contacts to be added.
#[derive(Deserialize, ToSchema)]
pub(crate) struct AddContactsRequest {
    /// Whom to call besides, in this order, each once; 1 to 100,000.
    contact_ids: Vec<Uuid>,
}

/// What became of contacts that were to be added.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContactsAddedResponse {
    /// Contacts that are new in the campaign.
    added: u64,
    /// Contacts that were in it already.
    skipped: u64,
    /// Those.
    skipped_contact_ids: Vec<Uuid>,
}

/// Which contacts to withdraw: name them, or say all. A filter with a name that it does not know is
/// refused, so that a slip does not mean everyone.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelContactsRequest {
    /// These; those that do not wait are passed over.
    contact_ids: Option<Vec<Uuid>>,
    /// `queued`: all that wait.
    status: Option<String>,
    /// True: all that wait.
    all: Option<bool>,
}

/// How many contacts were withdrawn.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContactsCancelledResponse {
    /// Contacts withdrawn.
    cancelled: u64,
}

/// Which contacts to queue again: name them, name how they ended, or say all. A filter with a name
/// that it does not know is refused.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequeueContactsRequest {
    /// Of these; those that did not end so are passed over.
    contact_ids: Option<Vec<Uuid>>,
    /// Those that ended so: any of `failed`, `cancelled` and `expired`; each of these unless given.
    statuses: Option<Vec<String>>,
    /// True: all that ended in one of the three ways.
    all: Option<bool>,
}

/// How many contacts were queued again.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContactsRequeuedResponse {
    /// Contacts queued again.
    requeued: u64,
    /// Where the campaign stands now: a completed one is active again.
    status: &'static str,
}

/// The query of this list, for its description.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `list_campaign_contacts` reads")]
pub(crate) struct ContactParams {
    /// Only of this status.
    status: Option<String>,
}

const STATUSES: &str = "pending, queued, processing, completed, failed, cancelled or expired";

/// A campaign's contacts in its order; or those of one status, the next to go or the last to end
/// first. A page may hold fewer than `limit` although `next_cursor` leads on.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign"), ContactParams, PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<CampaignContactResponse>),
        (status = 400, description = "`status`, `limit` or `cursor` is not as it must be"),
        (status = 404, description = "No such campaign, or another user's"),
    )
)]
#[get("/api/campaigns/{id}/contacts")]
pub(crate) async fn list_campaign_contacts(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
    query: Query,
) -> Result<web::Json<PageResponse<CampaignContactResponse>>, Problem> {
    let page = query.page()?;
    let status = query.filter("status", STATUSES, ContactStatus::from_name)?;
    let store = &api.ports.campaign_contacts;
    let page = store
        .campaign_contacts(caller.user(), id.0, status, page)
        .await
        .map_err(|error| Problem::of_store(error, "campaign"))?;
    Ok(web::Json(PageResponse::of(
        page,
        CampaignContactResponse::from,
    )))
}

/// Adds contacts behind those of a campaign that is not over, all or none. Those already in it are
/// skipped. Those on a do-not-call list are cancelled at once, `do-not-call`.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    request_body = AddContactsRequest,
    responses(
        (status = 200, description = "They are in it", body = ContactsAddedResponse),
        (status = 503, description = "As many campaign calls of yours wait as may; nothing was changed. See `limit` and `waiting`"),
        (status = 404, description = "No such campaign or contact, or another user's"),
        (status = 409, description = "It is over; see `current_status`"),
    )
)]
#[post("/api/campaigns/{id}/contacts")]
pub(crate) async fn add_campaign_contacts(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
    body: JsonBody<AddContactsRequest, CAMPAIGN_BODY_LIMIT>,
) -> Result<web::Json<ContactsAddedResponse>, Problem> {
    let contacts = contacts_of(&body.value.contact_ids)?;
    let store = &api.ports.campaign_contacts;
    let added = store
        .add_campaign_contacts(caller.user(), id.0, contacts)
        .await;
    match changed(&api, caller, id.0, added).await? {
        ContactsAdded::Added { added, skipped } => Ok(web::Json(ContactsAddedResponse {
            added,
            skipped: skipped.len() as u64,
            skipped_contact_ids: skipped.into_iter().map(Uuid::from).collect(),
        })),
        ContactsAdded::UnknownContact(contact) => {
            let sentence = format!("Contact {contact} does not exist.");
            Err(Problem::unknown_reference(sentence).with_field("contact_ids"))
        }
    }
}

/// Withdraws waiting contacts of a campaign that is not over. Calls in progress go on.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    request_body = CancelContactsRequest,
    responses(
        (status = 200, description = "How many", body = ContactsCancelledResponse),
        (status = 404, description = "No such campaign, or another user's"),
        (status = 409, description = "It is over; see `current_status`"),
    )
)]
#[post("/api/campaigns/{id}/contacts/cancel")]
pub(crate) async fn cancel_campaign_contacts(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
    body: JsonBody<CancelContactsRequest, CAMPAIGN_BODY_LIMIT>,
) -> Result<web::Json<ContactsCancelledResponse>, Problem> {
    let asked = body.value;
    if asked
        .status
        .as_deref()
        .is_some_and(|status| status != "queued")
    {
        return Err(Problem::invalid(
            "status",
            "must be `queued`: only what waits can be withdrawn",
        ));
    }
    let which = selection(asked.contact_ids, asked.all, asked.status.is_some())?;
    let store = &api.ports.campaign_contacts;
    let cancelled = store
        .cancel_campaign_contacts(caller.user(), id.0, which)
        .await;
    let cancelled = changed(&api, caller, id.0, cancelled).await?;
    Ok(web::Json(ContactsCancelledResponse { cancelled }))
}

/// Queues contacts again that were not reached, behind all others, each counted as waiting from then
/// on; those on a do-not-call list are passed over. A completed campaign is active again by this; a
/// cancelled one stays over.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The campaign")),
    request_body = RequeueContactsRequest,
    responses(
        (status = 200, description = "How many", body = ContactsRequeuedResponse),
        (status = 503, description = "As many campaign calls of yours wait as may; nothing was changed. See `limit` and `waiting`"),
        (status = 404, description = "No such campaign, or another user's"),
        (status = 409, description = "It was cancelled, or is completed and its last hours are over; see `current_status`"),
    )
)]
#[post("/api/campaigns/{id}/contacts/requeue")]
pub(crate) async fn requeue_campaign_contacts(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<CampaignId>,
    body: JsonBody<RequeueContactsRequest, CAMPAIGN_BODY_LIMIT>,
) -> Result<web::Json<ContactsRequeuedResponse>, Problem> {
    let asked = body.value;
    let ended = ends_of(asked.statuses.as_deref())?;
    let which = selection(asked.contact_ids, asked.all, asked.statuses.is_some())?;
    let store = &api.ports.campaign_contacts;
    let requeued = store
        .requeue_campaign_contacts(caller.user(), id.0, which, ended)
        .await;
    if let Err(StoreError::Conflict(_)) = &requeued {
        let status = find(&api, caller, id.0).await?.status;
        if status.may_be_repeated() {
            let sentence = "The campaign is completed, and has no hours left in which it may call.";
            return Err(Problem::conflict(sentence).with_current_status(status.as_str()));
        }
    }
    let requeued = changed(&api, caller, id.0, requeued).await?;
    let status = find(&api, caller, id.0).await?.status.as_str();
    Ok(web::Json(ContactsRequeuedResponse { requeued, status }))
}

/// Whom a filter means. One that names nothing means nobody, which nobody would ask for.
fn selection(
    ids: Option<Vec<Uuid>>,
    all: Option<bool>,
    by_status: bool,
) -> Result<ContactSelection, Problem> {
    let all = all.unwrap_or(false);
    match ids {
        Some(_) if all => Err(Problem::invalid(
            "all",
            "cannot be true beside `contact_ids`",
        )),
        Some(ids) => contacts_of(&ids).map(ContactSelection::These),
        None if all || by_status => Ok(ContactSelection::All),
        None => Err(Problem::invalid(
            "contact_ids",
            "is required unless `all` is true or a status is named",
        )),
    }
}

fn ends_of(names: Option<&[String]>) -> Result<Vec<ContactStatus>, Problem> {
    let Some(names) = names else {
        return Ok(ContactStatus::REPEATABLE.to_vec());
    };
    if names.is_empty() {
        return Err(Problem::invalid("statuses", "must name at least one"));
    }
    let read = |(index, name): (usize, &String)| {
        ContactStatus::from_name(name)
            .filter(|status| ContactStatus::REPEATABLE.contains(status))
            .ok_or_else(|| {
                let field = format!("statuses[{index}]");
                Problem::invalid(&field, "must be `failed`, `cancelled` or `expired`")
            })
    };
    names.iter().enumerate().map(read).collect()
}

/// What a change answered, with the engine woken for it, or where the campaign stands that does not
/// allow it.
async fn changed<T>(
    api: &Api,
    caller: Caller,
    id: CampaignId,
    answer: Result<T, StoreError>,
) -> Result<T, Problem> {
    match answer {
        Ok(done) => {
            api.ports.door.wake();
            Ok(done)
        }
        Err(StoreError::Conflict(_)) => Err(stands_elsewhere(find(api, caller, id).await?.status)),
        Err(error) => Err(refused(api, caller, error)),
    }
}
