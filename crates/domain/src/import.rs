//! Lists of people brought into campaigns: what a row says, what became of it, and the port.

use std::fmt;

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::{CampaignId, Country, ImportId, NewCampaign, PhoneNumber, StoreError, UserId};

/// A row of a list that can be called.
#[derive(Debug, Clone)]
pub struct ListRow {
    /// Its number in the file, where the header is row 1.
    pub row: u64,
    /// The number to dial.
    pub phone_number: PhoneNumber,
    /// A name for people.
    pub name: Option<String>,
    /// The person's own time zone, an IANA name.
    pub time_zone: Option<String>,
    /// What the other columns say; a JSON object.
    pub user_data: Option<Box<RawValue>>,
}

/// What is to be said of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFault {
    /// Its number in the file, where the header is row 1.
    pub row: u64,
    /// The column, by its name.
    pub field: String,
    /// What is wrong there; goes on from the column's name.
    pub error: String,
}

/// Why a file cannot be read as a list at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ListFault {
    /// The row at which reading stopped, from 1.
    pub row: Option<u64>,
    /// Its column, from 1.
    pub column: Option<u64>,
    /// What is wrong, and what would put it right.
    pub error: String,
}

impl fmt::Display for ListFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.row, self.column) {
            (Some(row), Some(column)) => write!(f, "row {row}, column {column}: ")?,
            (Some(row), None) => write!(f, "row {row}: ")?,
            _ => {}
        }
        f.write_str(&self.error)
    }
}

/// The rows of a list as they are read: each is good, or has a fault of its own. A [`ListFault`] is
/// the last thing said.
pub type ListRows = Box<dyn Iterator<Item = Result<Result<ListRow, RowFault>, ListFault>> + Send>;

/// Which campaign a list is for.
#[derive(Debug, Clone)]
pub enum ImportTarget {
    /// One that is there, and not over.
    Existing(CampaignId),
    /// One to be made with it, as a draft. Its `contact_ids` are none.
    New(Box<NewCampaign>),
}

/// A list to be imported.
#[derive(Debug, Clone)]
pub struct NewImport {
    /// Its identifier, by which its errors are found.
    pub id: ImportId,
    /// Whose campaign, contacts and calls these are.
    pub user_id: UserId,
    /// Which campaign.
    pub target: ImportTarget,
    /// Noted in the campaign: whose national numbers the list holds.
    pub country: Option<Country>,
    /// Whether good rows are imported though others failed.
    pub partial: bool,
    /// Whether to report only.
    pub dry_run: bool,
}

/// Good rows that are not called, by why. Each row counts once, under the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkippedRows {
    /// The number is on a do-not-call list.
    pub do_not_call: u64,
    /// The campaign calls the number already.
    pub in_campaign: u64,
    /// The number stands further up in the file.
    pub duplicate: u64,
}

impl SkippedRows {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.do_not_call + self.in_campaign + self.duplicate
    }
}

/// What became of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// The import.
    pub id: ImportId,
    /// The campaign; none if it was to be made and was not.
    pub campaign_id: Option<CampaignId>,
    /// Whether the campaign was made by this import.
    pub made: bool,
    /// Rows below the header, empty ones left out: `imported`, skipped and `failed` ones together,
    /// unless it was refused.
    pub total_rows: u64,
    /// Calls laid out; in a dry run, that would be.
    pub imported: u64,
    /// Rows left out on purpose.
    pub skipped: SkippedRows,
    /// Rows with a fault.
    pub failed: u64,
    /// Why rows did not become calls, by row: the first of those with a fault, and of those left out.
    pub errors: Vec<RowFault>,
    /// Whether more of them are kept as CSV.
    pub has_file: bool,
    /// Whether nothing was imported because rows failed.
    pub refused: bool,
    /// Whether it changed nothing because nothing was asked for but the report.
    pub dry_run: bool,
}

/// Why a list was not imported. Nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The file is not a list.
    #[error("{0}")]
    List(ListFault),
    /// The store could not do it: `NotFound` if campaign or agent is not the user's, `Conflict` if
    /// the campaign is over, or if another list is being imported into it.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Lists of people.
#[async_trait]
pub trait ImportStore: Send + Sync {
    /// Lays out calls to the people on a list, behind those that the campaign has, all in one
    /// transaction: at once or not at all. A number that a contact of the user has is called as that
    /// contact, which stays as it is; for others contacts are made.
    async fn import_list(
        &self,
        import: NewImport,
        rows: ListRows,
    ) -> Result<ImportReport, ImportError>;
    /// Why rows of an import did not become calls, as CSV, if it is the user's and there were any.
    async fn import_errors(&self, user: UserId, id: ImportId)
    -> Result<Option<String>, StoreError>;
}
