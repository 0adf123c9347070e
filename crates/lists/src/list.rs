//! Records into rows that can be called, each fault named after its column.

use std::io::Read;
use std::str::FromStr as _;

use callq_domain::{Country, ListFault, ListRow, PhoneNumber, PhoneNumberError, RowFault};
use chrono_tz::Tz;
use serde_json::value::RawValue;

use crate::ROW_LIMIT;
use crate::columns::{Column, Columns};
use crate::file::{OpenError, Text, text_of};
use crate::records::{Record, Records};

/// The largest JSON object made of a row's extra columns, in bytes.
const OBJECT_LIMIT: usize = 16 * 1024;

/// The longest name, in characters.
const NAME_LIMIT: usize = 200;

/// The rows of a list, read one at a time. After a [`ListFault`] it ends.
pub struct List<R: Read> {
    records: Records<Text<R>>,
    columns: Columns,
    country: Option<Country>,
    record: Record,
    rows: u64,
    pub(crate) row_limit: u64,
    is_over: bool,
}

impl<R: Read> List<R> {
    /// Reads a list's header. National numbers are read as those of `country`.
    ///
    /// # Errors
    /// If the file is of another kind, or is not a list with telephone numbers.
    pub fn open(file: R, country: Option<Country>) -> Result<Self, OpenError> {
        let mut records = Records::new(text_of(file)?)?;
        let mut record = Record::default();
        if !records.next_record(&mut record)? {
            return Err(OpenError::List(ListFault {
                row: None,
                column: None,
                error: "the file is empty".to_owned(),
            }));
        }
        Ok(Self {
            columns: Columns::of(&record)?,
            records,
            country,
            record,
            rows: 0,
            row_limit: ROW_LIMIT,
            is_over: false,
        })
    }

    fn read(&mut self) -> Result<Option<Result<ListRow, RowFault>>, ListFault> {
        if !self.records.next_record(&mut self.record)? {
            return Ok(None);
        }
        self.rows += 1;
        if self.rows > self.row_limit {
            return Err(ListFault {
                row: Some(self.record.row),
                column: None,
                error: format!("a list may have at most {} rows; split it", self.row_limit),
            });
        }
        Ok(Some(self.row()))
    }

    /// The record as a row. Of several faults the first counts.
    fn row(&self) -> Result<ListRow, RowFault> {
        let (record, columns) = (&self.record, &self.columns.all);
        self.check_width()?;
        let (mut phone_number, mut name, mut time_zone) = (None, None, None);
        let mut data = String::new();
        for (index, (column, title)) in columns.iter().enumerate() {
            let text = record.field(index);
            let fault = |error: String| self.fault(title, error);
            check_letters(text).map_err(|error| fault(error.to_owned()))?;
            match column {
                Column::PhoneNumber => {
                    phone_number = Some(number_of(text, self.country).map_err(fault)?);
                }
                Column::Name => name = name_of(text).map_err(fault)?,
                Column::TimeZone => time_zone = zone_of(text).map_err(fault)?,
                Column::Extra { key } => {
                    data.push(if data.is_empty() { '{' } else { ',' });
                    data.push_str(key);
                    data.push(':');
                    data.push_str(&serde_json::Value::from(text).to_string());
                }
                Column::Nameless if text.trim().is_empty() => {}
                Column::Nameless => {
                    let title = format!("column {}", index + 1);
                    let error = "has no name in the first row, so what it holds has no meaning";
                    return Err(self.fault(&title, error.to_owned()));
                }
            }
        }
        let user_data = self.object(data)?;
        Ok(ListRow {
            row: record.row,
            phone_number: phone_number.ok_or_else(|| self.fault("", "has no number".into()))?,
            name,
            time_zone,
            user_data,
        })
    }

    fn check_width(&self) -> Result<(), RowFault> {
        let (has, wants) = (self.record.len(), self.columns.all.len());
        if has == wants {
            return Ok(());
        }
        let title = match self.columns.all.get(has) {
            Some((_, title)) if !title.is_empty() => title.clone(),
            _ => format!("column {}", has.min(wants) + 1),
        };
        let error = format!("the row has {has} fields where the first row has {wants}");
        Err(self.fault(&title, error))
    }

    fn object(&self, mut data: String) -> Result<Option<Box<RawValue>>, RowFault> {
        if data.is_empty() {
            return Ok(None);
        }
        data.push('}');
        if data.len() > OBJECT_LIMIT {
            let error = format!("the extra columns hold more than {OBJECT_LIMIT} bytes as JSON");
            return Err(self.fault("user_data", error));
        }
        let object = RawValue::from_string(data);
        object
            .map(Some)
            .map_err(|error| self.fault("user_data", format!("cannot be stored: {error}")))
    }

    fn fault(&self, title: &str, error: String) -> RowFault {
        RowFault {
            row: self.record.row,
            field: title.to_owned(),
            error,
        }
    }
}

impl<R: Read> Iterator for List<R> {
    type Item = Result<Result<ListRow, RowFault>, ListFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let read = self.read().transpose();
        self.is_over = !matches!(read, Some(Ok(_)));
        read
    }
}

/// Letters that no sound file holds.
fn check_letters(text: &str) -> Result<(), &'static str> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err(
            "holds U+FFFD, which stands for a letter that was lost when the file was saved",
        );
    }
    let is_stray = |letter: char| letter.is_control() && !"\t\r\n".contains(letter);
    if text.chars().any(is_stray) {
        return Err("holds a control character");
    }
    Ok(())
}

fn number_of(text: &str, country: Option<Country>) -> Result<PhoneNumber, String> {
    PhoneNumber::parse_in(text, country).map_err(|error| match error {
        PhoneNumberError::NotInternational => {
            format!("{error}; or say which country the list is from")
        }
        PhoneNumberError::BadCharacter if is_rounded(text) => {
            "was rounded by a spreadsheet; format the column as text, and enter the numbers anew"
                .to_owned()
        }
        error => error.to_string(),
    })
}

/// Whether this is how a spreadsheet shows a number that it takes for a quantity: `4.9302E+11`.
fn is_rounded(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    text.trim()
        .split_once(['E', 'e'])
        .is_some_and(|(mantissa, exponent)| {
            digits(exponent.trim_start_matches('+')) && digits(&mantissa.replace(['.', ','], ""))
        })
}

fn name_of(text: &str) -> Result<Option<String>, String> {
    let name = text.trim();
    if name.chars().any(char::is_control) {
        return Err("may not hold line breaks".to_owned());
    }
    if name.chars().count() > NAME_LIMIT {
        return Err(format!("may hold at most {NAME_LIMIT} characters"));
    }
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

fn zone_of(text: &str) -> Result<Option<String>, String> {
    let name = text.trim();
    if name.is_empty() {
        return Ok(None);
    }
    match Tz::from_str(name) {
        Ok(zone) => Ok(Some(zone.name().to_owned())),
        Err(_) => Err("must be an IANA time zone such as Europe/Berlin".to_owned()),
    }
}
