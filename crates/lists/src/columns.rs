//! What the header line says of the columns.

use callq_domain::ListFault;

use crate::records::Record;

/// The most columns of a list.
const COLUMN_LIMIT: usize = 200;

/// The longest name of a column, in characters.
const NAME_LIMIT: usize = 100;

const PHONE_NUMBER: [&str; 12] = [
    "phone_number",
    "phone",
    "number",
    "mobile",
    "phonenumber",
    "mobile_number",
    "mobile_phone",
    "telephone",
    "telephone_number",
    "tel",
    "cell",
    "cell_phone",
];
const NAME: [&str; 5] = [
    "name",
    "contact_name",
    "contactname",
    "full_name",
    "fullname",
];
const TIME_ZONE: [&str; 3] = ["time_zone", "timezone", "tz"];

/// What a column holds.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Column {
    PhoneNumber,
    Name,
    TimeZone,
    /// Goes into `user_data` under this key, which is a JSON string already.
    Extra {
        key: String,
    },
    /// Has no header, and must be empty.
    Nameless,
}

/// The columns of a list, in its order.
pub(crate) struct Columns {
    /// What each holds, and its name as it stands in the file.
    pub(crate) all: Vec<(Column, String)>,
}

impl Columns {
    pub(crate) fn of(header: &Record) -> Result<Self, ListFault> {
        let fault = |index: usize, error: String| ListFault {
            row: Some(header.row),
            column: Some(index as u64 + 1),
            error,
        };
        if header.len() > COLUMN_LIMIT {
            let error = format!("a list may have at most {COLUMN_LIMIT} columns");
            return Err(fault(COLUMN_LIMIT, error));
        }
        let mut all: Vec<(Column, String)> = Vec::with_capacity(header.len());
        let mut plain_names: Vec<String> = Vec::with_capacity(header.len());
        for (index, name) in header.fields().enumerate() {
            let name = name.trim();
            if name.chars().count() > NAME_LIMIT || name.chars().any(char::is_control) {
                let error =
                    format!("a column's name is one line of at most {NAME_LIMIT} characters");
                return Err(fault(index, error));
            }
            let plain = plain_name(name);
            let column = column_of(&plain, name);
            let other = all
                .iter()
                .zip(&plain_names)
                .position(|((other, _), other_plain)| {
                    column != Column::Nameless
                        && (*other_plain == plain
                            || (column == *other && !matches!(column, Column::Extra { .. })))
                });
            if let Some(other) = other {
                let error = format!(
                    "\"{name}\" says the same as column {}, \"{}\"; rename or remove one of them",
                    other + 1,
                    all[other].1
                );
                return Err(fault(index, error));
            }
            all.push((column, name.to_owned()));
            plain_names.push(plain);
        }
        if !all.iter().any(|(column, _)| *column == Column::PhoneNumber) {
            return Err(ListFault {
                row: Some(header.row),
                column: None,
                error:
                    "no column holds the telephone number; the first row must name the columns, \
                    one of them phone_number (or phone, number or mobile)"
                        .to_owned(),
            });
        }
        Ok(Self { all })
    }
}

/// The name without what people vary: case, and what stands between words.
fn plain_name(name: &str) -> String {
    let words = name.split(|letter: char| letter.is_whitespace() || "_-.".contains(letter));
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join("_").to_lowercase()
}

fn column_of(plain: &str, name: &str) -> Column {
    if PHONE_NUMBER.contains(&plain) {
        Column::PhoneNumber
    } else if NAME.contains(&plain) {
        Column::Name
    } else if TIME_ZONE.contains(&plain) {
        Column::TimeZone
    } else if name.is_empty() {
        Column::Nameless
    } else {
        Column::Extra {
            key: serde_json::Value::from(name).to_string(),
        }
    }
}
