//! The do-not-call list for all users. Role admin only.

use actix_web::{HttpRequest, HttpResponse, delete, get, post, web};
use callq_domain::DoNotCallList;

use crate::api::Api;
use crate::auth::Admin;
use crate::do_not_call::{
    EntryResponse, ListedResponse, ListingResponse, NumbersRequest, PathNumber, add,
};
use crate::json::JsonBody;
use crate::number_file;
use crate::params::{PageParams, PageResponse, Query};
use crate::problem::Problem;

/// What the log calls the list.
const SUBJECT: &str = "global do-not-call list";

/// Adds numbers to the do-not-call list for all users. Adding one twice changes nothing. Calls that
/// wait for them are cancelled, with the reason `do-not-call`; calls in progress go on.
#[utoipa::path(
    tag = "admin",
    request_body = NumbersRequest,
    responses((status = 200, description = "They are listed", body = ListedResponse))
)]
#[post("/api/admin/do-not-call")]
pub(crate) async fn add_global_do_not_call(
    api: web::Data<Api>,
    admin: Admin,
    body: JsonBody<NumbersRequest>,
) -> Result<web::Json<ListedResponse>, Problem> {
    let (numbers, reason) = body.value.into_numbers()?;
    let listed = add(&api, DoNotCallList::Global, numbers, reason).await?;
    admin.log(SUBJECT, &listed.to_string());
    Ok(web::Json(listed))
}

/// Adds the numbers of a CSV file to the do-not-call list for all users, as one request with all of
/// them would. If any line cannot be read, none is added.
#[utoipa::path(
    tag = "admin",
    request_body(
        content = String, content_type = "text/csv",
        description = "One column, `phone_number`, named on the first line; at most 8 MiB",
        example = "phone_number\n+14155552671\n",
    ),
    responses(
        (status = 200, description = "They are listed", body = ListedResponse),
        (status = 400, description = "A line cannot be read; says which, and nothing was added"),
        (status = 415, description = "The body is not CSV"),
    )
)]
#[post("/api/admin/do-not-call/upload-csv")]
pub(crate) async fn upload_global_do_not_call(
    api: web::Data<Api>,
    admin: Admin,
    request: HttpRequest,
    body: web::Payload,
) -> Result<web::Json<ListedResponse>, Problem> {
    let numbers = number_file::read(&request, body).await?;
    let listed = add(&api, DoNotCallList::Global, numbers, None).await?;
    admin.log(SUBJECT, &listed.to_string());
    Ok(web::Json(listed))
}

/// The do-not-call list for all users, newest first.
#[utoipa::path(
    tag = "admin",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<EntryResponse>),
        (status = 400, description = "`limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/admin/do-not-call")]
pub(crate) async fn list_global_do_not_call(
    api: web::Data<Api>,
    _admin: Admin,
    query: Query,
) -> Result<web::Json<PageResponse<EntryResponse>>, Problem> {
    let store = &api.ports.do_not_call;
    let page = store.do_not_call_entries(DoNotCallList::Global, query.page()?);
    Ok(web::Json(PageResponse::of(
        page.await?,
        EntryResponse::from,
    )))
}

/// Whether a number is on the do-not-call list for all users.
#[utoipa::path(
    tag = "admin",
    params(("phone_number" = String, Path, description = "E.164, its plus sign as `%2B`")),
    responses(
        (status = 200, description = "Its entry, if it is listed", body = ListingResponse),
        (status = 400, description = "It is no telephone number"),
    )
)]
#[get("/api/admin/do-not-call/{phone_number}")]
pub(crate) async fn show_global_do_not_call(
    api: web::Data<Api>,
    _admin: Admin,
    number: PathNumber,
) -> Result<web::Json<ListingResponse>, Problem> {
    let PathNumber(number) = number;
    let listing = api.ports.do_not_call.listing(None, number.clone()).await?;
    Ok(web::Json(ListingResponse::of(&number, listing)))
}

/// Takes a number off the do-not-call list for all users. Calls that were cancelled for it stay so.
#[utoipa::path(
    tag = "admin",
    params(("phone_number" = String, Path, description = "E.164, its plus sign as `%2B`")),
    responses(
        (status = 204, description = "It is off the list"),
        (status = 400, description = "It is no telephone number"),
        (status = 404, description = "It is not on the list"),
    )
)]
#[delete("/api/admin/do-not-call/{phone_number}")]
pub(crate) async fn delete_global_do_not_call(
    api: web::Data<Api>,
    admin: Admin,
    number: PathNumber,
) -> Result<HttpResponse, Problem> {
    let PathNumber(number) = number;
    let change = format!("{} taken off", number.masked());
    let store = &api.ports.do_not_call;
    let unlisted = store.unlist_number(DoNotCallList::Global, number).await;
    unlisted.map_err(|error| Problem::of_store(error, "number on this list"))?;
    admin.log(SUBJECT, &change);
    Ok(HttpResponse::NoContent().finish())
}
