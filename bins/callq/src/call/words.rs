//! Times, spans and servers as an operator reads them.

use callq_domain::ServerId;
use chrono::{DateTime, TimeDelta, Utc};

/// A moment, UTC, to the millisecond.
pub(super) fn moment(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// How long something took, as exactly as one cares.
pub(super) fn span(length: TimeDelta) -> String {
    let ms = length.num_milliseconds().max(0);
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms} ms"),
        1..60 => format!("{seconds}.{} s", ms % 1_000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// The end of a server's id: the beginning is a time, which servers started together share.
pub(super) fn short(server: ServerId) -> String {
    let id = server.to_string();
    format!("…{}", id.get(id.len().saturating_sub(8)..).unwrap_or(&id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_as_exactly_as_one_cares() {
        for (ms, words) in [
            (-5, "0 ms"),
            (8, "8 ms"),
            (1_000, "1.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min 0 s"),
            (3_725_000, "1 h 2 min"),
            (200_000_000, "2 d 7 h"),
        ] {
            assert_eq!(span(TimeDelta::milliseconds(ms)), words);
        }
    }
}
