//! Standard Webhooks: the shared secret, and the signatures made and checked with it.
//!
//! The signature itself is the `standardwebhooks` crate's. What is added here is what a server
//! needs around it: a secret that is read in the forms people have it in and never printed, and a
//! verification that no header can make overflow.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use callq_domain::{EventHeaders, EventRejection};
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};

/// The prefix of a secret that is written in base64.
const PREFIX: &str = "whsec_";

/// How many seconds a message may be old, or ahead: what Standard Webhooks recommends.
const TOLERANCE: i64 = 300;

/// A secret shared with a provider, ready to sign and verify. Cheap to clone; `Debug` hides it.
///
/// Read from text: after `whsec_` it must be base64. Without the prefix it is taken as base64 if it
/// decodes, as most libraries do, and otherwise as the text's own bytes.
#[derive(Clone)]
pub struct WebhookSecret(Arc<Webhook>);

/// A text that is no secret. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookSecretError {
    /// Nothing, or nothing after the prefix.
    #[error(
        "is empty; give at least 24 random bytes, such as `whsec_` and the output of `openssl rand -base64 32`"
    )]
    Empty,
    /// A prefix, but no base64 after it.
    #[error(
        "must be base64 after `whsec_`, such as the output of `openssl rand -base64 32`; drop the prefix to use the text itself as the secret"
    )]
    NotBase64,
}

impl FromStr for WebhookSecret {
    type Err = WebhookSecretError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX);
        if encoded.unwrap_or(text).is_empty() {
            return Err(WebhookSecretError::Empty);
        }
        let webhook = match (Webhook::new(text), encoded) {
            (Ok(webhook), _) => webhook,
            (Err(_), Some(_)) => return Err(WebhookSecretError::NotBase64),
            (Err(_), None) => Webhook::from_bytes(text.as_bytes().to_vec())
                .map_err(|_| WebhookSecretError::Empty)?,
        };
        Ok(Self(Arc::new(webhook)))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

impl WebhookSecret {
    /// The value of `webhook-signature` for a message of this id, sent at this Unix second.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the signature of UTF-8 text cannot fail, and a str is nothing else"
    )]
    pub fn sign(&self, id: &str, unix_seconds: i64, body: &str) -> String {
        self.0
            .sign(id, unix_seconds, body.as_bytes())
            .expect("a str is UTF-8")
    }

    /// The three headers that sign `body` as a message of this id, sent now.
    #[must_use]
    pub fn signed_headers(&self, id: &str, body: &str) -> [(&'static str, String); 3] {
        let now = chrono::Utc::now().timestamp();
        [
            (HEADER_WEBHOOK_ID, id.to_owned()),
            (HEADER_WEBHOOK_TIMESTAMP, now.to_string()),
            (HEADER_WEBHOOK_SIGNATURE, self.sign(id, now, body)),
        ]
    }

    /// Checks that `body` was signed with this secret, no more than five minutes ago or ahead.
    ///
    /// # Errors
    /// [`EventRejection::Unauthentic`], saying which part is missing or wrong.
    pub fn verify(&self, headers: &dyn EventHeaders, body: &[u8]) -> Result<(), EventRejection> {
        let mut signed = HeaderMap::with_capacity(3);
        for name in [
            HEADER_WEBHOOK_ID,
            HEADER_WEBHOOK_TIMESTAMP,
            HEADER_WEBHOOK_SIGNATURE,
        ] {
            let value = headers
                .get(name)
                .ok_or_else(|| unauthentic(format_args!("no {name} header")))?;
            let value = HeaderValue::from_str(value)
                .map_err(|_| unauthentic(format_args!("{name} is not plain text")))?;
            signed.insert(HeaderName::from_static(name), value);
        }
        timestamp_in_range(headers)?;
        self.0.verify(body, &signed).map_err(unauthentic)
    }
}

/// Refuses a timestamp that is too far off, and says how far: a clock that is wrong is found by that.
/// So far off that subtracting it would overflow, which the crate below does unchecked, is refused
/// first.
fn timestamp_in_range(headers: &dyn EventHeaders) -> Result<(), EventRejection> {
    let seconds = headers
        .get(HEADER_WEBHOOK_TIMESTAMP)
        .and_then(|text| text.parse::<i64>().ok());
    match seconds {
        Some(seconds) if (0..=i64::from(u32::MAX) * 2).contains(&seconds) => {
            let late = chrono::Utc::now().timestamp() - seconds;
            match late.abs() {
                ..=TOLERANCE => Ok(()),
                off => Err(unauthentic(format_args!(
                    "webhook-timestamp is {off} s {} this server's clock, more than {TOLERANCE} s",
                    if late > 0 { "behind" } else { "ahead of" }
                ))),
            }
        }
        _ => Err(unauthentic(
            "webhook-timestamp must be the time of sending in seconds since 1970",
        )),
    }
}

