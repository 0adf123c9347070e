//! What is to be said of the rows of a list that do not become calls, because they are at fault or are
//! skipped: the first of it for the answer, more of it in a file, and no more than fits.

use callq_domain::{NewImport, RowFault, StoreError};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Uuid as SqlUuid};

use super::KEPT_FILES;
use crate::Failure;
use crate::schema::import_errors;

/// How many rows of each kind an answer names.
const NAMED: usize = 100;

/// How many rows a file holds, and after how many bytes it takes no more.
pub(super) const FILED: u64 = 10_000;
const FILE_BYTES: usize = 1024 * 1024;

#[derive(Default)]
pub(super) struct Faults {
    failed: u64,
    skipped: u64,
    first_failed: Vec<RowFault>,
    first_skipped: Vec<RowFault>,
    filed: u64,
    file: Option<csv::Writer<Vec<u8>>>,
    bytes: usize,
}

impl Faults {
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    pub(super) fn fail(&mut self, fault: RowFault) {
        self.failed += 1;
        self.enter(&fault);
        if self.first_failed.len() < NAMED {
            self.first_failed.push(fault);
        }
    }

    /// Of `count` rows the first are these.
    pub(super) fn skip(&mut self, count: u64, rows: Vec<RowFault>) {
        self.skipped = count;
        for row in &rows {
            self.enter(row);
        }
        self.first_skipped = rows;
        self.first_skipped.truncate(NAMED);
    }

    fn enter(&mut self, fault: &RowFault) {
        if self.filed < FILED && self.bytes < FILE_BYTES {
            self.filed += 1;
            self.write([&fault.row.to_string(), &fault.field, &fault.error]);
        }
    }

    /// Writing to memory does not fail.
    fn write(&mut self, fields: [&str; 3]) {
        let file = self.file.get_or_insert_with(|| {
            let mut file = csv::Writer::from_writer(Vec::new());
            let _ = file.write_record(["row", "field", "error"]);
            file
        });
        self.bytes += fields.iter().map(|field| field.len() + 3).sum::<usize>();
        let _ = file.write_record(fields);
    }

    /// Stores the file, if there is anything to say, and forgets the user's oldest. Answers whether
    /// there is one, and what the answer names, by row.
    pub(super) fn keep(
        mut self,
        conn: &mut PgConnection,
        import: &NewImport,
    ) -> Result<(bool, Vec<RowFault>), Failure> {
        let mut named = std::mem::take(&mut self.first_failed);
        named.append(&mut self.first_skipped);
        named.sort_by_key(|fault| fault.row);
        let left_out = self.failed + self.skipped - self.filed;
        if left_out > 0 {
            let more = format!("{left_out} more rows failed or were skipped, and are not listed");
            self.write(["", "", &more]);
        }
        let Some(file) = self.file else {
            return Ok((false, named));
        };
        let unwritten = |error: String| Failure::from(StoreError::Internal(error));
        let bytes = file
            .into_inner()
            .map_err(|error| unwritten(error.to_string()))?;
        let csv = String::from_utf8(bytes).map_err(|error| unwritten(error.to_string()))?;
        let user = import.user_id.as_uuid();
        diesel::insert_into(import_errors::table)
            .values((
                import_errors::import_id.eq(import.id.as_uuid()),
                import_errors::user_id.eq(user),
                import_errors::csv.eq(csv),
            ))
            .execute(conn)?;
        sql_query(
            "DELETE FROM import_errors WHERE user_id = $1 AND import_id IN ( \
                 SELECT import_id FROM import_errors WHERE user_id = $1 \
                 ORDER BY import_id DESC OFFSET $2)",
        )
        .bind::<SqlUuid, _>(user)
        .bind::<BigInt, _>(KEPT_FILES)
        .execute(conn)?;
        Ok((true, named))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_faults_stays_within_its_bounds_and_says_what_it_leaves_out() {
        let mut faults = Faults::default();
        let long = |row| RowFault {
            row,
            field: "phone".into(),
            error: "x".repeat(200),
        };
        for row in 0..1_000_000 {
            faults.fail(long(row));
        }
        faults.skip(20_000, (0..10_000).map(long).collect());
        assert_eq!(
            (faults.failed(), faults.first_failed.len()),
            (1_000_000, NAMED)
        );
        assert_eq!(faults.first_skipped.len(), NAMED);
        assert!(faults.bytes < FILE_BYTES + 1024);
        assert!(faults.filed < faults.failed());
    }
}
