//! The store of lists, pretended: what was asked for is kept, and nothing becomes of it.

use async_trait::async_trait;
use callq_domain::*;

use crate::fake::Fake;

#[async_trait]
impl ImportStore for Fake {
    async fn import_list(
        &self,
        import: NewImport,
        list: ListRows,
    ) -> Result<ImportReport, ImportError> {
        let (mut rows, mut errors) = (Vec::new(), Vec::new());
        for row in list {
            match row.map_err(ImportError::List)? {
                Ok(row) => rows.push(row),
                Err(fault) => errors.push(fault),
            }
        }
        let mut state = self.up()?;
        if let Some(fault) = state.import_fault.take() {
            return Err(fault.into());
        }
        for fault in &errors {
            let user = import.user_id;
            let told = format!("{},{}", fault.row, fault.field);
            state.import_errors.push((import.id, user, told));
        }
        let (good, failed) = (rows.len() as u64, errors.len() as u64);
        let refused = failed > 0 && !import.partial;
        let changes = !refused && !import.dry_run;
        let (campaign_id, is_new) = match &import.target {
            ImportTarget::Existing(id) => (Some(*id), false),
            ImportTarget::New(new) => (changes.then_some(new.id), true),
        };
        let report = ImportReport {
            id: import.id,
            campaign_id,
            made: is_new && changes,
            total_rows: good + failed,
            imported: if refused { 0 } else { good },
            skipped: SkippedRows::default(),
            failed,
            has_file: failed > 0,
            errors,
            refused,
            dry_run: import.dry_run,
        };
        state.imports.push((import, rows));
        Ok(report)
    }
    async fn import_errors(
        &self,
        user: UserId,
        id: ImportId,
    ) -> Result<Option<String>, StoreError> {
        let state = self.up()?;
        let mut all = state.import_errors.iter();
        let found = all.find(|(import, owner, _)| *import == id && *owner == user);
        Ok(found.map(|(_, _, told)| told.clone()))
    }
}
