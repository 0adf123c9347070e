//! What a dialer's answer proves. The table of the contract, and nothing else, is in this file.

use callq_domain::{ExecutionId, HangUpError, LookUp, Placement, ReportedStatus};
use reqwest::StatusCode;
use serde_json::Value;

use super::client::Answer;
use super::retry_after;
use crate::words::one_line;

/// How much of the dialer's own words is kept.
const MAX_WORDS: usize = 300;

/// What the answer to `POST /calls` proves.
pub(super) fn placement(answer: &Answer) -> Placement {
    match answer.status.as_u16() {
        200..=299 => placed(answer),
        429 | 503 => Placement::Busy {
            retry_after: retry_after::read(&answer.headers),
            reason: words(answer, "Provider is busy"),
        },
        // These may be said of a request that was, or is being, acted on.
        408 | 409 | 425 => unknown(answer),
        400..=499 => Placement::Refused {
            reason: words(answer, "Provider refused the call"),
        },
        _ => unknown(answer),
    }
}

fn placed(answer: &Answer) -> Placement {
    if let Some(execution_id) = execution_id(&json(answer)) {
        return Placement::Placed { execution_id };
    }
    let status = answer.status.as_u16();
    let reason = match &answer.body {
        Ok(_) => format!("Provider answered {status} without a readable execution_id"),
        Err(fault) => format!("Provider answered {status}, but {fault}"),
    };
    Placement::Unknown { reason }
}

fn unknown(answer: &Answer) -> Placement {
    Placement::Unknown {
        reason: words(answer, "Provider's answer proves nothing"),
    }
}

/// What the answer to `GET /calls/{call_id}` proves.
pub(super) fn look_up(answer: &Answer) -> LookUp {
    let body = json(answer);
    let status = body.get("status").and_then(Value::as_str);
    let status = status.and_then(ReportedStatus::from_name);
    match (answer.status, execution_id(&body), status) {
        (StatusCode::OK, Some(execution_id), Some(status)) => LookUp::Found {
            execution_id,
            status,
        },
        (StatusCode::NOT_FOUND, ..) => LookUp::NotPlaced,
        (StatusCode::OK, ..) => LookUp::Unclear {
            reason: "Provider answered 200 without a readable execution_id and status".into(),
        },
        _ => LookUp::Unclear {
            reason: words(answer, "Provider could not say"),
        },
    }
}

/// What the answer to `POST /calls/{execution_id}/hangup` proves.
pub(super) fn hang_up(answer: &Answer) -> Result<(), HangUpError> {
    match answer.status.as_u16() {
        200..=299 => Ok(()),
        404 | 410 => Err(HangUpError::NotFound),
        _ => Err(HangUpError::Failed(words(answer, "Provider did not agree"))),
    }
}

/// The body as JSON; null when it is none.
fn json(answer: &Answer) -> Value {
    let body = answer.body.as_deref().unwrap_or_default();
    serde_json::from_slice(body).unwrap_or_default()
}

fn execution_id(body: &Value) -> Option<ExecutionId> {
    ExecutionId::new(body.get("execution_id")?.as_str()?)
}

/// `what`, the status, and the dialer's own reason if its JSON body gives one in a usual place.
fn words(answer: &Answer, what: &str) -> String {
    let body = json(answer);
    let said = ["reason", "message", "detail", "error", "title"]
        .into_iter()
        .find_map(|name| body.get(name)?.as_str());
    let status = answer.status.as_u16();
    match said.map(|text| one_line(text, MAX_WORDS)) {
        Some(said) if !said.is_empty() => format!("{what} ({status}): {said}"),
        _ => format!("{what} ({status})"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use callq_domain::Outcome;
    use reqwest::header::{HeaderMap, RETRY_AFTER};

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: Ok(body.into()),
        }
    }

    #[test]
    fn only_a_2xx_with_an_execution_id_is_placed() {
        for status in [200, 201, 202] {
            let placed = placement(&answer(status, r#"{"execution_id": "x-1", "more": 1}"#));
            assert!(
                matches!(placed, Placement::Placed { execution_id } if execution_id.as_str() == "x-1")
            );
        }
        for body in [
            "",
            "ok",
            "[]",
            "{}",
            r#"{"execution_id": 7}"#,
            r#"{"execution_id": ""}"#,
        ] {
            assert!(
                matches!(placement(&answer(200, body)), Placement::Unknown { .. }),
                "{body}"
            );
        }
    }

    #[test]
    fn every_status_proves_what_the_contract_says() {
        for status in 300..=599_u16 {
            let proved = placement(&answer(status, r#"{"execution_id": "x"}"#));
            let expected = match status {
                429 | 503 => matches!(
                    proved,
                    Placement::Busy {
                        retry_after: None,
                        ..
                    }
                ),
                408 | 409 | 425 => matches!(proved, Placement::Unknown { .. }),
                400..=499 => matches!(proved, Placement::Refused { .. }),
                _ => matches!(proved, Placement::Unknown { .. }),
            };
            assert!(expected, "{status}: {proved:?}");
        }
    }

    #[test]
    fn busy_passes_the_delay_on() {
        let mut busy = answer(429, "");
        busy.headers
            .insert(RETRY_AFTER, "3".parse().expect("a value"));
        let Placement::Busy { retry_after, .. } = placement(&busy) else {
            panic!("not busy");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_unreadable_body_leaves_refusals_as_they_are_and_makes_a_placement_unknown() {
        let broken = |status| Answer {
            body: Err("its answer broke off".into()),
            ..answer(status, "")
        };
        assert!(matches!(placement(&broken(422)), Placement::Refused { .. }));
        assert!(matches!(placement(&broken(503)), Placement::Busy { .. }));
        assert!(matches!(placement(&broken(200)), Placement::Unknown { .. }));
    }

    #[test]
    fn the_dialers_words_are_kept_on_one_bounded_line() {
        let body = format!(r#"{{"message": "no\nroute {}"}}"#, "x".repeat(9_000));
        let Placement::Refused { reason } = placement(&answer(400, &body)) else {
            panic!("not refused");
        };
        assert!(reason.starts_with("Provider refused the call (400): no route xxx"));
        assert!(reason.chars().count() < 400 && !reason.contains('\n'));
    }

    #[test]
    fn a_look_up_proves_only_what_is_said_clearly() {
        let found = look_up(&answer(
            200,
            r#"{"execution_id": "x", "status": "completed"}"#,
        ));
        assert!(matches!(
            found,
            LookUp::Found {
                status: ReportedStatus::Ended(Outcome::Completed),
                ..
            }
        ));
        assert_eq!(look_up(&answer(404, "")), LookUp::NotPlaced);
        for (status, body) in [
            (200, "{}"),
            (200, r#"{"execution_id": "x", "status": "gone"}"#),
            (204, ""),
            (302, ""),
            (410, ""),
            (401, ""),
            (500, ""),
            (503, ""),
        ] {
            assert!(
                matches!(look_up(&answer(status, body)), LookUp::Unclear { .. }),
                "{status}"
            );
        }
    }

    #[test]
    fn a_hang_up_is_agreed_to_not_found_or_failed() {
        assert_eq!(hang_up(&answer(204, "")), Ok(()));
        assert_eq!(hang_up(&answer(404, "")), Err(HangUpError::NotFound));
        assert_eq!(hang_up(&answer(410, "")), Err(HangUpError::NotFound));
        for status in [302, 401, 409, 500] {
            assert!(matches!(
                hang_up(&answer(status, "")),
                Err(HangUpError::Failed(_))
            ));
        }
    }
}
