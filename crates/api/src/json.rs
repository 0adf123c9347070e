//! Reading a JSON body: bounded in size and time, and with errors that say which field, line and
//! column is at fault.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpRequest};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::Problem;

/// The largest body of an ordinary route.
pub(crate) const BODY_LIMIT: usize = 64 * 1024;

/// The longest wait for a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A parsed JSON body of at most `LIMIT` bytes, beside the bytes it was parsed from.
pub(crate) struct JsonBody<T, const LIMIT: usize = BODY_LIMIT> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
}

impl<T: DeserializeOwned + 'static, const LIMIT: usize> FromRequest for JsonBody<T, LIMIT> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let is_json = is_json(request);
        let payload = payload.take();
        Box::pin(async move {
            if !is_json {
                return Err(Problem::not_json());
            }
            let bytes = read_body(payload, LIMIT).await?;
            let value = parse(&bytes)?;
            Ok(Self { value, bytes })
        })
    }
}

/// A body of at most [`BODY_LIMIT`] bytes, as it came.
pub(crate) struct RawBody(pub(crate) Bytes);

impl FromRequest for RawBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(_request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move { read_body(payload, BODY_LIMIT).await.map(Self) })
    }
}

fn is_json(request: &HttpRequest) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE);
    let Some(text) = value.and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    let subtype = subtype.to_ascii_lowercase();
    kind.eq_ignore_ascii_case("application") && (subtype == "json" || subtype.ends_with("+json"))
}

async fn read_body(payload: Payload, limit: usize) -> Result<Bytes, Problem> {
    tokio::time::timeout(BODY_TIMEOUT, collect(payload, limit))
        .await
        .unwrap_or_else(|_| Err(Problem::body_too_slow()))
}

async fn collect(mut payload: Payload, limit: usize) -> Result<Bytes, Problem> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|_| Problem::malformed("The body ended before all of it had come."))?;
        if body.len().saturating_add(chunk.len()) > limit {
            // The server reads on for a while before it closes, so the sender gets the answer.
            return Err(Problem::too_large(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, error.inner())
    })?;
    reader.end().map_err(|error| explain(".", &error))?;
    Ok(value)
}

/// Turns serde's words into a problem that names the field.
fn explain(path: &str, error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    // serde_json ends each message with the place, which has fields of its own here.
    let text = text.split(" at line ").next().unwrap_or(&text);
    let problem = match (error.classify(), missing_field(text)) {
        (Category::Data, Some(name)) => Problem::invalid(&join(path, name), "is required"),
        (Category::Data, None) if path != "." => Problem::invalid(path, in_plain_words(text)),
        (Category::Data, None) => {
            Problem::malformed(format!("The body must be a JSON object: {text}."))
        }
        _ => Problem::malformed(format!(
            "The body is not valid JSON: {text} at line {line}, column {column}."
        )),
    };
    problem.at(line, column)
}

fn missing_field(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.strip_suffix('`')
}

fn join(path: &str, name: &str) -> String {
    match path {
        "." => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

fn in_plain_words(text: &str) -> String {
    if text.starts_with("UUID parsing failed") || text.contains("expected a formatted UUID string")
    {
        return "must be a UUID such as 019ab0de-7c3f-7d21-9c53-52f1c2b06a4e".to_owned();
    }
    let mut text = text.to_owned();
    for (rust, plain) in [
        ("expected i64", "expected a whole number"),
        ("expected u32", "expected a whole number from 0 up"),
        ("expected a string", "expected text"),
        ("expected a sequence", "expected a list"),
    ] {
        text = text.replace(rust, plain);
    }
    format!("cannot be read: {text}")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use uuid::Uuid;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        #[expect(dead_code, reason = "only its parsing matters")]
        id: Uuid,
        #[expect(dead_code, reason = "only its parsing matters")]
        list: Option<Vec<i64>>,
        data: Option<Box<serde_json::value::RawValue>>,
    }

    const ID: &str = "019ab0de-7c3f-7d21-9c53-52f1c2b06a4e";

    fn body_of(json: &str) -> String {
        parse::<Sample>(json.as_bytes()).expect_err(json).body()
    }

    #[test]
    fn a_fault_names_its_field_line_and_column() {
        for (json, field) in [
            ("{}".to_owned(), "id"),
            (r#"{"id": ""}"#.to_owned(), "id"),
            (r#"{"id": 5}"#.to_owned(), "id"),
            (format!(r#"{{"id": "{ID}", "list": [1, "x"]}}"#), "list[1]"),
        ] {
            let body = body_of(&json);
            assert!(body.contains(&format!(r#""field":"{field}""#)), "{body}");
            assert!(body.contains(r#""line":1"#), "{body}");
        }
    }

    #[test]
    fn what_is_no_json_at_all_has_no_field_but_a_place() {
        for json in ["", "{", "{\"id\": nope}", "[] []"] {
            let body = body_of(json);
            assert!(body.contains("malformed-body"), "{body}");
            assert!(!body.contains(r#""field""#), "{body}");
        }
    }

    #[test]
    fn raw_json_comes_through_as_it_was_written() {
        let json = format!(r#"{{"id": "{ID}", "data": {{"b" : 1,  "a": [2]}}, "unknown": 1}}"#);
        let sample: Sample = parse(json.as_bytes()).expect("valid");
        assert_eq!(sample.data.expect("given").get(), r#"{"b" : 1,  "a": [2]}"#);
    }
}
