use std::io::{self, Read};

use callq_domain::{Country, ListFault, ListRow, RowFault};
use proptest::prelude::*;

use crate::{FILE_LIMIT, List, OpenError, ROW_LIMIT, TEMPLATE};

type Entry = Result<ListRow, RowFault>;

fn read(file: &[u8]) -> Result<Vec<Entry>, OpenError> {
    read_from(file, None)
}

fn read_from(file: &[u8], country: Option<&str>) -> Result<Vec<Entry>, OpenError> {
    let country = country.map(|code| code.parse::<Country>().expect("a country"));
    let rows: Result<_, _> = List::open(file, country)?.collect();
    Ok(rows?)
}

/// Every row in short: number, name, zone, data; or row, field and fault.
fn told(file: impl AsRef<[u8]>) -> Vec<String> {
    let rows = read(file.as_ref()).expect("a list");
    let tell = |row: &Entry| match row {
        Ok(row) => {
            let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
            let data = row.user_data.as_ref().map_or("", |data| data.get());
            format!(
                "{}|{}|{}|{data}",
                row.phone_number,
                or_none(&row.name),
                or_none(&row.time_zone)
            )
        }
        Err(fault) => format!("{} {}: {}", fault.row, fault.field, fault.error),
    };
    rows.iter().map(tell).collect()
}

fn fault(file: impl AsRef<[u8]>) -> ListFault {
    match read(file.as_ref()) {
        Err(OpenError::List(fault)) => fault,
        other => panic!("expected a fault of the file, got {other:?}"),
    }
}

const ADA: &str = "+14155552671|Ada||";

#[test]
fn columns_are_known_by_many_names_in_any_order_and_case() {
    for header in [
        "phone_number,name",
        "Phone Number,NAME",
        "MOBILE,Contact-Name",
        "Number,full name",
        " phone , contact_name ",
    ] {
        assert_eq!(told(format!("{header}\n+14155552671,Ada\n")), [ADA]);
    }
    let all = "Timezone,name,Order No.,phone\nEurope/Berlin,Ada,17,+14155552671";
    let expected = r#"+14155552671|Ada|Europe/Berlin|{"Order No.":"17"}"#;
    assert_eq!(told(all), [expected]);
}

#[test]
fn comma_semicolon_and_tab_are_told_apart_by_the_header_line() {
    for file in [
        "phone,name,a\n+14155552671,Ada,;\t",
        "phone;name;a\n+14155552671;Ada;\"x;y,z\"",
        "phone\tname\ta\n+14155552671\tAda\t,;",
        "\"phone\";\"name;,,,\"\n+14155552671;Ada",
    ] {
        assert!(told(file)[0].starts_with("+14155552671|"), "{file:?}");
    }
    assert_eq!(told("phone\n+14155552671\n"), ["+14155552671|||"]);
}

#[test]
fn byte_order_marks_and_utf_16_are_understood() {
    let text = "phone,name\r\n+14155552671,Zoë 😀\r\n";
    let expected = ["+14155552671|Zoë 😀||"];
    assert_eq!(told(text), expected);
    assert_eq!(told(format!("\u{FEFF}{text}")), expected);
    let units: Vec<u16> = format!("\u{FEFF}{text}").encode_utf16().collect();
    let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    assert_eq!(told(little), expected);
    assert_eq!(told(big), expected);
}

#[test]
fn quotes_hold_delimiters_line_breaks_and_quotes() {
    let file = "phone,name,note\n+14155552671,\"Ada \"\"Countess\"\", L.\",\"one\ntwo, three\"\n";
    let expected = r#"+14155552671|Ada "Countess", L.||{"note":"one\ntwo, three"}"#;
    assert_eq!(told(file), [expected]);
}

#[test]
fn empty_rows_are_passed_over_and_counted() {
    let file = "\n\nphone,name\r\n\r\n,\r\n  ,\n12,Ada\n\"\",\"\"\n+14155552671,Ada";
    let rows = told(file);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[0].starts_with("7 phone: "), "{rows:?}");
    // A line break within quotes makes no row of its own, and an old Mac's lines end like this.
    let rows = told("phone,note\r+14155552671,\"a\rb\"\r12,\r");
    assert!(rows[1].starts_with("3 phone: "), "{rows:?}");
}

