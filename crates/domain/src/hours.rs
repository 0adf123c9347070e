//! When a campaign may call: hours of the day, weekdays, dates, holidays and legal hours, as the
//! clock on the callee's wall shows them.
//!
//! Everything is defined point by point, by [`CallingHours::is_open`]; the windows that
//! [`CallingHours::next_window`] finds are the runs of instants at which that is true. So nothing
//! needs a rule of its own when clocks are changed: an hour that is skipped is not there, and one
//! that comes twice is open twice.
//!
//! ```
//! use callq_domain::{CallingHours, LegalHours, Weekdays};
//! use chrono_tz::Europe::Berlin;
//!
//! let hours = CallingHours::new("09:00:00".parse()?, "18:00:00".parse()?, "2026-03-01".parse()?)?
//!     .on(Weekdays::from_names(["mon", "fri"])?)
//!     .within(LegalHours::Ofcom);
//! let window = hours.next_window(Berlin, "2026-03-27T20:00:00Z".parse()?).expect("on Monday");
//! assert_eq!(window.opens_at.to_string(), "2026-03-30 07:00:00 UTC");
//! assert_eq!(window.closes_at.expect("it closes").to_string(), "2026-03-30 16:00:00 UTC");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::cmp::Ordering;
use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;

mod clock;
mod legal;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod table_tests;
mod weekdays;
mod zone_of_number;

pub use legal::LegalHours;
pub use weekdays::{DayOfWeek, Weekdays, WeekdaysError};
pub use zone_of_number::{zone_of_contact, zone_of_number};

/// The hours of a campaign, in whichever zone they are asked about.
///
/// At an instant let the clock of the zone show a date and a time. The instant is open if all of
/// these hold.
///
/// - It lies in the daily window. If `first` is before `last`, that is from `first` to `last`,
///   `last` excluded, and the window's day is the date. If `first` is after `last`, the window
///   goes over midnight: from `first` on its day is the date, before `last` it is the day before.
///   If they are equal, the window is the whole date.
/// - The window's day is one of the weekdays, not before the start date, not after the end date.
/// - The date is no holiday. A window over midnight is cut at the midnight of a holiday; one that
///   began on a holiday goes on at its end.
/// - The legal hours, if there are any, allow the date and time as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallingHours {
    first: NaiveTime,
    last: NaiveTime,
    weekdays: Weekdays,
    start_date: NaiveDate,
    end_date: Option<NaiveDate>,
    holidays: BTreeSet<NaiveDate>,
    legal: Option<LegalHours>,
}

/// Why something is no calling hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallingHoursError {
    /// A time of day with a fraction of a second, or a leap second.
    #[error("first_call_time and last_call_time must be whole seconds of a day")]
    NotWholeSeconds,
    /// The last day comes before the first.
    #[error("end_date must not be before start_date")]
    EndsBeforeStart,
}

/// A time during which calls may be made, without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenWindow {
    /// The first instant at which calls may be made that is not before the instant asked about: if
    /// that one is open itself, it is this one, and the window may have begun before.
    pub opens_at: DateTime<Utc>,
    /// The first instant after that at which no call may be made. None if that is not within
    /// [`CallingHours::HORIZON_DAYS`] of `opens_at`, or never comes.
    pub closes_at: Option<DateTime<Utc>>,
}

impl CallingHours {
    /// How many days ahead the end of a window is looked for; and its beginning, counted from the
    /// instant asked about, the start date or the last holiday, whichever is latest.
    pub const HORIZON_DAYS: i64 = 400;

    /// Every day from `start_date` on, from `first` to `last`.
    ///
    /// # Errors
    /// [`CallingHoursError::NotWholeSeconds`] if one of the times is none.
    pub fn new(
        first: NaiveTime,
        last: NaiveTime,
        start_date: NaiveDate,
    ) -> Result<Self, CallingHoursError> {
        if first.nanosecond() != 0 || last.nanosecond() != 0 {
            return Err(CallingHoursError::NotWholeSeconds);
        }
        Ok(Self {
            first,
            last,
            weekdays: Weekdays::ALL,
            start_date,
            end_date: None,
            holidays: BTreeSet::new(),
            legal: None,
        })
    }

    /// The same up to the window that begins on `end_date`.
    ///
    /// # Errors
    /// [`CallingHoursError::EndsBeforeStart`] if that is before the start date.
    pub fn until(mut self, end_date: NaiveDate) -> Result<Self, CallingHoursError> {
        if end_date < self.start_date {
            return Err(CallingHoursError::EndsBeforeStart);
        }
        self.end_date = Some(end_date);
        Ok(self)
    }

    /// The same with windows that begin on these weekdays only.
    #[must_use]
    pub fn on(mut self, weekdays: Weekdays) -> Self {
        self.weekdays = weekdays;
        self
    }

    /// The same with nothing on these dates.
    #[must_use]
    pub fn except(mut self, holidays: BTreeSet<NaiveDate>) -> Self {
        self.holidays = holidays;
        self
    }

