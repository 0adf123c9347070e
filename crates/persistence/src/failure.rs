//! Which errors of the database pass and which are defects.
//!
//! Diesel keeps the SQLSTATE to itself, except for a few codes that it has kinds for, and for what
//! ends a connection. The rest is told by PostgreSQL's message texts, and these are in the language of
//! `lc_messages`, which only a superuser may set. So a text that is not recognised decides nothing
//! dangerous: it reads as a defect, and a defect may not do harm either, see [`classify`].

use callq_domain::StoreError;
use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// Why a transaction is rolled back.
#[derive(Debug)]
pub struct Failure(pub(crate) StoreError);

/// How a write that a standby refused is told, in whatever language PostgreSQL tells it.
const READ_ONLY: &str = "the node takes no writes";

impl Failure {
    /// Whether it came of a node that takes no writes.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(&self.0, StoreError::Unavailable(cause) if cause.starts_with(READ_ONLY))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        Self(classify(&error))
    }
}

/// Tells faults of the database, which pass, from defects of ours, which do not.
///
/// Of the two mistakes the second is the lesser. A defect taken for a fault would be tried again for
/// ever, and one bad request would take every batch along that it is in. A fault taken for a defect
/// costs a 500 where a 503 would be due: its batch is taken apart, for four seconds at most; what may
/// have been kept of it is undone; results of placements are kept and tried again all the same.
pub(crate) fn classify(error: &DieselError) -> StoreError {
    match error {
        DieselError::NotFound => StoreError::NotFound,
        DieselError::DatabaseError(kind, information) => match kind {
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::SerializationFailure
            | DatabaseErrorKind::UnableToSendCommand => unavailable(error),
            DatabaseErrorKind::ReadOnlyTransaction => {
                StoreError::Unavailable(format!("{READ_ONLY}: {}", information.message()))
            }
            // A place in the statement is given only for statements that cannot be understood.
            DatabaseErrorKind::Unknown
                if information.statement_position().is_none()
                    && is_passing(information.message()) =>
            {
                unavailable(error)
            }
            _ => StoreError::Internal(error.to_string()),
        },
        DieselError::BrokenTransactionManager => unavailable(error),
        _ => StoreError::Internal(error.to_string()),
    }
}

fn is_passing(message: &str) -> bool {
    const SIGNS: [&str; 22] = [
        "terminating connection",
        "shutting down",
        "starting up",
        "recovery",
        "deadlock detected",
        // Statement and lock time-outs, an operator's pg_cancel_backend.
        "canceling statement",
        "the lease of server",
        "was given up before",
        // Somebody changes a waiting call by hand.
        "the counters promise",
        "could not extend file",
        "could not write",
        "could not read",
        "could not open file",
        "could not fsync",
        "could not resize shared memory",
        "No space left on device",
        "out of memory",
        "out of shared memory",
        "too many clients",
        "server closed the connection",
        "no more connections allowed",
        "connection",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

pub(crate) fn unavailable(error: &DieselError) -> StoreError {
    StoreError::Unavailable(one_line(&error.to_string()))
}

/// The text as one line of a log: libpq's have several.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether messages in a language of PostgreSQL's, as `lc_messages` names it, can be told apart here.
pub(crate) fn is_understood(lc_messages: &str) -> bool {
    let language = lc_messages.to_ascii_lowercase();
    // Empty: what the server was started with, and then nothing is known; most have no translations.
    ["c", "posix", ""].contains(&language.split('.').next().unwrap_or_default())
        || language.starts_with("en")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: DatabaseErrorKind, message: &str) -> DieselError {
        DieselError::DatabaseError(kind, Box::new(message.to_owned()))
    }

    fn passes(kind: DatabaseErrorKind, message: &str) -> bool {
        matches!(classify(&error(kind, message)), StoreError::Unavailable(_))
    }

    #[test]
    fn what_ends_a_connection_passes_in_any_language() {
        for kind in [
            DatabaseErrorKind::ClosedConnection,
            DatabaseErrorKind::SerializationFailure,
            DatabaseErrorKind::ReadOnlyTransaction,
            DatabaseErrorKind::UnableToSendCommand,
        ] {
            assert!(passes(kind, "breche Verbindung ab"));
        }
    }

    #[test]
    fn a_write_that_a_standby_refuses_is_told_in_any_language() {
        let refused = error(DatabaseErrorKind::ReadOnlyTransaction, "nur lesen");
        assert!(Failure::from(refused).is_read_only());
        let other = error(DatabaseErrorKind::Unknown, "deadlock detected");
        assert!(!Failure::from(other).is_read_only());
    }

    #[test]
    fn a_fault_is_told_by_its_text_and_what_is_not_known_is_a_defect() {
        for message in [
            "canceling statement due to lock timeout",
            "could not extend file \"base/5/1259\": No space left on device",
            "could not write to file \"pg_wal/xlogtemp.7\": No space left on device",
            "deadlock detected",
            "out of memory",
            "the lease of server 01a2 is over",
        ] {
            assert!(passes(DatabaseErrorKind::Unknown, message), "{message}");
        }
        for message in [
            "breche Anfrage wegen Zeitüberschreitung einer Sperre ab",
            "invalid byte sequence for encoding \"UTF8\": 0x00",
            "division by zero",
        ] {
            assert!(!passes(DatabaseErrorKind::Unknown, message), "{message}");
        }
        let violation = DatabaseErrorKind::CheckViolation;
        assert!(!passes(violation, "a check of a connection"));
    }

    #[test]
    fn the_languages_that_are_understood_are_english() {
        for language in ["C", "C.UTF-8", "POSIX", "en_US.UTF-8", "en_GB", ""] {
            assert!(is_understood(language), "{language}");
        }
        for language in ["de_DE.UTF-8", "fr_FR", "cs_CZ.UTF-8"] {
            assert!(!is_understood(language), "{language}");
        }
    }
}