#[test]
fn a_fault_of_a_row_names_its_row_and_column_and_spares_the_others() {
    let long = "x".repeat(201);
    for (row, field, says) in [
        (",Ada,,", "phone", "is empty"),
        ("4155552671,Ada,,", "phone", "say which country"),
        ("4.15556E+09,Ada,,", "phone", "rounded by a spreadsheet"),
        ("+1415555CALL,Ada,,", "phone", "letters"),
        ("+14155552671,Ada,Mars/Olympus,", "tz", "IANA"),
        (&format!("+14155552671,{long},,"), "name", "200"),
        ("+14155552671,\"A\nda\",,", "name", "line breaks"),
        ("+14155552671,A\u{7}da,,", "name", "control"),
        ("+14155552671,A\u{FFFD}da,,", "name", "U+FFFD"),
        (
            "+14155552671,Ada,",
            "note",
            "3 fields where the first row has 4",
        ),
        ("+14155552671,Ada,,,x", "column 5", "5 fields"),
    ] {
        let file = format!("phone,name,tz,note\n{row}\n+14155552671,Ada,,ok\n");
        let rows = told(&file);
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert!(rows[0].starts_with(&format!("2 {field}: ")), "{rows:?}");
        assert!(rows[0].contains(says), "{rows:?}");
        assert!(rows[1].starts_with("+14155552671|Ada"), "{rows:?}");
    }
    let rows = told("phone,\n+14155552671,\n+14155552671,what\n");
    assert_eq!(rows[0], "+14155552671|||");
    assert!(rows[1].starts_with("3 column 2: has no name"), "{rows:?}");
    let large = format!("phone,note\n+14155552671,{}\n", "x".repeat(20_000));
    assert!(told(large)[0].starts_with("2 user_data: "));
}

#[test]
fn national_numbers_are_read_where_the_country_is_known() {
    let file = "phone\n030 23125000\n+14155552671\n".as_bytes();
    let rows = read_from(file, Some("DE")).expect("a list");
    let numbers: Vec<_> = rows
        .iter()
        .map(|row| row.as_ref().expect("good").phone_number.to_string())
        .collect();
    assert_eq!(numbers, ["+493023125000", "+14155552671"]);
    assert!(read(file).expect("a list")[0].is_err());
}

#[test]
fn a_header_that_cannot_be_used_is_told_with_its_column() {
    for (header, column, says) in [
        ("name,email", None, "no column holds the telephone number"),
        ("+14155552671,Ada", None, "must name the columns"),
        ("phone,name,Mobile", Some(3), "says the same as column 1"),
        ("phone,Order,ORDER", Some(3), "says the same as column 2"),
        ("phone,name,contact name", Some(3), "column 2"),
    ] {
        let fault = fault(format!("{header}\n+14155552671,x,y\n"));
        assert_eq!((fault.row, fault.column), (Some(1), column), "{header}");
        assert!(fault.error.contains(says), "{fault}");
    }
    let many = vec!["x"; 201].join(",");
    assert_eq!(fault(many).column, Some(201));
    assert_eq!(fault("").error, "the file is empty");
    assert_eq!(fault("\u{FEFF}\r\n\r\n").error, "the file is empty");
}

#[test]
fn a_file_that_is_cut_short_or_garbled_is_told_by_row_and_column() {
    let head = "phone,name\n+14155552671,Ada\n";
    for (tail, column, says) in [
        ("+14155552671,\"Bob\n+14155552671,Eve\n", 2, "never closed"),
        ("\"+14155552671", 1, "never closed"),
        ("+14155552671,\"Bob\" junior\n", 2, "closing quote"),
        ("+14155552671,B\0ob\n", 2, "zero byte"),
    ] {
        let fault = fault(format!("{head}{tail}"));
        assert_eq!(
            (fault.row, fault.column),
            (Some(3), Some(column)),
            "{tail:?}"
        );
        assert!(fault.error.contains(says), "{fault}");
    }
    let latin = [head.as_bytes(), b"+14155552671,Zo\xEB\n"].concat();
    let latin = fault(latin);
    assert_eq!((latin.row, latin.column), (Some(3), Some(2)));
    assert!(
        latin.error.contains("0xEB") && latin.error.contains("UTF-8"),
        "{latin}"
    );
    // UTF-16 without its mark is full of zero bytes.
    let bare: Vec<u8> = head.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(fault(bare).error.contains("UTF-16"));
}

