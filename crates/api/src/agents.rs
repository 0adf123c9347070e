//! Agents: what talks on a call.

use actix_web::http::header::LOCATION;
use actix_web::{HttpResponse, delete, get, post, put, web};
use callq_domain::{Agent, AgentFields, AgentId, ProviderName, Providers};
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

/// What is said of an agent.
#[derive(Deserialize, ToSchema)]
pub(crate) struct AgentRequest {
    /// A name for people, 1 to 200 characters.
    name: String,
    /// Who carries its calls, such as `http`; the server's default provider unless given.
    provider: Option<String>,
    /// Its name at the provider, at most 255 characters.
    provider_agent_id: Option<String>,
    /// The caller id its calls show, at most 64 characters.
    caller_id: Option<String>,
    /// What the provider needs to know; at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    settings: Option<Box<RawValue>>,
}

impl AgentRequest {
    fn into_fields(self, providers: &Providers) -> Result<AgentFields, Problem> {
        Ok(AgentFields {
            name: fields::required_text("name", self.name, 200)?,
            provider: self
                .provider
                .map(|name| known_provider(&name, providers))
                .transpose()?,
            provider_agent_id: fields::optional_text(
                "provider_agent_id",
                self.provider_agent_id,
                255,
            )?,
            caller_id: fields::optional_text("caller_id", self.caller_id, 64)?,
            settings: fields::object("settings", self.settings)?,
        })
    }
}

fn known_provider(name: &str, providers: &Providers) -> Result<ProviderName, Problem> {
    ProviderName::new(name)
        .filter(|name| providers.get(name).is_some())
        .ok_or_else(|| {
            let known: Vec<_> = providers.names().map(ProviderName::as_str).collect();
            let fault = format!(
                "must be one of this server's providers: {}",
                known.join(", ")
            );
            Problem::invalid("provider", fault)
        })
}

/// An agent.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentResponse {
    /// Its identifier.
    id: Uuid,
    /// A name for people.
    name: String,
    /// Who carries its calls; null means the server's default provider.
    provider: Option<String>,
    /// Its name at the provider.
    provider_agent_id: Option<String>,
    /// The caller id its calls show.
    caller_id: Option<String>,
    /// What the provider needs to know.
    #[schema(value_type = Option<Object>)]
    settings: Option<Box<RawValue>>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it last changed.
    updated_at: DateTime<Utc>,
}

impl From<Agent> for AgentResponse {
    fn from(agent: Agent) -> Self {
        let fields = agent.fields;
        Self {
            id: agent.id.into(),
            name: fields.name,
            provider: fields.provider.map(|name| name.to_string()),
            provider_agent_id: fields.provider_agent_id,
            caller_id: fields.caller_id,
            settings: fields.settings,
            created_at: agent.created_at,
            updated_at: agent.updated_at,
        }
    }
}

/// Makes an agent.
#[utoipa::path(
    tag = "agents",
    request_body = AgentRequest,
    responses((status = 201, description = "Made", body = AgentResponse))
)]
#[post("/api/agents")]
pub(crate) async fn create_agent(
    api: web::Data<Api>,
    caller: Caller,
    body: JsonBody<AgentRequest>,
) -> Result<HttpResponse, Problem> {
    let fields = body.value.into_fields(&api.ports.providers)?;
    let store = &api.ports.directory;
    let agent = store
        .create_agent(AgentId::new(), caller.user(), fields)
        .await?;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/api/agents/{}", agent.id)))
        .json(AgentResponse::from(agent)))
}

/// Your agents, newest first.
#[utoipa::path(
    tag = "agents",
    params(PageParams),
    responses(
        (status = 200, description = "A page", body = PageResponse<AgentResponse>),
        (status = 400, description = "`limit` or `cursor` is not as it must be"),
    )
)]
#[get("/api/agents")]
pub(crate) async fn list_agents(
    api: web::Data<Api>,
    caller: Caller,
    query: Query,
) -> Result<web::Json<PageResponse<AgentResponse>>, Problem> {
    let page = query.page()?;
    let page = api.ports.directory.agents(caller.user(), page).await?;
    Ok(web::Json(PageResponse::of(page, AgentResponse::from)))
}

/// One agent.
#[utoipa::path(
    tag = "agents",
    params(("id" = Uuid, Path, description = "The agent")),
    responses(
        (status = 200, description = "It", body = AgentResponse),
        (status = 404, description = "No such agent, or another user's"),
    )
)]
#[get("/api/agents/{id}")]
pub(crate) async fn show_agent(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<AgentId>,
) -> Result<web::Json<AgentResponse>, Problem> {
    let agent = api.ports.directory.agent(caller.user(), id.0).await?;
    let agent = agent.ok_or_else(|| Problem::not_found("agent"))?;
    Ok(web::Json(agent.into()))
}

/// Replaces what is said of an agent. What is left out is no longer said.
#[utoipa::path(
    tag = "agents",
    params(("id" = Uuid, Path, description = "The agent")),
    request_body = AgentRequest,
    responses(
        (status = 200, description = "As it is now", body = AgentResponse),
        (status = 404, description = "No such agent, or another user's"),
    )
)]
#[put("/api/agents/{id}")]
pub(crate) async fn replace_agent(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<AgentId>,
    body: JsonBody<AgentRequest>,
) -> Result<web::Json<AgentResponse>, Problem> {
    let fields = body.value.into_fields(&api.ports.providers)?;
    let store = &api.ports.directory;
    let agent = store.update_agent(caller.user(), id.0, fields).await;
    let agent = agent.map_err(|error| Problem::of_store(error, "agent"))?;
    Ok(web::Json(agent.into()))
}

/// Deletes an agent.
#[utoipa::path(
    tag = "agents",
    params(("id" = Uuid, Path, description = "The agent")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "No such agent, or another user's"),
        (status = 409, description = "Calls or campaigns of it are not over"),
    )
)]
#[delete("/api/agents/{id}")]
pub(crate) async fn delete_agent(
    api: web::Data<Api>,
    caller: Caller,
    id: PathId<AgentId>,
) -> Result<HttpResponse, Problem> {
    let store = &api.ports.directory;
    let deleted = store.delete_agent(caller.user(), id.0).await;
    deleted.map_err(|error| Problem::of_store(error, "agent"))?;
    Ok(HttpResponse::NoContent().finish())
}
