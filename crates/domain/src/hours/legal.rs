//! Hours that a law or a code of conduct leaves for calls nobody asked for.

use chrono::{Datelike, NaiveDateTime, NaiveTime};

use crate::DayOfWeek;

/// Hours for marketing calls in one jurisdiction, by the callee's clock.
///
/// A campaign's own hours count within them. They are no legal advice: whom a rule protects and
/// which calls it means is told with each, and stricter ones exist beside it, which a campaign's
/// hours, weekdays and holidays can say. None of them knows public holidays: these differ within
/// each country, so they belong among the campaign's holidays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LegalHours {
    /// United States: every day from 08:00 to 21:00.
    ///
    /// Law. 47 CFR § 64.1200(c)(1), the FCC's rule under the Telephone Consumer Protection Act of
    /// 1991 (47 U.S.C. § 227): no telephone solicitation to a residential subscriber "before the
    /// hour of 8 a.m. or after 9 p.m. (local time at the called party's location)"; § 64.1200(e)
    /// extends it to wireless numbers. Calls by invitation or permission, to one's customers and
    /// for tax-exempt organisations are no solicitations (§ 64.1200(f)). The FTC's Telemarketing
    /// Sales Rule, 16 CFR § 310.4(c), has the same hours. Several states allow less.
    Tcpa,
    /// United Kingdom: Monday to Friday from 08:00 to 21:00, Saturday from 09:00 to 21:00, nothing
    /// on Sunday.
    ///
    /// Guidance, not law: no British statute and no rule of Ofcom names hours. Ofcom's statement of
    /// policy on persistent misuse (20 December 2016, under section 131 of the Communications Act
    /// 2003) holds calls at unsociable hours to be more harmful without saying which those are, the
    /// Information Commissioner's guidance on direct marketing warns of "antisocial hours", and so
    /// does rule 1.4 of the DMA Code. The hours are those of the DMA's telemarketing guide as
    /// reported in 2017, which allows no calls on public holidays either: name those as the
    /// campaign's. Paragraph 21.41 of an older edition of the Code is reported to allow Sundays
    /// from 09:00; the stricter of the two is taken.
    Ofcom,
    /// India: every day from 09:00 to 21:00.
    ///
    /// The Telecom Regulatory Authority of India's Telecom Commercial Communications Customer
    /// Preference Regulations, 2010 (6 of 2010), forbade commercial communications between 21:00
    /// and 09:00. The regulations of 2018 replaced them (in force in steps from 19 July 2018); by
    /// their Schedule II a subscriber chooses among time bands (their edges are 06:00, 08:00, 10:00
    /// and so on to 18:00, and 21:00), weekdays and holidays. Whether they repeat the general ban
    /// could not be verified; the trade goes on with 09:00 to 21:00, and some of it with 10:00,
    /// where the next band begins. A subscriber's own choice goes further and is not known here.
    Trai,
}

impl LegalHours {
    /// Every jurisdiction.
    pub const ALL: [Self; 3] = [Self::Tcpa, Self::Ofcom, Self::Trai];

    /// The name used on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcpa => "tcpa",
            Self::Ofcom => "ofcom",
            Self::Trai => "trai",
        }
    }

    /// Reads [`LegalHours::as_str`] back.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|legal| legal.as_str() == name)
    }

    /// From when until when calls may be made on this day of the week, the end excluded.
    #[must_use]
    pub const fn hours_on(self, day: DayOfWeek) -> Option<(NaiveTime, NaiveTime)> {
        match (self, day) {
            (Self::Ofcom, DayOfWeek::Sun) => None,
            (Self::Ofcom, DayOfWeek::Sat) | (Self::Trai, _) => Some((NINE, NINE_IN_THE_EVENING)),
            (Self::Tcpa | Self::Ofcom, _) => Some((EIGHT, NINE_IN_THE_EVENING)),
        }
    }

    /// Whether calls may be made when the callee's clock shows this.
    pub(super) fn allows(self, shown: NaiveDateTime) -> bool {
        self.hours_on(shown.weekday().into())
            .is_some_and(|(first, last)| (first..last).contains(&shown.time()))
    }

    /// The times of a day at which the answer may change on some day of the week.
    pub(super) fn boundaries(self) -> impl Iterator<Item = NaiveTime> {
        [EIGHT, NINE, NINE_IN_THE_EVENING].into_iter()
    }
}

const EIGHT: NaiveTime = on_the_hour(8);
const NINE: NaiveTime = on_the_hour(9);
const NINE_IN_THE_EVENING: NaiveTime = on_the_hour(21);

/// This hour, taken modulo 24.
const fn on_the_hour(hour: u32) -> NaiveTime {
    match NaiveTime::from_hms_opt(hour % 24, 0, 0) {
        Some(time) => time,
        None => NaiveTime::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_jurisdiction_is_known_by_its_name() {
        for legal in LegalHours::ALL {
            assert_eq!(LegalHours::from_name(legal.as_str()), Some(legal));
        }
        assert_eq!(LegalHours::from_name("TCPA"), None);
    }

    #[test]
    fn the_hours_are_those_of_their_sources() {
        let shown = |text: &str| text.parse::<NaiveDateTime>().expect(text);
        let cases = [
            // 2026-06-05 is a Friday.
            ("2026-06-05T07:59:59", [false, false, false]),
            ("2026-06-05T08:00:00", [true, true, false]),
            ("2026-06-05T09:00:00", [true, true, true]),
            ("2026-06-05T20:59:59", [true, true, true]),
            ("2026-06-05T21:00:00", [false, false, false]),
            ("2026-06-06T08:30:00", [true, false, false]),
            ("2026-06-06T09:00:00", [true, true, true]),
            ("2026-06-06T20:59:59", [true, true, true]),
            ("2026-06-07T12:00:00", [true, false, true]),
        ];
        for (text, expected) in cases {
            let allowed = LegalHours::ALL.map(|legal| legal.allows(shown(text)));
            assert_eq!(allowed, expected, "{text}");
        }
    }

    #[test]
    fn the_answer_changes_at_boundaries_only() {
        for legal in LegalHours::ALL {
            let boundaries: Vec<_> = legal.boundaries().collect();
            for (first, last) in DayOfWeek::ALL
                .into_iter()
                .filter_map(|day| legal.hours_on(day))
            {
                assert!(boundaries.contains(&first) && boundaries.contains(&last));
            }
        }
    }
}
