//! Reading a CSV file of telephone numbers while it arrives: what is kept of it is its numbers.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use callq_domain::PhoneNumber;
use csv_core::{ReadFieldResult, Reader};
use futures_util::StreamExt as _;

use crate::problem::Problem;

/// The largest file: some 500,000 numbers.
const FILE_LIMIT: usize = 8 * 1024 * 1024;

/// The longest wait for a whole file.
const FILE_TIMEOUT: Duration = Duration::from_secs(120);

/// The name of the file's one column.
const COLUMN: &str = "phone_number";

/// No telephone number is longer, however it is written, in bytes.
const FIELD_LIMIT: usize = 64;

/// The numbers of a CSV file with one column, `phone_number`.
pub(crate) async fn read(
    request: &HttpRequest,
    body: web::Payload,
) -> Result<Vec<PhoneNumber>, Problem> {
    if !is_csv(request) {
        return Err(Problem::not_csv());
    }
    tokio::time::timeout(FILE_TIMEOUT, collect(body))
        .await
        .unwrap_or_else(|_| Err(Problem::body_too_slow()))
}

fn is_csv(request: &HttpRequest) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    let essence = text.and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/csv"))
}

async fn collect(mut body: web::Payload) -> Result<Vec<PhoneNumber>, Problem> {
    let mut file = NumberFile::new();
    let mut left = FILE_LIMIT;
    while let Some(chunk) = body.next().await {
        let chunk =
            chunk.map_err(|_| Problem::malformed("The body ended before all of it had come."))?;
        left = left
            .checked_sub(chunk.len())
            .ok_or_else(|| Problem::too_large(FILE_LIMIT))?;
        // Reading thousands of numbers takes longer than others should wait for this thread.
        let reading = tokio::task::spawn_blocking(move || file.take(&chunk).map(|()| file));
        let read = reading.await;
        file = read.map_err(|error| Problem::internal(error.to_string()))??;
    }
    file.finish()
}

/// A file as far as it has come.
struct NumberFile {
    reader: Reader,
    field: [u8; FIELD_LIMIT],
    filled: usize,
    line_ends: usize,
    has_header: bool,
    numbers: Vec<PhoneNumber>,
}

impl NumberFile {
    fn new() -> Self {
        Self {
            reader: Reader::new(),
            field: [0; FIELD_LIMIT],
            filled: 0,
            line_ends: 0,
            has_header: false,
            numbers: Vec::new(),
        }
    }

    /// Reads on. An empty `input` means that this was all.
    fn take(&mut self, mut input: &[u8]) -> Result<(), Problem> {
        let is_end = input.is_empty();
        loop {
            let rest = self.field.get_mut(self.filled..).unwrap_or_default();
            let (result, read, written) = self.reader.read_field(input, rest);
            let (taken, left) = input.split_at(read);
            input = left;
            self.filled += written;
            self.line_ends += taken.iter().filter(|byte| **byte == b'\n').count();
            // The end of this line may or may not have been read with its field.
            let line = self.line_ends + usize::from(taken.last() != Some(&b'\n'));
            match result {
                ReadFieldResult::InputEmpty if is_end => {}
                ReadFieldResult::InputEmpty | ReadFieldResult::End => return Ok(()),
                ReadFieldResult::OutputFull => {
                    return Err(at(line, "is longer than a telephone number can be"));
                }
                ReadFieldResult::Field { record_end: false } => {
                    return Err(at(line, "must be the only column"));
                }
                ReadFieldResult::Field { record_end: true } => self.take_field(line)?,
            }
        }
    }

    fn take_field(&mut self, line: usize) -> Result<(), Problem> {
        let text = self.field.get(..self.filled).unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        self.filled = 0;
        if !self.has_header {
            // Spreadsheets put a byte order mark before it.
            if text.trim_start_matches('\u{feff}').trim() != COLUMN {
                return Err(no_header());
            }
            self.has_header = true;
            return Ok(());
        }
        let number = text.parse().map_err(|error| at(line, error))?;
        self.numbers.push(number);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<PhoneNumber>, Problem> {
        self.take(&[])?;
        if !self.has_header {
            return Err(no_header());
        }
        if self.numbers.is_empty() {
            return Err(Problem::invalid(
                COLUMN,
                "has no line with a number below it",
            ));
        }
        Ok(self.numbers)
    }
}

fn at(line: usize, fault: impl std::fmt::Display) -> Problem {
    let fault = format!("on line {line} {fault}; nothing was added");
    Problem::invalid(COLUMN, fault).at(line, 1)
}

fn no_header() -> Problem {
    let fault = "must be what the first line says, and no more: the name of the file's one column";
    Problem::invalid(COLUMN, fault).at(1, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file says that comes in pieces of so many bytes.
    fn read_in_pieces(file: &str, size: usize) -> Result<Vec<String>, String> {
        let mut reader = NumberFile::new();
        for piece in file.as_bytes().chunks(size) {
            reader.take(piece).map_err(|problem| problem.body())?;
        }
        let numbers = reader.finish().map_err(|problem| problem.body())?;
        Ok(numbers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_file_is_read_the_same_in_whatever_pieces_it_comes() {
        let file = "\u{feff}phone_number\r\n+14155552671\n\"+44 20 7946 0958\"\n\n+919876543210";
        for size in 1..=file.len() {
            let numbers = read_in_pieces(file, size);
            let expected = ["+14155552671", "+442079460958", "+919876543210"];
            assert_eq!(numbers, Ok(expected.map(String::from).to_vec()), "{size}");
        }
    }

    #[test]
    fn a_fault_is_told_with_its_line_and_field() {
        let long = format!("phone_number\n{}\n", "1".repeat(FIELD_LIMIT + 1));
        for (file, line, fault) in [
            ("", 1, "the name of the file's one column"),
            (
                "number\n+14155552671\n",
                1,
                "the name of the file's one column",
            ),
            ("phone_number,name\n", 1, "the only column"),
            ("phone_number\n+14155552671\n911\n", 3, "E.164"),
            ("phone_number\r\n+14155552671\r\n911\r\n", 3, "E.164"),
            ("phone_number\n\n\n911", 4, "E.164"),
            ("phone_number\n+14155552671,Ada\n", 2, "the only column"),
            (long.as_str(), 2, "longer than"),
        ] {
            for size in [1, 5, 1_000] {
                let told = read_in_pieces(file, size).expect_err(file);
                assert!(told.contains(&format!(r#""line":{line},"#)), "{told}");
                assert!(told.contains(r#""field":"phone_number""#), "{told}");
                assert!(told.contains(fault), "{told}");
            }
        }
        let none = read_in_pieces("phone_number\n", 7).expect_err("no numbers");
        assert!(none.contains("no line with a number"), "{none}");
    }
}