    /// The same within these legal hours.
    #[must_use]
    pub fn within(mut self, legal: LegalHours) -> Self {
        self.legal = Some(legal);
        self
    }

    /// Whether calls may be made at this instant to somebody in this zone.
    #[must_use]
    pub fn is_open(&self, zone: Tz, at: DateTime<Utc>) -> bool {
        clock::shows(zone, at).is_some_and(|shown| self.allows(shown))
    }

    /// The time from `at` on during which calls may be made, or else the next one. None if there
    /// is none any more: the campaign is over in this zone, or its hours never meet the legal
    /// ones, or no time in the horizon is open.
    ///
    /// It looks at a few instants for each day that it passes, and passes closed days only while
    /// there are holidays or weekdays without hours.
    #[must_use]
    pub fn next_window(&self, zone: Tz, at: DateTime<Utc>) -> Option<OpenWindow> {
        if !self.opens_in_some_week() {
            return None;
        }
        let from = clock::whole_second(at).max(self.nothing_before());
        let opens = self
            .edges(zone, from, self.nothing_after(from))
            .find(|edge| self.is_open(zone, *edge))?;
        let closes = self
            .edges(zone, opens, in_days(opens, Self::HORIZON_DAYS))
            .find(|edge| !self.is_open(zone, *edge));
        Some(OpenWindow {
            opens_at: opens.max(at),
            closes_at: closes,
        })
    }

    /// The definition.
    fn allows(&self, shown: NaiveDateTime) -> bool {
        self.allows_in_some_week(shown)
            && self.window_day(shown).is_some_and(|day| {
                self.start_date <= day && self.end_date.is_none_or(|end_date| day <= end_date)
            })
            && !self.holidays.contains(&shown.date())
    }

    /// The definition, but for what differs from one week to the next: dates and holidays.
    fn allows_in_some_week(&self, shown: NaiveDateTime) -> bool {
        self.window_day(shown)
            .is_some_and(|day| self.weekdays.contains(day.weekday().into()))
            && self.legal.is_none_or(|legal| legal.allows(shown))
    }

    /// The day of the daily window that holds this date and time.
    fn window_day(&self, shown: NaiveDateTime) -> Option<NaiveDate> {
        let (date, time) = (shown.date(), shown.time());
        match self.first.cmp(&self.last) {
            Ordering::Less => (self.first <= time && time < self.last).then_some(date),
            Ordering::Equal => Some(date),
            Ordering::Greater if self.first <= time => Some(date),
            Ordering::Greater if time < self.last => date.pred_opt(),
            Ordering::Greater => None,
        }
    }

    /// The times of a day at which the definition may change its answer.
    fn boundaries(&self) -> impl Iterator<Item = NaiveTime> {
        let legal = self.legal.map(LegalHours::boundaries);
        [NaiveTime::MIN, self.first, self.last]
            .into_iter()
            .chain(legal.into_iter().flatten())
    }

    /// Whether there is an open time in a week without holidays. Between two boundaries nothing
    /// changes, so it is enough to look at them.
    fn opens_in_some_week(&self) -> bool {
        self.start_date.iter_days().take(7).any(|date| {
            self.boundaries()
                .any(|time| self.allows_in_some_week(date.and_time(time)))
        })
    }

    /// An instant before which the start date has come nowhere.
    fn nothing_before(&self) -> DateTime<Utc> {
        in_days(midnight(self.start_date), -2)
    }

    /// An instant from which nothing opens any more, seen from `from`.
    fn nothing_after(&self, from: DateTime<Utc>) -> DateTime<Utc> {
        let last_holiday = self.holidays.last().copied().map(midnight);
        let horizon = in_days(
            last_holiday.map_or(from, |holiday| holiday.max(from)),
            Self::HORIZON_DAYS,
        );
        match self.end_date {
            // Its window may go on over midnight, and no clock is a whole day behind UTC.
            Some(end_date) => in_days(midnight(end_date), 3).min(horizon),
            None => horizon,
        }
    }

    /// `from`, and the instants after it and before `until` at which the answer may change.
    fn edges(
        &self,
        zone: Tz,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(Some(from), move |edge| {
            let shown = clock::shows(zone, *edge)?;
            let boundary = self.next_boundary(shown)?;
            clock::reaches(zone, *edge, boundary - shown)
        })
        .take_while(move |edge| *edge < until)
    }

    /// The first boundary after this date and time, on a clock that is not changed.
    fn next_boundary(&self, shown: NaiveDateTime) -> Option<NaiveDateTime> {
        let today = self.boundaries().filter(|time| *time > shown.time()).min();
        match today {
            Some(time) => Some(shown.date().and_time(time)),
            None => Some(shown.date().succ_opt()?.and_time(NaiveTime::MIN)),
        }
    }
}

fn midnight(date: NaiveDate) -> DateTime<Utc> {
    date.and_time(NaiveTime::MIN).and_utc()
}

