//! What happens to every request before and after its controller: an id, a check of who is asking,
//! one log line, one count.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage as _, HttpRequest, web};
use callq_domain::{Identity, UserId};
use uuid::Uuid;

use crate::api::Api;
use crate::auth::authenticate;
use crate::metrics::Answered;
use crate::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Routes that need no bearer token. Provider webhooks are signed instead.
const OPEN_ROUTES: [&str; 3] = ["/healthz", "/readyz", "/api/webhooks/{provider}"];

/// The name under which requests for unknown paths are counted, so that labels stay few.
const NO_ROUTE: &str = "none";

/// Whether a route answers without a token.
pub(crate) fn is_open(route: &str) -> bool {
    OPEN_ROUTES.contains(&route)
}

/// The id of the request being answered, for log lines.
#[derive(Clone)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's own id where it is short and plain, or a new one.
    fn of(request: &ServiceRequest) -> Self {
        let given = request.headers().get(REQUEST_ID).filter(|value| {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
            (1..=64).contains(&value.len()) && value.as_bytes().iter().all(plain)
        });
        Self(given.cloned().unwrap_or_else(|| {
            let id = Uuid::now_v7().to_string();
            HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
        }))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

impl FromRequest for RequestId {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let none = || Self(HeaderValue::from_static("none"));
        ready(Ok(request.extensions().get().cloned().unwrap_or_else(none)))
    }
}

/// The middleware around every route.
pub(crate) async fn front(
    api: web::Data<Api>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let request_id = RequestId::of(&request);
    let route = request.match_pattern();
    request.extensions_mut().insert(request_id.clone());
    let identity = admit(&api, &request, route.as_deref()).await;
    let user = identity
        .as_ref()
        .ok()
        .copied()
        .flatten()
        .map(|it| it.user_id);
    let mut response = match identity {
        Ok(identity) => {
            if let Some(identity) = identity {
                request.extensions_mut().insert(identity);
            }
            next.call(request).await?.map_into_boxed_body()
        }
        Err(problem) => request.error_response(problem),
    };
    response
        .headers_mut()
        .insert(REQUEST_ID, request_id.0.clone());
    let answered = Answered {
        route: route.unwrap_or_else(|| NO_ROUTE.to_owned()),
        method: response.request().method().clone(),
        status: response.status().as_u16(),
        elapsed: started.elapsed(),
    };
    report(&response, &answered, &request_id, user);
    api.metrics.count(&answered);
    Ok(response)
}

/// Who is asking, where the route needs to know.
async fn admit(
    api: &Api,
    request: &ServiceRequest,
    route: Option<&str>,
) -> Result<Option<Identity>, Problem> {
    match route {
        Some(route) if !is_open(route) => authenticate(api, request).await.map(Some),
        _ => Ok(None),
    }
}

fn report(
    response: &ServiceResponse<BoxBody>,
    answered: &Answered,
    request_id: &RequestId,
    user: Option<UserId>,
) {
    let request_id = request_id.as_str();
    let problem = response
        .response()
        .error()
        .and_then(|error| error.as_error::<Problem>());
    if let Some(cause) = problem.and_then(Problem::cause) {
        log::warn!(request_id, cause; "a request failed");
    }
    let user_id = user.map(|user| user.to_string()).unwrap_or_default();
    log::info!(
        request_id,
        user_id = user_id.as_str(),
        method = answered.method.as_str(),
        route = answered.route.as_str(),
        status = answered.status,
        elapsed_ms = answered.elapsed.as_secs_f64() * 1e3;
        "answered a request"
    );
}
