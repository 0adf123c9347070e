//! The one shape of every answer that is not a success: RFC 9457, with the `error` and `message`
//! that existing clients read.
//!
//! A problem never tells a client why something broke inside. Its cause goes to the log under the
//! request's id, and the client has that id in `X-Request-Id`.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use callq_concurrency::EngineError;
use callq_domain::{CallId, ListFault, ListedOn, QueueFull, QueuePlace, StoreError};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::wait::Wait;

/// The content type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which a client may try again when the database was away.
const RETRY_SECONDS: u64 = 2;

/// A problem as it is sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemResponse {
    /// Which problem: a stable relative URI, such as `/problems/invalid-field`.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid-field")]
    kind: String,
    /// The problem's name, the same for every occurrence.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong this time, and what would put it right.
    detail: String,
    /// The same as `title`.
    error: &'static str,
    /// The same as `detail`.
    message: String,
    /// The field, parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The row of the list at which reading stopped; the header is row 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<u64>,
    /// Line of the body at which reading stopped, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// Column of that line or row, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u64>,
    /// The call that was recorded as failed.
    #[serde(rename = "callId", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<uuid::Uuid>)]
    call_id: Option<String>,
    /// Credits left.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<i64>,
    /// The do-not-call list that the number is on: `global` or `own`.
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<&'static str>,
    /// Calls that may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    /// Calls that do.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    /// Where the object stands that would have had to stand elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_status: Option<String>,
}

/// A problem: what the client is told, and the cause that only the log is told.
#[derive(Clone)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Clone)]
struct Inner {
    status: StatusCode,
    response: ProblemResponse,
    retry_after: Option<u64>,
    header: Option<(header::HeaderName, String)>,
    cause: Option<String>,
}

impl Problem {
    fn new(
        status: StatusCode,
        slug: &str,
        title: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let message = message.into();
        Self(Box::new(Inner {
            status,
            response: ProblemResponse {
                kind: format!("/problems/{slug}"),
                title,
                status: status.as_u16(),
                detail: message.clone(),
                error: title,
                message,
                field: None,
                row: None,
                line: None,
                column: None,
                call_id: None,
                credits: None,
                list: None,
                limit: None,
                waiting: None,
                current_status: None,
            },
            retry_after: None,
            header: None,
            cause: None,
        }))
    }

    /// 400: a field, parameter or header holds what it may not. `fault` goes on from its name.
    pub(crate) fn invalid(field: &str, fault: impl fmt::Display) -> Self {
        let mut problem = Self::new(
            StatusCode::BAD_REQUEST,
            "invalid-field",
            "Invalid field",
            format!("`{field}` {fault}."),
        );
        problem.0.response.field = Some(field.to_owned());
        problem
    }

