//! A user's own do-not-call list, and what both kinds of list are read from and shown as. The list
//! for all is in `global_do_not_call`.

use std::collections::HashSet;
use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, delete, get, post, web};
use callq_domain::{DoNotCallEntry, DoNotCallList, Listed, ListedOn, Listing, PhoneNumber};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::auth::Caller;
use crate::fields;
use crate::json::JsonBody;
use crate::number_file;
use crate::params::{PageParams, PageResponse, Query};
use crate::problem::Problem;

/// Numbers that must not be called from now on.
#[derive(Deserialize, ToSchema)]
pub(crate) struct NumbersRequest {
    /// The numbers, E.164; at least one.
    #[schema(example = json!(["+14155552671"]))]
    phone_numbers: Vec<String>,
    /// Why, at most 200 characters. A number that is listed already keeps its own.
    reason: Option<String>,
}

impl NumbersRequest {
    pub(crate) fn into_numbers(self) -> Result<(Vec<PhoneNumber>, Option<String>), Problem> {
        let texts = self.phone_numbers.iter().enumerate();
        let numbers = texts
            .map(|(nth, text)| fields::phone_number(&format!("phone_numbers[{nth}]"), text))
            .collect::<Result<Vec<_>, _>>()?;
        if numbers.is_empty() {
            return Err(Problem::invalid(
                "phone_numbers",
                "must name at least one number",
            ));
        }
        Ok((numbers, fields::optional_text("reason", self.reason, 200)?))
    }
}

/// What adding numbers did.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedResponse {
    /// Numbers that were not on the list before.
    added: u64,
    /// Numbers that were.
    already_listed: u64,
    /// Waiting calls that were cancelled, with the reason `do-not-call`.
    withdrawn: u64,
}

/// A number that must not be called.
#[derive(Serialize, ToSchema)]
pub(crate) struct EntryResponse {
    /// The number, E.164.
    phone_number: String,
    /// Why.
    reason: Option<String>,
    /// Since when.
    created_at: DateTime<Utc>,
}

impl From<DoNotCallEntry> for EntryResponse {
    fn from(entry: DoNotCallEntry) -> Self {
        Self {
            phone_number: entry.phone_number.to_string(),
            reason: entry.reason,
            created_at: entry.created_at,
        }
    }
}

/// Where a number is listed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListingResponse {
    /// The number, E.164.
    phone_number: String,
    /// Whether any of these lists keeps it from being called.
    listed: bool,
    /// The list that a call to it is refused by: `global` or `own`.
    #[schema(value_type = Option<String>)]
    list: Option<&'static str>,
    /// Its entry on the list for all.
    global: Option<EntryResponse>,
    /// Its entry on your own.
    own: Option<EntryResponse>,
}

impl ListingResponse {
    pub(crate) fn of(number: &PhoneNumber, listing: Listing) -> Self {
        let list = match &listing {
            Listing {
                global: Some(_), ..
            } => Some(ListedOn::Global),
            Listing { own: Some(_), .. } => Some(ListedOn::Own),
            Listing { .. } => None,
        };
        Self {
            phone_number: number.to_string(),
            listed: list.is_some(),
            list: list.map(ListedOn::as_str),
            global: listing.global.map(EntryResponse::from),
            own: listing.own.map(EntryResponse::from),
        }
    }
}

/// The `{phone_number}` of a path, its plus sign as `%2B` or as it is.
pub(crate) struct PathNumber(pub(crate) PhoneNumber);

impl FromRequest for PathNumber {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let text = web::Path::<String>::from_request(request, payload).into_inner();
        let text = text.map(web::Path::into_inner).unwrap_or_default();
        ready(fields::phone_number("phone_number", &text).map(Self))
    }
}

/// Adds numbers to a list, each once.
pub(crate) async fn add(
    api: &Api,
    list: DoNotCallList,
    mut numbers: Vec<PhoneNumber>,
    reason: Option<String>,
) -> Result<ListedResponse, Problem> {
    let mut seen = HashSet::with_capacity(numbers.len());
    numbers.retain(|number| seen.insert(number.clone()));
    let asked = u64::try_from(numbers.len()).unwrap_or(u64::MAX);
    let store = &api.ports.do_not_call;
    let listed = store.list_numbers(list, numbers, reason).await;
    let Listed { added, withdrawn } = listed.map_err(|error| Problem::of_store(error, "user"))?;
    if withdrawn > 0 {
        api.metrics.count_withdrawn_listed(withdrawn);
        // A lane that waited for these may be ready.
        api.ports.door.wake();
    }
    Ok(ListedResponse {
        added,
        already_listed: asked.saturating_sub(added),
        withdrawn,
    })
}

