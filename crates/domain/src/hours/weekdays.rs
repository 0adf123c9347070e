//! The days of the week, by the names they have on the wire, and sets of them.

use chrono::Weekday;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DayOfWeek {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl DayOfWeek {
    /// Every day, Monday first.
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    /// Reads [`DayOfWeek::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|day| day.as_str() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl From<Weekday> for DayOfWeek {
    fn from(day: Weekday) -> Self {
        match day {
            Weekday::Mon => Self::Mon,
            Weekday::Tue => Self::Tue,
            Weekday::Wed => Self::Wed,
            Weekday::Thu => Self::Thu,
            Weekday::Fri => Self::Fri,
            Weekday::Sat => Self::Sat,
            Weekday::Sun => Self::Sun,
        }
    }
}

/// Days of the week, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Weekdays(u8);

/// Why something is no set of weekdays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeekdaysError {
    /// No day at all.
    #[error("must name at least one day")]
    Empty,
    /// A name that no day has.
    #[error("must be of mon, tue, wed, thu, fri, sat and sun; there is no day {0:?}")]
    Unknown(String),
}

impl Weekdays {
    /// Every day of the week.
    pub const ALL: Self = Self(0b111_1111);

    /// These days; one that is named twice counts once.
    ///
    /// # Errors
    /// [`WeekdaysError::Empty`] if there is none.
    pub fn new(days: impl IntoIterator<Item = DayOfWeek>) -> Result<Self, WeekdaysError> {
        match days.into_iter().fold(0, |bits, day| bits | day.bit()) {
            0 => Err(WeekdaysError::Empty),
            bits => Ok(Self(bits)),
        }
    }

    /// The days of these names.
    ///
    /// # Errors
    /// [`WeekdaysError::Unknown`] for the first name that no day has, [`WeekdaysError::Empty`] if
    /// there is none.
    pub fn from_names<N: AsRef<str>>(
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, WeekdaysError> {
        let days: Result<Vec<_>, _> = names
            .into_iter()
            .map(|name| {
                let name = name.as_ref();
                DayOfWeek::from_name(name).ok_or_else(|| WeekdaysError::Unknown(name.to_owned()))
            })
            .collect();
        Self::new(days?)
    }

    /// Whether this is one of them.
    #[must_use]
    pub const fn contains(self, day: DayOfWeek) -> bool {
        self.0 & day.bit() != 0
    }

    /// They, Monday first.
    pub fn iter(self) -> impl Iterator<Item = DayOfWeek> {
        DayOfWeek::ALL
            .into_iter()
            .filter(move |day| self.contains(*day))
    }
}

impl Default for Weekdays {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_by_name_and_told_monday_first() {
        let days = Weekdays::from_names(["sun", "wed", "mon", "wed"]).expect("names of days");
        let names: Vec<_> = days.iter().map(DayOfWeek::as_str).collect();
        assert_eq!(names, ["mon", "wed", "sun"]);
        assert_eq!(Weekdays::new(DayOfWeek::ALL), Ok(Weekdays::ALL));
    }

    #[test]
    fn no_day_and_a_name_that_no_day_has_are_refused() {
        assert_eq!(Weekdays::new([]), Err(WeekdaysError::Empty));
        for name in ["Mon", "monday", ""] {
            assert_eq!(
                Weekdays::from_names(["tue", name]),
                Err(WeekdaysError::Unknown(name.to_owned()))
            );
        }
    }

    #[test]
    fn days_are_those_of_chrono() {
        let mut day = Weekday::Mon;
        for expected in DayOfWeek::ALL {
            assert_eq!(DayOfWeek::from(day), expected);
            day = day.succ();
        }
    }
}
