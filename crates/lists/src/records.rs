//! Text into records of fields, by the rules of RFC 4180.
//!
//! Crates that read CSV forgive what must not be forgiven here: a quote that is never closed is read
//! to the end of the file as one field, which hides that the file is cut short; and they do not count
//! rows as a spreadsheet does, so a fault could not be told by the number that its author sees.

use std::io::{BufRead as _, BufReader, Chain, Cursor, Read};

use callq_domain::ListFault;

use crate::file::unreadable;

/// The longest row, in bytes.
pub(crate) const RECORD_LIMIT: usize = 64 * 1024;

/// What may stand between fields.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// One row: its fields' texts behind each other, and where each ends.
#[derive(Default)]
pub(crate) struct Record {
    text: String,
    ends: Vec<usize>,
    /// Its number, from 1.
    pub(crate) row: u64,
}

impl Record {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The field at `index`, from 0; empty if there is none.
    pub(crate) fn field(&self, index: usize) -> &str {
        let start = index
            .checked_sub(1)
            .map_or(Some(0), |before| self.ends.get(before).copied());
        let range = start.zip(self.ends.get(index).copied());
        range
            .and_then(|(start, end)| self.text.get(start..end))
            .unwrap_or_default()
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.field(index))
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }
}

/// Where in a field the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Plain,
    Quoted,
    /// After a quote within quotes: the end of them, or half of a quote that is meant.
    Quote,
}

/// The records of a text.
pub(crate) struct Records<R> {
    input: BufReader<Chain<Cursor<Vec<u8>>, R>>,
    delimiter: u8,
    /// The present record's fields behind each other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    row: u64,
    /// The last record ended with a carriage return: a line feed that follows is its own.
    after_return: bool,
}

impl<R: Read> Records<R> {
    /// The delimiter is that of the first line that says anything.
    pub(crate) fn new(mut input: R) -> Result<Self, ListFault> {
        let mut start = Vec::new();
        input
            .by_ref()
            .take(RECORD_LIMIT as u64)
            .read_to_end(&mut start)
            .map_err(|error| unreadable(&error))?;
        Ok(Self {
            delimiter: sniffed(&start),
            input: BufReader::with_capacity(RECORD_LIMIT, Cursor::new(start).chain(input)),
            bytes: Vec::new(),
            ends: Vec::new(),
            row: 0,
            after_return: false,
        })
    }

    /// The next record that is not blank, or none at the end.
    pub(crate) fn next_record(&mut self, record: &mut Record) -> Result<bool, ListFault> {
        while self.read_one()? {
            self.fill(record)?;
            if !record.is_blank() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads one record's bytes. Answers whether there was any.
    fn read_one(&mut self) -> Result<bool, ListFault> {
        self.bytes.clear();
        self.ends.clear();
        self.row += 1;
        let mut at = At::Start;
        let mut length = 0;
        loop {
            let chunk = self.input.fill_buf().map_err(|error| unreadable(&error))?;
            if chunk.is_empty() {
                return self.ended(at, length == 0);
            }
            let mut used = 0;
            let mut done = false;
            for &byte in chunk {
                used += 1;
                let skipped = self.after_return && byte == b'\n';
                self.after_return = false;
                if skipped {
                    continue;
                }
                length += 1;
                at = match (at, byte) {
                    (_, 0) => return Err(fault(self.row, &self.ends, IS_BINARY)),
                    (At::Quoted, b'"') => At::Quote,
                    (At::Quoted, _) => {
                        self.bytes.push(byte);
                        At::Quoted
                    }
                    (At::Quote, b'"') => {
                        self.bytes.push(byte);
                        At::Quoted
                    }
                    (At::Start, b'"') => At::Quoted,
                    (_, b'\r' | b'\n') => {
                        self.after_return = byte == b'\r';
                        done = true;
                        break;
                    }
                    (_, byte) if byte == self.delimiter => {
                        self.ends.push(self.bytes.len());
                        At::Start
                    }
                    (At::Quote, _) => return Err(fault(self.row, &self.ends, TEXT_AFTER_QUOTE)),
                    _ => {
                        self.bytes.push(byte);
                        At::Plain
                    }
                };
            }
            self.input.consume(used);
            if done {
                self.ends.push(self.bytes.len());
                return Ok(true);
            }
            if length > RECORD_LIMIT {
                let error = if at == At::Quoted {
                    NEVER_CLOSED
                } else {
                    TOO_LONG
                };
                return Err(fault(self.row, &self.ends, error));
            }
        }
    }

    fn ended(&mut self, at: At, is_empty: bool) -> Result<bool, ListFault> {
        if at == At::Quoted {
            return Err(fault(self.row, &self.ends, NEVER_CLOSED));
        }
        self.ends.push(self.bytes.len());
        Ok(!is_empty)
    }

    fn fill(&self, record: &mut Record) -> Result<(), ListFault> {
        record.row = self.row;
        record.ends.clone_from(&self.ends);
        record.text.clear();
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => record.text.push_str(text),
            Err(error) => {
                let place = error.valid_up_to();
                let before: Vec<_> = self.ends.iter().filter(|end| **end <= place).collect();
                let byte = self.bytes.get(place).copied().unwrap_or_default();
                let error = format!(
                    "the byte 0x{byte:02X} is not UTF-8; save the file as CSV in UTF-8 and send that"
                );
                return Err(fault(self.row, &before, &error));
            }
        }
        Ok(())
    }
}

const IS_BINARY: &str = "a zero byte: this is no text file, or one in UTF-16 without its byte order \
    mark; save the list as CSV in UTF-8 and send that";
const NEVER_CLOSED: &str = "the quote that opens here is never closed: the file is cut short, or a \
    quote is missing";
const TEXT_AFTER_QUOTE: &str = "text follows the closing quote; write a quote within quotes twice";
const TOO_LONG: &str = "the row is longer than 64 KiB";

/// A fault in the column after those that have ended.
fn fault<T>(row: u64, ended: &[T], error: &str) -> ListFault {
    ListFault {
        row: Some(row),
        column: Some(ended.len() as u64 + 1),
        error: error.to_owned(),
    }
}

/// The delimiter of which the first line that says anything has most; comma, if it has none.
fn sniffed(start: &[u8]) -> u8 {
    let mut counts = [0_usize; DELIMITERS.len()];
    let (mut is_quoted, mut says_something) = (false, false);
    for &byte in start {
        let delimiter = DELIMITERS.iter().position(|it| *it == byte);
        match (byte, delimiter) {
            (b'"', _) => is_quoted = !is_quoted,
            _ if is_quoted => {}
            (b'\r' | b'\n', _) if says_something => break,
            (b'\r' | b'\n', _) => counts = Default::default(),
            (_, Some(index)) => counts[index] += 1,
            _ => {}
        }
        says_something |= delimiter.is_none() && !byte.is_ascii_whitespace();
    }
    // The first of equals.
    let most = DELIMITERS.iter().zip(counts).rev();
    most.max_by_key(|(_, count)| *count)
        .map_or(b',', |(delimiter, _)| *delimiter)
}