/// As the log tells it, without a number.
impl std::fmt::Display for ListedResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            added, withdrawn, ..
        } = self;
        write!(f, "{added} numbers added, {withdrawn} calls withdrawn")
    }
}

/// Adds numbers to your do-not-call list. Adding one twice changes nothing. Calls that wait for them
/// are cancelled, with the reason `do-not-call`; calls in progress go on.
#[utoipa::path(
    tag = "do-not-call",
    request_body = NumbersRequest,
    responses((status = 200, description = "They are listed", body = ListedResponse))
)]
#[post("/api/do-not-call")]
pub(crate) async fn add_do_not_call(
    api: web::Data<Api>,
    caller: Caller,
    body: JsonBody<NumbersRequest>,
) -> Result<web::Json<ListedResponse>, Problem> {
    let (numbers, reason) = body.value.into_numbers()?;
    let list = DoNotCallList::Of(caller.user());
    add(&api, list, numbers, reason).await.map(web::Json)
}

/// Adds the numbers of a CSV file to your do-not-call list, as one request with all of them would.
/// If any line cannot be read, none is added.
#[utoipa::path(
    tag = "do-not-call",
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
#[post("/api/do-not-call/upload-csv")]
pub(crate) async fn upload_do_not_call(
    api: web::Data<Api>,
    caller: Caller,
    request: HttpRequest,
    body: web::Payload,
) -> Result<web::Json<ListedResponse>, Problem> {
    let numbers = number_file::read(&request, body).await?;
    let list = DoNotCallList::Of(caller.user());
    add(&api, list, numbers, None).await.map(web::Json)
}

/// Your do-not-call list, newest first.
#[utoipa::path(
    tag = "do-not-call",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<EntryResponse>),
        (status = 400, description = "`limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/do-not-call")]
pub(crate) async fn list_do_not_call(
    api: web::Data<Api>,
    caller: Caller,
    query: Query,
) -> Result<web::Json<PageResponse<EntryResponse>>, Problem> {
    let list = DoNotCallList::Of(caller.user());
    let store = &api.ports.do_not_call;
    let page = store.do_not_call_entries(list, query.page()?).await?;
    Ok(web::Json(PageResponse::of(page, EntryResponse::from)))
}

/// Whether a number is listed, and where.
#[utoipa::path(
    tag = "do-not-call",
    params(("phone_number" = String, Path, description = "E.164, its plus sign as `%2B`")),
    responses(
        (status = 200, description = "Where it is listed, if it is", body = ListingResponse),
        (status = 400, description = "It is no telephone number"),
    )
)]
#[get("/api/do-not-call/{phone_number}")]
pub(crate) async fn show_do_not_call(
    api: web::Data<Api>,
    caller: Caller,
    number: PathNumber,
) -> Result<web::Json<ListingResponse>, Problem> {
    let PathNumber(number) = number;
    let store = &api.ports.do_not_call;
    let listing = store.listing(Some(caller.user()), number.clone()).await?;
    Ok(web::Json(ListingResponse::of(&number, listing)))
}

/// Takes a number off your do-not-call list. Calls that were cancelled for it stay so.
#[utoipa::path(
    tag = "do-not-call",
    params(("phone_number" = String, Path, description = "E.164, its plus sign as `%2B`")),
    responses(
        (status = 204, description = "It is off the list"),
        (status = 400, description = "It is no telephone number"),
        (status = 404, description = "It is not on your list"),
    )
)]
#[delete("/api/do-not-call/{phone_number}")]
pub(crate) async fn delete_do_not_call(
    api: web::Data<Api>,
    caller: Caller,
    number: PathNumber,
) -> Result<HttpResponse, Problem> {
    let list = DoNotCallList::Of(caller.user());
    let unlisted = api.ports.do_not_call.unlist_number(list, number.0).await;
    unlisted.map_err(|error| Problem::of_store(error, "number on this list"))?;
    Ok(HttpResponse::NoContent().finish())
}