/// So many days of 24 hours later, or as late or early as an instant can be.
fn in_days(at: DateTime<Utc>, days: i64) -> DateTime<Utc> {
    at.checked_add_signed(TimeDelta::days(days))
        .unwrap_or(if days < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> NaiveTime {
        text.parse().expect(text)
    }

    fn date(text: &str) -> NaiveDate {
        text.parse().expect(text)
    }

    fn instant(text: &str) -> DateTime<Utc> {
        text.parse().expect(text)
    }

    fn always() -> CallingHours {
        let midnight = NaiveTime::MIN;
        CallingHours::new(midnight, midnight, date("2026-01-01")).expect("whole seconds")
    }

    #[test]
    fn times_with_fractions_and_an_end_before_the_start_are_refused() {
        let (start, nine) = (date("2026-01-01"), time("09:00:00"));
        for odd in ["09:00:00.5", "23:59:60"] {
            let error = Err(CallingHoursError::NotWholeSeconds);
            assert_eq!(CallingHours::new(time(odd), nine, start), error, "{odd}");
            assert_eq!(CallingHours::new(nine, time(odd), start), error, "{odd}");
        }
        assert_eq!(
            always().until(date("2025-12-31")),
            Err(CallingHoursError::EndsBeforeStart)
        );
        assert!(always().until(start).is_ok());
    }

    #[test]
    fn seconds_and_their_fractions_count() {
        let hours = CallingHours::new(time("09:00:07"), time("09:00:09"), date("2026-01-01"))
            .expect("whole seconds");
        let (opens, closes) = (
            instant("2026-06-01T09:00:07Z"),
            instant("2026-06-01T09:00:09Z"),
        );
        for (at, open) in [
            ("2026-06-01T09:00:06.999999999Z", false),
            ("2026-06-01T09:00:07Z", true),
            ("2026-06-01T09:00:08.999999999Z", true),
            ("2026-06-01T09:00:09Z", false),
        ] {
            assert_eq!(hours.is_open(Tz::UTC, instant(at)), open, "{at}");
        }
        let within = instant("2026-06-01T09:00:08.25Z");
        for (at, opens_at) in [
            ("2026-06-01T09:00:06.5Z", opens),
            ("2026-06-01T09:00:08.25Z", within),
        ] {
            let window = hours.next_window(Tz::UTC, instant(at)).expect(at);
            assert_eq!(
                (window.opens_at, window.closes_at),
                (opens_at, Some(closes))
            );
        }
    }

    #[test]
    fn what_never_closes_and_what_closes_beyond_the_horizon_have_no_end() {
        let at = instant("2026-06-01T12:00:00Z");
        let open = |closes_at| {
            Some(OpenWindow {
                opens_at: at,
                closes_at,
            })
        };
        assert_eq!(always().next_window(Tz::UTC, at), open(None));
        let far = always().until(date("9999-12-31")).expect("later");
        assert_eq!(far.next_window(Tz::UTC, at), open(None));
        let near = always().until(date("2026-12-31")).expect("later");
        assert_eq!(
            near.next_window(Tz::UTC, at),
            open(Some(instant("2027-01-01T00:00:00Z")))
        );
    }

    #[test]
    fn hours_that_never_meet_the_legal_ones_have_no_window() {
        let night = CallingHours::new(time("22:00:00"), time("06:00:00"), date("2026-01-01"))
            .expect("whole seconds");
        let sunday = Weekdays::new([DayOfWeek::Sun]).expect("a day");
        let at = instant("2026-06-01T12:00:00Z");
        for law in LegalHours::ALL {
            assert_eq!(night.clone().within(law).next_window(Tz::UTC, at), None);
        }
        let sundays = always().on(sunday);
        assert!(sundays.next_window(Tz::UTC, at).is_some());
        let british = sundays.within(LegalHours::Ofcom);
        assert_eq!(british.next_window(Tz::UTC, at), None);
    }

    #[test]
    fn a_start_that_is_far_off_and_years_of_holidays_are_found_their_end() {
        let at = instant("2026-06-01T12:00:00Z");
        let late = CallingHours::new(time("09:00:00"), time("18:00:00"), date("3000-01-01"))
            .expect("whole seconds");
        let window = late.next_window(Tz::UTC, at).expect("in 3000");
        assert_eq!(window.opens_at, instant("3000-01-01T09:00:00Z"));

        let sunday = Weekdays::new([DayOfWeek::Sun]).expect("a day");
        let ten_years = date("2026-06-07").iter_weeks().take(520).collect();
        let sundays = always().on(sunday).except(ten_years);
        let window = sundays.next_window(Tz::UTC, at).expect("in ten years");
        assert_eq!(window.opens_at, instant("2036-05-25T00:00:00Z"));
    }

    #[test]
    fn the_ends_of_time_are_no_defect() {
        let (past, future) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        for (zone, can_be_told) in [
            (Tz::Pacific__Kiritimati, false),
            (Tz::Pacific__Pago_Pago, true),
        ] {
            assert!(!always().is_open(zone, past));
            assert_eq!(always().is_open(zone, future), can_be_told);
            assert!(always().next_window(zone, past).is_some());
            let window = always().next_window(zone, future);
            assert_eq!(
                window.map(|window| window.closes_at),
                can_be_told.then_some(None)
            );
        }
    }
}
