//! Reads lists of people, as spreadsheets save them, into rows that can be called. Pure and streaming:
//! no more than a row is held at a time, whatever the file's size, and nothing is known of where it
//! comes from or goes to.
//!
//! What is read: CSV in UTF-8, with or without byte order mark, or in UTF-16 with one; comma,
//! semicolon or tab, whichever the header line has; quoted fields; columns in any order. Rows are
//! counted as a spreadsheet shows them: the first line is row 1, empty rows count, and a line break
//! within quotes does not.
//!
//! # Using it from another service
//!
//! ```
//! let file = "Phone;Name;Order\n030 23125000;Ada;17\n12;Bob;18\n";
//! let list = callq_lists::List::open(file.as_bytes(), Some("DE".parse()?))?;
//! let rows: Vec<_> = list.collect::<Result<_, _>>()?;
//!
//! let ada = rows[0].as_ref().expect("a good row");
//! assert_eq!(ada.phone_number.as_str(), "+493023125000");
//! assert_eq!(ada.user_data.as_ref().map(|data| data.get()), Some(r#"{"Order":"17"}"#));
//! let bob = rows[1].as_ref().expect_err("no such number");
//! assert_eq!((bob.row, bob.field.as_str()), (3, "Phone"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod columns;
mod file;
mod list;
#[cfg(test)]
mod list_tests;
mod records;
mod watch;

pub use file::OpenError;
pub use list::List;
pub use watch::Watch;

/// The largest file that is read, in bytes.
pub const FILE_LIMIT: u64 = 256 * 1024 * 1024;

/// The most rows of one list.
pub const ROW_LIMIT: u64 = 1_000_000;

/// A list to begin with.
pub const TEMPLATE: &str = "phone_number,name,time_zone,order_number\r\n\
    +12125550100,Amara Okafor,America/New_York,1001\r\n\
    +493023125000,\"Vogel, Benedikt\",Europe/Berlin,1002\r\n";
