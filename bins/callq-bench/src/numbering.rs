//! Ids and telephone numbers that say which user and which call they belong to, so that the witness
//! needs no look-up.

use callq_domain::{AgentId, ContactId, PhoneNumber, UserId};
use uuid::Uuid;

/// Ids shaped like version 7, so that they sort by their number.
const SHAPE: u128 = 0xbe00_0000_0000_7000_8000_0000_0000_0000;

fn id(kind: u128, number: u32) -> Uuid {
    Uuid::from_u128(SHAPE | kind << 96 | u128::from(number))
}

pub(crate) fn user(number: u32) -> UserId {
    id(1, number).into()
}

pub(crate) fn agent(number: u32) -> AgentId {
    id(2, number).into()
}

pub(crate) fn contact(number: u32) -> ContactId {
    id(3, number).into()
}

/// The SQL expression for an id of `kind` from the number that `number` is an expression of.
pub(crate) fn id_sql(kind: u8, number: &str) -> String {
    format!("('be00000{kind}-0000-7000-8000-' || lpad(to_hex({number}), 12, '0'))::uuid")
}

pub(crate) const USER: u8 = 1;
pub(crate) const AGENT: u8 = 2;
pub(crate) const CONTACT: u8 = 3;

/// The user's number, if it is one of ours.
pub(crate) fn number_of_user(id: UserId) -> Option<u32> {
    let bits = id.as_uuid().as_u128();
    let number = u32::try_from(bits & 0xffff_ffff).ok()?;
    (user(number) == id).then_some(number)
}

/// The SQL expression for the telephone number of a call's contact.
pub(crate) fn phone_sql(number: &str) -> String {
    format!("'+1' || lpad(({number})::text, 10, '0')")
}

/// Where numbers begin that pass for real ones at callq's door.
const REAL: u32 = 2_122_000_000;

/// A telephone number of this contact that passes for a real one.
pub(crate) fn real_phone(contact: u32) -> String {
    format!("+1{}", REAL + contact)
}

/// Which contact a telephone number belongs to, if it is one of ours.
pub(crate) fn number_of_phone(phone: &PhoneNumber) -> Option<u32> {
    let digits: u32 = phone.as_str().strip_prefix("+1")?.parse().ok()?;
    Some(digits.checked_sub(REAL).unwrap_or(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_number_is_read_back_from_its_id() {
        assert_eq!(number_of_user(user(99_999)), Some(99_999));
        assert_eq!(number_of_user(UserId::new()), None);
        assert_eq!(
            user(255).to_string(),
            "be000001-0000-7000-8000-0000000000ff"
        );
    }

    #[test]
    fn a_contacts_number_is_read_back_from_its_telephone_number() {
        let phone = PhoneNumber::from_trusted("+10000012345");
        assert_eq!(number_of_phone(&phone), Some(12_345));
        let phone = PhoneNumber::from_trusted(real_phone(12_345));
        assert_eq!(number_of_phone(&phone), Some(12_345));
    }
}
