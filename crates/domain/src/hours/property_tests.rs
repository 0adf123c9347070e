//! Random hours around changes of the clock, held against a search minute by minute and against
//! the definition in other words.

use std::collections::BTreeSet;
use std::ops::Range;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};
use chrono_tz::Tz;
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{CallingHours, DayOfWeek, LegalHours, OpenWindow, Weekdays};

/// How far the search by minutes goes.
const MINUTES: i64 = 3 * 24 * 60;

/// Zones, each with an instant at which its clock was or will be changed, or with an odd offset.
const CHANGES: [(Tz, &str); 18] = [
    (Tz::UTC, "2026-06-03T00:00:00Z"),
    (Tz::Asia__Kathmandu, "2026-06-02T18:15:00Z"),
    (Tz::Asia__Kathmandu, "1985-12-31T18:30:00Z"),
    (Tz::Pacific__Kiritimati, "1994-12-31T10:40:00Z"),
    (Tz::Pacific__Apia, "2011-12-30T10:00:00Z"),
    (Tz::Europe__Berlin, "2026-03-29T01:00:00Z"),
    (Tz::Europe__Berlin, "2026-10-25T01:00:00Z"),
    (Tz::America__New_York, "2026-03-08T07:00:00Z"),
    (Tz::America__New_York, "2026-11-01T06:00:00Z"),
    (Tz::America__St_Johns, "2011-03-13T03:31:00Z"),
    (Tz::America__St_Johns, "2010-11-07T02:31:00Z"),
    (Tz::America__Santiago, "2026-04-05T03:00:00Z"),
    (Tz::America__Santiago, "2026-09-06T04:00:00Z"),
    (Tz::Australia__Lord_Howe, "2026-04-04T15:00:00Z"),
    (Tz::Australia__Lord_Howe, "2026-10-03T15:30:00Z"),
    (Tz::Africa__Cairo, "2026-10-29T21:00:00Z"),
    (Tz::Africa__Casablanca, "2026-03-22T02:00:00Z"),
    (Tz::Asia__Pyongyang, "2018-05-04T15:00:00Z"),
];

/// Hours as they were asked for.
#[derive(Debug, Clone)]
struct Asked {
    first: NaiveTime,
    last: NaiveTime,
    days: Vec<DayOfWeek>,
    start: NaiveDate,
    end: Option<NaiveDate>,
    holidays: BTreeSet<NaiveDate>,
    law: Option<LegalHours>,
}

impl Asked {
    fn hours(&self) -> CallingHours {
        let mut hours = CallingHours::new(self.first, self.last, self.start)
            .expect("whole minutes")
            .on(Weekdays::new(self.days.iter().copied()).expect("a day"))
            .except(self.holidays.clone());
        if let Some(end) = self.end {
            hours = hours.until(end).expect("after the start");
        }
        match self.law {
            Some(law) => hours.within(law),
            None => hours,
        }
    }

    /// The definition in other words: some day on which a window begins has one, from one date and
    /// time to another, in which the clock is.
    fn is_open(&self, zone: Tz, at: DateTime<Utc>) -> bool {
        let shown = at.with_timezone(&zone).naive_local();
        let begun = self.start.iter_days().take_while(|day| {
            *day <= shown.date() && self.end.is_none_or(|end_date| *day <= end_date)
        });
        let lawful = |law: LegalHours| {
            let hours = law.hours_on(shown.weekday().into());
            hours.is_some_and(|(first, last)| first <= shown.time() && shown.time() < last)
        };
        begun
            .filter(|day| self.days.contains(&day.weekday().into()))
            .any(|day| self.window(day).contains(&shown))
            && !self.holidays.contains(&shown.date())
            && self.law.is_none_or(lawful)
    }

    fn window(&self, day: NaiveDate) -> Range<NaiveDateTime> {
        let next = day + Days::new(1);
        if self.first == self.last {
            day.and_time(NaiveTime::MIN)..next.and_time(NaiveTime::MIN)
        } else if self.first < self.last {
            day.and_time(self.first)..day.and_time(self.last)
        } else {
            day.and_time(self.first)..next.and_time(self.last)
        }
    }
}

