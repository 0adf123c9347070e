//! Contacts: people who can be called.

use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, delete, get, post, put, web};
use callq_domain::{Contact, ContactFields, ContactId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api::Api;
use crate::auth::Caller;
use crate::fields;
use crate::json::JsonBody;
use crate::params::{PageParams, PageResponse, PathId, Query};
use crate::problem::Problem;

/// What is said of a contact.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ContactRequest {
    /// The number to dial, E.164.
    #[schema(example = "+14155552671")]
    phone_number: String,
    /// A name for people, at most 200 characters.
    name: Option<String>,
    /// The contact's own time zone, an IANA name.
    #[schema(example = "America/Los_Angeles")]
    time_zone: Option<String>,
    /// Passed to the provider with each call; at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    user_data: Option<Box<RawValue>>,
}

impl ContactRequest {
    fn into_fields(self) -> Result<ContactFields, Problem> {
        Ok(ContactFields {
            phone_number: fields::phone_number("phone_number", &self.phone_number)?,
            name: fields::optional_text("name", self.name, 200)?,
            time_zone: fields::time_zone("time_zone", self.time_zone)?,
            user_data: fields::object("user_data", self.user_data)?,
        })
    }
}

/// A contact.
#[derive(Serialize, ToSchema)]
pub(crate) struct ContactResponse {
    /// Its identifier.
    id: Uuid,
    /// The number to dial, E.164.
    phone_number: String,
    /// A name for people.
    name: Option<String>,
    /// The contact's own time zone, an IANA name.
    time_zone: Option<String>,
    /// Passed to the provider with each call.
    #[schema(value_type = Option<Object>)]
    user_data: Option<Box<RawValue>>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

impl From<Contact> for ContactResponse {
    fn from(contact: Contact) -> Self {
        let fields = contact.fields;
        Self {
            id: contact.id.into(),
            phone_number: fields.phone_number.to_string(),
            name: fields.name,
            time_zone: fields.time_zone,
            user_data: fields.user_data,
            created_at: contact.created_at,
            updated_at: contact.updated_at,
        }
    }
}

/// Makes a contact.
#[utoipa::path(
    tag = "contacts",
    request_body = ContactRequest,
    responses((status = 201, description = "Made", body = ContactResponse))
)]
#[post("/api/contacts")]
pub(crate) async fn create_contact(
    api: web::Data<Api>,
    caller: Caller,
    body: JsonBody<ContactRequest>,
) -> Result<HttpResponse, Problem> {
    let fields = body.value.into_fields()?;
    let store = &api.ports.directory;
    let contact = store
        .create_contact(ContactId::new(), caller.user(), fields)
        .await?;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/api/contacts/{}", contact.id)))
        .json(ContactResponse::from(contact)))
}

/// Your contacts, newest first.
#[utoipa::path(
    tag = "contacts",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<ContactResponse>),
        (status = 400, description = "`limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/contacts")]
pub(crate) async fn list_contacts(
    api: web::Data<Api>,
    caller: Caller,
    query: Query,
) -> Result<web::Json<PageResponse<ContactResponse>>, Problem> {
    let page = query.page()?;
    let page = api.ports.directory.contacts(caller.user(), page).await?;
    Ok(web::Json(PageResponse::of(page, ContactResponse::from)))
}

/// One contact.
#[utoipa::path(
    tag = "contacts",
    params(("id" = Uuid, Path, description = "The contact")),
    responses(
        (status = 200, description = "It", body = ContactResponse),
        (status = 404, description = "No such contact, or another user's"),
    )
)]
#[get("/api/contacts/{id}")]
pub(crate) async fn show_contact(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<ContactId>,
) -> Result<web::Json<ContactResponse>, Problem> {
    let contact = api.ports.directory.contact(caller.user(), id.0).await?;
    let contact = contact.ok_or_else(|| Problem::not_found("contact"))?;
    Ok(web::Json(contact.into()))
}

/// Replaces what is said of a contact. What is left out is no longer said.
#[utoipa::path(
    tag = "contacts",
    params(("id" = Uuid, Path, description = "The contact")),
    request_body = ContactRequest,
    responses(
        (status = 200, description = "As it is now", body = ContactResponse),
        (status = 404, description = "No such contact, or another user's"),
    )
)]
#[put("/api/contacts/{id}")]
pub(crate) async fn replace_contact(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<ContactId>,
    body: JsonBody<ContactRequest>,
) -> Result<web::Json<ContactResponse>, Problem> {
    let fields = body.value.into_fields()?;
    let store = &api.ports.directory;
    let contact = store.update_contact(caller.user(), id.0, fields).await;
    let contact = contact.map_err(|error| Problem::of_store(error, "contact"))?;
    Ok(web::Json(contact.into()))
}

/// Deletes a contact.
#[utoipa::path(
    tag = "contacts",
    params(("id" = Uuid, Path, description = "The contact")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "No such contact, or another user's"),
        (status = 409, description = "Calls to it are not over"),
    )
)]
#[delete("/api/contacts/{id}")]
pub(crate) async fn delete_contact(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<ContactId>,
) -> Result<HttpResponse, Problem> {
    let store = &api.ports.directory;
    let deleted = store.delete_contact(caller.user(), id.0).await;
    deleted.map_err(|error| Problem::of_store(error, "contact"))?;
    Ok(HttpResponse::NoContent().finish())
}
