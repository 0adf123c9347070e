//! Telephone numbers: parsed once at the edge, valid ever after, never shown whole in a log.

use std::fmt;
use std::str::FromStr;

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat, Region};

/// A valid telephone number in E.164 form, such as `+14155550123`.
///
/// The international form is read: a plus sign, then digits (spaces, dots, hyphens and parentheses
/// between them are dropped). [`PhoneNumber::parse_in`] reads national numbers of a country too.
/// Letters and extensions are refused: they are typing errors more often than numbers, and a carrier
/// would not dial them. Validity is that of Google's libphonenumber metadata.
///
/// `Debug` prints the masked form, so a number cannot slip into a log whole by way of `{:?}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhoneNumber(Box<str>);

/// Why a text is not a telephone number callq would dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PhoneNumberError {
    /// No digits at all.
    #[error("is empty; give an E.164 number such as +14155550123")]
    Empty,
    /// Not in international form.
    #[error(
        "must be in E.164 form: a plus sign, the country code and the number, such as +14155550123"
    )]
    NotInternational,
    /// A letter, an extension or another sign.
    #[error(
        "may hold only a plus sign, digits, and spaces, dots, hyphens or parentheses between them; letters and extensions are not accepted"
    )]
    BadCharacter,
    /// Well formed, but no such number can exist.
    #[error("is not a valid telephone number")]
    Invalid,
}

/// A country by its ISO 3166 code of two letters, such as `DE`: one whose numbering plan is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Country(Region);

/// The text is not the code of a country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an ISO 3166 country code of two letters, such as DE")]
pub struct CountryError;

impl FromStr for Country {
    type Err = CountryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let code = text.trim().to_ascii_uppercase();
        let region: Region = code.parse().map_err(|_| CountryError)?;
        // A region that libphonenumber has no plan of reads no national number.
        let has_plan = PHONE_NUMBER_UTIL
            .get_country_code_for_region(region)
            .is_some();
        has_plan.then_some(Self(region)).ok_or(CountryError)
    }
}

/// Its code, in capital letters.
impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Country({self})")
    }
}

impl PhoneNumber {
    /// Reads a number in international form or, where a country is given, in that country's national
    /// form: without the plus sign it is dialled as from there.
    ///
    /// # Errors
    /// What is wrong with it; nothing is guessed.
    pub fn parse_in(text: &str, country: Option<Country>) -> Result<Self, PhoneNumberError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PhoneNumberError::Empty);
        }
        let digits = digits_of(text)?;
        if !digits.starts_with('+') && country.is_none() {
            return Err(PhoneNumberError::NotInternational);
        }
        let parsed = PHONE_NUMBER_UTIL
            .parse(&digits, country.map(|country| country.0))
            .map_err(|_| PhoneNumberError::Invalid)?;
        if !PHONE_NUMBER_UTIL.is_valid_number(&parsed) {
            return Err(PhoneNumberError::Invalid);
        }
        let formatted = PHONE_NUMBER_UTIL.format(&parsed, PhoneNumberFormat::E164);
        Ok(Self(formatted.as_ref().into()))
    }

    /// A number that was checked when it was stored. Callers: the persistence crate only.
    #[must_use]
    pub fn from_trusted(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The number as text, `+` first.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number with all but its first three and last two characters hidden, for logs.
    #[must_use]
    pub fn masked(&self) -> String {
        let shown_head = self.0.get(..3).unwrap_or("");
        let shown_tail = self.0.get(self.0.len().saturating_sub(2)..).unwrap_or("");
        format!("{shown_head}…{shown_tail}")
    }
}

impl FromStr for PhoneNumber {
    type Err = PhoneNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_in(text, None)
    }
}

/// The number's digits, after its plus sign if it has one, without what stands between them.
fn digits_of(text: &str) -> Result<String, PhoneNumberError> {
    let mut digits = String::with_capacity(16);
    for (index, character) in text.chars().enumerate() {
        match character {
            '+' if index == 0 => digits.push('+'),
            '0'..='9' => digits.push(character),
            ' ' | '-' | '.' | '(' | ')' => {}
            _ => return Err(PhoneNumberError::BadCharacter),
        }
    }
    Ok(digits)
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhoneNumber({})", self.masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_number_is_brought_to_its_canonical_form() {
        for text in ["+14155552671", "+1 (415) 555-2671", " +1.415.555.2671 "] {
            let number: PhoneNumber = text.parse().expect(text);
            assert_eq!(number.as_str(), "+14155552671");
        }
        assert!("+442079460958".parse::<PhoneNumber>().is_ok());
        assert!("+919876543210".parse::<PhoneNumber>().is_ok());
    }

    #[test]
    fn what_no_carrier_would_dial_is_refused_with_its_reason() {
        use PhoneNumberError as E;
        for (text, expected) in [
            ("", E::Empty),
            ("   ", E::Empty),
            ("4155552671", E::NotInternational),
            ("004155552671", E::NotInternational),
            ("+1415555CALL", E::BadCharacter),
            ("+14155552671x5", E::BadCharacter),
            ("+14155552671;ext=5", E::BadCharacter),
            ("++14155552671", E::BadCharacter),
            ("+", E::Invalid),
            ("+99999999999", E::Invalid),
            ("+10000000000", E::Invalid),
            ("+1415555267", E::Invalid),
        ] {
            assert_eq!(text.parse::<PhoneNumber>(), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn debug_and_mask_hide_the_middle() {
        let number: PhoneNumber = "+14155552671".parse().expect("valid");
        assert_eq!(number.masked(), "+14…71");
        assert!(!format!("{number:?}").contains("415555"));
    }

    #[test]
    fn a_national_number_is_read_as_dialled_in_its_country() {
        let berlin = Some("de".parse().expect("a country"));
        for text in ["030 23125 000", "+49 30 23125000", "0049 (30) 23125-000"] {
            let number = PhoneNumber::parse_in(text, berlin).expect(text);
            assert_eq!(number.as_str(), "+493023125000");
        }
        let national = "(415) 555-2671";
        let us = Some("US".parse().expect("a country"));
        let number = PhoneNumber::parse_in(national, us).expect(national);
        assert_eq!(number.as_str(), "+14155552671");
        for (text, expected) in [
            ("4,15555E+11", PhoneNumberError::BadCharacter),
            ("12", PhoneNumberError::Invalid),
            (" ", PhoneNumberError::Empty),
        ] {
            assert_eq!(PhoneNumber::parse_in(text, us), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn a_country_is_two_letters_of_one_that_has_telephones() {
        for (text, code) in [("DE", "DE"), (" gb ", "GB"), ("in", "IN")] {
            assert_eq!(text.parse::<Country>().expect(text).to_string(), code);
        }
        for text in ["", "D", "DEU", "Germany", "XX", "ZZ", "001", "AQ"] {
            assert_eq!(text.parse::<Country>(), Err(CountryError), "{text:?}");
        }
    }
}