fn unauthentic(why: impl fmt::Display) -> EventRejection {
    EventRejection::Unauthentic(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key, message and signature as published with the Standard Webhooks reference libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &str = r#"{"test": 2432232314}"#;
    const SENT: i64 = 1_614_265_330;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    struct Given(Vec<(&'static str, String)>);

    impl EventHeaders for Given {
        fn get(&self, name: &str) -> Option<&str> {
            let found = self
                .0
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        }
    }

    fn secret(text: &str) -> WebhookSecret {
        text.parse().expect("a secret")
    }

    /// A message of `BODY` that was well signed `age` seconds ago.
    fn message(age: i64) -> Given {
        let sent = chrono::Utc::now().timestamp() - age;
        Given(vec![
            (HEADER_WEBHOOK_ID, ID.to_owned()),
            (HEADER_WEBHOOK_TIMESTAMP, sent.to_string()),
            (
                HEADER_WEBHOOK_SIGNATURE,
                secret(SECRET).sign(ID, sent, BODY),
            ),
        ])
    }

    fn replaced(name: &'static str, value: &str) -> Given {
        let mut given = message(0);
        for header in &mut given.0 {
            if header.0 == name {
                header.1 = value.to_owned();
            }
        }
        given
    }

    fn is_authentic(given: &Given, body: &str) -> bool {
        secret(SECRET).verify(given, body.as_bytes()).is_ok()
    }

    #[test]
    fn the_reference_message_gets_the_reference_signature() {
        assert_eq!(secret(SECRET).sign(ID, SENT, BODY), SIGNATURE);
        let bare = SECRET.strip_prefix(PREFIX).expect("prefixed");
        assert_eq!(secret(bare).sign(ID, SENT, BODY), SIGNATURE);
    }

    #[test]
    fn a_fresh_message_is_authentic_and_a_changed_one_is_not() {
        assert!(is_authentic(&message(0), BODY));
        assert!(!is_authentic(&message(0), r#"{"test": 2432232315}"#));
        assert!(!is_authentic(
            &replaced(HEADER_WEBHOOK_ID, "msg_other"),
            BODY
        ));
        assert!(!is_authentic(
            &replaced(HEADER_WEBHOOK_SIGNATURE, SIGNATURE),
            BODY
        ));
        assert!(
            secret("another")
                .verify(&message(0), BODY.as_bytes())
                .is_err()
        );
    }

    #[test]
    fn five_minutes_are_tolerated_both_ways_and_no_more() {
        for age in [-290, 290] {
            assert!(is_authentic(&message(age), BODY), "{age}");
        }
        for age in [-310, 310] {
            assert!(!is_authentic(&message(age), BODY), "{age}");
        }
    }

    #[test]
    fn one_good_signature_among_several_is_enough() {
        let good = secret(SECRET).signed_headers(ID, BODY);
        let several = format!("v1,AAAA v2,{SIGNATURE} {}", good[2].1);
        let mut headers = good.to_vec();
        headers[2].1 = several;
        assert!(is_authentic(&Given(headers), BODY));
    }

    #[test]
    fn a_missing_header_is_named() {
        for name in [
            HEADER_WEBHOOK_ID,
            HEADER_WEBHOOK_TIMESTAMP,
            HEADER_WEBHOOK_SIGNATURE,
        ] {
            let mut given = message(0);
            given.0.retain(|(key, _)| *key != name);
            let rejection = secret(SECRET).verify(&given, BODY.as_bytes());
            let Err(EventRejection::Unauthentic(why)) = rejection else {
                panic!("{name}: {rejection:?}");
            };
            assert!(why.contains(name), "{why}");
        }
    }

    #[test]
    fn no_timestamp_and_no_bytes_can_make_it_panic() {
        for text in [
            "",
            "soon",
            "-1",
            "1.5",
            "-9223372036854775808",
            "9223372036854775807",
        ] {
            assert!(
                !is_authentic(&replaced(HEADER_WEBHOOK_TIMESTAMP, text), BODY),
                "{text}"
            );
        }
        assert!(secret(SECRET).verify(&message(0), &[0xff, 0xfe]).is_err());
    }

    #[test]
    fn a_secret_is_base64_after_its_prefix_and_any_text_without() {
        let fault = |text: &str| text.parse::<WebhookSecret>().err();
        assert_eq!(fault(""), Some(WebhookSecretError::Empty));
        assert_eq!(fault("  "), Some(WebhookSecretError::Empty));
        assert_eq!(fault("whsec_"), Some(WebhookSecretError::Empty));
        assert_eq!(
            fault("whsec_not base64"),
            Some(WebhookSecretError::NotBase64)
        );
        let text = secret("not base64, just words").sign(ID, SENT, BODY);
        let bytes = Webhook::from_bytes(b"not base64, just words".to_vec()).expect("a key");
        assert_eq!(Some(text), bytes.sign(ID, SENT, BODY.as_bytes()).ok());
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        assert_eq!(format!("{:?}", secret(SECRET)), "WebhookSecret(…)");
    }
}
