//! The `Retry-After` header: seconds or a date, both within reason.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The longest a dialer may put a call off; a typing error there must not park a queue for a year.
pub(super) const LONGEST: Duration = Duration::from_secs(3_600);

/// How long the dialer asks to be left alone, an hour at most, if it says so readably.
///
/// A date is measured from the answer's own `Date` where there is one, so that the two clocks need
/// not agree. A date that has passed means now.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more than an hour.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        let from = date(headers, DATE).unwrap_or_else(SystemTime::now);
        until.duration_since(from).unwrap_or_default()
    };
    Some(delay.min(LONGEST))
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(retry_after: &str, date: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after.parse().expect("a value"));
        if let Some(date) = date {
            headers.insert(DATE, date.parse().expect("a value"));
        }
        headers
    }

    fn seconds(retry_after: &str, date: Option<&str>) -> Option<u64> {
        read(&headers(retry_after, date)).map(|delay| delay.as_secs())
    }

    #[test]
    fn seconds_are_read_and_capped() {
        assert_eq!(seconds("7", None), Some(7));
        assert_eq!(seconds(" 0 ", None), Some(0));
        assert_eq!(seconds("86400", None), Some(3_600));
        assert_eq!(seconds("99999999999999999999999999", None), Some(3_600));
    }

    #[test]
    fn a_date_is_measured_from_the_answers_own_clock() {
        let sent = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:07 GMT", sent), Some(30));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:00 GMT", sent), Some(0));
        assert_eq!(seconds("Mon, 07 Nov 1994 08:49:37 GMT", sent), Some(3_600));
    }

    #[test]
    fn a_date_without_one_is_measured_from_now() {
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(120));
        let read = seconds(&soon, None).expect("a delay");
        assert!((100..=120).contains(&read), "{read}");
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for text in ["", "soon", "-5", "1.5", "+3"] {
            assert_eq!(seconds(text, None), None, "{text:?}");
        }
        assert_eq!(read(&HeaderMap::new()), None);
    }
}
