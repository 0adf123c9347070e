//! Hours, zones and instants with the windows they must have, as a table.
//!
//! The windows in `cases.txt` were found by a program that shares nothing with this one: it asks
//! Python's `zoneinfo` what the clock shows at every half minute, and the definition whether that
//! is open.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use chrono_tz::Tz;

use super::{CallingHours, LegalHours, OpenWindow, Weekdays};

/// `hours | zone | at | opens | closes`. `open` means that `at` itself is open.
const CASES: &str = include_str!("cases.txt");

fn date(text: &str) -> NaiveDate {
    text.parse().expect(text)
}

fn instant(text: &str) -> DateTime<Utc> {
    text.parse().expect(text)
}

/// `first-last`, then `from`, `to`, `on`, `not` and `law`, each with its value.
fn hours(text: &str) -> CallingHours {
    let mut words = text.split_whitespace();
    let daily = words.next().expect("the daily window");
    let (first, last) = daily.split_once('-').expect("first-last");
    let time = |text| NaiveTime::parse_from_str(text, "%H:%M").expect(text);
    let options: Vec<_> = words.collect();
    let value = |name| {
        let option = options.chunks(2).find(|option| option[0] == name);
        option.map(|option| option[1])
    };
    let start = date(value("from").unwrap_or("1970-01-01"));
    let mut hours = CallingHours::new(time(first), time(last), start).expect(text);
    if let Some(end) = value("to") {
        hours = hours.until(date(end)).expect(text);
    }
    if let Some(days) = value("on") {
        hours = hours.on(Weekdays::from_names(days.split(',')).expect(text));
    }
    if let Some(dates) = value("not") {
        hours = hours.except(dates.split(',').map(date).collect());
    }
    if let Some(law) = value("law") {
        hours = hours.within(LegalHours::from_name(law).expect(text));
    }
    hours
}

#[test]
fn every_case_of_the_table_has_its_window() {
    let rows = CASES.lines().filter(|line| !line.starts_with('#'));
    let mut seen = 0;
    for row in rows {
        let columns: Vec<_> = row.split('|').map(str::trim).collect();
        let [daily, zone, at, opens, closes] = columns[..] else {
            panic!("not five columns: {row}");
        };
        let (hours, zone) = (hours(daily), zone.parse::<Tz>().expect(zone));
        let at = instant(at);
        let expected = (opens != "never").then(|| OpenWindow {
            opens_at: if opens == "open" { at } else { instant(opens) },
            closes_at: (closes != "-").then(|| instant(closes)),
        });
        assert_eq!(hours.next_window(zone, at), expected, "{row}");
        assert_eq!(hours.is_open(zone, at), opens == "open", "{row}");
        seen += 1;
    }
    assert!(seen > 100, "only {seen} cases were read");
}
