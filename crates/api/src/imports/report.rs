//! What became of a list, as it is told.

use callq_domain::{ImportReport, RowFault, SkippedRows};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::problem::{Problem, ProblemResponse};

/// What is to be said of a row.
#[derive(Serialize, ToSchema)]
pub(crate) struct RowFaultResponse {
    /// Its number in the file; the header is row 1.
    row: u64,
    /// The column, by its name in the file.
    field: String,
    /// What is wrong there.
    error: String,
}

impl From<RowFault> for RowFaultResponse {
    fn from(fault: RowFault) -> Self {
        Self {
            row: fault.row,
            field: fault.field,
            error: fault.error,
        }
    }
}

/// Rows left out on purpose, by why. Each counts once, under the first that applies.
#[derive(Serialize, ToSchema)]
pub(crate) struct SkippedRowsResponse {
    /// Their numbers are on a do-not-call list.
    do_not_call: u64,
    /// Their numbers are in the campaign already.
    in_campaign: u64,
    /// Their numbers stand further up in the file.
    duplicate: u64,
}

impl From<SkippedRows> for SkippedRowsResponse {
    fn from(skipped: SkippedRows) -> Self {
        Self {
            do_not_call: skipped.do_not_call,
            in_campaign: skipped.in_campaign,
            duplicate: skipped.duplicate,
        }
    }
}

/// What became of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct ImportResponse {
    /// The import.
    import_id: Uuid,
    /// The campaign; null if it was to be made and was not.
    campaign_id: Option<Uuid>,
    /// Whether nothing was asked for but this report.
    dry_run: bool,
    /// Rows below the header, empty ones left out.
    total_rows: u64,
    /// Calls laid out; in a dry run, that would be.
    imported: u64,
    /// Rows left out on purpose.
    skipped: u64,
    /// Why.
    skipped_by: SkippedRowsResponse,
    /// Rows that cannot be called.
    failed: u64,
    /// Why rows were not imported, by row: the first hundred that failed, and the first hundred that
    /// were left out.
    errors: Vec<RowFaultResponse>,
    /// Where the first 10,000 of both are, as CSV; null without any.
    error_file: Option<String>,
}

impl From<ImportReport> for ImportResponse {
    fn from(report: ImportReport) -> Self {
        let error_file = format!("/api/campaigns/imports/{}/errors", report.id);
        Self {
            import_id: report.id.into(),
            campaign_id: report.campaign_id.map(Into::into),
            dry_run: report.dry_run,
            total_rows: report.total_rows,
            imported: report.imported,
            skipped: report.skipped.total(),
            skipped_by: report.skipped.into(),
            failed: report.failed,
            errors: report.errors.into_iter().map(Into::into).collect(),
            error_file: report.has_file.then_some(error_file),
        }
    }
}

/// The problem of a list that was refused for its rows, and the report.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusedImportResponse {
    #[serde(flatten)]
    problem: ProblemResponse,
    #[serde(flatten)]
    report: ImportResponse,
}

impl RefusedImportResponse {
    pub(super) fn of(report: ImportReport) -> Self {
        Self {
            problem: Problem::rows_failed(report.failed, report.total_rows).into_response_body(),
            report: report.into(),
        }
    }
}

/// The report as the API tells it.
#[must_use]
pub fn import_report_json(report: ImportReport) -> String {
    serde_json::to_string(&ImportResponse::from(report)).unwrap_or_default()
}
