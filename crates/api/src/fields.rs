//! The rules for what a field may hold, each fault named after its field.

use std::fmt::Display;
use std::str::FromStr;

use callq_domain::{CallRate, Country, CountryError, NumberLimit, PhoneNumber, Weight};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::problem::Problem;

/// The largest JSON object stored for a client, in bytes as it was sent.
const OBJECT_LIMIT: usize = 16 * 1024;

/// A text of 1 to `max` characters, none of them a control character.
pub(crate) fn required_text(field: &str, value: String, max: usize) -> Result<String, Problem> {
    optional_text(field, Some(value), max)?
        .ok_or_else(|| Problem::invalid(field, "must not be empty"))
}

/// A text of at most `max` characters, none of them a control character. Empty is none.
pub(crate) fn optional_text(
    field: &str,
    value: Option<String>,
    max: usize,
) -> Result<Option<String>, Problem> {
    let Some(value) = value else { return Ok(None) };
    if value.chars().any(char::is_control) {
        return Err(Problem::invalid(
            field,
            "may not hold control characters such as line breaks",
        ));
    }
    let value = value.trim();
    if value.chars().count() > max {
        let fault = format!("may hold at most {max} characters");
        return Err(Problem::invalid(field, fault));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// A telephone number in E.164 form.
pub(crate) fn phone_number(field: &str, text: &str) -> Result<PhoneNumber, Problem> {
    PhoneNumber::from_str(text).map_err(|error| Problem::invalid(field, error))
}

/// A JSON object of at most 16 KiB that a database can hold.
pub(crate) fn object(
    field: &str,
    value: Option<Box<RawValue>>,
) -> Result<Option<Box<RawValue>>, Problem> {
    let Some(value) = value else { return Ok(None) };
    if value.get().len() > OBJECT_LIMIT {
        let fault = format!("may hold at most {OBJECT_LIMIT} bytes of JSON");
        return Err(Problem::invalid(field, fault));
    }
    match serde_json::from_str::<Value>(value.get()) {
        Ok(parsed @ Value::Object(_)) if !holds_nul(&parsed) => Ok(Some(value)),
        Ok(Value::Object(_)) => Err(Problem::invalid(
            field,
            "may not hold the character U+0000, which PostgreSQL cannot store",
        )),
        Ok(_) => Err(Problem::invalid(field, "must be a JSON object")),
        // It was JSON a moment ago: what is left is nesting, lone surrogates and huge numbers.
        Err(error) => Err(Problem::invalid(
            field,
            format!("cannot be stored: {error}"),
        )),
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(holds_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether this is a time zone's IANA name, such as `Europe/Berlin`.
#[must_use]
pub fn is_time_zone(name: &str) -> bool {
    Tz::from_str(name).is_ok()
}

/// An IANA time zone's name.
pub(crate) fn time_zone(field: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    let Some(name) = optional_text(field, value, 64)? else {
        return Ok(None);
    };
    match Tz::from_str(&name) {
        Ok(zone) => Ok(Some(zone.name().to_owned())),
        Err(_) => Err(Problem::invalid(
            field,
            "must be an IANA time zone such as Europe/Berlin",
        )),
    }
}

/// A country's ISO 3166 code. Empty is none.
pub(crate) fn country(field: &str, code: Option<&str>) -> Result<Option<Country>, Problem> {
    code.filter(|code| !code.trim().is_empty())
        .map(str::parse)
        .transpose()
        .map_err(|error: CountryError| Problem::invalid(field, error))
}

/// A moment, RFC 3339.
pub(crate) fn moment(field: &str, text: &str) -> Result<DateTime<Utc>, Problem> {
    DateTime::parse_from_rfc3339(text)
        .map(|moment| moment.to_utc())
        .map_err(|_| {
            Problem::invalid(
                field,
                "must be an RFC 3339 time with its offset, such as 2030-05-01T09:30:00Z",
            )
        })
}

/// A day, `YYYY-MM-DD`.
pub(crate) fn date(field: &str, text: &str) -> Result<NaiveDate, Problem> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .map_err(|_| Problem::invalid(field, "must be a day written YYYY-MM-DD"))
}

/// A time of day, `HH:MM` or `HH:MM:SS`.
pub(crate) fn time_of_day(field: &str, text: &str) -> Result<NaiveTime, Problem> {
    NaiveTime::parse_from_str(text, "%H:%M")
        .or_else(|_| NaiveTime::parse_from_str(text, "%H:%M:%S"))
        .map_err(|_| Problem::invalid(field, "must be a time of day written HH:MM or HH:MM:SS"))
}

/// How often one number may be called within any 24 hours.
pub(crate) fn number_limit(value: i64) -> Result<NumberLimit, Problem> {
    NumberLimit::new(value).ok_or_else(|| {
        let fault = format!("must be a whole number from 1 to {}", NumberLimit::MAX);
        Problem::invalid("max_calls_per_number_per_day", fault)
    })
}

/// A whole number from `min` to `max`.
pub(crate) fn whole_number(field: &str, value: i64, min: u32, max: u32) -> Result<u32, Problem> {
    match u32::try_from(value) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(Problem::invalid(
            field,
            format!("must be a whole number from {min} to {max}"),
        )),
    }
}

/// Turns relative to others.
pub(crate) fn weight(value: i64) -> Result<Weight, Problem> {
    let fault = || format!("must be a whole number from 1 to {}", Weight::MAX);
    Weight::new(value).ok_or_else(|| Problem::invalid("weight", fault()))
}

/// Calls a second.
pub(crate) fn call_rate(field: &str, value: f64) -> Result<CallRate, Problem> {
    CallRate::per_second(value).ok_or_else(|| {
        let fault = format!(
            "must be a number from 0.001 to {}, calls a second",
            CallRate::MAX
        );
        Problem::invalid(field, fault)
    })
}

/// What reads as a sentence, with its capital letter and its full stop.
pub(crate) fn sentence(words: impl Display) -> String {
    let words = words.to_string();
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Option<Box<RawValue>> {
        Some(RawValue::from_string(json.to_owned()).expect("JSON"))
    }

    #[test]
    fn only_an_object_that_can_be_stored_passes() {
        assert!(object("f", raw(r#"{"a": [1, {"b": null}]}"#)).is_ok());
        assert!(matches!(object("f", None), Ok(None)));
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(500), "]".repeat(500));
        let large = format!("{{\"a\": \"{}\"}}", "x".repeat(OBJECT_LIMIT));
        for json in ["[]", "\"text\"", "1", r#"{"a": "\u0000"}"#, &deep, &large] {
            assert!(object("f", raw(json)).is_err(), "{json:.40}");
        }
    }

    #[test]
    fn text_is_trimmed_bounded_and_free_of_control_characters() {
        assert_eq!(
            optional_text("f", Some("  Ada ".into()), 3).ok(),
            Some(Some("Ada".into()))
        );
        assert_eq!(optional_text("f", Some("  ".into()), 3).ok(), Some(None));
        assert!(optional_text("f", Some("Ada!".into()), 3).is_err());
        assert!(optional_text("f", Some("A\nd".into()), 3).is_err());
        assert!(required_text("f", String::new(), 3).is_err());
    }

    #[test]
    fn zones_days_and_times_are_read_strictly() {
        assert!(time_zone("f", Some("Europe/Berlin".into())).is_ok());
        assert!(time_zone("f", Some("Mars/Olympus".into())).is_err());
        assert!(date("f", "2030-02-29").is_err() && date("f", "2028-02-29").is_ok());
        assert!(time_of_day("f", "09:30").is_ok() && time_of_day("f", "09:30:15").is_ok());
        assert!(time_of_day("f", "24:00").is_err() && time_of_day("f", "9h").is_err());
        assert!(moment("f", "2030-01-01T00:00:00+02:00").is_ok());
        assert!(moment("f", "2030-01-01 00:00").is_err());
    }
}
