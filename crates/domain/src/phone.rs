//! Telephone numbers: parsed once at the edge, valid ever after, never shown whole in a log.

use std::fmt;
use std::str::FromStr;

use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumberFormat};

/// A valid telephone number in E.164 form, such as `+14155550123`.
///
/// Only the international form is read: a plus sign, then digits (spaces, dots, hyphens and
/// parentheses between them are dropped). Letters and extensions are refused: they are typing
/// errors more often than numbers, and a carrier would not dial them. Validity is that of
/// Google's libphonenumber metadata.
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

impl PhoneNumber {
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
        let text = text.trim();
        if text.is_empty() {
            return Err(PhoneNumberError::Empty);
        }
        let mut digits = String::with_capacity(16);
        for (index, character) in text.chars().enumerate() {
            match character {
                '+' if index == 0 => digits.push('+'),
                '0'..='9' => digits.push(character),
                ' ' | '-' | '.' | '(' | ')' => {}
                _ => return Err(PhoneNumberError::BadCharacter),
            }
        }
        if !digits.starts_with('+') {
            return Err(PhoneNumberError::NotInternational);
        }
        let parsed = PHONE_NUMBER_UTIL
            .parse(&digits, None)
            .map_err(|_| PhoneNumberError::Invalid)?;
        if !PHONE_NUMBER_UTIL.is_valid_number(&parsed) {
            return Err(PhoneNumberError::Invalid);
        }
        let formatted = PHONE_NUMBER_UTIL.format(&parsed, PhoneNumberFormat::E164);
        Ok(Self(formatted.as_ref().into()))
    }
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
}
