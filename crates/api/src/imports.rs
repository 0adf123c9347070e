//! Lists of people into campaigns: a file in, what became of its rows out.

mod report;
mod upload;

use std::io::BufReader;

use actix_multipart::Multipart;
use actix_web::http::header::{self, ContentDisposition, LOCATION};
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use callq_domain::{
    Campaign, CampaignId, CampaignStatus, ImportError, ImportId, ImportReport, ImportTarget,
    NewCampaign, NewImport, StoreError, UserId,
};
use callq_lists::{List, OpenError, TEMPLATE};

use crate::api::Api;
use crate::auth::Caller;
use crate::campaigns::{CampaignRequest, refused};
use crate::fields;
use crate::json;
use crate::params::PathId;
use crate::problem::{PROBLEM_JSON, Problem};

pub use self::report::import_report_json;
use self::report::{ImportResponse, RefusedImportResponse};
use self::upload::{ListForm, Upload, read_upload};

/// What a CSV file is sent as.
const CSV: &str = "text/csv; charset=utf-8";

/// Puts the people on a list into a campaign: one that is there, or one that is made with it. All of
/// the list or nothing, unless `partial`.
#[utoipa::path(
    tag = "campaigns",
    request_body(content = ListForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "What became of the rows", body = ImportResponse),
        (status = 201, description = "The same, and a campaign was made, as a draft",
            body = ImportResponse),
        (status = 400, description = "A part of the form is not as it must be, or the file is no \
            list: see `field`, `row` and `column`"),
        (status = 404, description = "No such campaign or agent, or another user's"),
        (status = 409, description = "The campaign is over, or another list is being imported into it"),
        (status = 413, description = "The file is larger than 256 MiB"),
        (status = 415, description = "The body is no form, or the file is not CSV"),
        (status = 422, description = "Rows failed, and nothing was imported: the report of 200 \
            beside the problem"),
        (status = 503, description = "As many lists are imported as may be, or as many campaign calls \
            of yours wait as may; nothing was changed. See `limit` and `waiting`"),
    )
)]
#[post("/api/campaigns/upload-csv")]
pub(crate) async fn import_list(
    api: web::Data<Api>,
    caller: Caller,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    upload::check_head(&request, api.list_limit)?;
    let Ok(_place) = api.uploads.try_acquire() else {
        let message = "This server is importing as many lists as it can; nothing was changed.";
        return Err(Problem::unavailable(message, "too many imports at once"));
    };
    let form = Multipart::new(request.headers(), payload);
    let upload = read_upload(form, api.list_limit).await?;
    let (import, file) = import_of(&api, caller.user(), upload).await?;
    let country = import.country;
    let list = web::block(move || List::open(BufReader::new(file), country))
        .await
        .map_err(|error| Problem::internal(error.to_string()))?
        .map_err(of_open)?;
    let is_new = matches!(import.target, ImportTarget::New(_));
    let report = api.ports.imports.import_list(import, Box::new(list)).await;
    let report = report.map_err(|error| of_import(&api, caller, error, is_new))?;
    if report.imported > 0 && !report.dry_run {
        // The campaign may be under way.
        api.ports.door.wake();
    }
    Ok(answer(report))
}

/// A list to begin with.
#[utoipa::path(
    tag = "campaigns",
    responses((status = 200, description = "A sample", content_type = "text/csv", body = String))
)]
#[get("/api/campaigns/template")]
pub(crate) async fn show_list_template(_caller: Caller) -> HttpResponse {
    csv("callq-template.csv", TEMPLATE.to_owned())
}

/// The rows of an import that failed or were left out, as CSV: `row`, `field`, `error`. The first
/// 10,000; of your last twenty imports that had any.
#[utoipa::path(
    tag = "campaigns",
    params(("id" = Uuid, Path, description = "The import")),
    responses(
        (status = 200, description = "Them", content_type = "text/csv", body = String),
        (status = 404, description = "No such import with errors, or another user's"),
    )
)]
#[get("/api/campaigns/imports/{id}/errors")]
pub(crate) async fn show_import_errors(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<ImportId>,
) -> Result<HttpResponse, Problem> {
    let found = api.ports.imports.import_errors(caller.user(), id.0).await?;
    let errors = found.ok_or_else(|| Problem::not_found("import with errors"))?;
    Ok(csv("callq-errors.csv", errors))
}

