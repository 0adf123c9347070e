//! The body of a status event, read the same way for every provider that speaks callq's own form.

use std::fmt;

use callq_domain::{CallId, EventRejection, ExecutionId, ReportedStatus, StatusEvent};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::words::one_line;

/// The longest event id, in characters: it is a key in the database.
const MAX_EVENT_ID: usize = 255;

/// The longest reason kept, in characters; the rest is cut off.
const MAX_REASON: usize = 1_000;

/// Reads an event whose signature was checked.
///
/// # Errors
/// [`EventRejection::Malformed`], naming the field and what it must be.
pub(crate) fn read(body: &[u8]) -> Result<StatusEvent, EventRejection> {
    let value: Value = serde_json::from_slice(body).map_err(malformed)?;
    let Value::Object(fields) = value else {
        return Err(malformed("must be a JSON object"));
    };
    Ok(StatusEvent {
        event_id: event_id(&fields)?,
        call_id: call_id(&fields)?,
        execution_id: execution_id(&fields)?,
        status: status(&fields)?,
        occurred_at: occurred_at(&fields)?,
        duration_seconds: duration_seconds(&fields)?,
        reason: optional_text(&fields, "reason")?.map(|text| one_line(text, MAX_REASON)),
    })
}

fn event_id(fields: &Map<String, Value>) -> Result<String, EventRejection> {
    let text = text(fields, "event_id")?;
    let fits = (1..=MAX_EVENT_ID).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(malformed(format_args!(
            "event_id must be 1 to {MAX_EVENT_ID} characters, none of them a control character"
        )))
    }
}

fn call_id(fields: &Map<String, Value>) -> Result<CallId, EventRejection> {
    text(fields, "call_id")?
        .parse()
        .map_err(|_| malformed("call_id must be the UUID that was given as call_id"))
}

fn execution_id(fields: &Map<String, Value>) -> Result<Option<ExecutionId>, EventRejection> {
    let Some(text) = optional_text(fields, "execution_id")? else {
        return Ok(None);
    };
    ExecutionId::new(text).map(Some).ok_or_else(|| {
        malformed(format_args!(
            "execution_id must be 1 to {} bytes, none of them a control character",
            ExecutionId::MAX_LEN
        ))
    })
}

fn status(fields: &Map<String, Value>) -> Result<ReportedStatus, EventRejection> {
    ReportedStatus::from_name(text(fields, "status")?).ok_or_else(|| {
        malformed(
            "status must be initiated, ringing, in-progress, completed, busy, no-answer, failed \
             or cancelled",
        )
    })
}

fn occurred_at(fields: &Map<String, Value>) -> Result<DateTime<Utc>, EventRejection> {
    DateTime::parse_from_rfc3339(text(fields, "occurred_at")?)
        .map(|at| at.to_utc())
        .map_err(|_| malformed("occurred_at must be an RFC 3339 time such as 2030-01-31T12:00:00Z"))
}

fn duration_seconds(fields: &Map<String, Value>) -> Result<Option<u32>, EventRejection> {
    let value = match fields.get("duration_seconds") {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_f64(),
    };
    // The database keeps it as a signed 32-bit number.
    match value {
        Some(seconds) if (0.0..=f64::from(i32::MAX)).contains(&seconds) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "in range by the line above; a started second does not count"
            )]
            let whole = seconds as u32;
            Ok(Some(whole))
        }
        _ => Err(malformed(
            "duration_seconds must be a number of seconds, 0 or more",
        )),
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str, EventRejection> {
    optional_text(fields, name)?.ok_or_else(|| malformed(format_args!("{name} is missing")))
}

fn optional_text<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
) -> Result<Option<&'a str>, EventRejection> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(format_args!("{name} must be text"))),
    }
}

fn malformed(why: impl fmt::Display) -> EventRejection {
    EventRejection::Malformed(one_line(&why.to_string(), 200))
}

#[cfg(test)]
mod tests {
    use callq_domain::Outcome;
    use serde_json::json;

    use super::*;

    fn whole() -> Value {
        json!({
            "event_id": "evt-1",
            "call_id": "0190f5fe-7c00-7a00-8000-000000000001",
            "execution_id": "exec-1",
            "status": "completed",
            "occurred_at": "2030-01-31T13:00:00+01:00",
            "duration_seconds": 12,
            "reason": "caller hung up",
        })
    }

    fn with(name: &str, value: Value) -> Result<StatusEvent, EventRejection> {
        let mut event = whole();
        event[name] = value;
        read(event.to_string().as_bytes())
    }

    #[test]
    fn a_whole_event_is_read() {
        let event = read(whole().to_string().as_bytes()).expect("an event");
        assert_eq!(event.event_id, "evt-1");
        assert_eq!(event.execution_id, ExecutionId::new("exec-1"));
        assert_eq!(event.status, ReportedStatus::Ended(Outcome::Completed));
        assert_eq!(event.occurred_at.to_rfc3339(), "2030-01-31T12:00:00+00:00");
        assert_eq!(event.duration_seconds, Some(12));
        assert_eq!(event.reason.as_deref(), Some("caller hung up"));
    }

    #[test]
    fn what_is_optional_may_be_missing_or_null() {
        for name in ["execution_id", "duration_seconds", "reason"] {
            assert!(with(name, Value::Null).is_ok(), "{name}");
        }
        assert_eq!(
            with("duration_seconds", json!(12.9))
                .expect("read")
                .duration_seconds,
            Some(12)
        );
    }

    #[test]
    fn each_fault_names_its_field() {
        let long = "x".repeat(256);
        let faults = [
            ("event_id", Value::Null),
            ("event_id", json!("")),
            ("event_id", json!(long)),
            ("event_id", json!("a\u{0}b")),
            ("event_id", json!(1)),
            ("call_id", json!("")),
            ("call_id", json!("42")),
            ("execution_id", json!("")),
            ("execution_id", json!(long)),
            ("status", json!("answered")),
            ("status", Value::Null),
            ("occurred_at", json!("yesterday")),
            ("occurred_at", json!(1_700_000_000)),
            ("duration_seconds", json!(-1)),
            ("duration_seconds", json!(1e12)),
            ("duration_seconds", json!("12")),
            ("reason", json!(["x"])),
        ];
        for (name, value) in faults {
            let rejection = with(name, value.clone());
            let Err(EventRejection::Malformed(why)) = rejection else {
                panic!("{name} = {value}: {rejection:?}");
            };
            assert!(why.starts_with(name), "{why}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_and_cleaned_rather_than_refused() {
        let event = with("reason", json!(format!("a\u{0}{}", "b".repeat(5_000)))).expect("read");
        let reason = event.reason.expect("kept");
        assert_eq!(reason.chars().count(), MAX_REASON);
        assert!(reason.starts_with("a bbb"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in ["", "[]", "null", "{", "\u{feff}{}"] {
            assert!(
                matches!(read(body.as_bytes()), Err(EventRejection::Malformed(_))),
                "{body}"
            );
        }
        assert!(read(&[0xff]).is_err());
    }
}
