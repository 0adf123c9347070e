//! What the clock on a wall shows, and when it shows something else.

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// The date and time that a clock in this zone shows. None at the ends of time, where it would
/// show what cannot be told.
pub(super) fn shows(zone: Tz, at: DateTime<Utc>) -> Option<NaiveDateTime> {
    let utc = at.naive_utc();
    utc.checked_add_offset(zone.offset_from_utc_datetime(&utc).fix())
}

/// The beginning of this second.
pub(super) fn whole_second(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(at.timestamp(), 0).unwrap_or(at)
}

/// When the clock will have gone on for `span`, or has been changed before: the first instant at
/// which it is. `from` and `span` are whole seconds, and `span` a day at most; since 1970 no
/// zone has changed its clock and changed it back within a day.
pub(super) fn reaches(zone: Tz, from: DateTime<Utc>, span: TimeDelta) -> Option<DateTime<Utc>> {
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    let before = offset(from);
    let end = from.checked_add_signed(span)?;
    if offset(end) == before {
        return Some(end);
    }
    // The change is after `same` and not after `changed`.
    let (mut same, mut changed) = (0, span.num_seconds());
    while changed - same > 1 {
        let middle = same + (changed - same) / 2;
        if offset(from.checked_add_signed(TimeDelta::seconds(middle))?) == before {
            same = middle;
        } else {
            changed = middle;
        }
    }
    from.checked_add_signed(TimeDelta::seconds(changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_clock_is_found_to_the_second() {
        let instant = |text: &str| text.parse::<DateTime<Utc>>().expect(text);
        let six_hours = TimeDelta::hours(6);
        for (zone, from, expected) in [
            // The clocks go forward at 01:00 UTC.
            (
                Tz::Europe__Berlin,
                "2026-03-28T23:00:00Z",
                "2026-03-29T01:00:00Z",
            ),
            (
                Tz::Europe__Berlin,
                "2026-03-28T19:00:00Z",
                "2026-03-29T01:00:00Z",
            ),
            (
                Tz::Europe__Berlin,
                "2026-03-28T18:59:59Z",
                "2026-03-29T00:59:59Z",
            ),
            (
                Tz::Europe__Berlin,
                "2026-03-29T01:00:00Z",
                "2026-03-29T07:00:00Z",
            ),
            // An hour that was 44 minutes and a half longer.
            (
                Tz::Africa__Monrovia,
                "1972-01-07T00:00:00Z",
                "1972-01-07T00:44:30Z",
            ),
        ] {
            assert_eq!(
                reaches(zone, instant(from), six_hours),
                Some(instant(expected)),
                "{zone} from {from}"
            );
        }
    }
}
