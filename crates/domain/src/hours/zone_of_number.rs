//! The time zone of a telephone number, for a contact that names none.

use chrono_tz::Tz;

use crate::PhoneNumber;

use area_codes::AREA_CODES;
use calling_codes::CALLING_CODES;

mod area_codes;
mod calling_codes;

/// The time zone in which a number of this kind is at home, or None if its country or its area code
/// has several, or it belongs to no place.
///
/// It says where the number was given out. Somebody who moved and kept the number lives elsewhere,
/// so a contact's own zone is better where it is known.
///
/// ```
/// use callq_domain::zone_of_number;
/// use chrono_tz::Tz;
///
/// assert_eq!(zone_of_number(&"+442079460958".parse()?), Some(Tz::Europe__London));
/// assert_eq!(zone_of_number(&"+14155552671".parse()?), Some(Tz::America__Los_Angeles));
/// // The panhandle of Florida has two zones, and Australia several.
/// assert_eq!(zone_of_number(&"+18505552671".parse()?), None);
/// assert_eq!(zone_of_number(&"+61291234567".parse()?), None);
/// # Ok::<(), callq_domain::PhoneNumberError>(())
/// ```
#[must_use]
pub fn zone_of_number(number: &PhoneNumber) -> Option<Tz> {
    let digits = number.as_str().strip_prefix('+')?;
    match digits.strip_prefix('1') {
        Some(american) => zone_of_area_code(american.get(..3)?.parse().ok()?),
        None => zone_of_calling_code(digits),
    }
}

/// The time zone of a contact: the one it names, or else that of its number. None if neither is
/// known.
///
/// ```
/// use callq_domain::zone_of_contact;
/// use chrono_tz::Tz;
///
/// let number = "+14155552671".parse()?;
/// assert_eq!(zone_of_contact(Some("Asia/Tokyo"), &number), Some(Tz::Asia__Tokyo));
/// assert_eq!(zone_of_contact(None, &number), Some(Tz::America__Los_Angeles));
/// # Ok::<(), callq_domain::PhoneNumberError>(())
/// ```
#[must_use]
pub fn zone_of_contact(named: Option<&str>, number: &PhoneNumber) -> Option<Tz> {
    named
        .and_then(|name| name.parse().ok())
        .or_else(|| zone_of_number(number))
}

fn zone_of_area_code(code: u16) -> Option<Tz> {
    AREA_CODES
        .iter()
        .find(|(_, codes)| codes.contains(&code))
        .map(|(zone, _)| *zone)
}