/// Often a time at which clocks are changed, else any minute.
fn time() -> impl Strategy<Value = NaiveTime> {
    let quarters =
        (0..16_u32, 0..4_u32).prop_map(|(hour, quarter)| ((hour + 20) % 24, quarter * 15));
    let any = (0..24_u32, 0..60_u32);
    prop_oneof![3 => quarters.boxed(), 1 => any.boxed()]
        .prop_map(|(hour, minute)| NaiveTime::from_hms_opt(hour, minute, 0).expect("of a day"))
}

/// Hours that begin, end and pause within a few days of `around`.
fn asked(around: NaiveDate) -> impl Strategy<Value = Asked> {
    let day = move |days: i64| around + TimeDelta::days(days);
    let weekdays = prop_oneof![
        Just(DayOfWeek::ALL.to_vec()),
        subsequence(DayOfWeek::ALL.to_vec(), 1..=6),
    ];
    (
        time(),
        time(),
        weekdays,
        -6..2_i64,
        proptest::option::weighted(0.3, 0..6_i64),
        btree_set(-3..4_i64, 0..3),
        proptest::option::weighted(0.3, select(&LegalHours::ALL[..])),
    )
        .prop_map(
            move |(first, last, days, start, length, holidays, law)| Asked {
                first,
                last,
                days,
                start: day(start),
                end: length.map(|length| day(start + length)),
                holidays: holidays.into_iter().map(day).collect(),
                law,
            },
        )
}

fn scene() -> impl Strategy<Value = (Asked, Tz, DateTime<Utc>)> {
    (select(&CHANGES[..]), -2 * 24 * 60..12 * 60_i64).prop_flat_map(|((zone, change), minutes)| {
        let change: DateTime<Utc> = change.parse().expect(change);
        let around = change.with_timezone(&zone).date_naive();
        let at = change + TimeDelta::minutes(minutes);
        (asked(around), Just(zone), Just(at))
    })
}

/// The window as far as a search from minute to minute sees it.
fn by_minutes(hours: &CallingHours, zone: Tz, at: DateTime<Utc>) -> Option<OpenWindow> {
    let mut instants = (0..MINUTES).map(|minutes| at + TimeDelta::minutes(minutes));
    let opens_at = instants.find(|instant| hours.is_open(zone, *instant))?;
    let closes_at = instants.find(|instant| !hours.is_open(zone, *instant));
    Some(OpenWindow {
        opens_at,
        closes_at,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn windows_are_those_of_a_search_minute_by_minute((asked, zone, at) in scene()) {
        let hours = asked.hours();
        let seen_until = at + TimeDelta::minutes(MINUTES);
        let found = hours.next_window(zone, at);
        match by_minutes(&hours, zone, at) {
            Some(seen) => {
                let found = found.expect("one was seen");
                prop_assert_eq!(found.opens_at, seen.opens_at);
                prop_assert_eq!(found.closes_at.filter(|closes| *closes < seen_until), seen.closes_at);
            }
            None => prop_assert!(found.is_none_or(|found| found.opens_at >= seen_until)),
        }
    }

    #[test]
    fn an_instant_is_open_if_a_window_that_began_on_some_day_holds_it((asked, zone, at) in scene()) {
        let hours = asked.hours();
        for hour in 0..60 {
            let at = at + TimeDelta::minutes(hour * 53);
            prop_assert_eq!(hours.is_open(zone, at), asked.is_open(zone, at), "at {}", at);
        }
    }

    #[test]
    fn windows_follow_one_another_without_an_open_instant_between((asked, zone, at) in scene()) {
        let hours = asked.hours();
        let mut at = at;
        for _ in 0..8 {
            let Some(window) = hours.next_window(zone, at) else { break };
            prop_assert!(at <= window.opens_at && hours.is_open(zone, window.opens_at));
            let Some(closes_at) = window.closes_at else { break };
            prop_assert!(window.opens_at < closes_at && !hours.is_open(zone, closes_at));
            prop_assert!(hours.is_open(zone, closes_at - TimeDelta::nanoseconds(1)));
            at = closes_at;
        }
    }
}
