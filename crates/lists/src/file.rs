//! From a file's bytes to UTF-8 text: what is no text at all is turned away, and UTF-16 decoded.

use std::io::{self, Chain, Cursor, Read};

use callq_domain::ListFault;
use encoding_rs_io::{DecodeReaderBytes, DecodeReaderBytesBuilder};

/// Why reading a list cannot begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is a file of another kind.
    #[error("is {0}; save the list as CSV (UTF-8) and send that")]
    NotCsv(&'static str),
    /// Its header cannot be read.
    #[error(transparent)]
    List(#[from] ListFault),
}

/// How files of other kinds begin.
const OTHER_KINDS: [(&[u8], &str); 6] = [
    (b"PK\x03\x04", "an XLSX workbook or another ZIP archive"),
    (b"\xD0\xCF\x11\xE0", "an XLS workbook"),
    (b"%PDF", "a PDF document"),
    (b"\x1F\x8B", "a gzip archive"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "a picture"),
];

/// The text of a file, a piece at a time.
pub(crate) type Text<R> = DecodeReaderBytes<Chain<Cursor<Vec<u8>>, R>, Vec<u8>>;

/// Bytes that are not UTF-8 come through as they are, to be found in their row and column.
pub(crate) fn text_of<R: Read>(mut file: R) -> Result<Text<R>, OpenError> {
    let mut start = Vec::with_capacity(8);
    file.by_ref()
        .take(8)
        .read_to_end(&mut start)
        .map_err(|error| unreadable(&error))?;
    if let Some((_, kind)) = OTHER_KINDS
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
    {
        return Err(OpenError::NotCsv(kind));
    }
    Ok(DecodeReaderBytesBuilder::new()
        .utf8_passthru(true)
        .strip_bom(true)
        .build(Cursor::new(start).chain(file)))
}

pub(crate) fn unreadable(error: &io::Error) -> ListFault {
    ListFault {
        row: None,
        column: None,
        error: format!("the file cannot be read: {error}"),
    }
}