#[test]
fn a_file_of_another_kind_is_named_and_told_to_be_csv() {
    for (start, kind) in [
        (&b"PK\x03\x04rest"[..], "XLSX"),
        (b"\xD0\xCF\x11\xE0\xA1\xB1", "XLS"),
        (b"%PDF-1.7", "PDF"),
    ] {
        let Err(OpenError::NotCsv(named)) = read(start) else {
            panic!("{kind} was taken for a list");
        };
        assert!(named.contains(kind), "{named}");
    }
}

/// A file without end that is never in memory.
struct Endless(&'static [u8]);

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for (byte, next) in buffer.iter_mut().zip(self.0.iter().cycle()) {
            *byte = *next;
        }
        Ok(buffer.len() / self.0.len() * self.0.len())
    }
}

#[test]
fn a_row_without_end_and_a_list_without_end_are_given_up_on() {
    for (unit, says) in [(&b","[..], "64 KiB"), (b"x", "64 KiB")] {
        let file = b"phone,name\n+14155552671,".chain(Endless(unit));
        let mut list = List::open(file, None).expect("a header");
        let fault = list.next().expect("a fault").expect_err("too long");
        assert_eq!(fault.row, Some(2));
        assert!(fault.error.contains(says), "{fault}");
        assert!(list.next().is_none(), "it is over");
    }
    let quoted = b"phone,name\n+14155552671,\"".chain(Endless(b"x\n"));
    let mut list = List::open(quoted, None).expect("a header");
    let fault = list.next().expect("a fault").expect_err("too long");
    assert!(fault.error.contains("never closed"), "{fault}");

    let many = b"phone\n".chain(Endless(b"1\n"));
    let mut list = List::open(many, None).expect("a header");
    assert_eq!(list.row_limit, ROW_LIMIT);
    list.row_limit = 1000;
    let fault = list.last().expect("a fault").expect_err("too many");
    assert_eq!(fault.row, Some(1002));
    const { assert!(FILE_LIMIT > ROW_LIMIT * 64) };
}

#[test]
fn the_sample_is_a_good_list() {
    let rows = read(TEMPLATE.as_bytes()).expect("a list");
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(Result::is_ok), "{rows:?}");
}

proptest! {
    #[test]
    fn what_a_csv_writer_writes_is_read_back(
        rows in prop::collection::vec(prop::collection::vec("[a-c \"',;\t\r\n€]{0,6}", 3), 0..20),
        delimiter in prop::sample::select(vec![b',', b';', b'\t']),
    ) {
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(Vec::new());
        writer.write_record(["phone", "a", "b", "c"]).expect("written");
        for row in &rows {
            let fields = ["+14155552671"].into_iter().chain(row.iter().map(String::as_str));
            writer.write_record(fields).expect("written");
        }
        let file = writer.into_inner().expect("written");
        let read = read(&file).expect("a list");
        prop_assert_eq!(read.len(), rows.len());
        for (read, written) in read.into_iter().zip(&rows) {
            let data = read.expect("a good row").user_data.expect("extra columns");
            let data: serde_json::Value = serde_json::from_str(data.get()).expect("JSON");
            prop_assert_eq!(&data["a"], &written[0]);
            prop_assert_eq!(&data["b"], &written[1]);
            prop_assert_eq!(&data["c"], &written[2]);
        }
    }

    #[test]
    fn no_file_makes_it_panic_or_go_on_for_ever(file in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&[b"phone,name\n".as_slice(), &file].concat());
        let _ = read(&file);
    }
}
