//! Looking at a file while it still comes, for what no list holds: nobody has to take in a gigabyte of
//! one line to refuse it.

use crate::records::RECORD_LIMIT;

/// A line of so many bytes is too long in any encoding: UTF-16 has two for a letter of one.
const LINE_LIMIT: usize = 2 * RECORD_LIMIT;

/// Sees from a file's bytes, as they come, that it is no list.
///
/// ```
/// let mut watch = callq_lists::Watch::default();
/// assert!(!watch.is_lost(b"Phone;Name\n"));
/// assert!(watch.is_lost(b"\0\0\0\0"));
/// ```
#[derive(Debug, Default)]
pub struct Watch {
    /// The first two bytes.
    start: Vec<u8>,
    /// How many have come of the last line.
    line: usize,
}

impl Watch {
    /// Whether what came so far cannot become a list, whatever follows: reading that much of it ends
    /// with a fault, which says why. Not all that is wrong shows here.
    pub fn is_lost(&mut self, piece: &[u8]) -> bool {
        let wanted = 2 - self.start.len();
        self.start.extend(piece.iter().take(wanted));
        let is_wide = matches!(self.start[..], [0xFF, 0xFE] | [0xFE, 0xFF]);
        if self.start.len() == 2 && !is_wide && piece.contains(&0) {
            return true;
        }
        let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let first = piece.iter().position(is_break);
        let is_long = self.line + first.unwrap_or(piece.len()) > LINE_LIMIT;
        self.line = match piece.iter().rposition(is_break) {
            Some(last) => piece.len() - last - 1,
            None => self.line + piece.len(),
        };
        is_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::List;

    /// What is wrong with what had come when it was lost.
    fn told(file: &[u8]) -> Option<String> {
        let mut watch = Watch::default();
        let lost = file
            .chunks(1000)
            .position(|piece| watch.is_lost(piece))
            .map(|nth| &file[..file.len().min((nth + 1) * 1000)])?;
        Some(match List::open(lost, None) {
            Ok(mut list) => list.find_map(Result::err).expect("a fault").to_string(),
            Err(error) => error.to_string(),
        })
    }

    fn wide(text: &str) -> Vec<u8> {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        [0xFF, 0xFE].into_iter().chain(units).collect()
    }

    #[test]
    fn what_can_be_no_list_is_seen_early_and_reading_that_much_says_why() {
        let line = format!("phone,name\n+14155552671,{}", "x".repeat(1_000_000));
        assert!(told(line.as_bytes()).is_some_and(|it| it.contains("row 2, column 2: the row is")));
        assert!(told(&wide(&line)).is_some_and(|it| it.contains("row 2, column 2: the row is")));
        let header = "x".repeat(1_000_000);
        assert!(told(header.as_bytes()).is_some_and(|it| it.contains("row 1, column 1: the row")));
        let open = format!("phone,name\n1,\"{}", "x".repeat(1_000_000));
        assert!(told(open.as_bytes()).is_some_and(|it| it.contains("never closed")));
        let bare = &wide("phone,name\n+14155552671,Ada\n")[2..];
        assert!(told(bare).is_some_and(|it| it.contains("UTF-16")));
        let mut workbook = b"PK\x03\x04".to_vec();
        workbook.resize(5000, 0);
        assert!(told(&workbook).is_some_and(|it| it.contains("XLSX")));
    }

    #[test]
    fn a_list_is_never_taken_for_lost() {
        let list = "phone,name\n".to_owned() + &"+14155552671,Ada\n".repeat(50_000);
        assert_eq!(told(list.as_bytes()), None);
        assert_eq!(told(&wide(&list)), None);
        let longest = format!("phone,name\n+14155552671,{}\n", "x".repeat(65_000));
        assert_eq!(told(longest.repeat(3).as_bytes()), None);
        let wide_line = format!("phone,name\n+14155552671,{}\n", "x".repeat(65_000));
        assert_eq!(told(&wide(&wide_line)), None);
    }
}