    /// 400: the body cannot be read.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "malformed-body",
            "Malformed body",
            message,
        )
    }

    /// 400: the file is no list.
    pub(crate) fn bad_list(fault: &ListFault) -> Self {
        let mut problem = Self::new(
            StatusCode::BAD_REQUEST,
            "bad-list",
            "The list cannot be read",
            format!("`file` cannot be read as a list: {fault}."),
        )
        .with_field("file");
        problem.0.response.row = fault.row;
        problem.0.response.column = fault.column;
        problem
    }

    /// 401: no token, or none that is known.
    pub(crate) fn unauthorized(message: &str) -> Self {
        let title = "Unauthorized";
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", title, message);
        problem.with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"callq\"")
    }

    /// 401: a provider's event that is not signed as it must be. `cause` says what is wrong with its
    /// headers: whoever sets up a dialer has nothing else to go by, and whoever forges one learns
    /// nothing from it.
    pub(crate) fn bad_signature(cause: String) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "bad-signature",
            "Bad signature",
            format!("The event's signature is missing, wrong or stale: {cause}."),
        )
        .with_cause(cause)
    }

    /// 402: nothing left to pay with.
    pub(crate) fn no_credits(credits: i64) -> Self {
        let mut problem = Self::new(
            StatusCode::PAYMENT_REQUIRED,
            "no-credits",
            "Insufficient credits",
            "You have no credits left; nothing was queued.",
        );
        problem.0.response.credits = Some(credits);
        problem
    }

    /// 403: the role does not allow it.
    pub(crate) fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "Forbidden",
            "Only an admin may do this.",
        )
    }

    /// 403: the number is on a do-not-call list.
    pub(crate) fn do_not_call(list: ListedOn) -> Self {
        let whose = match list {
            ListedOn::Global => "the global do-not-call list",
            ListedOn::Own => "your do-not-call list",
        };
        let mut problem = Self::new(
            StatusCode::FORBIDDEN,
            "do-not-call",
            "Do not call",
            format!("The number is on {whose}; nothing was queued."),
        );
        problem.0.response.list = Some(list.as_str());
        problem
    }

    /// 404: there is no such thing, or it is another user's.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "Not found",
            format!("There is no such {what}."),
        )
    }

    /// 404: the request names something that is not there; a sentence that says what.
    pub(crate) fn unknown_reference(sentence: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", sentence)
    }

    /// 405: the path is right, the method is not.
    pub(crate) fn method_not_allowed(allow: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            format!("This path answers {allow}."),
        )
        .with_header(header::ALLOW, allow)
    }

    /// 408: the body did not arrive in time.
    pub(crate) fn body_too_slow() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-too-slow",
            "Request timeout",
            "The body did not arrive in time.",
        )
    }

    /// 409: the present state does not allow it.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Conflict", message)
    }

    /// 409: the first request with this key has not been answered yet.
    pub(crate) fn still_running() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "idempotency-key-in-progress",
            "Request in progress",
            "The first request with this Idempotency-Key has not been answered yet.",
        )
        .with_field("Idempotency-Key")
        .with_retry_after(1)
    }

    /// 413: the body is larger than the route takes.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "Body too large",
            format!("The body may hold at most {limit} bytes."),
        )
    }

    /// 413: the list is larger than the route takes.
    pub(crate) fn file_too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "Body too large",
            format!(
                "The file may hold at most {} MiB ({limit} bytes); split the list.",
                limit / (1024 * 1024)
            ),
        )
        .with_field("file")
    }

    /// 415: the file is of another kind.
    pub(crate) fn other_file(fault: impl fmt::Display) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-csv",
            "Unsupported media type",
            format!("`file` {fault}."),
        )
        .with_field("file")
    }

    /// 415: the body is no form.
    pub(crate) fn not_a_form() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-a-form",
            "Unsupported media type",
            "Send the list as a form, with `Content-Type: multipart/form-data`.",
        )
    }

    /// 415: the body is not JSON.
    pub(crate) fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-json",
            "Unsupported media type",
            "Send the body as JSON, with `Content-Type: application/json`.",
        )
    }

    /// 415: the body is not CSV.
    pub(crate) fn not_csv() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not-csv",
            "Unsupported media type",
            "Send the file as the body, with `Content-Type: text/csv`.",
        )
    }

    /// 422: rows of a list failed, so none was imported.
    pub(crate) fn rows_failed(failed: u64, of: u64) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "rows-failed",
            "Rows failed",
            format!(
                "{failed} of {of} rows failed and nothing was imported; repair them, or send \
                 `partial` to import the others."
            ),
        )
    }

    /// 422: the key was used with another body.
    pub(crate) fn key_reused() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "Idempotency key reused",
            "This Idempotency-Key was used before with another body; use a new key.",
        )
        .with_field("Idempotency-Key")
    }

    /// 429: too many requests. Never said of calls.
    pub(crate) fn too_many_requests(retry_after: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "Too many requests",
            "You send requests faster than this server allows.",
        )
        .with_retry_after(retry_after)
    }

    /// 500: a defect.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "Something broke on our side; quote the X-Request-Id of this answer to the operator.",
        )
        .with_cause(cause)
    }

    /// 502: the provider refused the call for good; it is recorded as failed.
    pub(crate) fn provider_refused(call_id: CallId, reason: &str) -> Self {
        let mut problem = Self::new(
            StatusCode::BAD_GATEWAY,
            "provider-refused",
            "Provider refused the call",
            reason.to_owned(),
        );
        problem.0.response.call_id = Some(call_id.to_string());
        problem
    }

    /// 502: the provider did not do what was asked.
    pub(crate) fn provider_failed(call_id: CallId, cause: impl Into<String>) -> Self {
        let mut problem = Self::new(
            StatusCode::BAD_GATEWAY,
            "provider-failed",
            "Provider did not answer as asked",
            "The provider could not be asked, or did not agree; try again.",
        );
        problem.0.response.call_id = Some(call_id.to_string());
        problem.with_cause(cause)
    }

    /// 503: not now; nothing was accepted.
    pub(crate) fn unavailable(message: &str, cause: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Service unavailable",
            message,
        )
        .with_retry_after(RETRY_SECONDS)
        .with_cause(cause)
    }

    /// 503: the queue has no room for so many; nothing was queued.
    pub(crate) fn queue_full(full: &QueueFull) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "queue-full",
            "Queue full",
            format!("Your queue is full: {full}. Nothing was queued."),
        );
        problem.0.response.limit = Some(full.limit);
        problem.0.response.waiting = Some(full.waiting);
        // Where it never has room for as many there is no use in coming again.
        problem.0.retry_after = full.room_after().map(|position| {
            let place = QueuePlace {
                position,
                total_in_queue: full.waiting,
                pace: full.pace,
            };
            Wait::at(&place, None, DateTime::<Utc>::UNIX_EPOCH).retry_after()
        });
        problem
    }

    /// What a store's error means to a client, where `what` is the object that was asked for.
    pub(crate) fn of_store(error: StoreError, what: &str) -> Self {
        match error {
            StoreError::NotFound => Self::not_found(what),
            StoreError::Conflict(sentence) => Self::conflict(sentence),
            StoreError::QueueFull(full) => Self::queue_full(&full),
            StoreError::BadCursor => Self::invalid("cursor", "is not one that this server made"),
            StoreError::Unavailable(cause) => Self::unavailable(
                "The database cannot be reached; nothing was changed.",
                cause,
            ),
            StoreError::Internal(cause) => Self::internal(cause),
        }
    }

    pub(crate) fn with_field(mut self, field: &str) -> Self {
        self.0.response.field = Some(field.to_owned());
        self
    }

    pub(crate) fn at(mut self, line: usize, column: usize) -> Self {
        self.0.response.line = Some(line);
        self.0.response.column = Some(column as u64);
        self
    }

    pub(crate) fn with_current_status(mut self, status: &str) -> Self {
        self.0.response.current_status = Some(status.to_owned());
        self
    }

    fn with_retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after = Some(seconds);
        self
    }

    fn with_header(mut self, name: header::HeaderName, value: &str) -> Self {
        self.0.header = Some((name, value.to_owned()));
        self
    }

    fn with_cause(mut self, cause: impl Into<String>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// What went wrong inside, for the log only.
    pub(crate) fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// What is sent, to be sent beside something else.
    pub(crate) fn into_response_body(self) -> ProblemResponse {
        self.0.response
    }

    /// The body as it is sent.
    pub(crate) fn body(&self) -> String {
        // A struct of strings and numbers always has a JSON form.
        serde_json::to_string(&self.0.response).unwrap_or_default()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::of_store(error, "object")
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let message = match &error {
            EngineError::Unavailable(_) => "The database cannot be reached; nothing was accepted.",
            EngineError::Overloaded => "The server has too much to do; nothing was accepted.",
            EngineError::ShuttingDown => "The server is stopping; nothing was accepted.",
            EngineError::Internal(cause) => return Self::internal(cause),
        };
        Self::unavailable(message, error.to_string())
    }
}

/// Without the message, which may quote what the client sent: actix logs errors in this form.
impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.status, self.0.response.kind)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.response.message)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut builder = HttpResponseBuilder::new(self.0.status);
        builder.insert_header((header::CONTENT_TYPE, PROBLEM_JSON));
        if let Some(seconds) = self.0.retry_after {
            builder.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if let Some((name, value)) = &self.0.header {
            builder.insert_header((name.clone(), value.as_str()));
        }
        builder.body(self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_debug_form_quotes_nothing_that_a_client_sent() {
        let problem = Problem::invalid("phoneNumber", "cannot be read: `+442079460958`");
        assert!(problem.to_string().contains("+442079460958"));
        assert_eq!(
            format!("{problem:?}"),
            "400 Bad Request /problems/invalid-field"
        );
    }
}