/// By the longest code with which these digits begin.
fn zone_of_calling_code(digits: &str) -> Option<Tz> {
    (1..=digits.len()).rev().find_map(|length| {
        let code = digits.get(..length)?;
        let found = CALLING_CODES.binary_search_by_key(&code, |(code, _)| code);
        CALLING_CODES.get(found.ok()?).map(|(_, zone)| *zone)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rlibphonenumber::PHONE_NUMBER_UTIL;

    use super::*;

    #[test]
    fn known_numbers_have_the_zones_they_are_known_for() {
        for (number, zone) in [
            ("+12125552368", Some(Tz::America__New_York)),
            ("+13055552368", Some(Tz::America__New_York)),
            ("+14075552368", Some(Tz::America__New_York)),
            ("+16895552368", Some(Tz::America__New_York)),
            ("+13125552368", Some(Tz::America__Chicago)),
            ("+12145552368", Some(Tz::America__Chicago)),
            ("+19155552368", Some(Tz::America__Denver)),
            ("+13035552368", Some(Tz::America__Denver)),
            ("+16025552368", Some(Tz::America__Phoenix)),
            ("+14155552671", Some(Tz::America__Los_Angeles)),
            ("+17025552368", Some(Tz::America__Los_Angeles)),
            ("+18085552368", Some(Tz::Pacific__Honolulu)),
            ("+14165552368", Some(Tz::America__Toronto)),
            ("+16045552368", Some(Tz::America__Vancouver)),
            ("+14035552368", Some(Tz::America__Edmonton)),
            ("+12045552368", Some(Tz::America__Winnipeg)),
            ("+19025552368", Some(Tz::America__Halifax)),
            ("+17875552368", Some(Tz::America__Puerto_Rico)),
            ("+18765552368", Some(Tz::America__Jamaica)),
            ("+16715552368", Some(Tz::Pacific__Guam)),
            ("+442079460958", Some(Tz::Europe__London)),
            ("+447911123456", Some(Tz::Europe__London)),
            ("+4930901820", Some(Tz::Europe__Berlin)),
            ("+33142685300", Some(Tz::Europe__Paris)),
            ("+390669812345", Some(Tz::Europe__Rome)),
            ("+919876543210", Some(Tz::Asia__Kolkata)),
            ("+9779841234567", Some(Tz::Asia__Kathmandu)),
            ("+81312345678", Some(Tz::Asia__Tokyo)),
            ("+8613812345678", Some(Tz::Asia__Shanghai)),
            ("+541123456789", Some(Tz::America__Argentina__Buenos_Aires)),
            ("+902123456789", Some(Tz::Europe__Istanbul)),
            ("+77012345678", Some(Tz::Asia__Almaty)),
            ("+2348031234567", Some(Tz::Africa__Lagos)),
            ("+27821234567", Some(Tz::Africa__Johannesburg)),
            ("+97239123456", Some(Tz::Asia__Jerusalem)),
            ("+6857212345", Some(Tz::Pacific__Apia)),
            ("+3834412345", Some(Tz::Europe__Belgrade)),
            // Area codes with two zones, and codes of no place.
            ("+18505552368", None),
            ("+14485552368", None),
            ("+12085552368", None),
            ("+19075552368", None),
            ("+12505552368", None),
            ("+17785552368", None),
            ("+18005552368", None),
            ("+19005552368", None),
            // Countries with several clocks, and codes of no country.
            ("+61291234567", None),
            ("+79161234567", None),
            ("+5511961234567", None),
            ("+525512345678", None),
            ("+34612345678", None),
            ("+351912345678", None),
            ("+6281234567890", None),
            ("+80012345678", None),
            ("+882161234567", None),
        ] {
            let number = PhoneNumber::from_trusted(number);
            assert_eq!(zone_of_number(&number), zone, "{}", number.as_str());
        }
    }

    #[test]
    fn a_contact_has_the_zone_it_names_or_that_of_its_number() {
        let [american, toll_free] = ["+14155552671", "+18005552368"].map(PhoneNumber::from_trusted);
        let tokyo = Some(Tz::Asia__Tokyo);
        assert_eq!(zone_of_contact(Some("Asia/Tokyo"), &american), tokyo);
        assert_eq!(zone_of_contact(Some("Asia/Tokyo"), &toll_free), tokyo);
        let los_angeles = Some(Tz::America__Los_Angeles);
        assert_eq!(zone_of_contact(None, &american), los_angeles);
        assert_eq!(
            zone_of_contact(Some("Mars/Olympus"), &american),
            los_angeles
        );
        assert_eq!(zone_of_contact(None, &toll_free), None);
    }

    #[test]
    fn no_area_code_is_named_twice() {
        let codes = || AREA_CODES.iter().flat_map(|(_, codes)| *codes);
        let different: BTreeSet<_> = codes().collect();
        assert_eq!(different.len(), codes().count());
        assert!(codes().all(|code| (201..=989).contains(code)));
    }

    #[test]
    fn calling_codes_are_sorted_and_there_are_such_countries() {
        assert!(CALLING_CODES.is_sorted_by(|(one, _), (next, _)| one < next));
        let known: BTreeSet<_> = PHONE_NUMBER_UTIL
            .get_supported_calling_codes()
            .map(|code| code.to_string())
            .collect();
        for (code, _) in CALLING_CODES {
            let country = (1..=code.len()).any(|length| known.contains(&code[..length]));
            assert!(country, "{code}");
        }
    }

    #[test]
    fn the_shortest_and_the_oddest_text_is_no_defect() {
        for text in ["", "+", "+1", "+141", "+4", "+1é5", "+é"] {
            assert_eq!(zone_of_number(&PhoneNumber::from_trusted(text)), None);
        }
    }
}
