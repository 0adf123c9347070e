//! The API's description: what every operation has in common is added here, once.

use actix_web::dev::ResourceDef;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::Components;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, SecurityRequirement};
use utoipa::{Modify, OpenApi as _, PartialSchema as _, ToSchema as _};

use crate::front::is_open;
use crate::problem::{PROBLEM_JSON, ProblemResponse};
use crate::routes::Described;

const SCHEME: &str = "bearer";

/// The finished description, and the methods of each path read back from it.
pub(crate) struct Description {
    json: String,
    methods: Vec<(ResourceDef, String)>,
}

impl Description {
    pub(crate) fn new() -> Self {
        let document = Described::openapi();
        let methods = document
            .paths
            .paths
            .iter()
            .map(|(path, item)| (ResourceDef::new(path.as_str()), methods(item)))
            .collect();
        // A document of strings and maps always has a JSON form.
        let json = document.to_json().unwrap_or_default();
        Self { json, methods }
    }

    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// The methods a path answers, as an `Allow` header lists them; none for an unknown path.
    pub(crate) fn methods_of(&self, path: &str) -> Option<&str> {
        self.methods
            .iter()
            .find(|(pattern, _)| pattern.is_match(path))
            .map(|(_, methods)| methods.as_str())
    }
}

fn operations(item: &PathItem) -> [(&'static str, Option<&Operation>); 5] {
    [
        ("GET", item.get.as_ref()),
        ("POST", item.post.as_ref()),
        ("PUT", item.put.as_ref()),
        ("PATCH", item.patch.as_ref()),
        ("DELETE", item.delete.as_ref()),
    ]
}

fn methods(item: &PathItem) -> String {
    let present = operations(item).into_iter();
    let names: Vec<_> = present
        .filter_map(|(name, operation)| operation.map(|_| name))
        .collect();
    names.join(", ")
}

/// Adds what every operation shares: the bearer token, the answers that any of them may give, and
/// the problem's shape to every answer that is one.
pub(crate) struct Completed;

impl Modify for Completed {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme(
            SCHEME,
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
        components.schemas.insert(
            ProblemResponse::name().into_owned(),
            ProblemResponse::schema(),
        );
        for (path, item) in &mut document.paths.paths {
            let operations = [
                &mut item.get,
                &mut item.post,
                &mut item.put,
                &mut item.patch,
                &mut item.delete,
            ];
            for operation in operations.into_iter().flatten() {
                complete(path, operation);
            }
        }
    }
}

fn complete(path: &str, operation: &mut Operation) {
    if !is_open(path) {
        let none: [&str; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new(SCHEME, none)]);
        add(operation, "401", "No token, or none that is known");
        add(operation, "429", "Too many requests; see `Retry-After`");
    }
    if path.starts_with("/api/admin/") {
        add(operation, "403", "Only an admin may do this");
    }
    if operation.request_body.is_some() {
        add(
            operation,
            "400",
            "The body or a field of it is not as it must be",
        );
        add(operation, "408", "The body did not arrive in time");
        add(operation, "413", "The body is too large");
        if !path.starts_with("/api/webhooks/") {
            add(operation, "415", "The body is not JSON");
        }
    }
    if path != "/healthz" {
        add(
            operation,
            "503",
            "The database cannot be reached; nothing was changed",
        );
    }
    add(operation, "500", "A defect on our side");
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
        {
            let schema = Ref::from_schema_name(ProblemResponse::name());
            let content = ContentBuilder::new().schema(Some(schema)).build();
            response
                .content
                .insert(PROBLEM_JSON.to_owned(), content.into());
        }
    }
}

fn add(operation: &mut Operation, status: &str, description: &str) {
    operation
        .responses
        .responses
        .entry(status.to_owned())
        .or_insert_with(|| {
            ResponseBuilder::new()
                .description(description)
                .build()
                .into()
        });
}