fn csv(name: &str, body: String) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, CSV))
        .insert_header(ContentDisposition::attachment(name))
        .body(body)
}

/// What is to be imported, and its file. A campaign that is there is looked up first: its country may
/// be needed, and one that is over need not be read for.
async fn import_of(
    api: &Api,
    user: UserId,
    upload: Upload,
) -> Result<(NewImport, std::fs::File), Problem> {
    let file = upload.file.ok_or_else(|| {
        Problem::invalid(
            "file",
            "is required: the list, as a part of the form with this name",
        )
    })?;
    let (target, known) = match (upload.campaign_id, upload.campaign) {
        (Some(id), None) => {
            let campaign = find_open(api, user, id).await?;
            (ImportTarget::Existing(id), campaign.fields.country)
        }
        (None, Some(json)) => {
            let mut campaign = new_campaign(&json, user)?;
            campaign.fields.country = upload.country.or(campaign.fields.country);
            let country = campaign.fields.country;
            (ImportTarget::New(Box::new(campaign)), country)
        }
        _ => {
            let fault = "or `campaign` is required: one of the two";
            return Err(Problem::invalid("campaign_id", fault));
        }
    };
    let import = NewImport {
        id: ImportId::new(),
        user_id: user,
        target,
        country: upload.country.or(known),
        partial: upload.partial,
        dry_run: upload.dry_run,
    };
    Ok((import, file))
}

async fn find_open(api: &Api, user: UserId, id: CampaignId) -> Result<Campaign, Problem> {
    let found = api.ports.campaigns.campaign(user, id).await?;
    let campaign = found.ok_or_else(|| Problem::not_found("campaign").with_field("campaign_id"))?;
    match campaign.status {
        status @ (CampaignStatus::Completed | CampaignStatus::Cancelled) => {
            let status = status.as_str();
            let message = format!("The campaign is {status}; nobody can be added to it.");
            Err(Problem::conflict(message)
                .with_field("campaign_id")
                .with_current_status(status))
        }
        _ => Ok(campaign),
    }
}

fn new_campaign(json: &[u8], user: UserId) -> Result<NewCampaign, Problem> {
    json::parse::<CampaignRequest>(json)?.into_list_campaign(user)
}

/// What a client says of a campaign that a list is to fill, as JSON, for the command line.
///
/// # Errors
/// A sentence that says which field is at fault.
pub fn list_campaign_of_json(json: &[u8], user: UserId) -> Result<NewCampaign, String> {
    new_campaign(json, user).map_err(|problem| problem.to_string())
}

fn of_open(error: OpenError) -> Problem {
    match error {
        OpenError::NotCsv(_) => Problem::other_file(error),
        OpenError::List(fault) => Problem::bad_list(&fault),
    }
}

fn of_import(api: &Api, caller: Caller, error: ImportError, is_new: bool) -> Problem {
    match error {
        ImportError::List(fault) => Problem::bad_list(&fault),
        ImportError::Store(StoreError::NotFound) if is_new => {
            Problem::not_found("agent").with_field("agent_id")
        }
        ImportError::Store(StoreError::Conflict(sentence)) => {
            Problem::conflict(fields::sentence(sentence)).with_field("campaign_id")
        }
        ImportError::Store(error) => refused(api, caller, error),
    }
}

fn answer(report: ImportReport) -> HttpResponse {
    if report.refused {
        return HttpResponse::UnprocessableEntity()
            .content_type(PROBLEM_JSON)
            .json(RefusedImportResponse::of(report));
    }
    match report.campaign_id {
        Some(id) if report.made => HttpResponse::Created()
            .insert_header((LOCATION, format!("/api/campaigns/{id}")))
            .json(ImportResponse::from(report)),
        _ => HttpResponse::Ok().json(ImportResponse::from(report)),
    }
}
